"""What printing a fit may import."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("pandas", "polars", "pyarrow", "narwhals", "matplotlib", "scipy.stats")


def test_the_tables_import_no_frame_library_and_no_plots():
    modules = "notes, numerals, layout, table, digest, markup, frame"
    code = f"import sys; from jaxmle.tables import {modules}; print([name for name in {HEAVY} if name in sys.modules])"
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=None
    )
    assert shown.stdout.strip() == "[]"
