"""Data and likelihoods shared by the tests of hypotheses: the birth weights of Hosmer and Lemeshow, and small normal samples."""

import json
from pathlib import Path

import jax
import numpy as np

R = json.loads((Path(__file__).parent / "data" / "hypotheses.json").read_text())
_path = Path(__file__).parents[1] / "reference" / "data" / "s10_logit_birthwt.csv"
_names = [name.strip('"') for name in _path.read_text().splitlines()[0].split(",")]
COLUMNS = dict(zip(_names, np.loadtxt(_path, delimiter=",", skiprows=1).T, strict=True))
X = np.column_stack(
    [np.ones(189), *(COLUMNS[name] for name in _names[1:])]
)  # age, lwt, black, other, smoke, ptl, ht, ui
DATA = {"y": COLUMNS["low"], "x": X}
START = {"beta": np.zeros(9)}
SMOKE_HT = {"beta[5]": 0.0, "beta[7]": 0.0}

COUNTS = {
    "y": COLUMNS["ptl"],
    "x": np.column_stack(
        [np.ones(189), *(COLUMNS[name] for name in ("age", "lwt", "smoke", "ui"))]
    ),
}


def stacked(fits):
    """Single fits as one batch, as ``fit_batch`` gives it."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *fits)
