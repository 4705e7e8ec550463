"""Progress of a long run by tqdm: a bar on a terminal, a widget in a notebook, a line now and then
in a log, nothing for the first two seconds.

A single fit has no total to make a bar of: ``fit`` and ``fit_stochastic`` print lines of their own.
"""

from __future__ import annotations

import sys
import time
import warnings
from typing import TextIO

from jaxmle._types import Foreign

SECONDS_BEFORE_A_BAR = 2.0  # seconds
SECONDS_BETWEEN_LINES = 2.0  # of a single fit, which has no bar
SECONDS_BETWEEN_LOG_LINES = 15.0  # seconds between two lines of a log
SECONDS_BETWEEN_STATES = 0.1  # seconds between two states of a bar
MAX_SECONDS_SHOWN = 1e7  # some four months


class Progress:
    """Counts fits as they end, from the host.

    Args:
        total: fits in all.
        shown: None for silence in the first two seconds, True for a bar at once, False for none.
        about: what is to be done, said once above the bar.
        procedure: the name of the public function that runs.
        stream: where to; standard error if None.
        unit: what is counted.
    """

    def __init__(
        self,
        total: int,
        shown: bool | None,
        about: str = "",
        procedure: str = "fit_batch",
        stream: TextIO | None = None,
        unit: str = " fits",
    ) -> None:
        self.unit = unit
        self.total = total
        self.done = 0
        self.shown = shown
        self.name = f"jaxmle.{procedure}"
        self.about = f"{self.name}: {about}" if about else ""
        self.stream = sys.stderr if stream is None else stream
        self.begun = time.monotonic()
        self.bar: Foreign = None

    def add(self, fits: int) -> None:
        """So many more fits have ended."""
        self.done += fits
        waits = self.shown is None and time.monotonic() - self.begun < SECONDS_BEFORE_A_BAR
        if self.bar is not None:
            self.bar.update(fits)
        elif self.shown is not False and not waits:
            self.bar = self._opened()

    def _opened(self) -> Foreign:
        """The bar from now on: its pace is that of the fits to come, which no longer compile."""
        kind = _bar_class()
        in_notebook = any("notebook" in base.__module__ for base in kind.__mro__)
        out: Foreign = _Lines(self.stream)
        if self.about:
            self.stream.write(f"{self.about}\n")
        return kind(
            total=self.total,
            initial=self.done,
            desc=self.name,
            unit=self.unit,
            mininterval=SECONDS_BETWEEN_STATES
            if out.isatty() or in_notebook
            else SECONDS_BETWEEN_LOG_LINES,
            dynamic_ncols=out.isatty(),
            file=self.stream if out.isatty() or in_notebook else out,
        )

    def close(self) -> None:
        """The last state of the bar, where there was one."""
        if self.bar is not None:
            self.bar.close()


def _bar_class() -> Foreign:
    """The bar for where this runs; a notebook without ipywidgets gets a bar of text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that widgets would look better is no news of a fit
        from tqdm.auto import tqdm
    return tqdm


class _Lines:
    """A log, in which each state of a bar is a line of its own."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.encoding = getattr(stream, "encoding", None)
        self.last = ""

    def isatty(self) -> bool:
        return bool(getattr(self.stream, "isatty", lambda: False)())

    def write(self, text: str) -> None:
        state = text.strip("\r\n ")
        if state and state != self.last:
            self.stream.write(f"{state}\n")
            self.last = state

    def flush(self) -> None:
        self.stream.flush()


def clock(seconds: float) -> str:
    """Seconds as a person says them."""
    if not seconds < MAX_SECONDS_SHOWN:
        return "unknown time"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
