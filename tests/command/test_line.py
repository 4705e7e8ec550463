"""``python -m jaxmle``: the numbers of the calls, files by their endings, and what a shell sees."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle.command.line import main

RNG = np.random.default_rng(8)
TABLE = pd.DataFrame(
    {
        "y": RNG.poisson(2.0, 60),
        "x": RNG.normal(size=60),
        "g": RNG.choice(["a", "b"], 60),
        "site": RNG.choice(["n", "s"], 60),
        "w": RNG.integers(1, 4, 60),
        "years": RNG.uniform(1.0, 3.0, 60),
    }
)
TABLE.loc[3, "x"] = np.nan


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("line") / "data.csv"
    TABLE.to_csv(path, index=False)
    return path


def table_of(path):
    return pd.read_csv(path)


def test_fit_has_the_numbers_of_the_call(data, tmp_path, capsys):
    out = tmp_path / "table.csv"
    words = [
        "fit",
        str(data),
        "y ~ x + g",
        "--model",
        "poisson",
        "--vcov",
        "HC1",
        "--out",
        str(out),
    ]
    assert main(words) == 0
    frame = jm.from_formula("y ~ x + g", TABLE, missing="drop")
    fit = jm.fit(jm.models.poisson(), data=frame, vcov="HC1")
    printed = capsys.readouterr()
    assert printed.out.strip() == str(fit) and "1 of 60 rows dropped" in printed.err
    written, called = table_of(out), fit.to_frame()
    assert written["term"].tolist() == list(called["term"])
    assert_allclose(written["std_error"], called["std_error"], rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.md", lambda fit: fit.to_markdown()),
        ("t.tex", lambda fit: fit.to_latex()),
        ("t.html", lambda fit: fit.to_html()),
    ],
)
def test_a_table_is_written_as_its_ending_says(data, tmp_path, name, content):
    assert (
        main(["fit", str(data), "y ~ x", "--model", "poisson", "--out", str(tmp_path / name)]) == 0
    )
    fit = jm.fit(jm.models.poisson(), data=jm.from_formula("y ~ x", TABLE, missing="drop"))
    assert (tmp_path / name).read_text(encoding="utf-8").strip() == content(fit).strip()


def test_weights_clusters_and_further_leaves_are_columns(data, tmp_path):
    record = tmp_path / "fit.npz"
    words = ["fit", str(data), "y ~ x", "--model", "poisson(exposure='t')", "--also", "t=years"]
    words += ["--weights", "w", "--clusters", "site", "--out", str(record)]
    assert main(words) == 0
    frame = jm.from_formula(
        "y ~ x",
        TABLE,
        weights=jm.frequency("w"),
        clusters="site",
        also={"t": "years"},
        missing="drop",
    )
    called = jm.fit(jm.models.poisson(exposure="t"), data=frame)
    stored = jm.Fit.load(record)
    np.testing.assert_array_equal(stored.x, called.x)
    np.testing.assert_array_equal(stored.vcov, called.vcov)


def test_groups_have_the_numbers_of_the_call(data, tmp_path):
    out = tmp_path / "fits.csv"
    words = ["groups", str(data), "y ~ x", "--by", "site", "--model", "poisson", "--out", str(out)]
    assert main(words) == 0
    called = jm.fit_groups(
        jm.models.poisson(), None, TABLE, by="site", formula="y ~ x", missing="drop"
    ).to_frame()
    written = table_of(out)
    assert written["site"].tolist() == list(called["site"])
    assert_allclose(written["estimate"], called["estimate"], rtol=1e-12)


def test_describe_has_the_numbers_of_pandas(data, tmp_path):
    assert main(["describe", str(data), "--out", str(tmp_path / "columns.csv")]) == 0
    written = table_of(tmp_path / "columns.csv").set_index("column")
    theirs = TABLE.describe()
    for name in ("y", "x", "years"):
        for ours, statistic in (("mean", "mean"), ("sd", "std"), ("median", "50%"), ("n", "count")):
            assert_allclose(written.loc[name, ours], theirs.loc[statistic, name], rtol=1e-12)
    assert written.loc["x", "missing"] == 1 and written.loc["g", "levels"] == "a, b"
    described = jm.describe(TABLE.assign(day=pd.Timestamp("2020-01-01")))
    assert described.iloc[-1]["kind"] == "other"


def test_a_fit_that_does_not_converge_is_status_one(tmp_path, capsys):
    path = tmp_path / "separated.csv"
    path.write_text("y,x\n0,1\n0,2\n1,3\n1,4\n")
    assert main(["fit", str(path), "y ~ x", "--model", "logistic"]) == 1
    assert capsys.readouterr().out.startswith("SEPARATED")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["fit", "nowhere.csv", "y ~ x"], "there is no file nowhere.csv"),
        (["fit", "data.xyz", "y ~ x"], "must end in .csv, .tsv, .parquet"),
        (["fit", "DATA", "y ~ z"], "there is no column 'z'"),
        (["fit", "DATA", "y ~ x", "--model", "nope"], "is not a built-in model"),
        (["fit", "DATA", "y ~ x", "--model", "__import__('os')"], "is not a built-in model"),
        (["fit", "DATA", "y ~ x", "--model", "poisson(exposure=3, colour=1)"], "--model"),
        (["fit", "DATA", "y ~ x", "--also", "years"], "--also takes LEAF=COLUMN"),
        (["fit", "DATA", "y ~ x", "--model", "poisson", "--out", "t.doc"], "must end in .md"),
        (["groups", "DATA", "y ~ x", "--by", "nope"], "there is no column 'nope'"),
    ],
)
def test_what_is_refused_is_one_sentence_and_status_two(data, capsys, words, sentence):
    assert main([str(data) if word == "DATA" else word for word in words]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert sentence in error and error.startswith(f"jaxmle {words[0]}: ")


def test_the_module_runs_as_a_command(data):
    done = subprocess.run(
        [sys.executable, "-m", "jaxmle", "describe", str(data)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "years" in done.stdout
