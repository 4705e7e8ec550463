"""The separated members of a batch: which of their estimates are infinite, by their recession
cones. What these need of the likelihood is computed for several members at once.
"""

from __future__ import annotations

import jax
import numpy as np

from jaxmle._types import Function, Tree, ndarray
from jaxmle.batch.chunks.pieces import Flat, flat_members
from jaxmle.batch.chunks.programs import Form
from jaxmle.batch.members.read import Inputs
from jaxmle.fitting.recession import FitInputs, Steps, computed, signs_in_steps
from jaxmle.parameters.tree import Layout
from jaxmle.record.fit import Fit
from jaxmle.runtime.compile import compiled, to_numpy
from jaxmle.verdict.separation import POINTS_AT_ONCE

MAX_MEMBERS_AT_ONCE = 16
MAX_SCORE_BYTES = 2**26  # bytes of the scores of their terms at the points of one step


def with_signs_of_members(
    fits: Fit, inputs: Inputs, roots: tuple[int, ...], members: ndarray, length: tuple[int, ...]
) -> list[tuple[Fit, Fit]]:
    """The records of these separated members of one length, before and after the signs of their
    infinite estimates are known.
    """
    rows = sum(length)
    layout = inputs.layout
    flat = flat_members(inputs, members, length)
    before = [fits[member] for member in members]
    alone = [flat.member(place) for place in range(len(members))]
    steps = [
        signs_in_steps(fit, FitInputs(member.loglik, roots, member.base, member.data, rows))
        for fit, member in zip(before, alone, strict=True)
    ]
    room = MAX_SCORE_BYTES // (POINTS_AT_ONCE * max(rows, 1) * layout.p * 8)
    at_once = 1 << (int(np.clip(room, 1, MAX_MEMBERS_AT_ONCE)).bit_length() - 1)
    return list(zip(before, _at_the_end(steps, flat, layout, at_once), strict=True))


def _at_the_end(steps: list[Steps], flat: Flat, layout: Layout, at_once: int) -> list[Fit]:
    """The records at the end of the steps of each member."""
    ends: dict[int, Fit] = {}
    answers: dict[int, Tree] = dict.fromkeys(range(len(steps)))
    while answers:
        asked: dict[int, ndarray] = {}
        for place, value in answers.items():
            try:
                asked[place] = steps[place].send(value)
            except StopIteration as end:
                ends[place] = end.value
        answers = {}
        for axes in (1, 2):  # one point of each member, or several
            places = [place for place, points in asked.items() if points.ndim == axes]
            for first in range(0, len(places), at_once):
                together = np.array(places[first : first + at_once])
                points = np.stack([asked[place] for place in together])
                answers |= zip(
                    together.tolist(),
                    _computed(flat, layout, together, points, at_once),
                    strict=True,
                )
    return [ends[place] for place in range(len(steps))]


def _computed(
    flat: Flat, layout: Layout, places: ndarray, points: ndarray, at_once: int
) -> list[Tree]:
    """``computed`` for the members in these places (m,) at their points (m, ...)."""
    form = flat.form
    skeleton = jax.tree.unflatten(form.treedef, list(range(form.treedef.num_leaves)))
    others = skeleton._replace(loglik=None)

    def make(portable: Tree) -> Function:
        member_form = Form(jax.tree.structure(others._replace(loglik=portable)), form.shared)

        def of_one(per_member: list[Tree], points: Tree, common: list[Tree]) -> Tree:
            member = member_form.member(per_member, common)
            return computed(member.loglik, layout, points, member.data)

        return jax.vmap(of_one, in_axes=(0, 0, None))

    key = ("recession of members", form.shared, jax.tree.structure(others), layout)
    program = compiled(skeleton.loglik, key, make)
    whole = np.pad(places, (0, at_once - len(places)), mode="edge")
    pairs = list(zip(flat.leaves, form.shared, strict=True))
    per_member = [np.asarray(leaf)[whole] for leaf, is_shared in pairs if not is_shared]
    common = [leaf for leaf, is_shared in pairs if is_shared]
    padding = [(0, at_once - len(points))] + [(0, 0)] * (points.ndim - 1)
    values = to_numpy(program(per_member, np.pad(points, padding, mode="edge"), common))
    return [jax.tree.map(lambda leaf, i=i: leaf[i], values) for i in range(len(places))]
