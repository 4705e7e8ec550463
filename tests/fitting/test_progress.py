"""The line of progress: silent for two seconds, one line rewritten on a terminal, few lines in a log, a pace that leaves compilation out."""

import io
import sys

import jax.numpy as jnp
import numpy as np
import pytest

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
    return fake


def test_a_short_run_says_nothing(time):
    stream = io.StringIO()
    shown = Progress(10, None, "about", stream)
    time.now += 1.9
    shown.add(10)
    shown.close()
    assert stream.getvalue() == ""


def test_a_log_gets_few_lines(time):
    stream = io.StringIO()
    shown = Progress(1000, None, "1,000 members", stream)
    for _ in range(100):
        time.now += 1.0
        shown.add(10)
    shown.close()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "jaxmle.fit_batch: 1,000 members"
    assert 5 < len(lines) < 12
    assert lines[-1].endswith("1,000 of 1,000 fits in 1 min 40 s")


def test_the_pace_leaves_the_first_chunk_out(time):
    shown = Progress(1000, True, "", io.StringIO())
    time.now += 50.0  # it compiled
    shown.add(100)
    time.now += 1.0
    shown.add(300)
    assert shown.line(time.now).endswith("400 of 1,000 fits, 300 a second, 2 s left")


def test_a_terminal_keeps_to_one_line(time):
    stream = Terminal()
    shown = Progress(30, None, "", stream)
    for _ in range(3):
        time.now += 3.0
        shown.add(10)
    shown.close()
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().count("\r") == 4


def test_false_is_silence(time):
    stream = io.StringIO()
    shown = Progress(10, False, "about", stream)
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
