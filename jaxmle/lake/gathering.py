"""What is known about the finished files: which they are, how their fits ended, how they were
coded, and their keys.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from jaxmle._types import Tree, ndarray
from jaxmle.lake.key_index import KeyIndex, hashes_of
from jaxmle.lake.outputs import MANIFEST_OF_A_LAKE, Folder, read_fits, read_footer
from jaxmle.lake.partitions import Partition, Source
from jaxmle.lake.record import LakeFits
from jaxmle.lake.tables import key_table

if TYPE_CHECKING:
    import pyarrow as pa

KEYS_SHOWN = 3
FOOTER_KINDS = {"rows": int, "dropped": int, "groups": int, "statuses": dict, "coding": str}


class Gathering:
    """The finished files of one call, in the order of the source."""

    def __init__(self, folder: Folder, files: Source, by: tuple[str, ...]) -> None:
        self.folder = folder
        self.partitions = files.partitions
        self.others = files.others
        self.by = by
        self.taken: dict[str, dict[str, Tree]] = {}  # the footer of each file, by the output's name
        all_files = (*files.partitions, *files.others)
        self.place = {partition.output: i for i, partition in enumerate(all_files)}
        self.index = KeyIndex()
        self.skipped = 0
        self.coded: tuple[str, str] | None = None  # the coding of the first file, and its path

    def take_what_is_there(self) -> list[Partition]:
        """Take in the files whose fits are in the folder; return those still to be fitted."""
        there = set(self.folder.names())
        to_do = []
        for partition in self.partitions:
            footer = self._footer(partition, there)
            if footer is None:
                to_do.append(partition)
            else:
                self.take(partition, footer, hashes_of(self._keys(partition)))
        self.skipped = len(self.taken)
        return to_do

    def _footer(self, partition: Partition, there: set[str]) -> dict[str, Tree] | None:
        """The footer of a file's fits; None if there are none of its current version."""
        if partition.output not in there:
            return None
        footer = read_footer(self.folder, partition.output)
        return footer if footer is not None and _is_of(footer, partition) else None

    def compare_with_others(self) -> None:
        """Look for keys and codings of this part in the finished files of the other parts.

        Each part does this after it has written its own files, so the last one sees all.
        """
        there = set(self.folder.names())
        for partition in self.others:
            footer = self._footer(partition, there)
            if footer is not None:
                self._refuse_other_coding(partition, footer["coding"])
                hashes = hashes_of(self._keys(partition))
                self.refuse_shared_keys(self.index.add(self.place[partition.output], hashes))
        self.refuse_shared_keys(self.index.shared())

    def take(self, partition: Partition, footer: dict[str, Tree], hashes: ndarray) -> None:
        """Take in a finished file.

        Raises:
            ValueError: its coding differs from another's, or they share a key.
        """
        self._refuse_other_coding(partition, footer["coding"])
        self.taken[partition.output] = footer
        self.refuse_shared_keys(self.index.add(self.place[partition.output], hashes))

    def _refuse_other_coding(self, partition: Partition, coding: str) -> None:
        """Raise, since coefficients of the same name would mean different things."""
        if not coding:  # a file without rows
            return
        if self.coded is None:
            self.coded = (coding, partition.path)
        first, path = self.coded
        if coding == first:
            return
        before = json.loads(first)
        now = json.loads(coding)
        what = "parameters"
        for what, known, other in _differences(before, now):
            raise ValueError(
                f"{what} is coded from {_listed(known)} in {path} and from "
                f"{_listed(other)} in {partition.path}: coefficients with the same name "
                "would mean different things. Code its categories as columns of 0 and 1, "
                "or partition the source so that each file has all of them"
            )
        raise ValueError(
            f"the parameters are {_listed(before[what])} in {path} and "
            f"{_listed(now[what])} in {partition.path}: all files must have the same "
            "parameters"
        )

    def refuse_shared_keys(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Raise for a key that is in two files; equal hashes alone are no proof."""
        for left, right in pairs:
            files = [(*self.partitions, *self.others)[i] for i in (left, right)]
            keys = [self._keys(file) for file in files]
            shared = keys[0].join(keys[1], list(self.by), join_type="inner")
            if left == right or not shared.num_rows:
                continue
            listed = ", ".join(_key_text(row) for row in shared.slice(0, KEYS_SHOWN).to_pylist())
            raise ValueError(
                f"{shared.num_rows:,} groups are in two files, such as {listed}, in "
                f"{files[0].path} and {files[1].path}: each would be fitted in two parts. "
                "Partition the source by its keys first (DuckDB: COPY (SELECT *, "
                f"hash({', '.join(self.by)}) % 64 AS bucket FROM 'source/**/*.parquet') "
                "TO 'cut' (FORMAT parquet, PARTITION_BY bucket); for pyarrow see "
                f"docs/scale.md), and delete {self.folder.path}, which holds fits of "
                "parts of groups"
            )

    def _keys(self, partition: Partition) -> pa.Table:
        return key_table(read_fits(self.folder, partition.output), self.by)

    def record(self) -> LakeFits:
        """The record of all that was taken."""
        footers = self.taken.values()
        statuses: Counter[str] = Counter()
        for footer in footers:
            statuses.update(footer["statuses"])
        known = {*self.place, MANIFEST_OF_A_LAKE}
        names = sorted(set(self.folder.names()) - known)
        return LakeFits(
            path=self.folder.path,
            folder=self.folder,
            files=tuple(name for name in self.place if name in self.taken),
            by=self.by,
            statuses=dict(statuses),
            groups=sum(footer["groups"] for footer in footers),
            rows=sum(footer["rows"] for footer in footers),
            dropped=sum(footer["dropped"] for footer in footers),
            fitted=len(self.taken) - self.skipped,
            skipped=self.skipped,
            stale=tuple(name for name in names if not name.startswith(".")),
        )


def _is_of(footer: dict[str, Tree], partition: Partition) -> bool:
    """Whether fits are those of the current version of the file."""
    sound = all(type(footer.get(name)) is kind for name, kind in FOOTER_KINDS.items())
    return sound and footer.get("source") == partition.facts


def _differences(before: dict[str, Tree], now: dict[str, Tree]) -> Iterable[tuple[str, Tree, Tree]]:
    """Columns whose levels differ: name, levels before, levels now."""
    for name, known in (before.get("levels") or {}).items():
        other = (now.get("levels") or {}).get(name)
        if other != known:
            yield name, known, other or []
    if before.get("response") != now.get("response"):
        yield "the response", before.get("response") or [], now.get("response") or []


def _listed(values: Tree) -> str:
    return ", ".join(map(str, values)) or "nothing"


def _key_text(row: dict[str, Tree]) -> str:
    return " and ".join(f"{name}={value!r}" for name, value in row.items())
