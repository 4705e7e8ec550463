"""The notebooks say what is true: their cells run, their assertions hold, and the pictures stored beside them come from the same code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

jupytext = pytest.importorskip("jupytext")

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
SOURCES = sorted(NOTEBOOKS.glob("[0-9]*.py"))

# The fast form: what the cell tagged "parameters" sets, smaller. Every assertion of a notebook is in units of its own Monte-Carlo error,
# so that it holds at either size.
FAST: dict[str, dict[str, int]] = {
    "02_gaussian_and_laplace": {"DATASETS": 100},
    "04_kl_and_cross_entropy": {"DATASETS": 200},
    "05_theorems": {"DATASETS": 1000},
    "06_limitations": {"DATASETS": 400},
    "07_mixtures_and_em": {"NULLS": 4_000},
    "08_neural_networks": {"DRAWS": 500},
    "09_ten_thousand_datasets": {"MEMBERS": 1_000, "STUDY": 1_000, "GROUPS": 1_000},
    "10_research_fit": {"REPLICATES": 199},
}


def cells(source: Path) -> list:
    return [cell for cell in jupytext.read(source).cells if cell.cell_type == "code"]


def stored(source: Path) -> list:
    notebook = json.loads(source.with_suffix(".ipynb").read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


# Those of whose assertions tests/theory, tests/families and tests/mixtures state the most again.
THOROUGH = ("02", "04", "06", "07", "08")
EXECUTED = [
    pytest.param(
        source,
        id=source.stem,
        marks=[pytest.mark.thorough] if source.stem.startswith(THOROUGH) else [],
    )
    for source in SOURCES
]


@pytest.mark.parametrize("source", EXECUTED)
def test_every_assertion_of_a_notebook_holds(source, monkeypatch):
    import matplotlib

    matplotlib.use("Agg", force=True)
    import matplotlib.pyplot as plt

    monkeypatch.chdir(NOTEBOOKS)
    names: dict = {"__name__": source.stem}
    for number, cell in enumerate(cells(source)):
        exec(compile(cell.source, f"{source.name}, code cell {number}", "exec"), names)
        if "parameters" in cell.metadata.get("tags", []):
            unknown = set(FAST.get(source.stem, {})) - set(names)
            assert not unknown, f"{source.name} has no parameter {unknown}"
            names.update(FAST.get(source.stem, {}))
    plt.close("all")


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_the_stored_outputs_come_from_this_code(source):
    kept = stored(source)
    assert ["".join(cell["source"]) for cell in kept] == [cell.source for cell in cells(source)], (
        "make notebooks writes the pair anew"
    )
    outputs = [output for cell in kept for output in cell["outputs"]]
    assert all(cell["execution_count"] for cell in kept if "".join(cell["source"]).strip())
    assert not any(
        output["output_type"] == "error" or output.get("name") == "stderr" for output in outputs
    )
    assert any("image/png" in output.get("data", {}) for output in outputs), (
        "a notebook shows at least one figure"
    )


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_a_notebook_states_facts(source):
    assert (
        sum(
            line.strip().startswith("assert")
            for cell in cells(source)
            for line in cell.source.splitlines()
        )
        >= 5
    )
