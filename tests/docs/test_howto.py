"""The code of every page runs as it stands and prints what the page says."""

import contextlib
import io

import pytest

from .pages import Page, differences, pages

# These compile much: two to fifty seconds of one core each. The other pages together take less than a minute.
COSTLY = {
    *("howto/bootstrap", "howto/censoring", "howto/clusters", "howto/constraints"),
    *("howto/derivatives", "howto/distributions", "howto/functions-of-parameters"),
    *("howto/groups", "howto/many-data-sets", "howto/mixtures", "howto/model-choice"),
    *("howto/pipelines", "howto/plotting", "howto/priors", "howto/residuals"),
    *("howto/lint", "howto/robust-standard-errors", "howto/separation"),
    *("howto/simulation-studies", "howto/survival"),
    *("howto/time-series", "migrating/iminuit", "migrating/statsmodels"),
}
WITH_CODE = [page for page in pages() if any(block[0] == "python" for block in page.blocks())]


def marked(page: Page):
    marks = [pytest.mark.thorough] if page.name in COSTLY else []
    return pytest.param(page, id=page.name, marks=marks)


@pytest.mark.parametrize("page", [marked(page) for page in WITH_CODE])
def test_the_code_of_a_page_runs_and_prints_what_the_page_says(page):
    """Blocks of Python share one namespace; a block of text after one is what it prints."""
    namespace, printed = {"__name__": page.name}, ""
    for language, block, line in page.blocks():
        if language == "text":
            assert not differences(printed, block)
            continue
        code = "\n" * (line - 1) + block  # a traceback names the line of the page
        with contextlib.redirect_stdout(io.StringIO()) as stream:
            exec(compile(code, str(page.path), "exec"), namespace)
        printed = stream.getvalue()


def test_every_page_that_is_marked_costly_exists():
    assert {page.name for page in WITH_CODE} >= COSTLY


@pytest.mark.parametrize(
    ("printed", "promised", "agree"),
    [
        ("a 1.234", "a 1.235", True),  # the last digit
        ("a 1.234", "a 1.239", False),
        ("1.2e-05", "1.3e-05", True),
        ("1.2e-05", "1.2e-06", False),
        ("CONVERGED 1.0", "SEPARATED 1.0", False),
        ("[1.  2.]", "[1. 2.]", True),  # spaces
        ("n = 12", "n = 13", True),
        ("n = 12", "n = 120", False),
    ],
)
def test_outputs_are_compared_to_the_last_digit_shown(printed, promised, agree):
    assert (not differences(printed, promised)) == agree
