"""How a batch is divided: members in a block, blocks in a chunk, and the memory needed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import ModuleType
from typing import NamedTuple

import numpy as np

CACHED_BLOCK_BYTES = 2**20  # bytes of live arrays in a block that stay in a core's cache
CHUNK_DATA_BYTES = 2**26  # bytes of the data of a chunk on a CPU
CHUNK_STATE_BYTES = 2**25  # bytes of its states and records
# members of a chunk; 2048 where 1024 would do too: a tenth less for W2 and W3, of calls and of
# waiting for them
CHUNK_SIZES = (16, 128, 1024, 2048, 8192)
# Members that move together in NumPy: a step costs 0.4 ms and 0.5 µs a member. The chunks of their
# data stay as they are, and are evaluated one after the other.
MEMBERS_A_PIECE = 8192
PIECE_STATE_BYTES = 2**27  # bytes of their states and records
PIECE_DATA_BYTES = 2**28  # bytes of their data
# members of a block on a CPU, at least and at most: wider ones were 5 to 20 % slower at 25 to 81
# rows, and leave fewer to skip
BLOCK_SIZE_RANGE = (8, 32)
# Members of a chunk, all in one block, of one accelerator: few numbers, each compiled by itself,
# and from 8 192 on at most a fifth of the slots stays empty.
SIZES_ON_ACCELERATOR = (
    *(1, 4, 16, 128, 1024, 2048, 4096),
    *(quarters << shift for shift in range(11, 14) for quarters in (4, 5, 6, 7)),
    2**16,
)
SHARE_OF_ACCELERATOR = 0.25  # of its free memory, for what a chunk holds there


@dataclass(frozen=True)
class Schedule:
    """How one bucket is divided: into chunks of ``blocks`` × ``block_size`` members, several of
    which make up a piece.
    """

    block_size: int
    blocks: int
    chunks: int
    # what the state machine has room for: at least ``members``, and the same for most buckets
    slots: int
    chunks_a_piece: int = 1

    @property
    def members(self) -> int:
        """Members in a chunk."""
        return self.block_size * self.blocks

    @property
    def members_a_piece(self) -> int:
        return self.members * self.chunks_a_piece


def free_bytes() -> float:
    """The memory available without swapping, on Linux, macOS and Windows; infinite if unknown."""
    psutil = _psutil()
    return float("inf") if psutil is None else float(psutil.virtual_memory().available)


def resident_bytes() -> float:
    """The memory that this process holds; 0 if unknown."""
    psutil = _psutil()
    return 0.0 if psutil is None else float(psutil.Process().memory_info().rss)


def _psutil() -> ModuleType | None:
    """The package psutil, imported by the first batch; None if it is not available."""
    try:
        import psutil
    except ImportError:  # it is compiled, and a browser or a rare system has no wheel of it
        return None
    return psutil


class Sizes(NamedTuple):
    """The bytes of one member, and how many members there are."""

    total: int  # members of all buckets
    members: int  # of this one
    data: float  # bytes of the data
    live: float  # bytes that one evaluation touches, the data among them
    record: float  # bytes of the state and the record


def cut(
    sizes: Sizes, devices: int, free: float, block: int | None, on_accelerator: bool
) -> Schedule:
    """The schedule of a bucket. Only a few numbers of slots occur, so that the programs of the
    state machine are compiled once for all buckets.

    Args:
        free: bytes that may be used, of all devices.
        block: the block size that the user asks for; of a CPU.
    """
    if on_accelerator:
        return _cut_for_accelerator(sizes, devices, free)
    counts = [size * devices for size in CHUNK_SIZES]
    data_budget, state_budget = (
        min(room, free / 4) for room in (CHUNK_DATA_BYTES, CHUNK_STATE_BYTES)
    )
    enough = next((count for count in counts if count >= sizes.total), counts[-1])
    slots = max(
        [c for c in counts if c <= enough and c * 3 * sizes.record <= state_budget],
        default=counts[0],
    )
    narrow = 2 ** np.floor(
        np.log2(np.clip(CACHED_BLOCK_BYTES / max(sizes.live, 1.0), *BLOCK_SIZE_RANGE))
    )
    block_size = int(min(block or narrow, slots // devices))
    if devices > 1:
        blocks = slots // devices // block_size * devices
        whole = blocks * block_size
        return Schedule(block_size, blocks, -(-sizes.members // whole), whole)
    room = max(
        1, min(slots // block_size, int(data_budget / max(block_size * 2 * sizes.data, 1.0)))
    )
    blocks = min(
        room, 1 << max(0, (-(-sizes.members // block_size) - 1).bit_length())
    )  # a power of two, so that batches of like size share programs
    return Schedule(block_size, blocks, -(-sizes.members // (block_size * blocks)), slots)


def with_larger_pieces(schedule: Schedule, sizes: Sizes, free: float) -> Schedule:
    """The schedule for a state machine in NumPy, to which the number of its members is free."""
    state_budget, data_budget = (
        min(room, free / 4) for room in (PIECE_STATE_BYTES, PIECE_DATA_BYTES)
    )
    most = min(
        MEMBERS_A_PIECE,
        state_budget / (3 * sizes.record),
        data_budget / max(2 * sizes.data, 1.0),
    )
    chunks_a_piece = max(1, int(most / schedule.members))
    pieces = max(1, -(-schedule.chunks // chunks_a_piece))
    return replace(schedule, chunks_a_piece=max(1, -(-schedule.chunks // pieces)))


def _cut_for_accelerator(sizes: Sizes, devices: int, free: float) -> Schedule:
    """One block a device: its data, what an evaluation touches, and the states of an ascent, before
    and after a step and at its best.
    """
    of_a_member = sizes.data + sizes.live + 3 * sizes.record
    most = SHARE_OF_ACCELERATOR * free / devices / max(of_a_member, 1.0)
    possible = [size for size in SIZES_ON_ACCELERATOR if size <= most] or [1]

    def enough(members: int) -> int:
        return next((s for s in possible if s * devices >= members), possible[-1])

    block_size = enough(sizes.members)
    chunk = block_size * devices
    slots = chunk if devices > 1 else enough(sizes.total)
    return Schedule(block_size, devices, -(-sizes.members // chunk), slots)
