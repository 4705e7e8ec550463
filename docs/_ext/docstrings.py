"""Docstrings of jaxmle read as reStructuredText: they are written to be read as plain text first.

Three things differ. |x| is an absolute value and no substitution. A colon in the sentence of a
property, or of what a function returns, divides no type from a description. A record is made by
the function that returns it, so its page does not list the arguments of its constructor.
"""

from __future__ import annotations

import re
from typing import Any

# Classes that a user makes; of the other ones the constructor is not shown.
MADE_BY_THE_USER = ("jaxmle.solvers.", "jaxmle.families.", "jaxmle.VarianceFloor")
COLON = "\ue000"  # a private character, which stands for a colon while napoleon reads
CODE = re.compile(r"(``.*?``)")


def protect(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Before napoleon: hide colons that divide nothing, and escape absolute values."""
    in_example = False
    in_returns = False
    for number, line in enumerate(lines):
        if line.startswith(">>>"):
            in_example = True
        elif not line.strip():
            in_example = False
        if in_example:
            continue
        if what in ("property", "attribute", "data") or in_returns:
            line = line.replace(":", COLON)
        in_returns = line.strip() == "Returns:"
        parts = CODE.split(line)
        parts[::2] = [part.replace("|", "\\|") for part in parts[::2]]
        lines[number] = "".join(parts)


def restore(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """After napoleon: put the colons back."""
    lines[:] = [line.replace(COLON, ":") for line in lines]


def signature(
    app: Any, what: str, name: str, obj: Any, options: Any, arguments: Any, returned: Any
) -> tuple[str, Any] | None:
    """No arguments for a record."""
    is_record = what in ("class", "exception") and not name.startswith(MADE_BY_THE_USER)
    return ("", None) if is_record and arguments else None


def setup(app: Any) -> dict[str, bool]:
    """Register the two passes, one on either side of napoleon's, and the signature's."""
    app.connect("autodoc-process-docstring", protect, priority=400)
    app.connect("autodoc-process-docstring", restore, priority=600)
    app.connect("autodoc-process-signature", signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
