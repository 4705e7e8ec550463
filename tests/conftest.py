"""Strict numerics for every test: ranks never promote in silence, and compiled programs are kept between runs."""

import gc
import os
from pathlib import Path

os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("MPLBACKEND", "Agg")

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def _compiled_programs_end_with_their_module():
    """Every compiled program holds memory maps, of which a process has 65 530: some thousands of tests in one process run out of them."""
    yield
    jax.clear_caches()
    gc.collect()
