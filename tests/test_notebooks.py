"""The mechanical habits of the notebooks, and the exercises in them."""

import contextlib
import functools
import importlib.util
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch

from cyclegan_lib.datasets import load_split
from cyclegan_lib.metrics import output_norm_floor

ROOT = Path(__file__).resolve().parents[1]
PLAYGROUND = ROOT / "playground.ipynb"
OUTPUT_NORM = ROOT / "notebooks" / "05_output_norm.ipynb"
NOTEBOOKS = [PLAYGROUND, *sorted((ROOT / "notebooks").glob("*.ipynb"))]
TAGS = {"nbval-skip", "nbval-check-output", "nbval-ignore-output", "raises-exception", "exercise", "checker"}
MEGABYTES = {"playground.ipynb": 2, "05_output_norm.ipynb": 2}

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def markdown(path):
    return [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown"]


@each_notebook
def test_it_is_one_clean_run_from_top_to_bottom(path):
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        assert all(output.output_type != "error" for output in cell.outputs)
        assert all(output.get("execution_count") in (None, cell.execution_count) for output in cell.outputs)
        if "nbval-check-output" in cell.metadata.get("tags", []):
            assert cell.outputs, "nothing to check"
    assert "CYCLEGAN_QUICK" in cells[0].source, "the set-up cell comes first"
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)


@each_notebook
def test_it_is_small_and_has_no_widget_state(path):
    assert path.stat().st_size < MEGABYTES.get(path.name, 1) * 1e6
    assert "widgets" not in json.loads(path.read_text())["metadata"]


@each_notebook
def test_cells_are_short_and_define_one_thing(path):
    for cell in code_cells(path):
        assert len(cell.source.splitlines()) <= 20, cell.source[:80]
        assert len(re.findall(r"^(?:def|class) ", cell.source, re.M)) <= 1, cell.source[:80]
        assert set(cell.metadata.get("tags", [])) <= TAGS


@each_notebook
def test_its_first_cell_asks_and_its_last_answers(path):
    first, last = markdown(path)[0], nbformat.read(path, 4).cells[-1].source
    assert "colab-badge.svg" in first and "**The question.**" in first and "**Time.**" in first
    assert last.rstrip().split("\n## The answer\n")[-1].count(".") >= 3 and "## The answer" in last


@each_notebook
def test_predictions_are_folded(path):
    text = "\n".join(markdown(path))
    assert text.count("<b>Predict:</b>") >= 4
    assert text.count("<details>") == text.count("</details>") == text.count("<summary>")
    assert text.count("<details><summary>") == text.count("<details>")


@each_notebook
def test_pictures_have_alt_text(path):
    for cell in code_cells(path):
        assert cell.source.count("plots.show(") == len(re.findall(r"\balt=", cell.source)), cell.source[:80]


# The set-up cell


def set_up():
    return code_cells(PLAYGROUND)[0].source


@each_notebook
def test_the_set_up_cell_is_the_same_in_all(path):
    def without_numbers(text):
        return re.sub(r"(?m)^(MINUTES|STEPS) = .*$", "", text)

    assert without_numbers(code_cells(path)[0].source) == without_numbers(set_up())


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """A folder with no repository around it, in a Python that has no cyclegan_lib."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    calls = []
    monkeypatch.setattr(subprocess, "run", lambda command, **kwargs: calls.append(command))
    return calls


def test_it_finds_the_package_beside_the_notebook_and_above_it(tmp_path, monkeypatch):
    (tmp_path / "cyclegan_lib").mkdir()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: pytest.fail("installed what is there"))
    for folder in (tmp_path, tmp_path / "notebooks"):
        monkeypatch.chdir(folder)
        names = {}
        exec(set_up(), names)
        assert names["HOME"] == tmp_path and str(tmp_path) in sys.path


def test_it_installs_from_the_repositorys_address_as_on_colab(alone, monkeypatch):
    names = {}

    def found_after_installing(name):
        return object() if alone else None

    monkeypatch.setattr(importlib.util, "find_spec", found_after_installing)
    exec(set_up(), names)
    assert len(alone) == 1 and alone[0][1:4] == ["-m", "pip", "install"]
    assert alone[0][-1] == f"git+{names['REPOSITORY']}"


def test_it_says_plainly_what_to_do_when_neither_works(alone):
    with pytest.raises(ImportError, match="clone or download"):
        exec(set_up(), {})


@pytest.mark.parametrize(("value", "quick"), [("1", True), ("", False)])
def test_quick_cuts_training_to_a_handful_of_steps(monkeypatch, value, quick):
    monkeypatch.setenv("CYCLEGAN_QUICK", value)
    names = {}
    exec(set_up(), names)
    assert (names["STEPS"] is not None and names["STEPS"] < 20) == quick


# Exercises


def exercises(path):
    """(stub, checker, solution) of every exercise."""
    cells = nbformat.read(path, 4).cells
    found = []
    for i, cell in enumerate(cells):
        if "exercise" not in cell.metadata.get("tags", []):
            continue
        assert "checker" in cells[i + 1].metadata.get("tags", [])
        folded = cells[i + 2].source.split("<details><summary>Solution</summary>")[1]
        found.append((cell.source, cells[i + 1].source, re.search(r"```python\n(.*?)```", folded, re.S)[1]))
    return found


def verdict(answer, checker, names):
    """What the checker cell says of an answer cell."""
    names = dict(names)
    exec(answer, names)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(checker, names)
    return said.getvalue()


def test_the_playgrounds_exercise(tiny_root):
    names = {"torch": torch, "crops": {"A": load_split(tiny_root, "testA", (32, 32))}}
    [(stub, checker, solution)] = exercises(PLAYGROUND)
    judge = functools.partial(verdict, checker=checker, names={**names, "output_norm_floor": output_norm_floor})
    assert judge(stub).startswith("not yet") and judge(solution).startswith("right")
    no_clamp = "def simple_floor(p):\n    return p.mean((2, 3)).abs() - 0.1921"
    too_high = "def simple_floor(p):\n    return (p.abs().mean((2, 3)) - 0.1921).clamp(min=0)"
    assert judge(no_clamp).startswith("not right") and judge(too_high).startswith("not right")


@pytest.fixture
def names_of_05(tiny_root):
    """What the exercises of notebook 05 use of the cells in front of them."""
    return {
        "torch": torch,
        "output_norm_floor": output_norm_floor,
        "test": {"A": load_split(tiny_root, "testA", (32, 32))},
    }


def test_the_certificate_of_05(names_of_05):
    (stub, checker, solution), _ = exercises(OUTPUT_NORM)
    judge = functools.partial(verdict, checker=checker, names=names_of_05)
    assert judge(stub).startswith("not yet") and judge(solution).startswith("right")
    assert judge(solution.replace(" - beta", "")).startswith("not right")
    assert judge(solution.replace("alpha * z", "0 * z")).startswith("not right")
    assert judge(solution.replace(".abs()", "")).startswith("not right")
    assert judge("def certificate(x, alpha, beta):\n    return -1.0").startswith("not right")


def test_the_repair_of_05(names_of_05):
    _, (stub, checker, solution) = exercises(OUTPUT_NORM)
    judge = functools.partial(verdict, checker=checker, names={**names_of_05, "F": torch.nn.functional})
    head = "import torch.nn.functional as F\n"
    assert judge(stub).startswith("not yet") and judge(head + solution).startswith("right")
    plain = solution.replace(" + z.mean((2, 3), keepdim=True)", "")
    assert plain != solution and judge(head + plain).startswith("not right")
    affine = (
        "class Repair(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.norm = torch.nn.InstanceNorm2d(3, affine=True)\n"
        "    def forward(self, z):\n        return self.norm(z)\n"
    )
    assert judge(head + affine).startswith("not right"), "a shift that is the same for all pictures"
    nothing = "class Repair(torch.nn.Module):\n    def forward(self, z):\n        return z\n"
    assert judge(head + nothing).startswith("not right"), "no norm at all"
