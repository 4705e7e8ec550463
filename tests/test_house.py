"""The house counts: density, length and names of the source, read from the files and not from a running program."""

import ast
import inspect
import re
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

import jaxmle as jm
from tests.test_layers import FLOORS, source, tree

PACKAGE = Path(__file__).parents[1] / "jaxmle"
SOURCES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted(Path(__file__).parent.rglob("*.py"))
BY_FILE = pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))

# Figures of packages that are pleasant to read (optimistix, tinygp, formulaic): 33 to 37 characters a line of code, no line over 100,
# at most 16 parallel assignments.
MAX_CHARACTERS_A_CODE_LINE = 40
MAX_COLUMNS = 100
MAX_PARALLEL_ASSIGNMENTS = 20


def docstring_lines(path):
    """The numbers of the lines that hold docstrings."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            found |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return found


def code_lines(path):
    """Lines that hold code: neither blank, nor a comment, nor a docstring."""
    docs = docstring_lines(path)
    lines = enumerate(source(path).splitlines(), 1)
    stripped = [line.strip() for number, line in lines if number not in docs]
    return [line for line in stripped if line and not line.startswith("#")]


def is_parallel(node):
    """Whether a statement assigns several values to as many names at once."""
    return (
        isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Tuple)
        and isinstance(node.value, ast.Tuple)
    )


def constants(path):
    """Upper-case names bound at the top of a file, with the text of their values."""
    for node in tree(path).body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name) and target.id.isupper():
                    yield target.id, ast.unparse(node.value)


def is_decimal(text):
    """Whether a value is written as a decimal number: a whole number may be the code of a case."""
    return re.fullmatch(r"-?[\d_]+(\.\d*(e-?\d+)?|e-?\d+)", text) is not None


def test_a_line_of_code_has_at_most_40_characters_in_the_mean():
    lines = [line for path in SOURCES for line in code_lines(path)]
    assert sum(map(len, lines)) / len(lines) <= MAX_CHARACTERS_A_CODE_LINE


@BY_FILE
def test_no_line_is_over_100_columns(path):
    long = [n for n, line in enumerate(source(path).splitlines(), 1) if len(line) > MAX_COLUMNS]
    assert not long


def test_unrelated_values_are_assigned_one_by_one():
    parallel = [
        f"{path.name}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(tree(path))
        if is_parallel(node)
    ]
    assert len(parallel) <= MAX_PARALLEL_ASSIGNMENTS, parallel


def test_no_constant_has_two_meanings():
    meanings = defaultdict(set)
    for path in SOURCES:
        for name, value in constants(path):
            meanings[name].add(value)
    assert not {name: values for name, values in meanings.items() if len(values) > 1}


# Names that say neither a quantity nor a procedure.
NOT_NAMES = frozenset(
    [
        "afresh",
        "at",
        "begun",
        "elsewhere",
        "here",
        "kept",
        "once",
        "one",
        "outset",
        "own",
        "said",
        "seat",
        "seats",
        "told",
        "twice",
        "way",
    ]
)
# Metaphors, wherever they stand in a name. The field's words: ascent, trust region, extrapolation,
# rounding, noise, profile, path, curvature, covariance, method, members.
METAPHORS = frozenset(
    [
        "afresh",
        "alive",
        "bent",
        "bend",
        "bends",
        "bending",
        "blind",
        "blown",
        "blur",
        "calm",
        "census",
        "climb",
        "climbed",
        "climbing",
        "climbs",
        "creeping",
        "creeps",
        "dash",
        "dead",
        "deceived",
        "deception",
        "door",
        "dust",
        "dusted",
        "dying",
        "fate",
        "felt",
        "heard",
        "hill",
        "hollow",
        "hopeless",
        "kept",
        "leap",
        "leaps",
        "leapt",
        "listen",
        "lucky",
        "outset",
        "road",
        "roads",
        "runaway",
        "seat",
        "seats",
        "shaken",
        "shaking",
        "sprint",
        "stragglers",
        "streak",
        "swallowed",
        "swallows",
        "teller",
        "told",
        "troubled",
        "twin",
        "twins",
        "wall",
        "walled",
        "wander",
        "wandered",
        "wanders",
    ]
)
PUBLIC_EXCEPTIONS = {
    ("profile.py", "found"),  # Profile.found: both ends are known
    ("end_gradient.py", "found"),  # a positional argument of profile_end
    ("margins.py", "at"),  # an argument of margins, by the name that it has in Stata
}
MAX_LINES_OF_A_BODY = 60
MAX_LINES_OF_A_FILE = 500


def names_bound(path):
    """Every name that a file binds: variables, arguments, fields, functions and classes."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, node.lineno


def words_of(name):
    """The words of a name in lower case: of ``MAX_STEPS``, ``_max_steps`` and ``MaxSteps`` alike."""
    return [word.lower() for word in re.split(r"_+|(?<=[a-z])(?=[A-Z])", name) if word]


def body_lines(node):
    """The lines of a function from its first statement on, its docstring left out."""
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


@BY_FILE
def test_identifiers_are_words_of_the_field(path):
    bound = [
        (name, line)
        for name, line in names_bound(path)
        if (name.strip("_") in NOT_NAMES or METAPHORS & {*words_of(name)})
        and (path.name, name) not in PUBLIC_EXCEPTIONS
    ]
    assert not bound


@BY_FILE
def test_the_name_of_a_file_is_no_metaphor(path):
    assert not METAPHORS & {*words_of(path.stem)}


@BY_FILE
def test_a_number_that_decides_something_is_named_by_more_than_one_word(path):
    """Its name says quantity and role: ``DECREMENT_TO_POLISH``, not ``NEAR``."""
    single = [
        name for name, value in constants(path) if len(words_of(name)) == 1 and is_decimal(value)
    ]
    assert not single


@BY_FILE
def test_no_body_has_more_than_60_lines(path):
    functions = [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef)]
    long = [node for node in functions if body_lines(node) > MAX_LINES_OF_A_BODY]
    assert not [(node.name, node.lineno) for node in long]


@BY_FILE
def test_no_file_has_more_than_500_lines(path):
    assert len(source(path).splitlines()) <= MAX_LINES_OF_A_FILE


def test_most_bodies_have_at_most_40_lines():
    functions = [
        node
        for path in SOURCES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef)
    ]
    long = [node.name for node in functions if body_lines(node) > 40]
    assert len(long) <= 0.01 * len(functions), long


@BY_FILE
def test_a_tolerance_that_decides_something_has_a_name(path):
    """Numbers up to a thousandth, or from 1e5 on, in a comparison."""
    unnamed = [
        number.lineno
        for comparison in ast.walk(tree(path))
        if isinstance(comparison, ast.Compare)
        for number in ast.walk(comparison)
        if isinstance(number, ast.Constant)
        and isinstance(number.value, float)
        and (0 < abs(number.value) <= 1e-3 or abs(number.value) >= 1e5)
    ]
    assert not unnamed


@BY_FILE
def test_no_guard_vanishes_under_python_o(path):
    """``python -O`` takes assertions out."""
    assert not [node.lineno for node in ast.walk(tree(path)) if isinstance(node, ast.Assert)]


@BY_FILE
def test_a_broad_except_says_beside_it_why(path):
    lines = source(path).splitlines()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler):
            names = "" if node.type is None else ast.unparse(node.type)
            if names in ("", "Exception", "BaseException"):
                span = lines[node.lineno - 1 : node.body[0].lineno]
                assert any("#" in line for line in span), f"{path.name}:{node.lineno}"


@BY_FILE
def test_an_error_that_is_swallowed_says_beside_it_why(path):
    """Swallowed is what a handler neither raises, as it is or as another, nor looks at."""
    lines = source(path).splitlines()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler):
            inside = [inner for statement in node.body for inner in ast.walk(statement)]
            used = any(isinstance(part, ast.Name) and part.id == node.name for part in inside)
            if not used and not any(isinstance(part, ast.Raise) for part in inside):
                span = lines[node.lineno - 1 : node.end_lineno]
                assert any("#" in line for line in span), f"{path.name}:{node.lineno}"


SHELVES = (jm, jm.datasets, jm.families, jm.models, jm.plots, jm.solvers, jm.special)


def public_objects():
    """Functions and records that ``jaxmle`` and its shelves hand out."""
    for shelf in SHELVES:
        for name in getattr(shelf, "__all__", ("Dataset", "load", "names")):
            value = getattr(shelf, name)
            is_one = inspect.isfunction(value) or inspect.isclass(value)
            if is_one and value.__module__.startswith("jaxmle"):
                yield f"{shelf.__name__}.{name}", value


@pytest.mark.parametrize(
    ("name", "value"), [*public_objects()], ids=lambda v: v if isinstance(v, str) else ""
)
def test_every_public_function_and_record_has_an_example_that_runs(name, value):
    assert ">>> " in (inspect.getdoc(value) or ""), (
        name
    )  # the suite runs the doctests of every module


def asserts(node):
    """Whether a statement holds an assertion: by the keyword, by pytest, or by a function named so."""
    words = re.compile(r"assert|\b(raises|warns|fail)$")
    return any(
        isinstance(inner, ast.Assert)
        or (isinstance(inner, ast.Call) and words.search(ast.unparse(inner.func)) is not None)
        for inner in ast.walk(node)
    )


def test_every_test_asserts_something_that_can_be_seen_in_it():
    silent = [
        f"{path.name}:{function.lineno}"
        for path in TESTS
        for function in ast.walk(tree(path))
        if isinstance(function, ast.FunctionDef)
        and function.name.startswith("test_")
        and not asserts(function)
    ]
    assert not silent


def test_no_assertion_of_a_test_stands_under_the_condition_that_a_fit_converged():
    """Such a test is green when nothing converges."""
    vacuous = [
        f"{path.name}:{branch.lineno}"
        for path in TESTS
        for function in ast.walk(tree(path))
        if isinstance(function, ast.FunctionDef) and function.name.startswith("test")
        for branch in ast.walk(function)
        if isinstance(branch, ast.If)
        and ".converged" in ast.unparse(branch.test)
        and any(map(asserts, branch.body))
    ]
    assert not vacuous


def test_the_lowest_versions_that_are_tested_are_those_that_are_promised():
    """A pin of tests/lowest.txt is the bound of pyproject.toml, with its last patch: >=2.0 is tested as 2.0.2."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]
    extras = project["optional-dependencies"]
    lines = (Path(__file__).parent / "lowest.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    of_users = [*project["dependencies"], *extras["frame"], *extras["plot"]]
    promised = dict(re.findall(r"^([\w-]+)>=([\d.]+)", "\n".join(of_users + extras["test"]), re.M))
    assert {name.split(">=")[0] for name in of_users} <= set(pins)
    for name, version in pins.items():
        lowest = promised.get(name, promised["jax"])  # jaxlib comes with jax
        assert f"{version}.".startswith(f"{lowest}."), (name, version, lowest)


ARCHITECTURE = PACKAGE.parent / "docs" / "architecture.md"


def floors_of_rooms():
    """The table of rooms in docs/architecture.md, floor by floor from the ground up."""
    floors = defaultdict(set)
    floor = None
    for line in source(ARCHITECTURE).splitlines():
        row = re.fullmatch(r"\| (\d*) ?\| ((?:`[\w/]+/`(?:, )?)+) \|.*", line)
        if row:
            floor = int(row[1]) if row[1] else floor
            floors[floor] |= {name.replace("/", ".") for name in re.findall(r"`([\w/]+)/`", row[2])}
    return [floors[number] for number in range(len(floors))]


def test_the_table_of_rooms_in_the_architecture_is_the_one_that_the_tests_hold():
    assert floors_of_rooms() == FLOORS


def test_every_file_and_room_that_the_architecture_names_exists():
    """With its room, or by its bare name where no other file has it."""
    root = PACKAGE.parent
    named = re.findall(r"(?<![^`\s])(?:(?:\w+/)+(?:\w+\.py)?|\w+\.py)", source(ARCHITECTURE))
    assert len(named) > 100
    for name in named:
        if "/" in name:
            assert (PACKAGE / name).exists() or (root / name).exists(), name
        else:
            files = [path for path in SOURCES if path.name == name]
            assert len(files) == 1 or name == "__init__.py", name


def test_every_name_that_the_architecture_quotes_occurs_in_the_source():
    """Words with an underscore inside, in backticks."""
    names = {
        word
        for span in re.findall(r"`([^`\n]+)`", source(ARCHITECTURE))
        for word in re.findall(r"[A-Za-z_]\w+(?!\w|\.py)", span)
        if re.search(r"\w_\w", word)
    }
    text = "\n".join(map(source, [*SOURCES, *TESTS, *PACKAGE.parent.glob("*.toml")]))
    assert len(names) > 20
    assert not sorted(name for name in names if name not in text)
