"""Six jobs of docs/jobs: each script is at most one and a half times as long as its peer's, and gives its numbers to 1e-6.

The peers' numbers are stored: PYTHONPATH=. python tests/docs/test_jobs.py writes them anew, with R, statsmodels, lifelines and numpyro.
"""

import io
import json
import runpy
import shutil
import subprocess
import tokenize
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from numpy.testing import assert_allclose

mpl.use("Agg")

JOBS = Path(__file__).parents[2] / "docs" / "jobs"
STORED = Path(__file__).parent / "jobs_of_peers.json"
MAX_RATIO = 1.5
MANY = 1000  # numbers of which every twentieth row is stored
SAME = {"rtol": 1e-6, "atol": 1e-7}  # peers end at 1e-8 of a standard error or so
PEERS = {path.stem.removesuffix("_peer"): path for path in sorted(JOBS.glob("*_peer.*"))}
BORROWED = {"borrowed_density": ("arviz", "equinox", "numpyro", "sklearn")}
SAID_BY_R = 'cat("\\n@", jsonlite::toJSON(answers, digits = NA, auto_unbox = TRUE), sep = "")'


def lines_of_code(path):
    """Lines that hold code: no blank ones, comments or docstrings."""
    source = path.read_text()
    if path.suffix == ".R":
        return sum(bool(line.split("#")[0].strip()) for line in source.splitlines())
    lines = set()
    quiet = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        is_docstring = token.type == tokenize.STRING and token.line.startswith('"""')
        if token.type not in (*quiet, tokenize.ENDMARKER) and not is_docstring:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jobs")
    write = runpy.run_path(str(JOBS / "make_data.py"))
    for name in ("births", "visits", "stays"):
        write[name]().to_csv(folder / f"{name}.csv", index=False)
    return folder


def answers_of(script, folder):
    """The numbers of a script that runs in a folder, as lists."""
    if script.suffix == ".R":
        code = f'source("{script}"); {SAID_BY_R}'
        out = subprocess.run(
            ["Rscript", "-e", code], cwd=folder, check=True, capture_output=True, text=True
        )
        return json.loads(out.stdout.split("@")[-1])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        answers = runpy.run_path(str(script))["answers"]
    arrays = {name: np.asarray(value, dtype=float) for name, value in answers.items()}
    return {
        name: (array[::20] if np.size(array) > MANY else array).tolist()
        for name, array in arrays.items()
    }


@pytest.mark.parametrize("job", PEERS)
def test_a_job_gives_the_numbers_of_its_peer(job, tables):
    for package in BORROWED.get(job, ()):
        pytest.importorskip(package)
    ours = answers_of(JOBS / f"{job}.py", tables)
    peer = json.loads(STORED.read_text())[job]
    assert ours.keys() == peer.keys()
    for name, value in ours.items():
        assert_allclose(value, peer[name], **SAME, err_msg=name)


@pytest.mark.parametrize("job", PEERS)
def test_a_job_is_not_much_longer_than_its_peer_s(job):
    assert lines_of_code(JOBS / f"{job}.py") <= MAX_RATIO * lines_of_code(PEERS[job])


@pytest.mark.thorough
@pytest.mark.parametrize("job", PEERS)
def test_the_stored_numbers_are_those_of_the_peer(job, tables):
    if PEERS[job].suffix == ".R" and shutil.which("Rscript") is None:
        pytest.skip("R is not installed")
    stored = json.loads(STORED.read_text())[job]
    for name, value in answers_of(PEERS[job], tables).items():
        assert_allclose(value, stored[name], rtol=1e-8, atol=1e-9)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written = runpy.run_path(str(JOBS / "make_data.py"))
        for table in ("births", "visits", "stays"):
            written[table]().to_csv(folder / f"{table}.csv", index=False)
        found = {job: answers_of(peer, folder) for job, peer in PEERS.items()}
    rounded = json.loads(json.dumps(found), parse_float=lambda text: float(f"{float(text):.10g}"))
    STORED.write_text(json.dumps(rounded))
