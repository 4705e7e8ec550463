"""How a batch is cut up: members in a block, blocks in a chunk, and the memory that takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

CACHED_BLOCK_BYTES = 2**20  # bytes of live arrays in a block that stay in a core's cache
CHUNK_DATA_BYTES = 2**26  # bytes of the data of a chunk on a CPU
CHUNK_STATE_BYTES = 2**25  # bytes of its states and records
# members of a chunk; 2048 where 1024 would do too: a tenth less for W2 and W3, of calls and of
# waiting for them
CHUNK_SIZES = (16, 128, 1024, 2048, 8192)
# members of a block on a CPU, at least and at most: wider ones were 5 to 20 % slower at 25 to 81
# rows, and leave fewer to skip
BLOCK_SIZE_RANGE = (8, 32)
MEMBERS_A_CHUNK_ON_ACCELERATOR = 2**16  # members of a chunk, all in one block, on an accelerator


@dataclass(frozen=True)
class Schedule:
    """The cut of one bucket: chunks of ``blocks`` × ``block_size`` members."""

    block_size: int
    blocks: int
    chunks: int
    # what the state machine has room for: at least ``members``, and the same for most buckets
    slots: int

    @property
    def members(self) -> int:
        """Members in a chunk."""
        return self.block_size * self.blocks


def free_bytes() -> float:
    """Memory that can be had without swapping, on Linux, macOS and Windows alike; infinite where it
    is not known.
    """
    psutil = _psutil()
    return float("inf") if psutil is None else float(psutil.virtual_memory().available)


def resident_bytes() -> float:
    """Memory that this process holds; 0 where it is not known."""
    psutil = _psutil()
    return 0.0 if psutil is None else float(psutil.Process().memory_info().rss)


def _psutil() -> Any:
    """The package, imported by the first batch; None where it could not be built."""
    try:
        import psutil
    except ImportError:  # it is compiled, and a browser or a rare system has no wheel of it
        return None
    return psutil


def cut(
    total: int,
    members: int,
    data_bytes: float,
    live_bytes: float,
    record_bytes: float,
    devices: int,
    free: float,
    block: int | None,
    wide: bool,
) -> Schedule:
    """The schedule of a bucket. Slots come in few numbers, so that the programs of the state
    machine are compiled once for all buckets.

    Args:
        total: members of all buckets.
        members: of this one.
        data_bytes: of one member.
        live_bytes: what one evaluation of one member touches.
        record_bytes: of one member's state and record.
        free: bytes that may be used.
        block: the block size that the user asks for.
        wide: an accelerator.
    """
    sizes = [
        size * devices
        for size in (
            (MEMBERS_A_CHUNK_ON_ACCELERATOR,) if wide and members > CHUNK_SIZES[-1] else CHUNK_SIZES
        )
    ]
    data_budget, state_budget = (
        min(room * (32 if wide else 1), free / 4) for room in (CHUNK_DATA_BYTES, CHUNK_STATE_BYTES)
    )
    enough = next((size for size in sizes if size >= total), sizes[-1])
    slots = max(
        [size for size in sizes if size <= enough and size * 3 * record_bytes <= state_budget],
        default=sizes[0],
    )
    narrow = 2 ** np.floor(
        np.log2(np.clip(CACHED_BLOCK_BYTES / max(live_bytes, 1.0), *BLOCK_SIZE_RANGE))
    )
    block_size = slots // devices if wide else int(min(block or narrow, slots // devices))
    if devices > 1:
        blocks = slots // devices // block_size * devices
        return Schedule(
            block_size, blocks, -(-members // (blocks * block_size)), blocks * block_size
        )
    room = max(
        1, min(slots // block_size, int(data_budget / max(block_size * 2 * data_bytes, 1.0)))
    )
    blocks = min(
        room, 1 << max(0, (-(-members // block_size) - 1).bit_length())
    )  # a power of two, so that batches of like size share programs
    return Schedule(block_size, blocks, -(-members // (block_size * blocks)), slots)
