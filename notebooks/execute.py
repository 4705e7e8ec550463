"""Run the notebooks: each NN_name.py in this folder becomes NN_name.ipynb with its outputs and figures.

    python notebooks/execute.py            # all of them
    python notebooks/execute.py 05 06      # those whose names begin so

A notebook that fails, or runs longer than ``LIMIT``, leaves its .ipynb as it was.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

HERE = Path(__file__).parent
LIMIT = 60.0  # seconds a notebook may take, start of the kernel and compilation included


def execute(source: Path) -> float:
    """Run one notebook in a fresh kernel, write its pair, and return the seconds it took."""
    notebook = jupytext.read(source)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as sockets:  # files, so that nothing listens on a port
        kernel = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=os.path.join(sockets, "kernel"))
        NotebookClient(notebook, km=kernel, timeout=4 * LIMIT, resources={"metadata": {"path": str(HERE)}}).execute()
    seconds = time.perf_counter() - began
    save(plain(notebook), source.with_suffix(".ipynb"))
    return seconds


def plain(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Without what differs from run to run: times of execution, random cell names, the version of Python."""
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "jupytext": {"formats": "ipynb,py:percent"}}
    for place, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{place}"
        cell.metadata.pop("execution", None)
    return notebook


def save(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Atomically: a killed run leaves the old file or the new one."""
    part = path.with_suffix(".part")
    nbformat.write(notebook, part)
    os.replace(part, path)


def main(wanted: list[str]) -> int:
    """Execute the chosen notebooks in order; the number of those that took too long is the exit status."""
    slow = 0
    for source in sorted(HERE.glob("[0-9]*.py")):
        if wanted and not source.name.startswith(tuple(wanted)):
            continue
        print(f"{source.stem} ...", end=" ", flush=True)
        seconds = execute(source)
        slow += seconds > LIMIT
        print(f"{seconds:.0f} s" + (f": over the limit of {LIMIT:.0f} s" if seconds > LIMIT else ""), flush=True)
    return slow


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
