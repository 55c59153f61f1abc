"""How the tests read notebooks: their cells, their exercises, and what their code defines."""

import ast
import contextlib
import io
import re
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
PLAYGROUND = ROOT / "playground.ipynb"
NUMBERED = sorted((ROOT / "notebooks").glob("*.ipynb"))
NOTEBOOKS = [PLAYGROUND, *NUMBERED]


def tags_of(cell):
    return set(cell.metadata.get("tags", []))


def code_cells(path):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def markdown(path):
    return [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown"]


def numbered(number):
    """The path of a numbered notebook."""
    return next(path for path in NUMBERED if path.name.startswith(f"{number:02}_"))


def definitions(path, *constants, **names):
    """What a notebook imports and defines, and its named constants, without running the rest of it."""
    for cell in code_cells(path)[1:]:
        if not tags_of(cell) & {"exercise", "checker"}:
            wanted = [node for node in ast.parse(cell.source).body if defines(node, constants)]
            exec(compile(ast.Module(wanted, []), path.name, "exec"), names)
    return names


def defines(node, constants):
    """Whether a statement is an import, a function, a class, or assigns one of these constants."""
    if isinstance(node, ast.Assign):
        return isinstance(node.targets[0], ast.Name) and node.targets[0].id in constants
    return isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)


def exercises(path):
    """(stub, checker, solution) of every exercise."""
    cells = nbformat.read(path, 4).cells
    found = []
    for i, cell in enumerate(cells):
        if "exercise" not in tags_of(cell):
            continue
        assert "checker" in tags_of(cells[i + 1])
        folded = cells[i + 2].source.split("<details><summary>Solution</summary>")[1]
        found.append((cell.source, cells[i + 1].source, re.search(r"```python\n(.*?)```", folded, re.S)[1]))
    return found


def said_of(answer, checker, names):
    """What the checker cell says of an answer cell."""
    names = dict(names)
    exec(answer, names)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(checker, names)
    return said.getvalue()
