"""For the tests and for the examples in docstrings alike."""

import pytest


@pytest.fixture(autouse=True)
def _precision_stays_as_it_was():
    """marginaleffects, and a user's script, switch float64 on for the whole process."""
    import jax  # after the environment is set by tests/conftest.py

    before = jax.config.jax_enable_x64
    yield
    if jax.config.jax_enable_x64 != before:
        jax.config.update("jax_enable_x64", before)
