"""What ``make docs`` would refuse, read from the files: names that are not there, broken links, pages that nothing leads to."""

import importlib.util
import inspect
import re
from collections import Counter

import pytest

import jaxmle as jm

from .pages import DOCS, ROOT, Page, pages

PAGES = pages()
BY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
SHELVES = (
    "datasets",
    "engines",
    "families",
    "models",
    "plots",
    "sklearn",
    "solvers",
    "special",
    "survival",
)
# The names of a shelf that lists none.
UNLISTED = {"engines": ("ray",)}
NOTEBOOKS = {f"tutorials/{path.stem}" for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")}
NAMES = {page.name for page in PAGES} | NOTEBOOKS
TOCTREE = re.compile(r"^```\{toctree\}\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


def public_names():
    """Every public name with its shelf, once each; a class that two places hand out counts there where it is first."""
    seen = set()
    for name in sorted(jm.__all__, key=lambda name: name in SHELVES):
        value = getattr(jm, name)
        if not inspect.ismodule(value):
            seen.add(id(value))
            yield name
            continue
        for inner in getattr(value, "__all__", None) or UNLISTED[name]:
            if id(getattr(value, inner)) not in seen:
                yield f"{name}.{inner}"


def resolved(page: Page, target: str) -> str:
    """The name of the page that a relative target leads to."""
    path = (page.path.parent / target).resolve()
    return path.relative_to(DOCS.resolve()).as_posix()


def test_the_reference_lists_every_public_name_once():
    directives = r"(?:auto\w+::|\{py:data\}) jaxmle\.([\w.]+)"
    listed = Counter(
        name
        for page in PAGES
        if page.name.startswith("reference/")
        for name in re.findall(directives, page.text())
    )
    assert set(listed) == set(public_names())
    assert not [name for name, count in listed.items() if count > 1]


@BY_PAGE
def test_every_name_that_a_page_speaks_of_exists(page):
    spans = re.findall(r"`jm\.([A-Za-z]\w*(?:\.[A-Za-z]\w*)*)", page.prose())
    for _, block, _ in page.blocks():
        spans += re.findall(r"\bjm\.([A-Za-z]\w*(?:\.[A-Za-z]\w*)*)", block)
    for name in spans:
        value = jm
        for part in name.split("."):
            assert hasattr(value, part), f"jm.{name}"
            value = getattr(value, part)


@BY_PAGE
def test_every_link_of_a_page_leads_somewhere(page):
    for target in re.findall(r"\{doc\}`(?:[^`<]*<)?([^`>]+)>?`", page.prose()):
        assert resolved(page, target) in NAMES, target
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)", page.prose()):
        assert (page.path.parent / target).exists(), target


def test_every_link_of_the_readme_leads_somewhere():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)\)", text)
    assert len(targets) > 20
    assert not [target for target in targets if not (ROOT / target).exists()]


def test_every_page_is_in_a_table_of_contents_once():
    entries = Counter(
        resolved(page, line.strip())
        for page in PAGES
        for block in TOCTREE.findall(page.text())
        for line in block.splitlines()
        if line.strip() and not line.startswith(":")
    )
    assert set(entries) == NAMES - {"index"}
    assert set(entries.values()) == {1}


def test_every_status_has_its_section():
    sections = re.findall(r"^## ([A-Z_]+)$", Page("explanations/statuses").text(), re.M)
    assert sections == [status.name for status in jm.Status]


def test_spans_of_code_that_name_an_object_become_links_to_it():
    path = DOCS / "_ext" / "targets.py"
    specification = importlib.util.spec_from_file_location("targets", path)
    targets = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(targets)
    target_of = targets.target_of
    assert target_of("jm.fit(loglik)") == "jaxmle.fit"
    assert target_of("jm.models.cox()") == "jaxmle.models.cox"
    assert target_of("fit.explain()") == "jaxmle.Fit.explain"
    assert target_of("fit.params") == "jaxmle.Fit"
    assert target_of("fit_batch") == target_of("jm.fit_batch") == "jaxmle.fit_batch"
    assert target_of("weight") is None  # an argument, more often than the function
