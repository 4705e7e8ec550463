"""The keys of all files, to find any that is in two of them: its rows were fitted in two parts, and
neither fit is that of the group.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from jaxmle._types import ndarray

if TYPE_CHECKING:
    import pyarrow as pa

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ over the golden ratio (Knuth 1998, vol. 3, 6.4)


def hashes_of(keys: pa.Table) -> ndarray:
    """A 64-bit hash for each row of a table of keys, (b,)."""
    total = np.zeros(keys.num_rows, dtype=np.uint64)
    for column in keys.columns:
        digests = (
            xxhash.xxh3_64_intdigest(str(value).encode("utf-8", "surrogatepass"))
            for value in column.to_pylist()
        )
        total = total * MULTIPLIER + np.fromiter(digests, np.uint64, keys.num_rows)
    return total


class KeyIndex:
    """The hashes of the keys of the files, searched whenever their number has doubled: each is
    searched once or twice, and a lake whose groups are split is detected at its second file.
    """

    def __init__(self) -> None:
        self.hashes = np.zeros(0, dtype=np.uint64)  # sorted
        self.files = np.zeros(0, dtype=np.int32)
        self.waiting: list[tuple[ndarray, int]] = []
        self.count_waiting = 0

    def add(self, file: int, hashes: ndarray) -> Iterable[tuple[int, int]]:
        """Take in the keys of a file; return pairs of files that may share one."""
        self.waiting.append((hashes, file))
        self.count_waiting += len(hashes)
        return self.shared() if self.count_waiting >= len(self.hashes) else ()

    def shared(self) -> list[tuple[int, int]]:
        """Pairs of files with a hash in common, among all that were taken in."""
        parts = [self.hashes, *(hashes for hashes, _ in self.waiting)]
        owners = [self.files]
        owners += [np.full(len(hashes), file, np.int32) for hashes, file in self.waiting]
        joined = np.concatenate(parts)
        order = np.argsort(joined, kind="stable")
        self.hashes = joined[order]
        self.files = np.concatenate(owners)[order]
        self.waiting = []
        self.count_waiting = 0
        repeated = np.flatnonzero(self.hashes[1:] == self.hashes[:-1])
        pairs = np.stack([self.files[repeated], self.files[repeated + 1]], axis=1)
        return [tuple(sorted(pair)) for pair in np.unique(pairs, axis=0).tolist()]
