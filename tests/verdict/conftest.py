"""Verdicts that are still wrong are expected to fail, case by case; all others have to hold."""

import pytest


def pytest_collection_modifyitems(items):
    wrong = pytest.mark.xfail(strict=False, reason="the verdict is not earned yet")
    for item in items:
        for mark in item.iter_markers("not_earned_yet"):
            case = getattr(item, "callspec", None)
            if not mark.args or (case is not None and case.id in mark.args):
                item.add_marker(wrong)
