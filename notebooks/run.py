"""Execute every notebook beside this file; any error in a cell makes the exit code 1.

    python notebooks/run.py            execute, keep nothing
    python notebooks/run.py --write    also put the new outputs into the notebooks
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

FOLDER = Path(__file__).parent
CELL_SECONDS = 600


def execute(path: Path) -> nbformat.NotebookNode:
    """Return the notebook with fresh outputs, executed in a folder of its own."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            timeout=CELL_SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            record_timing=False,
            coalesce_streams=True,
        ).execute()
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def main(write: bool) -> int:
    """Execute all notebooks and return the exit code."""
    failed = False
    for path in sorted(FOLDER.glob("*.ipynb")):
        start = time.monotonic()
        try:
            notebook = execute(path)
        except CellExecutionError as error:
            print(f"{path.name}: {error}", file=sys.stderr)
            failed = True
            continue
        print(f"{path.name}: {time.monotonic() - start:.0f} s")
        if write:
            nbformat.write(notebook, path)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main("--write" in sys.argv[1:]))
