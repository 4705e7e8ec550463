"""Strict numerics for every test: ranks never promote in silence, and compiled programs are kept between runs."""

import gc
import os
from pathlib import Path

os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".cache" / "jax")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("MPLBACKEND", "Agg")
# Most of the time of these tests is compiling; without LLVM's optimisations it is a quarter less, and the arithmetic is the same.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import jax
import pytest

ENOUGH = 30_000  # memory maps, of 65 530 that Linux allows a process


@pytest.fixture(autouse=True, scope="module")
def _compiled_programs_end_before_the_memory_maps_do():
    """Every compiled program holds memory maps: some thousands of tests in one process run out of them."""
    yield
    maps = Path("/proc/self/maps")
    if not maps.exists() or maps.read_bytes().count(b"\n") > ENOUGH:
        jax.clear_caches()
        gc.collect()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks what tests/thorough.txt lists, by the beginning of its name."""
    listed = tuple(
        line
        for line in (Path(__file__).parent / "thorough.txt").read_text(encoding="utf-8").split("\n")
        if line and not line.startswith("#")
    )
    for item in items:
        if item.nodeid.startswith(listed):
            item.add_marker(pytest.mark.thorough)
