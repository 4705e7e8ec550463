"""Marks for some of the cases of a parametrised test."""

import pytest


def thorough_where(cases, is_thorough):
    """The cases as parameters; those for which ``is_thorough`` is true are left to ``make test-all``."""
    return [
        pytest.param(case, marks=pytest.mark.thorough if is_thorough(case) else ())
        for case in cases
    ]


def thorough_but_for(cases, *usual):
    """The cases as parameters, of which ``make test`` runs the usual ones alone."""
    return thorough_where(cases, lambda case: case not in usual)


# A verdict that is still wrong in the cases named, by the ids of their parameters, or in all: the test says
# what is right. ``tests/verdict/conftest.py`` reads it; a case that is right on some releases of jax only is named.
not_earned_yet = pytest.mark.not_earned_yet
