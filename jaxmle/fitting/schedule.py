"""How a batch is cut up: lanes in a block, blocks in a chunk, chunks in flight, and the memory that takes."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

CACHED = 2**20  # bytes of live arrays in a block that stay in a core's cache
CHUNK = 2**25  # bytes of a chunk on a CPU
SIZES = (16, 128, 1024, 8192)  # members of a chunk
LANES = (8, 256)  # members of a block on a CPU
WIDE = 2**16  # members of a chunk, all in one block, on an accelerator


@dataclass(frozen=True)
class Schedule:
    """The cut of one bucket: chunks of ``blocks`` × ``lanes`` members."""

    lanes: int
    blocks: int
    chunks: int

    @property
    def members(self) -> int:
        """Members in a chunk."""
        return self.lanes * self.blocks


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def free_bytes() -> float:
    """Memory that can be had without swapping; infinite where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as stream:
            told = {line.split(":")[0]: line.split()[1] for line in stream}
        return 1024.0 * float(told["MemAvailable"])
    except (OSError, KeyError, ValueError):
        return float("inf")


def resident_bytes() -> float:
    """Memory that this process holds; NaN where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as stream:
            return float(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return float("nan")


def cut(members: int, data_bytes: float, live_bytes: float, record_bytes: float, devices: int, workers: int, free: float, block: int | None, wide: bool) -> Schedule:
    """The schedule of a bucket. Chunks have one of few sizes, so that the programs of the state machine are compiled once for all buckets.

    Args:
        data_bytes: of one member.
        live_bytes: what one evaluation of one member touches.
        record_bytes: of one member's state and record.
        free: bytes that may be used.
        block: lanes asked for by the user.
        wide: an accelerator.
    """
    sizes = [size * devices for size in ((WIDE,) if wide and members > SIZES[-1] else SIZES)]
    budget = min(CHUNK * (32 if wide else 1), free / 4 / max(workers, 1))
    enough = next((size for size in sizes if size * workers >= members), sizes[-1])
    seats = max([size for size in sizes if size <= enough and size * (2 * data_bytes + 3 * record_bytes) <= budget], default=sizes[0])
    narrow = 2 ** np.floor(np.log2(np.clip(CACHED / max(live_bytes, 1.0), *LANES)))
    lanes = seats // devices if wide else int(min(block or narrow, seats // devices))
    blocks = -(-seats // (lanes * devices)) * devices
    return Schedule(lanes, blocks, -(-members // (lanes * blocks)))
