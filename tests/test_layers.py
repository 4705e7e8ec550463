"""Imports go strictly downward, floor by floor, and some things are never used at all: read from the source, not from a running program."""

import ast
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "jaxmle"
SOURCES = sorted(PACKAGE.rglob("*.py"))

# The floors of the house, from the ground up. A module imports from its own room and from rooms on
# lower floors, inside functions too; rooms of one floor do not know each other. The modules beside
# the rooms are for all of them.
SHARED = {"_namespace", "_types"}
DOOR = "jaxmle.__main__"  # of the command line: it imports from the top floor
FLOORS = [
    {"closures", "datasets", "parameters", "solvers", "special"},
    {"runtime"},
    {"families", "likelihood", "workers"},
    {"likelihood.discovery", "models.common", "tables"},
    {"likelihood.information", "models", "record"},
    {"verdict"},
    {"fitting"},
    {"batch.members", "inference.linting", "stochastic", "streams"},
    {"batch.chunks"},
    {"batch"},
    {"data", "distributed", "inference", "mixtures", "starts"},
    {
        "effects",
        "inference.diagnostics",
        "inference.hypotheses",
        "inference.profiles",
        "inference.resampling",
        "interop",
        "lake",
        "sklearn",
        "survival",
    },
    {"command", "inference.selection", "plots"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
MAX_FILES_OF_A_ROOM = 16


@cache
def source(path):
    return path.read_text(encoding="utf-8")


@cache
def tree(path):
    """The syntax tree of a file, parsed once for all tests."""
    return ast.parse(source(path))


def module_of(path):
    parts = ("jaxmle", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_type_checking(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def absolute(path, node):
    """The full name of the module that a ``from … import`` reads."""
    if not node.level:
        return node.module
    package = ("jaxmle", *path.relative_to(PACKAGE).parts[:-1])
    return ".".join(
        [*package[: len(package) - node.level + 1], *([node.module] if node.module else [])]
    )


@cache
def imports_of(path):
    """Every import of ours in a file: (module imported, whether it runs when the file is imported, whether for types only)."""
    found = []

    def walk(node, eager, types_only):
        if isinstance(node, ast.Import):
            found.extend((alias.name, eager, types_only) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            base = absolute(path, node)
            found.append((base, eager, types_only))
            found.extend((f"{base}.{alias.name}", eager, types_only) for alias in node.names)
        inner_eager = eager and not isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
        )
        for child in ast.iter_child_nodes(node):
            walk(child, inner_eager, types_only or is_type_checking(node))

    walk(tree(path), True, False)
    return [entry for entry in found if entry[0].split(".")[0] == "jaxmle"]


MODULES = {module_of(path): path for path in SOURCES}


def room_of(module):
    """The innermost room of a module, or of a name in it: ``models.common``; "" beside the rooms."""
    parts = module.removeprefix("jaxmle").strip(".").split(".")
    return max(
        (".".join(parts[:k]) for k in (1, 2) if ".".join(parts[:k]) in FLOOR_OF),
        key=len,
        default="",
    )


def targets_of(path):
    """The modules of ours that a file imports, anywhere in it and for whatever reason."""
    named = {name for name, *_ in imports_of(path)}
    return {name for name in named if name in MODULES} - {module_of(path)}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_strictly_downward(path):
    room = room_of(module_of(path))
    for module in () if module_of(path) == DOOR else targets_of(path):
        target = room_of(module)
        if MODULES[module].name == "__init__.py" or target == room:
            continue
        beside = module.removeprefix("jaxmle.") in SHARED
        assert beside or room, f"{path} is beside the rooms and imports {module}"
        assert beside or FLOOR_OF[target] < FLOOR_OF[room], f"{room} imports {module}"


def test_no_room_has_more_files_than_one_finds_one_s_way_in():
    for room in FLOOR_OF:
        files = list((PACKAGE / room.replace(".", "/")).glob("*.py"))
        assert 0 < len(files) <= MAX_FILES_OF_A_ROOM, (room, len(files))


def test_modules_beside_the_rooms_are_shared_ones():
    beside = {path.stem for path in PACKAGE.glob("*.py")}
    assert beside == {"__init__", "__main__"} | SHARED


def aliases_of(path):
    """What a module assigns on its top level: (name, value, line)."""
    for node in tree(path).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                yield ast.unparse(target), ast.unparse(node.value), node.lineno


def is_any(node):
    """Whether a part of a file is ``Any`` or imports it."""
    return (isinstance(node, ast.Name) and node.id == "Any") or (
        isinstance(node, ast.alias) and node.name == "Any"
    )


def test_shared_types_have_one_home_and_any_has_no_other():
    """``Array = Any`` in a file of its own tells a reader, a type checker and an editor nothing."""
    shared = {name for name, *_ in aliases_of(PACKAGE / "_types.py")} | {"Loglik"}
    assert {"Array", "Tree", "Shape"} <= shared
    for path in SOURCES:
        for name, _, line in aliases_of(path) if path.name != "_types.py" else ():
            assert name not in shared, f"{path}:{line} has a {name} of its own"
        if path.name != "_types.py":
            named = [node.lineno for node in ast.walk(tree(path)) if is_any(node)]
            assert not named, f"{path}:{named} says Any, where a word of _types.py has a meaning"


def test_every_room_has_a_floor():
    folders = {path.parent.relative_to(PACKAGE) for path in SOURCES} - {Path(".")}
    assert {".".join(folder.parts) for folder in folders} == set(FLOOR_OF)


def test_only_the_table_of_contents_imports_from_jaxmle_itself():
    known = {module_of(path) for path in SOURCES}
    for path in SOURCES:
        if path == PACKAGE / "__init__.py":
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Import):
                assert all(
                    alias.name.split(".")[0] != "jaxmle" or alias.name.count(".")
                    for alias in node.names
                ), path
            if isinstance(node, ast.ImportFrom) and absolute(path, node) == "jaxmle":
                assert all(f"jaxmle.{alias.name}" in known for alias in node.names), (
                    f"{path}:{node.lineno}"
                )


def test_no_module_imports_itself_in_a_circle():
    graph = {name: targets_of(path) for name, path in MODULES.items() if path.name != "__init__.py"}
    done, under_way = set(), []

    def visit(name):
        assert name not in under_way, " -> ".join([*under_way, name])
        if name in done or name not in graph:
            return
        under_way.append(name)
        for target in sorted(graph[name]):
            visit(target)
        done.add(under_way.pop())

    for name in graph:
        visit(name)


FORBIDDEN = {
    "pinv": "a pseudo-inverse makes numbers for what has none",
    "eval": "",
    "exec": "",
    "pickle": "",
    "cloudpickle": "",
    "dill": "",
    "marshal": "",
}
# Bytes that go from a caller to the workers of the caller's own engine; no file is unpickled.
SENT_TO_WORKERS = {"pickle", "cloudpickle"}
SENDERS = ("workers/payload.py",)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_forbidden_is_used(path):
    sends = path.relative_to(PACKAGE).as_posix() in SENDERS
    forbidden = set(FORBIDDEN) - (SENT_TO_WORKERS if sends else set())
    for node in ast.walk(tree(path)):
        name = (
            node.id
            if isinstance(node, ast.Name)
            else node.attr
            if isinstance(node, ast.Attribute)
            else None
        )
        names = (
            [alias.name.split(".")[0] for alias in node.names]
            if isinstance(node, ast.Import | ast.ImportFrom)
            else [name]
        )
        names += (
            [node.module.split(".")[0]] if isinstance(node, ast.ImportFrom) and node.module else []
        )
        assert not set(names) & forbidden, f"{path}:{node.lineno} uses {names}"


HEAVY = {
    "pandas",
    "matplotlib",
    "formulaic",
    "statsmodels",
    "narwhals",
    "pyarrow",
    "polars",
    "cloudpickle",
    "ray",
    "distributed",
    "sklearn",
    "lifelines",
    "chex",
    "IPython",
}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_optional_packages_are_imported_inside_functions_only(path):
    for node in tree(path).body:
        modules = (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        assert not {module.split(".")[0] for module in modules} & HEAVY, f"{path}:{node.lineno}"
        assert "scipy.stats" not in modules, f"{path}:{node.lineno}"


def test_one_private_import_only():
    """``trace_state_clean`` has no public name; nothing else of jax's inside is touched."""
    private = []
    for path in SOURCES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jax._"):
                private.extend(alias.name for alias in node.names)
            if isinstance(node, ast.Import):
                private.extend(alias.name for alias in node.names if alias.name.startswith("jax._"))
    assert set(private) <= {"trace_state_clean"}
