"""The checkpoint of an ascent whose rows are summed in pieces: its last position, its trust radius
and its steps, less than a kilobyte for twenty parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath

import jax
import numpy as np

from jaxmle._types import Array, Data, Loglik, Tree, ndarray
from jaxmle.closures.program_digest import model_digest, value_digest, with_derivatives
from jaxmle.fitting.fit import Landmark
from jaxmle.fitting.passes import Problem
from jaxmle.likelihood.contract import terms_of
from jaxmle.runtime.checkpoint import Checkpoint
from jaxmle.runtime.compile import compiled
from jaxmle.runtime.fingerprint import digest_of_arrays
from jaxmle.streams.reader import Reading

PIECE = "climb"


def about_files(reading: Reading) -> dict[str, Tree]:
    """What a checkpoint records about the files that are read."""
    files = [
        (PurePath(file.path).name, file.size, file.modified, file.groups) for file in reading.files
    ]
    columns = reading.columns
    return {
        "procedure": "fit of a source",
        "list of files": value_digest(files),
        "choice of columns": value_digest(repr(columns.tree), columns.weights),
    }


def identity(
    problem: Problem, base: Array, sample: Data, about_rows: dict[str, Tree]
) -> dict[str, Tree]:
    """What a checkpoint must match before it is resumed.

    Args:
        about_rows: what it records about the rows.
    """
    layout = problem.layout

    def make(loglik: Loglik) -> Tree:
        return with_derivatives(lambda x, data: terms_of(loglik, layout.unravel(x), data))

    program = compiled(problem.loglik, ("checkpoint", layout), make)
    return about_rows | {
        "model": model_digest(program, base, sample),
        "start": digest_of_arrays([base]),
        "options": value_digest(
            layout.names, layout.bounds, problem.solver, problem.max_steps, problem.weighting
        ),
    }


def last_landmark(store: Checkpoint, k: int) -> Landmark | None:
    """Where the ascent of an earlier run was; None where it had not started.

    Args:
        k: free coordinates.
    """

    def check(arrays: list[ndarray]) -> None:
        if len(arrays) != 1 or arrays[0].shape != (k + 2,) or not np.all(np.isfinite(arrays[0])):
            raise ValueError("it is not a point of this search")

    arrays = store.load(PIECE, check)
    if arrays is None:
        return None
    steps, radius, *z = arrays[0]
    return Landmark(np.array(z), np.asarray(radius), np.asarray(int(steps)))


def keeper(store: Checkpoint, before: Landmark | None) -> Callable[[Landmark], None] | None:
    """The function that saves the landmarks of an ascent; None without a folder.

    Args:
        before: the landmark that the ascent resumes from.
    """
    if store.folder is None:
        return None
    earlier = 0 if before is None else int(before.steps)

    def keep(landmark: Landmark) -> None:
        steps = earlier + int(landmark.steps)
        store.save(PIECE, [np.array([steps, landmark.radius, *jax.tree.leaves(landmark.z)[0]])])

    return keep
