"""A piece of the work of a batch: some members of one length, and their data as flat leaves."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np

from jaxmle._types import Array, Tree, ndarray
from jaxmle.batch.chunks.plan import Schedule
from jaxmle.batch.chunks.programs import Form, Members
from jaxmle.batch.members.read import Inputs
from jaxmle.likelihood.combinators import Weights, weight
from jaxmle.likelihood.histogram import counted, flagged


@dataclass(frozen=True)
class Piece:
    """One piece of work: members of one length, in one call of a compiled round."""

    number: int
    name: str
    length: tuple[int, ...]
    index: ndarray
    schedule: Schedule

    @property
    def blocks(self) -> int:
        """The blocks that hold its members; the others of its schedule are empty."""
        return -(-len(self.index) // self.schedule.block_size)

    def member_in_slots(self, slots: int) -> ndarray:
        """The member in each slot; the slots that are left over hold the last member again."""
        return np.pad(self.index, (0, slots - len(self.index)), mode="edge")


@dataclass(frozen=True)
class Flat:
    """The flat leaves of ``Members``, and how to put them together."""

    leaves: list[Array]
    form: Form
    data_id: ndarray

    @property
    def first(self) -> Members:
        """The first member alone."""
        return self.member(0)

    def member(self, place: int) -> Members:
        """One member alone."""
        pairs = zip(self.leaves, self.form.shared, strict=True)
        leaves = [leaf if is_shared else leaf[place] for leaf, is_shared in pairs]
        return jax.tree.unflatten(self.form.treedef, leaves)


def flat_members(inputs: Inputs, index: ndarray, length: tuple[int, ...]) -> Flat:
    """The members ``index`` as flat leaves; what differs between members has a leading axis."""
    chunk = inputs.source.take(index, length)
    data, w, codes = chunk.rows
    flags = jax.tree.unflatten(jax.tree.structure(inputs.source.rows), list(inputs.source.shared))
    loglik = inputs.loglik
    same = jax.tree.map(lambda _: True, inputs.loglik)
    if inputs.weight_kind is not None:
        loglik = weight(inputs.bare, Weights(w, inputs.weight_kind))
        same = jax.tree.map(lambda _: True, inputs.bare)
        same = weight(same, Weights(flags[1], inputs.weight_kind))
    if chunk.padding is not None:
        loglik = weight(loglik, Weights(chunk.padding.astype(inputs.dtype), "frequency"))
        same = weight(same, Weights(False, "frequency"))
    loglik = counted(loglik, data, inputs.most_counts(length), inputs.dtype)
    base = inputs.base[index] if inputs.base.ndim == 2 else inputs.base
    leaves, treedef = jax.tree.flatten(Members(loglik, base, data, codes))
    same_base: Tree = inputs.base.ndim == 1
    shared = Members(flagged(same, loglik), same_base, flags[0], flags[2])
    return Flat(leaves, Form(treedef, tuple(jax.tree.leaves(shared))), chunk.data_id)
