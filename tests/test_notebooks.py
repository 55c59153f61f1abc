"""The mechanical habits of the notebooks, and their set-up cell."""

import importlib.util
import io
import itertools
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from notebook_cells import NOTEBOOKS, NUMBERED, PLAYGROUND, ROOT, code_cells, definitions, markdown, numbered, tags_of
from PIL import Image

from cyclegan_lib import train
from cyclegan_lib.show import plots, training
from cyclegan_lib.study import floor
from cyclegan_lib.trainer import Hook, Trainer

TAGS = {"nbval-skip", "nbval-check-output", "nbval-ignore-output", "raises-exception", "exercise", "checker"}
MEGABYTES = {"playground.ipynb": 2, "05_output_norm.ipynb": 2, "08_your_own_pictures.ipynb": 2}  # 08: photographs

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@each_notebook
def test_it_is_one_clean_run_from_top_to_bottom(path):
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        assert all(output.output_type != "error" for output in cell.outputs)
        assert all(output.get("execution_count") in (None, cell.execution_count) for output in cell.outputs)
        if "nbval-check-output" in tags_of(cell):
            assert cell.outputs, "nothing to check"
    assert cells[0].source.startswith("import importlib.util") and "HOME = " in cells[0].source
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
        assert tags_of(cell) <= TAGS


@each_notebook
def test_its_first_cell_asks_and_its_last_answers(path):
    first, last = markdown(path)[0], nbformat.read(path, 4).cells[-1].source
    assert "colab-badge.svg" in first and "open-in-kaggle.svg" in first
    assert "**The question.**" in first and "**Time.**" in first
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


@each_notebook
def test_no_cell_is_wider_than_a_screen(path):
    for cell in code_cells(path):
        assert max(map(len, cell.source.splitlines())) <= 125, cell.source[:80]


@each_notebook
def test_its_first_cell_links_to_its_neighbours(path):
    links = re.findall(r"\[([^\]]*)\]\(([^)]*\.ipynb)\)", markdown(path)[0])
    place = NOTEBOOKS.index(path)
    neighbours = NOTEBOOKS[max(place - 1, 0) : place] + NOTEBOOKS[place + 1 : place + 2]
    assert [(path.parent / target).resolve() for _, target in links if "colab" not in target] == neighbours
    assert [text for text, _ in links if text.startswith("← ")] == [text for text, _ in links][: place > 0]
    for neighbour, (text, _) in zip(neighbours, links, strict=True):
        assert neighbour == PLAYGROUND or text.strip("←→ ") in markdown(neighbour)[0], "its title"


@each_notebook
def test_every_explorer_has_a_picture_above_and_is_driven_by_code_below(path):
    cells = code_cells(path)
    for i, cell in enumerate(cells):
        for name in re.findall(r"^display\((\w*explorer|scrubber)\.box\)", cell.source, re.M):
            [above] = [c for c in cells[:i] if f"plots.show({name}.figure()" in c.source]
            assert "image/png" in above.outputs[-1]["data"], name
            assert re.search(rf"\b{name}\.\w+\.value\b.* = ", cells[i + 1].source), name


@each_notebook
def test_a_live_training_leaves_a_picture(path):
    cells = code_cells(path)
    for i, cell in enumerate(cells):
        if "LiveTraining()" in cell.source:
            assert any("image/png" in output.get("data", {}) for c in cells[i + 1 : i + 4] for output in c.outputs)


@pytest.mark.parametrize("path", [path for path in NUMBERED if path.stem[:2] != "05"], ids=lambda path: path.stem)
def test_a_tutorial_has_three_exercises_and_a_check_for_each(path):
    tags = [tags_of(cell) for cell in code_cells(path)]
    count = sum("exercise" in some for some in tags)
    assert count >= 3 and all("checker" in tags[i + 1] for i, some in enumerate(tags) if "exercise" in some)
    assert all(f"**Exercise {number}: " in "\n".join(markdown(path)) for number in range(1, count + 1))


# The set-up cell


def set_up():
    return code_cells(PLAYGROUND)[0].source


@each_notebook
def test_the_set_up_cell_is_the_same_in_all(path):
    def without_numbers(text):
        return re.sub(r"(?m)^(MINUTES|STEPS) = .*$", "", text).strip()

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
    with pytest.raises(ImportError, match="On Kaggle: Settings → Internet → On.* clone or download"):
        exec(set_up(), {})


def test_on_an_older_python_it_says_so_before_anything_is_installed(alone, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 14))
    with pytest.raises(ImportError, match="needs Python 3.11 or newer"):
        exec(set_up(), {})
    assert not alone


TRAINING = [path for path in NOTEBOOKS if path.stem[:2] not in ("01", "06", "07")]  # nothing is trained in those


@pytest.mark.parametrize("path", TRAINING, ids=lambda path: path.stem)
@pytest.mark.parametrize(("value", "quick"), [("1", True), ("", False)])
def test_quick_cuts_training_to_a_handful_of_steps(monkeypatch, path, value, quick):
    monkeypatch.setenv("CYCLEGAN_QUICK", value)
    names = {}
    exec(code_cells(path)[0].source, names)
    assert (names["STEPS"] is not None and names["STEPS"] < 20) == quick


# A training that the reader stops


class StopButton(Hook):
    """What a notebook's stop button does: an interrupt, here in the second step."""

    def start(self, trainer):
        self.last = trainer.step + 2

    def after_step(self, trainer):
        if trainer.step == self.last:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def stopped_and_quick(tmp_path, monkeypatch):
    """Every training is stopped in its second step; floors are not computed, and figures are tiny pictures."""
    make_trainer, shades = train.make_trainer, itertools.count()

    def stopped(config, hooks=(), show_bar=True):
        return make_trainer(config, [*hooks, StopButton()], show_bar)

    def to_png(figure, **kwargs):
        file = io.BytesIO()
        Image.new("L", (2, 2), next(shades) % 256).save(file, "png")
        return file.getvalue()

    monkeypatch.setattr(train, "make_trainer", stopped)
    monkeypatch.setattr(training, "training_floors", lambda data: {"A": 0.1, "B": 0.1})
    monkeypatch.setattr(floor, "output_norm_floor", lambda pictures, reduction="mean": 0.1)
    monkeypatch.setattr(plots, "show", lambda figure, **kwargs: None)
    monkeypatch.setattr(plots, "to_png", to_png)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("CYCLEGAN_QUICK", "1")


@pytest.mark.parametrize("path", [PLAYGROUND, numbered(8)], ids=lambda path: path.stem)
def test_a_training_may_be_stopped_in_its_first_epoch_and_any_cell_be_repeated(
    path, stopped_and_quick, tmp_path, monkeypatch
):
    """To the end of the notebook. From the training on each cell runs twice, and none is told that this is quick."""
    monkeypatch.chdir(path.parent)
    names, trained = {"display": lambda box: None, "__name__": "__main__"}, []
    for cell in code_cells(path):
        exec(cell.source, names)
        trained = [value for value in names.values() if isinstance(value, Trainer)]
        if trained:
            exec(cell.source, names)
        names["STEPS"] = None if trained else 60  # of which it takes three at a time
        names.get("PLANS", {}).pop("the paper's", None)  # its steps take seconds
        if "OUTPUT" in names:
            names["OUTPUT"] = tmp_path
    assert trained[0].stopped and all(trainer.epoch == 1 for trainer in trained)


# The call that notebook 07 recommends


def test_the_call_that_07_recommends_finds_every_fault_of_its_table():
    names = definitions(numbered(7), "FAULTS", "ZOO", HOME=ROOT, Path=Path, __name__="notebook 07")
    codes = re.findall(r"```python\n(.*?)```", "\n".join(markdown(numbered(7))), re.S)
    [call] = [code for code in codes if "diagnose(" in code]
    for fault, wrong in names["FAULTS"].items():
        history, samples, seen = names["kept"](fault)
        sheet = dict(sheet=lambda count, kept=samples: kept, model=None, data=None, total_steps=300)
        given = dict(trainer=SimpleNamespace(**sheet), config=SimpleNamespace(models_folder=None, gan_mode="lsgan"))
        given |= dict(read_history=lambda folder, kept=history: kept, probe=lambda model, data, kept=seen: kept)
        given |= dict(diagnose=names["diagnose"], report=names["report"])
        exec(call, given)
        assert [finding.fault for finding in given["findings"]][:1] == ([wrong.named] if wrong.named else [])
