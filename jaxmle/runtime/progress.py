"""Progress of a long run: a line that rewrites itself on a terminal, lines in a log, nothing
for the first two seconds.
"""

from __future__ import annotations

import sys
import time
from typing import TextIO

QUIET = 2.0  # seconds
LOGGED = 15.0  # seconds between two lines of a log
BAR_COLUMNS = 24


class Progress:
    """Counts fits as they end, from the host.

    Args:
        total: fits in all.
        shown: None for silence in the first two seconds, True for lines at once, False for none.
        about: what is to be done, said once above the first line.
        stream: where to; standard error if None.
    """

    def __init__(
        self, total: int, shown: bool | None, about: str = "", stream: TextIO | None = None
    ) -> None:
        self.total = total
        self.done = 0
        self.about = about
        self.stream = sys.stderr if stream is None else stream
        self.shown = shown
        self.terminal = bool(getattr(self.stream, "isatty", lambda: False)())
        self.begun = time.monotonic()
        self.told = self.begun
        self.lines = 0
        self.warm: tuple[float, int] | None = None

    def add(self, fits: int) -> None:
        """So many more fits have ended."""
        self.done += fits
        now = time.monotonic()
        if self.warm is None:
            self.warm = (
                now,
                self.done,
            )  # the first chunk has compiled: the pace is that of the others
        if self.shown is False or (self.shown is None and now - self.begun < QUIET):
            return
        if now - self.told >= (0.1 if self.terminal else LOGGED) or self.lines == 0:
            self._tell(now)

    def _tell(self, now: float) -> None:
        if self.lines == 0 and self.about:
            self.stream.write(f"jaxmle.fit_batch: {self.about}\n")
        self.told, self.lines = now, self.lines + 1
        line = f"jaxmle.fit_batch: {self.line(now)}"
        self.stream.write(f"\r{line}\x1b[K" if self.terminal else f"{line}\n")
        self.stream.flush()

    def line(self, now: float) -> str:
        """Fits done, and the rate and the time remaining as soon as there is a pace to tell
        them by.
        """
        full = int(BAR_COLUMNS * self.done / max(self.total, 1))
        text = f"[{'#' * full}{'.' * (BAR_COLUMNS - full)}] {self.done:,} of {self.total:,} fits"
        begun, before = self.warm or (now, self.done)
        if self.done == self.total:
            return f"{text} in {clock(now - self.begun)}"
        if self.done <= before or now <= begun:
            return text
        rate = (self.done - before) / (now - begun)
        return f"{text}, {rate:,.0f} a second, {clock((self.total - self.done) / rate)} left"

    def close(self) -> None:
        """The last line, where there was one."""
        if self.lines:
            self._tell(time.monotonic())
            if self.terminal:
                self.stream.write("\n")
                self.stream.flush()


def clock(seconds: float) -> str:
    """Seconds as a person says them."""
    if not seconds < 1e7:
        return "unknown time"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes:02d} min"
        if hours
        else f"{minutes} min {rest:02d} s"
        if minutes
        else f"{rest} s"
    )
