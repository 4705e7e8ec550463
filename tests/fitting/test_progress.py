"""Progress of a run: nothing for two seconds, then a bar by tqdm on a terminal and in a notebook, and few lines in a log."""

import io
import re
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import tqdm.std

import jaxmle as jm
from jaxmle.runtime import progress
from jaxmle.runtime.progress import Progress, clock


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def time(monkeypatch):
    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    fake = Clock()
    monkeypatch.setattr(progress, "time", fake)
    monkeypatch.setattr(tqdm.std, "time", fake.monotonic)
    return fake


def test_a_short_run_says_nothing(time):
    stream = io.StringIO()
    shown = Progress(10, None, "about", stream=stream)
    time.now += 1.9
    shown.add(10)
    shown.close()
    assert stream.getvalue() == ""


def test_a_log_gets_few_lines(time):
    stream = io.StringIO()
    shown = Progress(1000, None, "1,000 members", stream=stream)
    for _ in range(100):
        time.now += 1.0
        shown.add(10)
    shown.close()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "jaxmle.fit_batch: 1,000 members"
    assert 5 < len(lines) < 12
    assert "1000/1000" in lines[-1] and "\r" not in stream.getvalue()


def test_a_bar_of_bootstrap_was_called_fit_batch(time):
    stream = io.StringIO()
    shown = Progress(10, True, "10 refits", "bootstrap", stream)
    shown.add(10)
    shown.close()
    assert all(line.startswith("jaxmle.bootstrap: ") for line in stream.getvalue().splitlines())


def test_the_pace_leaves_the_first_chunk_out(time):
    stream = io.StringIO()
    shown = Progress(1000, True, stream=stream)
    time.now += 50.0  # it compiled
    shown.add(100)
    time.now += 20.0
    shown.add(300)
    assert " 400/1000 " in stream.getvalue() and "15.00 fits/s" in stream.getvalue()


def test_a_terminal_keeps_to_one_line(time):
    stream = Terminal()
    shown = Progress(30, None, stream=stream)
    for _ in range(3):
        time.now += 3.0
        shown.add(10)
    shown.close()
    assert stream.getvalue().count("\n") == 1
    assert re.search("100%.* 30/30 ", stream.getvalue().splitlines()[-1])


def test_a_notebook_showed_no_bar(time, monkeypatch):
    """Lines to standard error are a red block there; tqdm has a bar for notebooks, which takes no stream of text."""
    made = []

    class Bar:
        def __init__(self, **options):
            made.append(options)

        def update(self, fits):
            made.append(fits)

        def close(self):
            made.append("closed")

    monkeypatch.setattr(Bar, "__module__", "tqdm.notebook")
    monkeypatch.setattr(progress, "_bar_class", lambda: Bar)
    shown = Progress(30, True)
    for _ in range(2):
        shown.add(10)
    shown.close()
    assert made[0]["total"] == 30 and made[0]["initial"] == 10 and made[0]["mininterval"] < 1
    assert made[0]["file"] is sys.stderr
    assert made[1:] == [10, "closed"]


def test_a_notebook_without_widgets_is_no_warning(monkeypatch):
    import tqdm.auto

    monkeypatch.delitem(sys.modules, "tqdm.auto")
    monkeypatch.setitem(sys.modules, "tqdm", tqdm)
    assert issubclass(progress._bar_class(), tqdm.std.tqdm)


def test_false_is_silence(time):
    stream = io.StringIO()
    shown = Progress(10, False, "about", stream=stream)
    time.now += 1000.0
    shown.add(10)
    shown.close()
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.4, "0 s"),
        (75, "1 min 15 s"),
        (3600 * 5 + 61, "5 h 01 min"),
        (float("inf"), "unknown time"),
    ],
)
def test_clock(seconds, told):
    assert clock(seconds) == told


def test_a_fit_tells_each_step_or_keeps_silent(capsys, monkeypatch):
    y = np.array([1.0, 3.0, 2.0, 6.0])

    def rate(p, d):
        return jnp.log(p["rate"]) - p["rate"] * d

    fit = jm.fit(rate, {"rate": 1.0}, y, constraints={"rate": jm.positive}, progress=True)
    assert len(capsys.readouterr().err.splitlines()) >= int(fit.steps)
    ticks = iter(range(0, 10_000, 5))
    slow = type(
        "Clock", (), {"monotonic": staticmethod(lambda: next(ticks))}
    )  # five seconds a look
    monkeypatch.setattr(sys.modules["jaxmle.fitting.fit"], "time", slow)
    jm.fit(rate, {"rate": 1.0}, y, constraints={"rate": jm.positive}, progress=False)
    assert capsys.readouterr().err == ""
    jm.fit(rate, {"rate": 1.0}, y, constraints={"rate": jm.positive})
    assert "SE to go" in capsys.readouterr().err
