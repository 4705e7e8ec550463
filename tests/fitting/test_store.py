"""A record goes to disk and comes back to the last bit; a file is never trusted; a fit that failed says so when asked."""

import copy
import dataclasses
import io
import json
import os
import struct
import tracemalloc
import zipfile
from typing import NamedTuple

import jax
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import jaxmle as jm
from jaxmle import Fit, FitError, Status, Witness
from jaxmle.parameters.tree import layout_of
from tests.likelihoods import logit, normal_regression

from .models import BETA, BETA_SIGMA, Curve, Line, linear_data, logistic_data, stack

# ---------------------------------------------------------------- records


@pytest.fixture(scope="module")
def fit():
    return jm.fit(
        normal_regression, BETA_SIGMA, linear_data(80), constraints={"sigma": jm.positive}
    )


@pytest.fixture(scope="module")
def logistic():
    """By what happened to them: a good fit, one separated, one with two equal columns, one whose squares overflow."""
    data = logistic_data(81)
    x, y = data["x"], data["y"]
    doubled, holed = x.copy(), x.copy()
    doubled[:, 2], holed[7, 1] = doubled[:, 1], 1e200
    datasets = {
        "good": data,
        "separated": {"x": x, "y": (x[:, 1] > 0).astype(float)},
        "unidentified": {"x": doubled, "y": y},
        "overflow": {"x": holed, "y": y},
    }
    return {name: jm.fit(logit, BETA, these) for name, these in datasets.items()}


def invented(params, constraints=None, *, batch=(), dtype=np.float64, **static):
    """A record of that tree with arbitrary leaves: NaN, infinities and signed zeros among them."""
    layout, rng = layout_of(params, constraints), np.random.default_rng(82)
    p = layout.p

    def real(*shape):
        values = rng.normal(size=(*batch, *shape)).astype(dtype)
        return np.where(
            rng.random(values.shape) < 0.2,
            rng.choice([np.nan, np.inf, -0.0, 5e-324], values.shape).astype(dtype),
            values,
        )

    def whole(*shape):
        return rng.integers(-1, 10, (*batch, *shape), dtype=np.int32)

    def tree():
        return jax.tree.unflatten(layout.treedef, [real(*leaf.shape) for leaf in layout.leaves])

    witness = Witness(
        row=whole(), term=whole(), direction=real(p), sign=whole(p), projector=real(p, p), vcov=real(p, p), bound=whole(p), curvature=real(),
        digits=real(), gain=real(), distance=real(), stderr_error=real(p), certificate=whole(),
    )  # fmt: skip
    fields = {
        "names": layout.names,
        "bounds": layout.bounds,
        "df": p,
        "vcov_kind": "observed",
        "mode": "ML",
        "weighting": "none",
    } | static
    return Fit(
        params=tree(), stderr=tree(), vcov=real(p, p), hessian=real(p, p), loglik=real(), score=real(p), decrement=real(), n=real(),
        status=np.abs(whole()), witness=witness, steps=whole(), data_id=rng.integers(0, 2**32, (*batch, 2), dtype=np.uint32), layout=layout, **fields,
    )  # fmt: skip


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert a.tobytes() == b.tobytes()


def round_trip(fit, folder, like=None):
    fit.save(folder / "fit.npz")
    return Fit.load(folder / "fit.npz", like)


# ---------------------------------------------------------------- round trips


def test_a_fit_comes_back_to_the_last_bit_and_reads_the_same(fit, tmp_path):
    again = round_trip(fit, tmp_path)
    assert_same(again, fit)
    for name in (
        "names",
        "bounds",
        "df",
        "vcov_kind",
        "mode",
        "weighting",
        "layout",
        "batch_shape",
        "dtype",
        "verdict",
    ):
        assert getattr(again, name) == getattr(fit, name)
    assert str(again) == str(fit)
    assert_array_equal(again.interval(), fit.interval())
    assert hash(again.layout) == hash(fit.layout)
    assert_same(stack(again, fit)[0], fit)  # equal static fields: saved and new fits stack


def test_every_verdict_comes_back_with_its_explanation(logistic, tmp_path):
    for found in logistic.values():
        again = round_trip(found, tmp_path)
        assert_same(again, found)
        assert again.explain() == found.explain()


def test_a_batch_comes_back(logistic, tmp_path):
    for batch in (
        stack(*logistic.values()),
        stack(stack(*logistic.values()), stack(*logistic.values())),
    ):
        again = round_trip(batch, tmp_path)
        assert again.batch_shape == batch.batch_shape
        assert_same(again, batch)


@pytest.mark.thorough
def test_a_vmapped_fit_of_jax_arrays_comes_back_in_float64(tmp_path):
    with jax.enable_x64(True):
        fits = jax.vmap(lambda data: jm.fit(logit, BETA, data))(logistic_data(83, 3))
    again = round_trip(fits, tmp_path)
    assert again.dtype == np.float64
    assert_same(again, fits)


def test_single_precision_a_posterior_mode_and_a_survey_come_back(tmp_path):
    data = logistic_data(81)
    weights = np.random.default_rng(84).uniform(0.5, 2.0, len(data["y"]))
    single = jm.fit(logit, BETA, data, dtype="float32")
    mode = jm.fit(jm.penalize(logit, jm.ridge(0.1)), BETA, data)
    survey = jm.fit(logit, BETA, data, weights=jm.sampling(weights))
    assert (single.dtype, mode.mode, survey.weighting, survey.vcov_kind) == (
        np.float32,
        "MAP",
        "sampling",
        "HC0",
    )
    for found in (single, mode, survey, mode.with_vcov(np.eye(3), "by hand, «π»")):
        assert_same(round_trip(found, tmp_path), found)


def test_a_fit_with_probabilities_comes_back(tmp_path):
    counts = np.random.default_rng(85).multinomial(1, [0.2, 0.3, 0.5], size=40).astype(float)
    found = jm.fit(
        lambda p, d: d @ jax.numpy.log(p), np.full(3, 1 / 3), counts, constraints=jm.simplex
    )
    again = round_trip(found, tmp_path)
    assert_same(again, found)
    assert (again.df, again.names) == (2, ("theta[0]", "theta[1]", "theta[2]"))


PARAMS = {
    "free": 0.0, "positive": np.ones(2), "negative": -1.0, "lower": 0.0, "upper": 0.0, "interval": 0.5, "third": 0.1,
    "simplex": np.full((2, 2), 0.5), "ordered": np.arange(3.0), "correlation": np.eye(3), "covariance": np.eye(2),
}  # fmt: skip
CONSTRAINTS = {
    "positive": jm.positive, "negative": jm.negative, "lower": jm.lower(-3), "upper": jm.upper(1e-300), "interval": jm.interval(0, 1),
    "third": jm.interval(-1 / 3, 1 / 3), "simplex": jm.simplex, "ordered": jm.ordered, "correlation": jm.correlation, "covariance": jm.covariance,
}  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (0,)])
def test_every_constraint_comes_back(batch, dtype, tmp_path):
    found = invented(PARAMS, CONSTRAINTS, batch=batch, dtype=dtype)
    again = round_trip(found, tmp_path)
    assert_same(again, found)
    assert [leaf.constraint for leaf in again.layout.leaves] == [
        leaf.constraint for leaf in found.layout.leaves
    ]


TREES = {
    "one number": 0.0,
    "one array": np.zeros((2, 2)),
    "list": [0.0, np.zeros(2)],
    "tuple": (np.zeros(2),),
    "nested": {
        "a": [0.0, (np.zeros(2), {"c": 1.0, "b": (2.0,)})],
        "none": None,
        "empty": {},
        "hollow": [(), []],
    },
    "numbered": {10: 0.0, 9: np.zeros(2), -1: [1.0]},
    "odd keys": {"": 0.0, "a.b": 1.0, "*": 2.0, 'é\n"\ud800': 3.0},
    "a key of JSON's": {"kind": 0.0, "children": [1.0, None]},
    "an empty leaf": {"a": np.zeros((0, 3)), "b": 0.0},
}


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_trees_of_dictionaries_lists_and_tuples_come_back(tree, tmp_path):
    for batch in ((), (2,)):
        found = invented(tree, batch=batch)
        assert_same(round_trip(found, tmp_path), found)
        assert_same(round_trip(found, tmp_path, like=tree), found)


# ---------------------------------------------------------------- classes


def test_a_tree_with_classes_needs_like(fit, tmp_path):
    start = {"line": Curve(np.zeros(3), (1.0,)), "more": Line(np.zeros(2), [0.0])}
    for batch in ((), (2,)):
        found = invented(start, {"line": Curve(None, jm.positive)}, batch=batch)
        again = round_trip(found, tmp_path, like=start)
        assert_same(again, found)
        assert again.params["line"].label == "curve"
    with pytest.raises(ValueError, match="pass like=") as error:
        Fit.load(tmp_path / "fit.npz")
    assert str(tmp_path / "fit.npz") in str(error.value)
    assert (
        "{'line': Curve(*, (*,)), 'more': Line(*, [*])} with leaves line.beta (3,), line.scale[0] (), more.slope (2,)"
        in str(error.value)
    )


def test_a_real_fit_of_a_named_tuple_comes_back(fit, tmp_path):
    start = Line(np.zeros(3), 1.0)
    found = jm.fit(
        lambda p, d: normal_regression({"beta": p.slope, "sigma": p.level}, d),
        start,
        linear_data(80),
        constraints=Line(None, jm.positive),
    )
    again = round_trip(found, tmp_path, like=start)
    assert_same(again, found)
    assert isinstance(again.stderr, Line)


class Path(NamedTuple):
    level: object
    slope: object


@pytest.mark.parametrize(
    "like",
    [
        {"slope": np.zeros(2), "level": 0.0},
        (np.zeros(2), 0.0),
        Line(np.zeros(3), 0.0),
        Line(np.zeros((2, 1)), 0.0),
        Line([0.0, 0.0], 0.0),
        Line(np.zeros(2), None),
        Path(np.zeros(2), 0.0),
        np.zeros(3),
        Line,
    ],
    ids=str,
)
def test_like_of_another_structure_is_refused(like, tmp_path):
    invented(Line(np.zeros(2), 0.0)).save(tmp_path / "fit.npz")
    with pytest.raises(
        ValueError, match=r"fit.npz.*Line\(\*, \*\) with leaves slope \(2,\), level \(\); got"
    ):
        Fit.load(tmp_path / "fit.npz", like)


def test_like_is_held_to_a_plain_tree_too(fit, tmp_path):
    fit.save(tmp_path / "fit.npz")
    for like in ({"beta": np.zeros(3)}, {"beta": np.zeros(2), "sigma": 1.0}, [np.zeros(3), 1.0]):
        with pytest.raises(
            ValueError, match="fit.npz: like= must be parameters of the structure that was saved"
        ):
            Fit.load(tmp_path / "fit.npz", like)


# ---------------------------------------------------------------- the file


def test_the_path_is_taken_as_given_and_a_missing_suffix_is_npz(fit, tmp_path):
    for given, written in (
        ("a.npz", "a.npz"),
        ("b", "b.npz"),
        ("c.fit", "c.fit"),
        ("d.npz.bak", "d.npz.bak"),
        (".e", ".e.npz"),
    ):
        fit.save(str(tmp_path / given))
        assert (tmp_path / written).is_file()
        assert_same(Fit.load(str(tmp_path / given)), fit)
    assert sorted(os.listdir(tmp_path)) == [".e.npz", "a.npz", "b.npz", "c.fit", "d.npz.bak"]
    os.rename(tmp_path / "b.npz", tmp_path / "b")
    assert_same(Fit.load(tmp_path / "b"), fit)


def test_a_file_that_is_not_there_is_an_error_of_the_file_system(fit, tmp_path):
    with pytest.raises(FileNotFoundError, match="none.npz"):
        Fit.load(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="no folder"):
        fit.save(tmp_path / "nowhere" / "fit.npz")


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failing_write_leaves_the_old_file_and_nothing_else(
    broken, fit, logistic, tmp_path, monkeypatch
):
    fit.save(tmp_path / "fit.npz")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, broken, full)
        with pytest.raises(OSError, match="No space left"):
            logistic["good"].save(tmp_path / "fit.npz")
    assert os.listdir(tmp_path) == ["fit.npz"]
    assert_same(Fit.load(tmp_path / "fit.npz"), fit)
    logistic["good"].save(tmp_path / "fit.npz")
    assert os.listdir(tmp_path) == ["fit.npz"]
    assert_same(Fit.load(tmp_path / "fit.npz"), logistic["good"])


def test_a_file_is_plain_arrays_and_json(fit, tmp_path):
    fit.save(tmp_path / "fit.npz")
    with np.load(tmp_path / "fit.npz", allow_pickle=False) as stored:
        told = json.loads(
            stored["jaxmle"].tobytes(), parse_constant=pytest.fail
        )  # strict JSON: no Infinity, no NaN
        assert stored["jaxmle"].dtype == np.uint8
        assert_array_equal(stored["vcov"], fit.vcov)
        assert len(stored.files) == 1 + len(jax.tree.leaves(fit))
    assert (told["format"], told["names"], told["bounds"][-1]) == (1, list(fit.names), [0.0, "inf"])


# ---------------------------------------------------------------- files that are not to be trusted


def assert_refused(content, path, because):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=because) as error:
        Fit.load(path)
    assert str(path) in str(error.value)


def test_another_file_is_refused(fit, tmp_path):
    path = tmp_path / "other.npz"
    for content in (b"", b"hello", b"\x80\x04K\x01.", b"PK", os.urandom(1000)):
        assert_refused(content, path, "not a file written by Fit.save")
    np.save(tmp_path / "array.npy", np.eye(3))
    assert_refused((tmp_path / "array.npy").read_bytes(), path, "not a file written by Fit.save")
    for arrays in ({"vcov": np.eye(3)}, {"jaxmle": np.eye(3)}, {"jaxmle": np.float64(1)}):
        np.savez(path, **arrays)
        assert_refused(path.read_bytes(), path, "not a file written by Fit.save")


def test_a_truncated_file_is_refused_wherever_it_was_cut(fit, tmp_path):
    fit.save(tmp_path / "fit.npz")
    content = (tmp_path / "fit.npz").read_bytes()
    for size in (*range(4, len(content), 101), len(content) - 1):
        assert_refused(content[:size], tmp_path / "cut.npz", "damaged, or was cut short")


def test_a_damaged_file_is_refused_or_harmless(fit, tmp_path):
    """A bit that nothing depends on, such as a date in the archive, may turn; any other is noticed."""
    fit.save(tmp_path / "fit.npz")
    content, noticed = (tmp_path / "fit.npz").read_bytes(), 0
    path = tmp_path / "bad.npz"
    for place in range(0, len(content), 29):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x11]) + content[place + 1 :])
        try:
            assert_same(Fit.load(path), fit)
        except ValueError as error:
            assert str(path) in str(error)
            noticed += 1
    assert noticed > 100


class Trap:
    """What a pickle could do."""

    sprung = False

    def __reduce__(self):
        return (setattr, (Trap, "sprung", True))


def forge(path, change):
    """Rewrite a saved file with ``change(description, arrays)`` applied."""
    with np.load(path) as stored:
        arrays = dict(stored)
    told = json.loads(arrays.pop("jaxmle").tobytes())
    change(told, arrays)
    text = told if isinstance(told, bytes) else json.dumps(told).encode()
    np.savez(path, jaxmle=np.frombuffer(text, np.uint8), **arrays)


def _set(where, *keys_value):
    *keys, last, value = keys_value

    def change(told, arrays):
        target = told if where == "told" else arrays
        for key in keys:
            target = target[key]
        target[last] = value

    return change


INF = float("inf")
FORGERIES = {
    "a later format": (_set("told", "format", 2), "written by a later version of jaxmle, in format 2"),
    "no format": (_set("told", "format", None), "description is damaged"),
    "a format of zero": (_set("told", "format", 0), "description is damaged"),
    "too few names": (_set("told", "names", ["a", "b", "c"]), "3 names"),
    "too many names": (_set("told", "names", list("abcde")), "5 names"),
    "names that are numbers": (_set("told", "names", [1, 2, 3, 4]), "description is damaged"),
    "names in one text": (_set("told", "names", "abcd"), "description is damaged"),
    "too few bounds": (_set("told", "bounds", [[0.0, 1.0]] * 3), "4 names, 3 pairs of bounds"),
    "bounds upside down": (_set("told", "bounds", 0, [1.0, 0.0]), "description is damaged"),
    "a bound that is no number": (_set("told", "bounds", 0, [float("nan"), 0.0]), "description is damaged"),
    "a bound in words": (_set("told", "bounds", 0, ["0", "inf"]), "description is damaged"),
    "bounds of three": (_set("told", "bounds", 0, [0, 1, 2]), "description is damaged"),
    "a negative df": (_set("told", "df", -1), "-1 degrees of freedom"),
    "more df than parameters": (_set("told", "df", 5), "5 degrees of freedom"),
    "a df that is true": (_set("told", "df", True), "description is damaged"),
    "no mode": (lambda told, arrays: told.pop("mode"), "description is damaged"),
    "a kind that is a list": (_set("told", "vcov_kind", ["observed"]), "description is damaged"),
    "an unknown constraint": (_set("told", "leaves", 1, "constraint", {"kind": "Path"}), "description is damaged"),
    "an interval without ends": (_set("told", "leaves", 1, "constraint", {"kind": "Interval", "lower": 2, "upper": 1}), "description is damaged"),
    "a correlation of a vector": (_set("told", "leaves", 0, "constraint", {"kind": "Correlation"}), "square matrix"),
    "a shape of another size": (_set("told", "leaves", 0, "shape", [4]), "params.0"),
    "a negative shape": (_set("told", "leaves", 0, "shape", [-3]), "description is damaged"),
    "a leaf more": (lambda told, arrays: told["leaves"].append(told["leaves"][0]), "description is damaged"),
    "no tree": (lambda told, arrays: told.pop("tree"), "description is damaged"),
    "an unknown node": (_set("told", "tree", "kind", "set"), "description is damaged"),
    "keys in another order": (_set("told", "tree", "keys", ["sigma", "beta"]), "description is damaged"),
    "equal keys": (_set("told", "tree", "keys", ["beta", "beta"]), "description is damaged"),
    "keys that are lists": (_set("told", "tree", "keys", [[], []]), "description is damaged"),
    "no array": (lambda told, arrays: arrays.pop("score"), "score is missing or too many"),
    "no log-likelihood": (lambda told, arrays: arrays.pop("loglik"), "loglik is missing or too many"),
    "one array more": (_set("arrays", "extra", np.eye(2)), "extra is missing or too many"),
    "a small covariance": (_set("arrays", "vcov", np.eye(3)), r"vcov is float64 of shape \(3, 3\); 4 names"),
    "a batch of one leaf": (_set("arrays", "loglik", np.zeros(2)), "members need"),
    "a batch of estimates": (_set("arrays", "params.0", np.zeros((2, 3))), "params.0"),
    "a fraction of a step": (_set("arrays", "steps", np.float64(1.5)), "integers"),
    "complex numbers": (_set("arrays", "score", np.zeros(4, complex)), "floating numbers"),
    "text for numbers": (_set("arrays", "score", np.array(list("abcd"))), "floating numbers"),
    "an unknown status": (_set("arrays", "status", np.int32(99)), "a status that this version of jaxmle does not know"),
    "objects": (_set("arrays", "score", np.array([Trap()] * 4)), "damaged"),
    "a trillion parameters": (_set("told", "leaves", 0, "shape", [10**12]), "has 1000000000001 parameters, more than the bytes of the file"),
    "a name twice": (_set("told", "names", ["beta[0]", "beta[0]", "beta[2]", "sigma"]), "two of its parameters have the name 'beta\\[0\\]'"),
    "names in another order": (_set("told", "names", ["beta[1]", "beta[0]", "beta[2]", "sigma"]), "names of its parameters are not in the order"),
    "an estimate that is NaN": (_set("arrays", "params.0", np.array([1.0, np.nan, 0.0])), "CONVERGED, but an estimate is not finite"),
    "an estimate that is infinite": (_set("arrays", "params.1", np.float64(INF)), "CONVERGED, but an estimate is not finite"),
    "no log-likelihood there": (_set("arrays", "loglik", np.float64(np.nan)), "CONVERGED, but the log-likelihood is not finite"),
    "an asymmetric covariance": (_set("arrays", "vcov", np.eye(4) + 0.01 * np.eye(4, k=1)), "the covariance is not symmetric"),
    "a negative variance": (_set("arrays", "vcov", np.diag([1.0, -1.0, 1.0, 1.0])), "a variance is negative"),
    "an indefinite covariance": (_set("arrays", "vcov", np.eye(4) + 1.01 * (np.eye(4, k=3) + np.eye(4, k=-3))), "not positive semi-definite"),
    "a covariance with a hole": (_set("arrays", "vcov", np.eye(4) + np.where(np.eye(4, k=1), np.nan, 0.0)), "not finite where there are standard errors"),
    "an infinite variance": (_set("arrays", "vcov", np.diag([1.0, INF, 1.0, 1.0])), "not finite where there are standard errors"),
    "a covariance and a Hessian that changed places": (lambda told, arrays: arrays.update(vcov=arrays["hessian"], hessian=arrays["vcov"]), "a variance is negative"),
    "a score in reverse": (lambda told, arrays: arrays.update(score=arrays["score"][::-1].copy()), "content has changed since it was written"),
    "another mode": (_set("told", "mode", "MAP"), "content has changed since it was written"),
    "other names": (_set("told", "names", list("abcd")), "content has changed since it was written"),
    "a status below zero": (_set("arrays", "status", np.int32(-1)), "a status that this version of jaxmle does not know"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "because"), FORGERIES.values(), ids=FORGERIES)
def test_a_forged_file_is_refused(change, because, fit, tmp_path):
    path = tmp_path / "forged.npz"
    fit.save(path)
    forge(path, change)
    assert_refused(path.read_bytes(), path, because)
    assert not Trap.sprung


def test_a_description_that_is_no_json_is_refused(fit, tmp_path):
    path = tmp_path / "forged.npz"
    fit.save(path)
    with np.load(path) as stored:
        arrays = dict(stored)
    for text in (b"", b"{", b"[1]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"format": 1}'):
        np.savez(path, **arrays | {"jaxmle": np.frombuffer(text, np.uint8)})
        assert_refused(path.read_bytes(), path, "description is damaged")


def test_a_record_that_is_not_whole_is_not_saved(fit, tmp_path):
    replace = dataclasses.replace
    for broken, because in (
        (replace(fit, names=fit.names[:3]), "3 names"),
        (replace(fit, vcov=fit.vcov[:3, :3]), "vcov is float64"),
        (replace(fit, params=list(fit.params.values())), "another tree cannot be saved"),
        (replace(fit, score=np.array([object()] * 4)), "score is object"),
        (
            jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype), fit),
            "is object",
        ),
    ):
        with pytest.raises(ValueError, match=f"cannot save .*fit.npz: .*{because}"):
            broken.save(tmp_path / "fit.npz")
    assert os.listdir(tmp_path) == []


def _entry(path, name, content, **options):
    """Put another member into a saved file."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, content, **options)


def _header(shape, descr="<f8"):
    buffer = io.BytesIO()
    described = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, described)
    return buffer.getvalue()


def _bomb(path):
    """Fifty million zero bytes in fifty kilobytes."""
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.npy", _header((6_250_000,)) + bytes(50_000_000))


def _twice(path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        _entry(path, "vcov.npy", _header((4, 4)) + bytes(128))


def _overlap(path):
    """Every array says that it is as large as the file."""
    content = bytearray(path.read_bytes())
    at = content.find(b"PK\x01\x02")
    while at >= 0:
        content[at + 20 : at + 28] = struct.pack("<II", len(content), len(content))
        at = content.find(b"PK\x01\x02", at + 4)
    path.write_bytes(content)


ARCHIVES = {
    "a bomb": (_bomb, "compressed"),
    "an array twice": (_twice, "holds 'vcov.npy' twice"),
    "a shape of a trillion": (lambda path: _entry(path, "x.npy", _header((10**12,)) + bytes(8)), "says that it is float64 of shape \\(1000000000000,\\), and 8 bytes follow"),
    "a shape of two minus signs": (lambda path: _entry(path, "x.npy", _header((-2, -4)) + bytes(64)), "bytes follow"),
    "numbers of no size": (lambda path: _entry(path, "x.npy", _header((10**12,), "<U0")), "bytes follow"),
    "a header that is code": (lambda path: _entry(path, "x.npy", b"\x93NUMPY\x01\x00\x10\x00__import__('os')"), "header of 'x' is damaged"),
    "no header": (lambda path: _entry(path, "x.npy", b"hello"), "header of 'x' is damaged"),
    "a header of another version": (lambda path: _entry(path, "x.npy", b"\x93NUMPY\x03\x00"), "header of 'x' is damaged"),
    "a text beside the arrays": (lambda path: _entry(path, "readme.txt", b"hello"), "'readme.txt', which is not an array"),
    "arrays that overlap": (_overlap, "larger than the file|damaged"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "because"), ARCHIVES.values(), ids=ARCHIVES)
def test_an_archive_is_looked_at_before_anything_is_made_of_it(change, because, fit, tmp_path):
    """A file of 1.9 MB took 2 GB."""
    path = tmp_path / "forged.npz"
    fit.save(path)
    change(path)
    tracemalloc.start()
    try:
        assert_refused(path.read_bytes(), path, because)
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()


def test_a_batch_says_which_member_is_not_a_fit(fit, tmp_path):
    batch = stack(stack(fit, fit, fit), stack(fit, fit, fit))
    batch.vcov[1, 2, 0, 0] = -1.0
    with pytest.raises(ValueError, match=r"its status of member \[1, 2\] is CONVERGED, but a var"):
        batch.save(tmp_path / "fit.npz")
    batch.status[1, 2] = Status.STALLED
    assert_same(round_trip(batch, tmp_path), batch)


def test_what_a_converged_fit_may_lack_comes_back(tmp_path):
    """No covariance asked for, a covariance of rank one, one clustered two ways, one of a tie: all are records of fits."""
    data = linear_data(80)
    codes = np.arange(60) % np.array([[4], [6]])
    two = dataclasses.replace(
        jm.fit(normal_regression, BETA_SIGMA, data, constraints={"sigma": jm.positive}),
        vcov_kind="CR1",
    )
    indefinite = np.eye(4) + 1.2 * (np.eye(4, k=1) + np.eye(4, k=-1))
    records = [
        jm.fit(normal_regression, BETA_SIGMA, data, constraints={"sigma": jm.positive}, vcov=None),
        jm.fit(jm.tie(logit, ("beta[0]", "beta[1]")), BETA, logistic_data(81)),
        jm.fit(jm.fix(logit, {"beta[1]": 0.0}), BETA, logistic_data(81)),
        jm.fit(logit, BETA, logistic_data(81), vcov="CR1", clusters=codes[0] > 1),
        dataclasses.replace(two, vcov=indefinite),
    ]
    for found in records:
        assert found.converged
        assert_same(round_trip(found, tmp_path), found)


def test_a_file_of_an_older_version_comes_without_the_fingerprint_of_its_data(fit, tmp_path):
    """It had none of today's, and would refuse the very data of the fit."""
    path = tmp_path / "fit.npz"
    fit.save(path)
    forge(path, lambda told, arrays: told.pop("digest"))
    again = Fit.load(path)
    assert_array_equal(again.data_id, np.zeros(2, np.uint32))
    assert_same(dataclasses.replace(again, data_id=fit.data_id), fit)
    data = linear_data(80)
    assert (
        jm.tic(normal_regression, again, data).value == jm.tic(normal_regression, fit, data).value
    )


def test_a_path_that_is_no_file_is_said(fit, tmp_path):
    (tmp_path / "fit.npz").mkdir()
    with pytest.raises(ValueError, match=r"cannot load .*fit\.npz: it is a folder"):
        Fit.load(tmp_path / "fit.npz")
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(ValueError, match=r"cannot load .*pipe\.npz: it is no regular file"):
        Fit.load(tmp_path / "pipe.npz")


@pytest.mark.parametrize("path", [3, None, b"fit.npz", "", "a\0b"], ids=repr)
def test_what_is_no_path_is_said(path, fit):
    for call in (fit.save, Fit.load):
        with pytest.raises(
            (TypeError, ValueError), match="the path of a file, such as|null character"
        ):
            call(path)


def test_a_large_file_of_another_kind_is_not_read(tmp_path):
    with open(tmp_path / "large.npz", "wb") as stream:
        stream.truncate(10**11)
    with pytest.raises(
        ValueError, match=r"cannot load .*large\.npz: it is not a file written by Fit.save"
    ):
        Fit.load(tmp_path / "large.npz")


ODD = ["a\nb", "a\tb", "\x1b[31mred", "evil\u202eeman", "zero\u200bwidth", "a\u2028b", "\ud800", "a\x00b", "a\rb"]  # fmt: skip


@pytest.mark.parametrize("odd", ODD, ids=ascii)
def test_characters_that_do_not_print_are_shown_escaped_and_come_back(odd, tmp_path):
    """A line end in a name broke the table, and a mark of direction turned it round."""
    x = np.random.default_rng(1).normal(size=40)

    def loglik(params, y):
        return -0.5 * (y - params[odd] - params["other"]) ** 2

    found = jm.fit(loglik, {odd: 0.0, "other": 0.0}, x)
    again = round_trip(found, tmp_path)
    assert again.names == found.names and odd in again.names
    named = dataclasses.replace(found, vcov_kind=odd)
    shown = [text for one in (again, named, stack(again, again)) for text in _shown(one)]
    assert any(ascii(odd)[1:-1].lower() in text for text in shown)
    for text in shown:
        assert all(character.isprintable() or character == "\n" for character in text)
        text.encode()
        assert odd not in text


def _shown(fit):
    if fit.batch_shape:
        return [str(fit)]
    return [str(fit), fit.explain(), fit.to_html(), fit.to_latex(), fit.to_markdown()]


# ---------------------------------------------------------------- check


def test_check_hands_a_converged_fit_through(fit, logistic):
    assert fit.check() is fit
    batch = stack(logistic["good"], logistic["good"])
    assert batch.check() is batch
    assert batch[:0].check().batch_shape == (0,)


def test_check_of_a_failed_fit_raises_its_explanation(logistic):
    for name, status in (
        ("separated", Status.SEPARATED),
        ("unidentified", Status.UNIDENTIFIED),
        ("overflow", Status.NONFINITE),
    ):
        with pytest.raises(FitError) as caught:
            logistic[name].check()
        assert isinstance(caught.value, ValueError)
        assert str(caught.value) == logistic[name].explain()
        assert caught.value.status is status
        assert caught.value.members == ()


def test_check_of_a_batch_counts_by_status_and_explains_one_of_each(logistic):
    batch = stack(
        *(logistic[name] for name in ("good", "separated", "overflow", "separated", "good"))
    )
    with pytest.raises(FitError) as caught:
        batch.check()
    error = caught.value
    assert str(error).splitlines() == [
        "3 of 5 fits did not converge.",
        "NONFINITE, 1 fit: [2].",
        f"    [2] {logistic['overflow'].explain()}",
        "SEPARATED, 2 fits: [1], [3].",
        f"    [1] {logistic['separated'].explain()}",
    ]
    assert_array_equal(error.members, [1, 2, 3])
    assert_array_equal(error.status, [Status.SEPARATED, Status.NONFINITE, Status.SEPARATED])
    assert_same(batch[error.members][1], logistic["overflow"])


def test_check_of_a_batch_of_two_axes_names_members_by_both(logistic):
    row = stack(logistic["good"], logistic["separated"], logistic["good"])
    batch = stack(row, row)
    with pytest.raises(
        FitError, match=r"2 of 6 fits .*\nSEPARATED, 2 fits: \[0,1\], \[1,1\]."
    ) as caught:
        batch.check()
    assert batch[caught.value.members].batch_shape == (2,)
    assert (batch[caught.value.members].status == Status.SEPARATED).all()


def test_the_message_of_a_large_batch_is_short():
    one = jax.tree.map(np.nan_to_num, invented({"beta": np.zeros(2)}))
    batch = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (5000, *np.shape(leaf))), one)
    with pytest.raises(FitError) as caught:
        dataclasses.replace(batch, status=np.arange(5000, dtype=np.int32) % 11).check()
    assert len(str(caught.value).splitlines()) == 1 + 2 * 10
    assert "and 449 more." in str(caught.value)
    assert len(caught.value.members) == 5000 - 5000 // 11


def test_check_reads_jax_arrays(logistic):
    with jax.enable_x64(True):
        good, bad = (
            jax.tree.map(jax.numpy.asarray, logistic[name]) for name in ("good", "separated")
        )
        batch = jax.tree.map(lambda *leaves: jax.numpy.stack(leaves), good, bad)
    assert good.check() is good
    with pytest.raises(FitError) as caught:
        batch.check()
    assert logistic["separated"].explain() in str(caught.value)


def test_the_error_keeps_its_attributes_when_copied():
    """As when it comes back from another process."""
    again = copy.copy(FitError("why", Status.STALLED, np.array([3])))
    assert (str(again), again.status, again.members) == ("why", Status.STALLED, np.array([3]))


@pytest.mark.parametrize("name", ["check", "save"])
def test_under_a_trace_there_is_nothing_to_check_or_save(name, logistic, tmp_path):
    call = (
        (lambda record: record.check().loglik)
        if name == "check"
        else (lambda record: record.save(tmp_path / "fit.npz"))
    )
    good = logistic["good"]
    for transform, record in ((jax.jit, good), (jax.vmap, stack(good, good))):
        with pytest.raises(TypeError, match=rf"{name}\(\) .* call it outside"):
            transform(call)(record)
    assert os.listdir(tmp_path) == []
