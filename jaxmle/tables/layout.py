"""A page: a status, facts, grids of cells and notes, set as text at most 100 columns wide."""

from __future__ import annotations

import textwrap
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jaxmle.tables.notes import printed
from jaxmle.tables.numerals import aligned

PAGE_COLUMNS = 100
COLUMN_GAP = "  "
NAME_ROOM = 20  # columns that a name may take before numbers are shortened
LEAST_ROOM = 10  # columns a name always has
ELLIPSIS = "..."


@dataclass(frozen=True)
class Grid:
    """A table of cells. The first column holds names; `words` lists the columns that are not
    numbers.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    words: tuple[int, ...] = (0,)

    def columns(self) -> list[tuple[str, ...]]:
        """The cells by column, without the header; numbers aligned at their decimal points."""
        columns = list(zip(*self.rows, strict=True)) if self.rows else [()] * len(self.header)
        return [cells if j in self.words else aligned(cells) for j, cells in enumerate(columns)]


@dataclass(frozen=True)
class Page:
    """What every output format shows: status, labelled facts, grids, notes."""

    status: str
    sound: bool
    facts: tuple[tuple[str, str], ...]
    grids: tuple[Grid, ...]
    notes: tuple[str, ...] = ()


def text(page: Page) -> str:
    """The page as plain text of at most `PAGE_COLUMNS` columns, the status line first.

    >>> grid = Grid(("", "estimate", "z"), (("mu", "10.25", "4.10"), ("log_sigma", "-0.5", "n/a")))
    >>> print(text(Page("CONVERGED", True, (("n", "12"), ("df", "2")), (grid,))))
    CONVERGED
    n = 12    df = 2
    <BLANKLINE>
               estimate     z
    mu            10.25  4.10
    log_sigma     -0.5    n/a
    """
    facts = pack([f"{label} = {value}" for label, value in page.facts])
    parts = [*wrap(page.status), *facts]
    for grid in page.grids:
        parts += ["", *grid_lines(grid)]
    notes = [line for note in page.notes for line in wrap(note)]
    return "\n".join([*parts, *([""] if notes else []), *notes])


def first_fitting(pages: Iterable[Page]) -> Page:
    """The first page whose grids leave room for their names, otherwise the last."""
    remaining = iter(pages)
    page = next(remaining)
    while not _names_fit(page):
        following = next(remaining, None)
        if following is None:
            break
        page = following
    return page


def _names_fit(page: Page) -> bool:
    return all(_name_room(grid) >= min(NAME_ROOM, _longest_name(grid)) for grid in page.grids)


def grid_lines(grid: Grid) -> list[str]:
    """The lines of a grid: title, header, rows; numbers aligned at the decimal point, long
    names elided.
    """
    names = elided([row[0] for row in grid.rows], max(_name_room(grid), LEAST_ROOM))
    columns = [_padded([grid.header[0], *names]), *_other_columns(grid)]
    lines = [COLUMN_GAP.join(cells).rstrip() for cells in zip(*columns, strict=True)]
    return [*wrap(grid.title), *lines] if grid.title else lines


def _other_columns(grid: Grid) -> list[list[str]]:
    """Every column but the first, header included, each padded to its own width."""
    cells = [[head, *column] for head, column in zip(grid.header, grid.columns(), strict=True)]
    return [
        _padded(column) if j in grid.words else _flush_right(column)
        for j, column in enumerate(cells)
    ][1:]


def _name_room(grid: Grid) -> int:
    return PAGE_COLUMNS - sum(len(column[0]) + len(COLUMN_GAP) for column in _other_columns(grid))


def _longest_name(grid: Grid) -> int:
    return max((columns_of(row[0]) for row in grid.rows), default=0)


def _padded(cells: Sequence[str]) -> list[str]:
    width = max(map(columns_of, cells))
    return [cell + " " * (width - columns_of(cell)) for cell in cells]


def _flush_right(cells: Sequence[str]) -> list[str]:
    width = max(map(len, cells))
    return [cell.rjust(width) for cell in cells]


def wrap(sentence: str) -> list[str]:
    """A sentence on lines of at most `PAGE_COLUMNS` columns, the following lines indented."""
    return textwrap.wrap(sentence, PAGE_COLUMNS, subsequent_indent="  ")


def pack(items: Sequence[str]) -> list[str]:
    """Items side by side, as many to a line as fit."""
    lines: list[str] = []
    for item in items:
        joined = f"{lines[-1]}    {item}" if lines else item
        lines = [*lines[:-1], joined] if lines and len(joined) <= PAGE_COLUMNS else [*lines, item]
    return lines


def columns_of(name: str) -> int:
    """Terminal columns a name takes: two for wide East Asian characters, none for combining marks.

    >>> columns_of("beta"), columns_of("価格"), columns_of("e\\u0301")
    (4, 4, 1)
    """
    return sum(_character_columns(character) for character in name)


def _character_columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def elided(names: Sequence[str], room: int) -> list[str]:
    """Names shortened in the middle to `room` columns; those that would look the same end in their
    position.

    >>> elided(["coefficient_of_the_north[12]", "sigma"], 16)
    ['coeffic...th[12]', 'sigma']
    >>> elided(["treatment_a_effect_on_y", "treatment_b_effect_on_y"], 15)
    ['treatm...#0', 'treatm...#1']
    """
    clean = [" ".join(printed(name).split()) for name in names]
    short = [_elide(name, room) for name in clean]
    times = Counter(short)
    return [
        name if times[name] == 1 or name == clean[i] else _head(name, room, f"{ELLIPSIS}#{i}")
        for i, name in enumerate(short)
    ]


def _elide(name: str, room: int) -> str:
    if columns_of(name) <= room:
        return name
    ending = _cut(name[::-1], (room - len(ELLIPSIS)) // 2)[::-1]
    return _cut(name, room - len(ELLIPSIS) - columns_of(ending)) + ELLIPSIS + ending


def _head(name: str, room: int, ending: str) -> str:
    return _cut(name.partition(ELLIPSIS)[0], room - len(ending)) + ending


def _cut(name: str, room: int) -> str:
    """The longest beginning of `name` that takes at most `room` columns."""
    used = 0
    for i, character in enumerate(name):
        used += _character_columns(character)
        if used > room:
            return name[:i]
    return name
