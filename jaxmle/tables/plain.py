"""Columns of text for printing records."""

from __future__ import annotations

import numpy as np


def listing(head: list[str], rows: list[list[str]]) -> str:
    """Columns of text, the first to the left, the others to the right."""
    widths = [max(len(line[i]) for line in [head, *rows]) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [head, *rows]
    )


def number(value: float, digits: int = 4) -> str:
    """A number with a given number of significant digits; ``n/a`` for NaN."""
    return "n/a" if np.isnan(value) else f"{value:.{digits}g}"
