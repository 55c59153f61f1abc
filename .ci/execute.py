"""Run notebooks from top to bottom and keep what a reader without a kernel can see.

    make notebooks    (or: python .ci/execute.py playground.ipynb …)

Widgets are left out of what is kept: without a kernel they show nothing, and their saved
state makes GitHub refuse the notebook. Frames of the page are left out, too: GitHub does not show them.
"""

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

WIDGET = "application/vnd.jupyter.widget-view+json"


def is_kept(data):
    return WIDGET not in data and "<iframe" not in data.get("text/html", "")


def execute(path):
    """Run one notebook in its own folder and write it back."""
    notebook = nbformat.read(path, 4)
    began = time.perf_counter()
    client = NotebookClient(
        notebook, timeout=1800, record_timing=False, store_widget_state=False, coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    )  # fmt: skip
    client.execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if is_kept(output.get("data", {}))]
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, path)
    print(f"{path}: {time.perf_counter() - began:.0f} s, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        execute(Path(name).resolve())
