"""What ties a batch to its checkpoint: the identity of the run, how its members were cut up,
and what each piece must look like.
"""

from __future__ import annotations

import jax
import numpy as np

from jaxmle._types import DType, Loglik, Tree, ndarray
from jaxmle.batch.chunks.pieces import flat_members
from jaxmle.batch.chunks.plan import Schedule
from jaxmle.batch.members.read import Inputs
from jaxmle.batch.members.sources import buckets
from jaxmle.closures.program_digest import model_digest, value_digest, with_derivatives
from jaxmle.fitting.passes import Problem
from jaxmle.likelihood.contract import terms_of
from jaxmle.runtime.checkpoint import Checkpoint
from jaxmle.runtime.compile import compiled
from jaxmle.runtime.fingerprint import digest_of_arrays

ShapeAndDtype = tuple[tuple[int, ...], DType]


def identity(problem: Problem, inputs: Inputs) -> dict[str, Tree]:
    """What a checkpoint must agree with before a run resumes from it."""
    source = inputs.source
    ids = [
        source.take(index, length).data_id
        for length, members in buckets(source.sizes, source.padded)
        for index in np.array_split(members, max(1, len(members) // 4096))
    ]
    options = (
        inputs.layout.names,
        inputs.layout.bounds,
        problem.solver,
        problem.kind,
        problem.max_steps,
        problem.block_rows,
        inputs.weight_kind,
    )
    return {
        "procedure": "fit_batch",
        "model": _model_digest(inputs),
        "data": digest_of_arrays([*ids, *jax.tree.leaves(source.rows[1:])]),
        "start": digest_of_arrays([inputs.base, *jax.tree.leaves(inputs.loglik)]),
        "options": value_digest(*options),
        "dtype": str(inputs.dtype),
        "number of members": source.members,
    }


def _model_digest(inputs: Inputs) -> str:
    """A digest of the program of the likelihood, as it will be compiled for the member with the
    most rows (the first member may be empty).
    """
    flat = flat_members(inputs, np.array([inputs.largest]), inputs.largest_length)
    member = jax.tree.map(np.asarray, flat.first)

    def make(loglik: Loglik) -> Tree:
        return with_derivatives(lambda x, data: terms_of(loglik, inputs.layout.unravel(x), data))

    program = compiled(member.loglik, ("checkpoint", inputs.layout), make)
    return model_digest(program, member.base, member.data)


def stored_schedules(checkpoint: Checkpoint, count: int, devices: int) -> list[Schedule] | None:
    """How an earlier run divided each bucket, from its checkpoint; None if there is none."""
    stored = checkpoint.schedule.get("buckets")
    if stored is None:
        return None
    try:
        schedules = [Schedule(**bucket) for bucket in stored]
    except TypeError:  # another version wrote it, with other fields
        schedules = []
    sizes = [size for schedule in schedules for size in vars(schedule).values()]
    if len(schedules) != count or not all(type(size) is int and size > 0 for size in sizes):
        raise checkpoint.unusable_schedule()
    if any(schedule.blocks % devices for schedule in schedules):
        raise ValueError(
            f"the checkpoint {checkpoint.folder} was started on a different number of "
            f"devices, and {devices} cannot share its blocks of members. Give devices= of "
            "that number, such as jax.devices()[:1], or another folder."
        )
    return schedules


def check_piece(
    index: ndarray,
    records: list[ShapeAndDtype],
    states: list[ShapeAndDtype],
    arrays: list[ndarray],
) -> None:
    """Refuse arrays of a checkpoint that are not those of this piece: its members, then records,
    open slots and states of the right shapes and types.
    """
    count = len(index)
    before = 1 + len(records)
    if not arrays or not np.array_equal(arrays[0], index):
        raise ValueError("it has other members")
    if len(arrays) <= before or arrays[before].ndim != 1 or arrays[before].dtype.kind != "i":
        raise ValueError("it does not have the number of arrays that this run writes")
    slots = arrays[before]
    if len(slots) and not (slots[0] >= 0 and slots[-1] < count and np.all(np.diff(slots) > 0)):
        raise ValueError("its unfinished members are not among its members")
    expected = [((count, *shape), dtype) for shape, dtype in records]
    if len(slots) or len(arrays) > before + 1:
        expected += [((len(slots), *shape), dtype) for shape, dtype in states]
    got = [(array.shape, array.dtype) for array in (*arrays[1:before], *arrays[before + 1 :])]
    if got != expected:
        odd = next((pair for pair in zip(got, expected, strict=False) if pair[0] != pair[1]), None)
        detail = ""
        if odd is not None:
            detail = f": {_described(odd[0])} where {_described(odd[1])} is expected"
        raise ValueError(
            f"its arrays do not have the shapes and types that this run writes{detail}"
        )


def _described(array: ShapeAndDtype) -> str:
    return f"{array[1]} of shape {array[0]}"
