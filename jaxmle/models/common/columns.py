"""Collinear columns of a design, named before anything is fitted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy

from jaxmle._types import ArrayLike

MIN_COEFFICIENT_OF_DEPENDENCE = 1e-8  # below it a column has no part in another


def collinear_columns(
    x: ArrayLike, names: Sequence[str] | None = None
) -> dict[str, tuple[str, ...]]:
    """The columns of a design that are linear combinations of others, each with the columns that it
    is a combination of.

    Columns are scaled to unit length and ordered by what they add (QR with pivoting); a column that
    adds less than n·ε is redundant. A fit of a model with such columns is UNIDENTIFIED.

    Args:
        x: the design (n, q).
        names: the names of its columns; ``x[0]``, ``x[1]``, … by default.

    Returns:
        For each redundant column the columns it is a combination of (none for a column of zeros);
        empty if the design has full rank.

    >>> import numpy as np
    >>> ones, group = np.ones(4), np.array([0.0, 1.0, 0.0, 1.0])
    >>> collinear_columns(np.column_stack([ones, group, 1 - group]), ["const", "a", "b"])
    {'b': ('const', 'a')}
    """
    matrix = np.asarray(x, dtype=np.float64)
    if matrix.ndim != 2 or not matrix.size:
        raise ValueError(f"a design must be a matrix (n, q); got shape {matrix.shape}")
    if not np.all(np.isfinite(matrix)):
        raise ValueError(
            f"the design is not finite in row {int(np.argwhere(~np.isfinite(matrix))[0, 0])}"
        )
    labels = [f"x[{j}]" for j in range(matrix.shape[1])] if names is None else list(names)
    if len(labels) != matrix.shape[1]:
        raise ValueError(f"the design has {matrix.shape[1]} columns, but names has {len(labels)}")
    # Where there is a choice, earlier columns are kept: a tiny preference, far below what a real
    # column adds.
    length = np.sqrt(np.sum(matrix**2, axis=0))
    unit = matrix / np.where(length > 0, length, 1.0)
    noise = max(matrix.shape) * np.finfo(np.float64).eps * 10
    independent: list[int] = []
    dependent: dict[str, tuple[str, ...]] = {}
    basis = np.zeros((matrix.shape[0], 0))
    for j in range(matrix.shape[1]):
        left = unit[:, j] - basis @ (basis.T @ unit[:, j])
        left = left - basis @ (basis.T @ left)  # twice is enough (Giraud, Langou & Rozloznik 2005)
        size = float(np.linalg.norm(left))
        if size > noise:
            independent.append(j)
            basis = np.column_stack([basis, left / size])
            continue
        share = (
            scipy.linalg.lstsq(unit[:, independent], unit[:, j])[0]
            if independent and length[j] > 0
            else np.zeros(0)
        )
        dependent[labels[j]] = tuple(
            labels[i]
            for i, c in zip(independent, share, strict=False)
            if abs(c) > MIN_COEFFICIENT_OF_DEPENDENCE
        )
    return dependent
