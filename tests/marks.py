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


# A verdict that is still wrong, in some of its forms at least: the test says what is right. A form
# that has come right passes, hence not strict; the mark goes with the last that is wrong.
not_earned_yet = pytest.mark.xfail(strict=False, reason="the verdict is not earned yet")
