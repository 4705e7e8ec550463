"""Small Parquet data sets: files of unequal length, row groups that do not divide them, twelve columns."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

import jaxmle as jm

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

CUTS = (0, 1100, 1101, 2500, 4000)
Q = 12  # columns x0 … x11: in the order of their names, x10 comes before x2


def write(folder, columns, cuts=CUTS):
    for part, (first, end) in enumerate(zip(cuts[:-1], cuts[1:], strict=True)):
        table = pa.table({name: values[first:end] for name, values in columns.items()})
        pq.write_table(table, folder / f"part-{part}.parquet", row_group_size=400)


def logit(params, data):
    """Like ``models.logistic``, as a user writes it."""
    eta = data["x"] @ params["beta"]
    return data["y"] * eta - jnp.logaddexp(0.0, eta)


@pytest.fixture(scope="session")
def survey(tmp_path_factory):
    """A binary outcome with twelve columns, weights, firms (words) and years, as arrays and as files."""
    rng = np.random.default_rng(21)
    n = CUTS[-1]
    x = np.column_stack([np.ones(n), rng.normal(size=(n, Q - 1))])
    firm = rng.integers(0, 40, n)
    shift = rng.normal(size=40)[firm]
    beta = np.linspace(-0.6, 0.6, Q)
    y = (rng.random(n) < 1 / (1 + np.exp(-x @ beta - 0.5 * shift))).astype(float)
    columns = {f"x{j}": x[:, j] for j in range(1, Q)} | {
        "y": y,
        "w": rng.integers(0, 4, n),
        "firm": np.array([f"firm {code}" for code in firm]),
        "year": (firm * 7 + rng.integers(0, 3, n)) % 9,
        "price": 1.5 + x[:, 1] - 0.5 * x[:, 2] + 0.7 * rng.normal(size=n),
    }
    folder = tmp_path_factory.mktemp("survey")
    write(folder, columns)
    names = [1.0, *(f"x{j}" for j in range(1, Q))]
    return SimpleNamespace(
        folder=folder,
        columns=columns,
        data={"x": x, "y": y},
        source=jm.parquet(folder, {"x": names, "y": "y"}),
    )
