"""What a machine without an accelerator can show of one: the plan of a batch, and that programs can be lowered for it."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jaxmle as jm
from jaxmle import special
from jaxmle.batch.chunks.plan import SHARE_OF_ACCELERATOR, SIZES_ON_ACCELERATOR, Sizes, cut
from tests.marks import thorough_but_for

PLATFORMS = ("cuda", "rocm", "tpu")
GIB = 2.0**30
N = 40
X = np.column_stack([np.ones(N), np.linspace(-1, 1, N)])
DATA = {"x": X, "y": (np.arange(N) % 3 == 0).astype(float)}
FIRM = jnp.arange(N) % 5
START = {"beta": jnp.zeros(2)}

# ---------------------------------------------------------------- the plan of a batch


def plan(members, rows=200, columns=5, free=100 * GIB, devices=1, total=None):
    data = 8.0 * rows * (columns + 1)
    live = data + 8.0 * rows * (columns + 6)
    record = 8.0 * (9 * columns**2 + 22 * columns + 40)
    sizes = Sizes(total or members, members, data, live, record)
    return cut(sizes, devices, devices * free, None, True), data + live + 3 * record


def test_ten_thousand_members_take_as_many_slots_and_few_more():
    """The symptom: they were laid out, and computed, as 65 536."""
    schedule, _ = plan(10_000)
    assert schedule.slots == schedule.members == 10_240 and schedule.chunks == 1


@pytest.mark.parametrize("members", [9_000, 10_000, 20_000, 50_000, 65_536, 300_000])
def test_of_many_members_at_most_a_fifth_of_the_slots_is_empty(members):
    schedule, _ = plan(members)
    used = min(members, schedule.slots)
    assert schedule.slots <= 1.25 * used
    assert schedule.chunks * schedule.members >= members


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize(
    ("members", "rows", "columns", "free"),
    [(100_000, 5_000, 50, 140 * GIB), (10_000, 200, 5, GIB), (50, 1_000_000, 20, 16 * GIB)],
)
def test_a_chunk_takes_a_quarter_of_the_free_memory_at_most(devices, members, rows, columns, free):
    """The symptom: 124 GiB for the first of these."""
    schedule, of_a_member = plan(members, rows, columns, free, devices)
    held = schedule.block_size * of_a_member
    assert held <= SHARE_OF_ACCELERATOR * free
    assert schedule.chunks * schedule.members >= members
    assert schedule.slots >= schedule.members


def test_a_member_larger_than_the_share_is_computed_alone():
    schedule, _ = plan(20, rows=10**8, free=GIB)
    assert (schedule.members, schedule.chunks) == (1, 20)


def test_few_members_of_a_rare_length_do_not_take_the_room_of_all():
    rare, _ = plan(100, total=10_000)
    assert rare.members == 128 and rare.slots == 10_240


def test_sizes_on_an_accelerator_are_few_and_ordered():
    assert list(SIZES_ON_ACCELERATOR) == sorted(set(SIZES_ON_ACCELERATOR))
    assert len(SIZES_ON_ACCELERATOR) <= 20


# ---------------------------------------------------------------- programs for it


def logit(params, data):
    eta = data["x"] @ params["beta"]
    return data["y"] * eta - jnp.logaddexp(0.0, eta)


def normal(params, data):
    return -jnp.log(params["sigma"]) - ((data["y"] - params["mu"]) / params["sigma"]) ** 2 / 2


def laplace(params, data):
    return -jnp.abs(data["y"] - params["mu"])


def fitted(loglik, start, **options):
    def path(data):
        fit = jm.fit(loglik, start, data, **options)
        return fit.x, fit.vcov, fit.status

    return path


def of_members(data):
    both = jnp.stack([data["y"], 1 - data["y"]])
    return jax.vmap(lambda y: jm.fit(logit, START, {"x": data["x"], "y": y}).x)(both)


def slope_of_estimate(data):
    def estimate(x):
        return jm.fit(logit, START, {"x": x, "y": data["y"]}).params["beta"][1]

    return jax.grad(estimate)(data["x"])


def calculus(data):
    quantities = [jm.score, jm.scores, jm.hessian, jm.nll]
    values = [quantity(logit)(START, data) for quantity in quantities]
    expected = jm.information(jm.models.logistic(), "expected")(START, data)
    return values, expected, jm.vcov(logit, "HC1")(START, data)


def special_functions(data):
    x = 1.0 + data["x"][:, 1] ** 2
    tails = special.log_betainc(x, 2.0, 0.3), special.log_gammainc(x, 2.0), special.ndtri(x / 3)
    return tails, special.student_t_logcdf(x, 3.0), special.bessel_ratio(x), special.log_ndtr(x)


PATHS = {
    "a regression": fitted(jm.models.logistic(), START, vcov="HC3"),
    "a function": fitted(logit, START),
    "LBFGS": fitted(logit, START, solver=jm.solvers.LBFGS()),
    "a constraint": fitted(normal, {"mu": 0.0, "sigma": 1.0}, constraints={"sigma": jm.positive}),
    "a kink": fitted(laplace, {"mu": 0.0}),
    "members": of_members,
    "a derivative of an estimate": slope_of_estimate,
    "calculus": calculus,
    "special functions": special_functions,
    "clusters": fitted(logit, START, clusters=FIRM),
    "CR2": fitted(logit, START, clusters=FIRM, vcov="CR2"),
    "blocks": fitted(logit, START, block_rows=8),
    "expected": fitted(jm.models.logistic(), START, vcov="expected"),
    "opg": fitted(logit, START, vcov="opg"),
    "hac": fitted(logit, START, vcov="hac"),
    "a Wald test": lambda data: jm.wald_test(jm.fit(logit, START, data), "beta[1] = 0").pvalue,
}


def exported(path, dtype):
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), DATA)
    return export.export(jax.jit(path), platforms=PLATFORMS)(shapes)


USUAL = ["a regression", "a kink", "members", "calculus", "special functions"]


@pytest.mark.parametrize("name", thorough_but_for(PATHS, *USUAL))
def test_every_traced_path_is_lowered_for_gpus_and_tpus(name):
    with jax.enable_x64(True):
        assert exported(PATHS[name], np.float64).platforms == PLATFORMS


@pytest.mark.parametrize("name", ["a regression", "a function", "calculus"])
def test_products_of_single_precision_keep_all_digits(name):
    """The symptom: TF32, of eleven bits, in the score of a fit in single precision."""
    with jax.enable_x64(False):
        text = exported(PATHS[name], np.float32).mlir_module()
    products = re.findall(r"stablehlo\.dot_general.*", text)
    assert products
    assert all("precision = [HIGHEST, HIGHEST]" in product for product in products)
