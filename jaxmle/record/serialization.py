"""A fit on disk: one npz file that contains no code."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np

from jaxmle._types import Facts, FunctionTo, Tree, ndarray
from jaxmle.likelihood.derivatives import FORWARD_OVER_REVERSE
from jaxmle.parameters.arguments import check_path
from jaxmle.parameters.constraints import CONSTRAINT_KINDS, Constraint, Interval
from jaxmle.parameters.tree import Layout, Leaf
from jaxmle.record.check import outside_of_traces
from jaxmle.record.soundness import check_sound
from jaxmle.record.tree_words import CLASSES, skeleton, structure_of, tree_words
from jaxmle.runtime.fingerprint import digest_of_arrays
from jaxmle.runtime.npz import NOT_OURS, ZIP_MAGIC, Member, members, packed, write_atomically
from jaxmle.tables.contents import Record

AnyRecord = TypeVar("AnyRecord", bound=Record)
RECORD_FORMAT = 1
DIGEST = "digest"  # files without one are older and use an older fingerprint of data
DESCRIPTION = "jaxmle"  # the member that holds the JSON text, as bytes
WORDS = ("vcov_kind", "mode", "weighting", "hessian_by", "evaluation", "model")
# older files do not have these
LATER_WORDS = {"hessian_by": FORWARD_OVER_REVERSE, "evaluation": "", "model": ""}
EARLIER_NAMES = {"road": "evaluation"}  # names of these words in older files
TREES = ("params", "stderr")
# The leaves without a tree: their axes behind those of the batch, and the kind of number: real,
# integer, unsigned.
LEAVES = {
    "vcov": ("pp", "f"), "hessian": ("pp", "f"), "loglik": ("", "f"), "score": ("p", "f"),
    "decrement": ("", "f"), "n": ("", "f"), "status": ("", "i"), "steps": ("", "i"),
    "data_id": ("2", "u"), "response_id": ("2", "u"), "witness.row": ("", "i"),
    "witness.term": ("", "i"), "witness.direction": ("p", "f"), "witness.sign": ("p", "i"),
    "witness.projector": ("pp", "f"), "witness.vcov": ("pp", "f"), "witness.bound": ("p", "i"),
    "witness.curvature": ("", "f"), "witness.digits": ("", "f"), "witness.gain": ("", "f"),
    "witness.distance": ("", "f"), "witness.stderr_error": ("p", "f"),
    "witness.certificate": ("", "i"), "witness.point": ("p", "f"),
}  # fmt: skip
KIND = {"f": "floating numbers", "i": "integers", "u": "unsigned integers"}


def save(fit: Record, path: str | os.PathLike[str]) -> None:
    """Write a record, of one fit or of a batch, to one npz file: the whole file or nothing.

    Args:
        path: the file; ``.npz`` is added where the name has no suffix.

    Raises:
        TypeError: under a trace.
        ValueError: the record is not whole, or its precision has no NumPy type.
    """
    outside_of_traces(fit, "save")
    path = _file(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot save {path}: there is no folder {path.parent}")
    arrays = _arrays(fit)
    try:
        description = _description(fit)
        _agree(arrays, fit.layout, description)
        static = {name: getattr(fit, name) for name in ("names", "bounds", "df", *WORDS)}
        check_sound(_assemble(type(fit), type(fit.witness), arrays, static, fit.layout))
        description[DIGEST] = _digest(description, arrays)
    except ValueError as error:
        raise ValueError(f"cannot save {path}: {error}") from error
    text = json.dumps(description, allow_nan=False).encode()
    content = packed({DESCRIPTION: np.frombuffer(text, np.uint8)} | arrays)
    try:
        write_atomically(path, content)
    except OSError as error:
        raise OSError(
            error.errno, f"cannot save {path}: {error.strerror or error}. Nothing was changed"
        ) from error


def load(
    path: str | os.PathLike[str], like: Tree, record: FunctionTo[AnyRecord], witness: type[Tree]
) -> AnyRecord:
    """The record that ``save`` wrote: the same leaves to the last bit, as NumPy arrays, and the
    same static fields.

    Args:
        path: the file; ``.npz`` is added where the name has no suffix and there is no file of that
            name.
        like: parameters of the same structure and shapes, such as the start values. Needed where
            the tree has classes in it (a NamedTuple, a dataclass, an OrderedDict): a file holds no
            code, so those come from ``like``, with their static fields.
        record, witness: the classes that are made: ``Fit`` and ``Witness``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not one of ``save``'s, is damaged, holds what no fit can be, or
            comes from a later version; ``like`` is missing or does not fit.

    A file is read in no more memory than a few times its own size. Records written before version
    0.2 come without the fingerprint of their data, which was computed in another way: procedures
    that take the data again cannot check that they are those of the fit.

    >>> import jaxmle as jm, numpy as np, tempfile
    >>> fit = jm.fit(
    ...     lambda params, y: -0.5 * (y - params["m"]) ** 2, {"m": 0.0}, np.array([1.0, 2.0, 6.0])
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fit.save(f"{folder}/mean.npz")
    ...     again = jm.Fit.load(f"{folder}/mean.npz")
    >>> float(again.params["m"]), again.names
    (3.0, ('m',))
    """
    path = _file(path, existing=True)
    content = _content(path)
    try:
        stored, description = _unpack(content)
        static, leaves, plain = _parse(description)
        _check_sizes(leaves, len(content))
        layout = _labelled(
            Layout(structure_of(description["tree"], plain, leaves, like), leaves), static["names"]
        )
        _agree(stored, layout, static)
        arrays = {name: member.array() for name, member in stored.items()}
        if DIGEST not in description:
            arrays["data_id"] = np.zeros_like(arrays["data_id"])
        static["names"] = layout.names
        fit = _assemble(record, witness, arrays, static, layout)
        check_sound(fit)
        if DIGEST in description and description.pop(DIGEST) != _digest(description, arrays):
            raise ValueError("it is damaged: its content has changed since it was written")
        return fit
    except ValueError as error:
        raise ValueError(f"cannot load {path}: {error}") from error


def _content(path: Path) -> bytes:
    """The bytes of a file; errors of the system name it."""
    if not path.exists():
        raise FileNotFoundError(f"cannot load {path}: there is no such file")
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no regular file"
        raise ValueError(f"cannot load {path}: it is {kind}, not a file written by Fit.save")
    with open(path, "rb") as stream:
        begin = stream.read(len(ZIP_MAGIC))
        if begin != ZIP_MAGIC:
            return begin
        stream.seek(0)
        return stream.read()


def _check_sizes(leaves: tuple[Leaf, ...], bytes_of_file: int) -> None:
    """Raise if a description claims more than the file can hold, because names are made from it
    before any array is read.
    """
    numbers = sum(math.prod(leaf.shape) for leaf in leaves)
    if numbers > bytes_of_file:
        raise ValueError(
            f"its description has {numbers} parameters, more than the bytes of the file"
        )


def _digest(description: dict[str, Tree], arrays: dict[str, ndarray]) -> str:
    """The digest of the description and of all arrays with their names."""
    names = sorted(arrays)
    text = json.dumps([description, names], sort_keys=True).encode()
    return digest_of_arrays([np.frombuffer(text, np.uint8), *(arrays[name] for name in names)])


def _file(path: str | os.PathLike[str], existing: bool = False) -> Path:
    path = check_path("path", path, "a file, such as 'fit.npz'")
    return (
        path if path.suffix or (existing and path.is_file()) else path.with_name(f"{path.name}.npz")
    )


# ---------------------------------------------------------------- the leaves


def _arrays(fit: Record) -> dict[str, ndarray]:
    """Every leaf of a record by its name in the file."""
    arrays = {
        f"{tree}.{i}": np.asarray(leaf)
        for tree in TREES
        for i, leaf in enumerate(jax.tree.leaves(getattr(fit, tree)))
    }
    return arrays | {name: np.asarray(attrgetter(name)(fit)) for name in LEAVES}


def _agree(
    arrays: Mapping[str, ndarray | Member], layout: Layout, static: Mapping[str, Tree]
) -> None:
    """Raise unless names, bounds, layout and arrays have matching sizes. Only shapes and types of
    arrays are read.
    """
    p = len(static["names"])
    bounds = len(static["bounds"])
    df = static["df"]
    sizes = {"p": p, "2": 2}
    lead = arrays["loglik"].shape if "loglik" in arrays else ()
    expected = {
        name: (lead + tuple(sizes[axis] for axis in axes), kind)
        for name, (axes, kind) in LEAVES.items()
    }
    expected |= {
        f"{tree}.{i}": (lead + leaf.shape, "f")
        for tree in TREES
        for i, leaf in enumerate(layout.leaves)
    }
    odd = sorted(set(arrays) ^ set(expected))
    if odd:
        raise ValueError(
            f"its arrays are not those of a fit: {', '.join(odd[:6])} "
            f"{'is' if len(odd) == 1 else 'are'} missing or too many"
        )
    for name, (shape, kind) in expected.items():
        array = arrays[name]
        if array.shape != shape or array.dtype.kind != kind:
            raise ValueError(
                f"{name} is {array.dtype} of shape {array.shape}; {p} names and "
                f"{math.prod(lead)} members need {KIND[kind]} of shape {shape}"
            )
    if not layout.p == p == bounds or not 0 <= df <= p:
        raise ValueError(
            f"it has {p} names, {bounds} pairs of bounds, {layout.p} entries in its parameters "
            f"and {df} degrees of freedom: they do not agree"
        )
    _check_names(static["names"], layout)


def _check_names(names: Sequence[str], layout: Layout) -> None:
    """Raise unless each entry has its own name, which is not the position of another entry."""
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ValueError(f"two of its parameters have the name {repeated[0]!r}")
    if tuple(names) != layout.places and set(names) == set(layout.places):
        raise ValueError("the names of its parameters are not in the order of its parameters")


def _unpack(content: bytes) -> tuple[dict[str, Member], dict[str, Tree]]:
    """The arrays of a file, not yet loaded, and its description, in a format that this version
    reads.
    """
    try:
        stored = members(content)
    except ValueError as error:
        if str(error) == NOT_OURS:
            raise ValueError("it is not a file written by Fit.save") from None
        raise
    _complete(stored)
    text = stored.pop(DESCRIPTION, None)
    if text is None or text.dtype != np.uint8 or len(text.shape) != 1:
        raise ValueError("it is not a file written by Fit.save")
    try:
        description = json.loads(text.array().tobytes())
        version = description["format"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError("its description is damaged") from error
    if type(version) is not int or version < 1:
        raise ValueError("its description is damaged")
    if version > RECORD_FORMAT:
        raise ValueError(
            f"it was written by a later version of jaxmle, in format {version}; this "
            f"version reads format {RECORD_FORMAT}. Update jaxmle to read it"
        )
    return stored, description


def _complete(stored: dict[str, Member]) -> None:
    """Add the leaves that older versions did not write, with values that mean "not known"."""
    if "data_id" in stored and "response_id" not in stored:
        stored["response_id"] = replace(stored["data_id"], content=memoryview(b""))
    if "score" in stored and "witness.point" not in stored:
        score = stored["score"]
        unknown = np.full(score.shape, np.nan, score.dtype)
        stored["witness.point"] = Member(
            score.shape, score.dtype, "C", memoryview(unknown.tobytes())
        )


def _labelled(layout: Layout, names: tuple[str, ...]) -> Layout:
    """The layout with the names of the record, if these differ from positions."""
    if names == layout.places or len(names) != layout.p:
        return layout  # _agree reports a wrong number of names
    return Layout(
        layout.treedef,
        tuple(
            replace(leaf, labels=names[span])
            for leaf, span in zip(layout.leaves, layout.spans, strict=True)
        ),
    )


def _assemble(
    record: FunctionTo[AnyRecord],
    witness: type[Tree],
    arrays: dict[str, ndarray],
    static: dict[str, Tree],
    layout: Layout,
) -> AnyRecord:
    """The record made from the arrays of a file."""
    trees = {
        tree: jax.tree.unflatten(
            layout.treedef, [arrays[f"{tree}.{i}"] for i in range(len(layout.leaves))]
        )
        for tree in TREES
    }
    fields: dict[str, Tree] = {name: arrays[name][()] for name in LEAVES}
    of_witness = {
        name.removeprefix("witness."): fields.pop(name)
        for name in LEAVES
        if name.startswith("witness.")
    }
    return record(**trees, **fields, witness=witness(**of_witness), **static, layout=layout)


# ---------------------------------------------------------------- the description


def _description(fit: Record) -> dict[str, Tree]:
    """The static part of a record as JSON."""
    if any(jax.tree.structure(getattr(fit, tree)) != fit.layout.treedef for tree in TREES):
        raise ValueError(
            "params and stderr must have the tree structure that was fitted; a record "
            "with another tree cannot be saved"
        )
    leaves = [
        {"path": leaf.path, "shape": list(leaf.shape), "constraint": _constraint(leaf.constraint)}
        for leaf in fit.layout.leaves
    ]
    bounds = [[_end(low), _end(high)] for low, high in fit.bounds]
    words = {name: getattr(fit, name) for name in WORDS}
    names = fit.layout.whole_names if fit.names == fit.layout.names else fit.names
    return {
        "format": RECORD_FORMAT,
        "names": list(names),
        "bounds": bounds,
        "df": int(fit.df),
        **words,
        "tree": tree_words(fit.layout.treedef),
        "leaves": leaves,
    }


def _parse(description: Facts) -> tuple[dict[str, Tree], tuple[Leaf, ...], Tree]:
    """Static fields, leaves of the layout, and the structure of the tree; None for the last if it
    holds classes.
    """
    try:
        description = {**LATER_WORDS, **description}
        for earlier, name in EARLIER_NAMES.items():
            description[name] = description.get(earlier, description[name])
        names = description["names"]
        df = description["df"]
        words = {name: description[name] for name in WORDS}
        bounds = tuple((_real(low), _real(high)) for low, high in description["bounds"])
        leaves = tuple(
            Leaf(leaf["path"], _shape(leaf["shape"]), _constraint_of(leaf["constraint"]))
            for leaf in description["leaves"]
        )
        texts = [*names, *words.values(), *(leaf.path for leaf in leaves)]
        sound = (
            type(names) is list
            and all(type(text) is str for text in texts)
            and type(df) is int
            and all(low < high for low, high in bounds)
        )
        zeros = skeleton(description["tree"])
        treedef = None if zeros is CLASSES else jax.tree.structure(zeros)
        # jax sorts the keys of a dictionary; in another order values would be exchanged.
        sound = sound and (
            treedef is None
            or (treedef.num_leaves == len(leaves) and tree_words(treedef) == description["tree"])
        )
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise ValueError("its description is damaged") from error
    if not sound:
        raise ValueError("its description is damaged")
    return {"names": tuple(names), "bounds": bounds, "df": df, **words}, leaves, treedef


def _end(value: float) -> float | str:
    """An end of an interval: JSON has no infinity."""
    return float(value) if math.isfinite(value) else str(float(value))


def _real(value: Tree) -> float:
    if type(value) in (int, float) or value in ("inf", "-inf"):
        return float(value)
    raise ValueError(f"not an end of an interval: {value!r}")


def _shape(sizes: Tree) -> tuple[int, ...]:
    if type(sizes) is list and all(type(size) is int and size >= 0 for size in sizes):
        return tuple(sizes)
    raise ValueError(f"not a shape: {sizes!r}")


def _constraint(constraint: Constraint) -> dict[str, Tree]:
    kind = {"kind": type(constraint).__name__}
    return (
        kind | {"lower": _end(constraint.lower), "upper": _end(constraint.upper)}
        if isinstance(constraint, Interval)
        else kind
    )


def _constraint_of(words: dict[str, Tree]) -> Constraint:
    kind = {kind.__name__: kind for kind in CONSTRAINT_KINDS}[words["kind"]]
    if kind is Interval:
        return Interval(_real(words["lower"]), _real(words["upper"]))
    return kind()
