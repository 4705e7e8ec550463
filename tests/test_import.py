"""What ``import jaxmle`` costs and leaves behind, seen from a fresh interpreter."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import jaxmle as jm
from tests.test_layers import SOURCES, tree

ROOT = Path(__file__).parents[1]


def run(code):
    """The JSON that ``code`` prints, in an interpreter of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment |= {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_import_brings_in_no_optional_package():
    loaded = run(
        "import jax, optax, json, sys; before = set(sys.modules); import jaxmle;"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )  # fmt: skip
    for name in (
        "pandas",
        "matplotlib",
        "formulaic",
        "statsmodels",
        "narwhals",
        "pyarrow",
        "scipy.stats",
        "scipy.optimize",
        "scipy.special",
        "IPython",
    ):
        assert not [
            module for module in loaded if module == name or module.startswith(name + ".")
        ], name


def test_jaxmle_alone_imports_no_optional_package():
    """Without jax and optax imported first: what they bring in themselves is not at issue, these they do not."""
    loaded = run("import json, sys, jaxmle; print(json.dumps(sorted(sys.modules)))")
    for name in ("pandas", "matplotlib", "formulaic", "statsmodels", "scipy.stats"):
        assert name not in loaded


def test_a_first_fit_and_a_first_batch_import_only_what_they_use():
    """The symptom: scipy.special, optax and numpy.f2py took a tenth of the time to a first answer."""
    loaded = run(
        "import json, sys, numpy as np, jaxmle as jm\n"
        "def loglik(p, d): return -0.5 * (d['y'] - p['m']) ** 2\n"
        "y = np.random.default_rng(0).normal(size=(20, 30))\n"
        "jm.fit(loglik, {'m': 0.0}, {'y': y[0]})\n"
        "fits = jm.fit_batch(loglik, {'m': 0.0}, {'y': y}, progress=False)\n"
        "assert fits.converged.all()\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    assert not {"optax", "scipy.special", "scipy.optimize", "numpy.f2py", "pandas"} & set(loaded)


def test_import_changes_no_configuration_and_creates_no_array():
    changed, arrays, backends = run(
        "import jax, optax, json; before = dict(jax.config.values); import jaxmle;"
        "after = dict(jax.config.values); changed = [k for k in after if after[k] != before.get(k)];"
        "from jax._src import xla_bridge; backends = len(xla_bridge._backends);"
        "print(json.dumps([changed, len(jax.live_arrays()), backends]))"
    )  # fmt: skip
    assert changed == []
    assert arrays == 0
    assert backends == 0, "importing must not start a backend: a user may still want to choose one"


def test_a_fit_leaves_the_configuration_alone():
    changed = run(
        "import jax, json, numpy as np, jaxmle as jm; before = dict(jax.config.values);"
        "fit = jm.fit(lambda p, d: -(d - p['m']) ** 2, {'m': 0.0}, np.arange(4.0));"
        "after = dict(jax.config.values);"
        "print(json.dumps([k for k in after if after[k] != before.get(k)] + [str(fit.vcov.dtype), str(jax.numpy.zeros(1).dtype)]))"
    )  # fmt: skip
    assert changed == ["float64", "float32"]


def test_every_warning_of_the_library_can_be_filtered_by_a_public_name():
    """The symptom: to silence a warning one had to import a private module."""
    classes = {
        node.name
        for path in SOURCES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef) and node.name.endswith("Warning")
    }
    assert len(classes) >= 6
    assert classes <= set(jm.__all__)
    for name in classes:
        assert issubclass(getattr(jm, name), UserWarning), name


def test_no_warning_of_the_library_is_without_a_class():
    unnamed = [
        f"{path.name}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("warnings.warn", "warn_caller")
        and path.name != "user_code.py"  # where warn_caller is
        and not any("Warning" in ast.unparse(argument) for argument in node.args[1:])
    ]
    assert not unnamed


def test_import_adds_less_than_half_of_what_jax_and_optax_take():
    """Processor times of one process, the least of three of each: a ratio, which a slow or busy machine does not decide.

    On the machine of benchmarks/RESULTS.md jaxmle adds 0.2 s; when scipy.special came with it, 0.4.
    """
    taken = [
        run(
            "import json, time; a = time.process_time(); import jax, optax; b = time.process_time(); import jaxmle;"
            "print(json.dumps([b - a, time.process_time() - b]))"
        )
        for _ in range(3)
    ]
    theirs, ours = (min(seconds) for seconds in zip(*taken, strict=True))
    assert ours < 0.5 * theirs, taken
