"""What pyright, and so an editor, knows of jaxmle: every name and attribute, and a mistake before it runs. By basedpyright, whose
wheel holds all that it needs.
"""

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from numpy.testing import assert_allclose

import jaxmle as jm

from . import user

pytest.importorskip("basedpyright", reason="pip install jaxmle[test]")

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
UNKNOWN = {
    f"reportUnknown{kind}Type": "error" for kind in ("Member", "Variable", "Argument", "Parameter")
}
SHELVES = {"": jm, ".models": jm.models, ".families": jm.families, ".solvers": jm.solvers}


def every_name():
    """A program that asks for each public name of ours, and each public attribute of a record, a line for each."""
    yield "import jaxmle as jm"
    for shelf, module in SHELVES.items():
        yield from (f"print(jm{shelf}.{name})" for name in module.__all__)
    for number, (path, record) in enumerate(records()):
        fields = getattr(record, "__dataclass_fields__", {})
        names = sorted(name for name in {*dir(record), *fields} if not name.startswith("_"))
        yield f"def attributes_{number}(record: {path}) -> None:"
        yield from (f"    print(record.{name})" for name in names)
        yield "    return"


def records():
    """The public records, and how a program calls them."""
    for shelf, module in SHELVES.items():
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) and value.__module__.startswith("jaxmle"):
                yield f"jm{shelf}.{name}", value


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Every error of the three programs as (file, line, rule, message)."""
    folder = tmp_path_factory.mktemp("checked")
    (folder / "names.py").write_text("\n".join(every_name()), encoding="utf-8")
    settings = {
        "include": [str(HERE / "user.py"), str(HERE / "mistakes.py"), "names.py"],
        "extraPaths": [str(ROOT)],
        "typeCheckingMode": "standard",
        **UNKNOWN,
    }
    project = folder / "pyrightconfig.json"
    project.write_text(json.dumps(settings), encoding="utf-8")
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--project", str(project)]
    done = subprocess.run(
        [*command, "--pythonpath", sys.executable],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == 3, done.stdout
    return [
        (
            Path(entry["file"]).name,
            entry["range"]["start"]["line"] + 1,
            entry["rule"],
            entry["message"],
        )
        for entry in report["generalDiagnostics"]
        if entry["severity"] == "error"
    ]


def test_a_users_script_has_no_error_and_every_type_in_it_is_known(found):
    assert [error for error in found if error[0] == "user.py"] == []


def test_every_public_name_and_every_attribute_of_a_record_is_known(found):
    assert [error for error in found if error[0] == "names.py"] == []


def test_every_planted_mistake_is_found_and_nothing_else(found):
    """What follows from a mistake, a type unknown after it, is not counted."""
    lines = (HERE / "mistakes.py").read_text(encoding="utf-8").splitlines()
    planted = [
        (number, match[1])
        for number, line in enumerate(lines, 1)
        if (match := re.search(r"# (report\w+)", line))
    ]
    assert len(planted) == 12
    errors = {(line, rule) for file, line, rule, _ in found if file == "mistakes.py"}
    assert sorted(error for error in errors if error[1] not in UNKNOWN) == planted


def test_the_users_script_runs_and_its_rates_are_one_over_the_means():
    fit = user.one_fit()
    assert_allclose(fit.params["rate"], 6 / 16.5, rtol=1e-8)
    assert_allclose(user.many_fits().params["rate"], [6 / 16.5, 3 / 16.5], rtol=1e-8)
    for part in (lambda: user.inference(fit), user.ready_models, user.formulas):
        assert part() is None  # it raises nothing; its types are the checker's
