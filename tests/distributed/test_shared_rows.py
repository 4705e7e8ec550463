"""A fit of rows that several devices share is that of the same rows in memory; four virtual devices in a process of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import jaxmle as jm

SCRIPT = Path(__file__).parent / "four_devices.py"
# sums in another order: seen 2e-14 standard errors
TOLERANCE = 1e-12
CASES = [
    "declared",
    "explicit mesh",
    "rows repeated along an axis",
    "a function",
    "a constraint",
    "a prior and a fixed entry",
    "integers and single precision",
    "frequency weights",
    "sampling weights",
    "HC3",
    "two-way clusters",
    "separated",
    "padded",
]


@pytest.fixture(scope="module")
def found():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, SCRIPT],
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["devices"] == 4 and list(result["fits"]) == CASES
    return result


@pytest.mark.parametrize("case", CASES)
def test_rows_on_four_devices_give_the_fit_of_the_same_rows_in_memory(found, case):
    fit = found["fits"][case]
    assert fit["off"] < TOLERANCE and fit["off_se"] < TOLERANCE
    alone, together = fit["same"]
    assert together == alone
    assert "shared by" in fit["evaluation"] or "over 4 devices" in fit["evaluation"]


def test_a_pass_is_one_all_reduce_and_gathers_nothing(found):
    """The symptom: nine all-gathers, and all rows on every device."""
    collectives = found["collectives"]
    assert collectives.pop("temporary") < 2e6  # bytes, for 200 000 rows of six columns
    assert collectives == {
        "all-reduce": 1,
        "all-gather": 0,
        "all-to-all": 0,
        "collective-permute": 0,
    }


@pytest.mark.parametrize("kind", ["declared", "a function"])
def test_under_jit_rows_that_an_automatic_mesh_shares_are_not_gathered(found, kind):
    """The symptom: blocks of a declared regression took all rows to every device, by nine all-gathers."""
    program = found["under jit"][kind]
    assert program.pop("off") < TOLERANCE
    reductions = program.pop("all-reduce")
    assert 1 <= reductions <= 4  # how many are merged into one is the compiler's choice
    assert set(program.values()) == {0}


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("NaN", "data['x'] is NaN in row 17000"),
        ("coding", "data['y'] is 3 in row 88888"),  # of 100 000, of which the sample has a fifth
        ("weights", "see row 15000"),
        ("mixing", "reduce_sum"),
        ("columns", "only rows, axis 0"),
        ("two meshes", "Explicit"),
        ("HAC", "clusters in time"),
        ("a trace", "outside jit"),
    ],
)
def test_what_is_wrong_with_shared_rows_has_one_error(found, mistake, words):
    message = found["errors"][mistake]
    assert message.startswith("ValueError") and words in message


def test_rows_of_one_device_are_fitted_as_they_are_in_memory():
    rng = np.random.default_rng(2)
    data = {"x": rng.normal(size=(500, 2)), "y": rng.poisson(2.0, 500)}
    weights = jm.frequency(np.full(500, 2.0))
    alone = jm.fit(jm.models.poisson(), data=data, weights=weights)
    shared = jm.fit(jm.models.poisson(), data=jm.distributed.rows(data, weights=weights))
    np.testing.assert_allclose(shared.x, alone.x, atol=TOLERANCE)
    assert shared.n == alone.n == 1000 and np.array_equal(shared.data_id, alone.data_id)


def test_weights_beside_rows_that_have_theirs_are_refused():
    rows = jm.distributed.rows({"y": np.arange(4.0)})
    with pytest.raises(ValueError, match="give them when you make the rows"):
        jm.fit(jm.models.poisson(), {"beta": np.zeros(1)}, rows, weights=jm.frequency(np.ones(4)))
