"""Strict numerics for every test: ranks never promote in silence, and compiled programs are kept between runs."""

import gc
import os
from pathlib import Path

from tests.xla_flags import xla_flags

os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".cache" / "jax")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("XLA_FLAGS", xla_flags())

import jax
import pytest

# Tracing makes many small objects that stay: at Python's usual threshold of 700 the collector goes over them
# so often that it takes a fifth of the time of the tests.
OBJECTS_BEFORE_COLLECTION = 100_000
gc.freeze()
gc.set_threshold(OBJECTS_BEFORE_COLLECTION, 50, 100)

MAX_MEMORY_MAPS = 30_000  # of 65 530 that Linux allows a process
MAX_RESIDENT_BYTES = 3 * 2**30  # of a process: as many run as there are cores


@pytest.fixture(autouse=True, scope="module")
def _compiled_programs_end_before_memory_does():
    """Every compiled program holds memory and memory maps: some thousands of tests in one process run out of them."""
    yield
    if _is_full():
        jax.clear_caches()
        gc.collect()


def _is_full():
    """Whether this process should let go of its compiled programs; True where that cannot be told."""
    maps, sizes = Path("/proc/self/maps"), Path("/proc/self/statm")
    if not maps.exists() or not sizes.exists():
        return True
    resident = int(sizes.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return maps.read_bytes().count(b"\n") > MAX_MEMORY_MAPS or resident > MAX_RESIDENT_BYTES
