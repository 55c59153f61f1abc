"""The project's own files, held to one another."""

import ast
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from cyclegan_lib.cli import COMMANDS, parse_config
from cyclegan_lib.config import demo_config
from cyclegan_lib.study.statistics import mean_and_interval
from cyclegan_lib.study.tables import by_arm, read_table

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ADDRESS = PYPROJECT["project"]["urls"]["Repository"].removeprefix("https://github.com/")
PLAYGROUND = ROOT / "playground.ipynb"
CONDA_NAMES = {"torch": "pytorch", "playwright": "playwright-python", "wasmtime": "wasmtime-py"}
sys.path.insert(0, str(ROOT / ".ci"))


def requirements():
    extras = PYPROJECT["project"]["optional-dependencies"]
    texts = PYPROJECT["project"]["dependencies"] + extras["notebooks"] + extras["test"]
    return [Requirement(text) for text in texts]


def pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.lower().split("==") for line in lines if "==" in line)


def test_every_requirement_is_pinned_to_a_version_in_its_range():
    for requirement in requirements():
        assert requirement.specifier.contains(pins()[requirement.name]), requirement
    assert pins()["torch"] == "2.13.0" and pins()["torchvision"] == "0.28.0"
    assert not [pin for pin in pins().values() if "+" in pin], "a local version, which other machines don't have"


def test_conda_users_get_the_same():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = {re.split("[=<>]", name)[0] for name in dependencies if isinstance(name, str)} - {"python", "pip"}
    assert conda == {CONDA_NAMES.get(r.name, r.name) for r in requirements()}
    assert {"pip": ["--editable ."]} in dependencies


def test_ci_and_workflow_call_the_readmes_test_command():
    assert "make test\n" in (ROOT / ".ci" / "run").read_text()
    assert "bash .ci/run" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    readme = (ROOT / "README.md").read_text()
    assert "make demo" in readme and "make test" in readme


# The address


def named_addresses(text):
    return set(re.findall(r"github\.com/(?:github/)?([\w.-]+/[\w.-]+?)(?=[/\"#)\s\\]|\.git|$)", text))


OTHERS = {"junyanz/pytorch-CycleGAN-and-pix2pix", "eriklindernoren/PyTorch-GAN", "naoto0804/chainer-cyclegan"}


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "CITATION.cff",
        ".ci/README.md",
        "data/README.md",
        "data/ablation/README.md",
        "data/benchmark/README.md",
        "notebooks/README.md",
        "playground.ipynb",
        *(f"notebooks/{path.name}" for path in sorted((ROOT / "notebooks").glob("*.ipynb"))),
    ],  # fmt: skip
)
def test_the_address_stands_in_one_place(name):
    assert named_addresses((ROOT / name).read_text()) - OTHERS <= {ADDRESS}


def test_badges_and_set_up_cells_have_the_address():
    for notebook in [PLAYGROUND, *sorted((ROOT / "notebooks").glob("*.ipynb"))]:
        text = notebook.read_text()
        name = notebook.relative_to(ROOT).as_posix()
        assert f"colab.research.google.com/github/{ADDRESS}/blob/main/{name}" in text
        assert f"kaggle.com/kernels/welcome?src=https://github.com/{ADDRESS}/blob/main/{name}" in text
        assert f'REPOSITORY = \\"https://github.com/{ADDRESS}\\"' in text
    readme = (ROOT / "README.md").read_text()
    assert f"colab.research.google.com/github/{ADDRESS}/blob/main/playground.ipynb" in readme
    assert f"kaggle.com/kernels/welcome?src=https://github.com/{ADDRESS}/blob/main/playground.ipynb" in readme


def test_the_address_command(tmp_path):
    for name in (
        ".ci",
        "notebooks",
        "data/README.md",
        "README.md",
        "CITATION.cff",
        "pyproject.toml",
        "playground.ipynb",
        "data/explorer.html",
        "cyclegan_lib/show/page/page.html",
    ):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(ROOT / name, target) if (ROOT / name).is_dir() else shutil.copy(ROOT / name, target)

    def address(*arguments):
        command = [sys.executable, tmp_path / ".ci" / "address.py", *arguments]
        return subprocess.run(command, capture_output=True, text=True).returncode

    assert address("somebody/some.repo") == 0
    for name in ("README.md", "CITATION.cff", "playground.ipynb", "pyproject.toml", "data/explorer.html"):
        text = (tmp_path / name).read_text()
        assert "somebody/some.repo" in text and (ADDRESS not in text), name
    json.loads((tmp_path / "playground.ipynb").read_text())
    assert address("no-slash") != 0 and address() != 0
    assert address(ADDRESS) == 0
    for name in ("README.md", "playground.ipynb", "data/explorer.html", "cyclegan_lib/show/page/page.html"):
        assert (tmp_path / name).read_bytes() == (ROOT / name).read_bytes(), "not undone by the way back"


# What the READMEs say


def table_of(text, first):
    """The table whose first column is called `first` → {row: {column: cell}}."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {first} |"))
    end = next(number for number in range(start, len(lines) + 1) if not lines[number : number + 1] or not lines[number])
    head, _, *rows = (
        [cell.replace("<wbr>", "").strip(" ↑↓") for cell in line.split("|")[1:-1]] for line in lines[start:end]
    )
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


def test_the_readmes_figures_are_those_of_the_committed_runs():
    readme, of_data = (ROOT / "README.md").read_text(), (ROOT / "data" / "README.md").read_text()
    record = json.loads((ROOT / "data" / "demo" / "scores.json").read_text())
    labels = dict(demo_none_0="seed 0", demo_none_1="seed 1", demo_none_2="seed 2")
    labels |= dict(demo_instance_0="with the norm, seed 0", textbook="public defaults")
    for run, label in (labels | dict(textbook_small="small networks, textbook settings")).items():
        names = ("success_rate", "background_error", "liquid_error", "cycle_A", "cycle_B")
        shown = {name: f"{record[run][name]:.3f}" for name in names}
        shown["seconds"] = f"{record[run]['seconds_training']:.0f}"
        assert table_of(of_data, "run")[label] == shown
        assert table_of(readme, "run")[label].items() <= shown.items()
    assert table_of(readme, "run").keys() == table_of(of_data, "run").keys()
    assert table_of(readme, "run")["seed 0"].keys() == {"success_rate", "background_error"}
    seconds = [f"{record[f'demo_none_{seed}']['seconds_training']:.0f}" for seed in range(3)]
    assert f"The three seeds took {seconds[0]}, {seconds[1]} and {seconds[2]} seconds" in readme
    assert f"only 270 steps in about that time ({record['textbook']['seconds_training']:.0f} seconds)" in readme
    losses = [f"{record[run]['loss_D']:.2f}" for run in ("demo_instance_0", "demo_none_0")]
    assert f"their loss is {losses[0]} at the end, against {losses[1]} without the norm" in readme
    tint = [f"{record[f'demo_none_{seed}']['background_error_without_shift']:.3f}" for seed in range(3)]
    assert f"would be {tint[0]}, {tint[1]} and {tint[2]}" in of_data
    for run in ("demo_none_0", "demo_none_1", "demo_none_2", "demo_instance_0"):
        config, demo = record[run]["config"], demo_config()
        same = ("lr", "lambda_identity", "lambda_cycle", "base_channels", "num_residual", "num_epochs", "batch_size")
        assert all(config[name] == getattr(demo, name) for name in same)
    for d in "AB":
        assert all(f"{record['demo_none_0'][f'floor_{d}']:.3f}" in text for text in (readme, of_data))
        assert record["demo_instance_0"][f"cycle_{d}"] > record["demo_instance_0"][f"floor_{d}"]
        assert all(record[f"demo_none_{seed}"][f"cycle_{d}"] < record["demo_none_0"][f"floor_{d}"] for seed in range(3))


EVIDENCE = {
    ("output_norm", "none"): "nothing",
    ("output_norm", "instance"): "InstanceNorm",
    ("output_norm", "instance_affine"): "InstanceNorm, learned scale",
    ("output_norm", "batch"): "BatchNorm",
    ("learned_scale", "scale 3"): "InstanceNorm, learned scale that begins at 3",
    ("learned_scale", "scale 10"): "InstanceNorm, learned scale that begins at 10",
    ("mirror", "both"): "InstanceNorm, there and on the discriminators' first layer",
    ("half", "mean_only"): "only the mean subtracted",
    ("half", "scale_only"): "only divided by the deviation",
    ("half", "demodulated"): "demodulated weights",
    ("mirror", "discriminator_instance"): "nothing; InstanceNorm on the discriminators' first layer",
}


def test_the_readmes_evidence_is_the_committed_tables():
    readme, scores = (ROOT / "README.md").read_text(), read_table(ROOT / "data" / "ablation" / "scores.csv")
    columns = ("cycle_A", "cycle_B", "success_rate", "liquid_error", "background_error", "loss_D", "colour_accuracy")
    complete = (ROOT / "data" / "ablation" / "README.md").read_text()
    assert f"| before the tanh | seeds | {' | '.join(columns)} |" in complete
    shown, rows = table_of(readme, "before the tanh"), table_of(complete, "before the tanh")
    assert rows.keys() == set(EVIDENCE.values())
    assert {"nothing", "InstanceNorm", "BatchNorm", "only the mean subtracted"} < shown.keys()
    for name, cells in shown.items():  # the most telling ones: the same cells as in the table of all
        assert cells.keys() == {"cycle_A", "background_error"} and cells.items() <= rows[name].items()
        assert rows[name]["seeds"] == "5"
    success = [rows[name]["success_rate"] for name in ("nothing", "InstanceNorm")]
    assert "a mean over five seeds" in readme
    assert f"success_rate is {success[0]} with nothing and {success[1]} with InstanceNorm" in readme
    for (experiment, arm), name in EVIDENCE.items():
        found = by_arm(scores, experiment, columns)[arm]
        cells = [f"{mean:.3f} ± {half:.3f}" for _, (mean, half) in found.values()]
        count = len(found["cycle_A"][0])
        assert f"| {name} | {count} | {' | '.join(cells)} |" in complete, name
    floors = f"The floors are {scores[0]['floor_A']:.3f} for cycle_A and {scores[0]['floor_B']:.3f} for cycle_B"
    assert floors in readme and floors in complete
    rows = [row for row in scores if (row["experiment"], row["arm"]) == ("output_norm", "none")]
    mean, half = mean_and_interval([1 - row["cycle_A"] / row["floor_A"] for row in rows])
    demo = json.loads((ROOT / "data" / "demo" / "scores.json").read_text())
    longer = [1 - demo[f"demo_none_{seed}"]["cycle_A"] / demo[f"demo_none_{seed}"]["floor_A"] for seed in range(3)]
    assert f"cycle_A ends {mean:.0%} ± {half:.0%} below its floor (and {sum(longer) / 3:.0%} below after" in readme
    affine = [row for row in scores if row["arm"] == "instance_affine"]
    assert min(row[f"cycle_{d}"] - row[f"floor_{d}"] for row in affine for d in "AB") > 0  # "has not"
    ends = by_arm(scores, "surgery", ["cycle_A"])
    out, stays = (ends[arm]["cycle_A"][1][0] for arm in ("taken out", "it stays"))
    assert f"After 500 steps it is {out:.3f} on average; in trainings that keep the layer it is {stays:.3f}" in readme
    history = read_table(ROOT / "data" / "ablation" / "history.csv")
    first = [min(row["step"] - 500 for row in history if (row["arm"], row["seed"]) == ("taken out", seed)
                 and row["cycle_A"] < scores[0]["floor_A"]) for seed in range(5)]  # fmt: skip
    assert set(first) == {100, 200} and len(ends["taken out"]["cycle_A"][0]) == 5

    def background(arm, step):
        found = [row["background_error"] for row in history if (row["arm"], row["step"]) == (arm, step)]
        return sum(found) / len(found)

    fallen = f"has fallen from {background('it stays', 500):.2f} to {background('taken out', 550):.2f}"
    assert f"{fallen}; where the layer stays it is still {background('it stays', 550):.2f}" in readme
    put_in = [row for row in history if row["arm"] == "put in" and row["step"] >= 500]
    assert len({row["seed"] for row in put_in}) == 3 and min(row["cycle_A"] for row in put_in) > scores[0]["floor_A"]
    wide = [row for row in scores if row["arm"] == "scale 10"]
    assert min(row[f"cycle_{d}"] for row in wide for d in "AB") > 0.23
    three = [row["cycle_A"] < scores[0]["floor_A"] for row in scores if row["arm"] == "scale 3"]
    assert len(three) == 3 and sum(three) == 1 and "one run of three ends with a cycle_A below 0.192" in readme
    batch = by_arm(scores, "output_norm", ["background_error"])["batch"]["background_error"][0]
    without = by_arm(scores, "output_norm", ["background_error"])["none"]["background_error"][0]
    assert all(more > less for more, less in zip(batch, without, strict=True)) and len(batch) == 5  # "in every seed"
    halves, nothing = (by_arm(scores, name, ["background_error"]) for name in ("half", "output_norm"))
    for half in ("mean_only", "scale_only"):
        assert min(halves[half]["background_error"][0]) > max(nothing["none"]["background_error"][0])
    diary = [row for row in scores if row["experiment"] == "diary" and row["arm"].startswith("instance")]
    assert min(row[f"cycle_{d}"] - row[f"floor_{d}"] for row in diary for d in "AB") > 0


def test_the_pages_speed_is_the_measured_one():
    found = json.loads((ROOT / "data/page/speed.json").read_text())
    readme = (ROOT / "README.md").read_text("utf-8")
    assert f"On {found['cores']} cores" in readme and f"first text after {found['first_paint_ms']} ms" in readme
    assert f"there and back {found['redraws_per_second']} times a second" in readme
    assert f"trains {found['lab_steps_per_second_at_1280_px']:,} steps a second" in readme


def test_what_the_readme_says_of_more_steps_is_in_the_committed_table():
    longer = [row for row in read_table(ROOT / "data/ablation/history.csv") if row["arm"] == "instance, longer"]
    mean = {(column, step): sum(row[column] for row in longer if row["step"] == step) / 3
            for column in ("cycle_A", "background_error") for step in (500, 2500)}  # fmt: skip
    said = f"after 2,500 steps cycle_A is {mean['cycle_A', 2500]:.3f} on average (three trainings)"
    risen = [f"{mean['background_error', step]:.2f}" for step in (500, 2500)]
    risen = f"has risen, from {risen[0]} after 500 steps of the same trainings to {risen[1]}"
    assert f"{said}, and the error of the backgrounds {risen}" in (ROOT / "README.md").read_text("utf-8")


def test_what_is_said_of_hidden_walls_is_in_the_committed_table():
    readme, rows = (ROOT / "README.md").read_text(), read_table(ROOT / "data" / "hidden" / "scores.csv")
    back = [row["wall_back"] for row in rows if (row["experiment"], row["step"]) == ("longer", 5000)]
    assert f"come back is {sum(back) / len(back):.2f} on average (three seeds)" in readme and len(back) == 3
    found = [row["invented"] for row in rows if (row["experiment"], row["arm"]) == ("remedies", "as it is")]
    assert f"{100 * min(found):.0f} to {max(found):.0%}".replace("%", " %") in readme and len(found) == 5
    ends = sorted(row["invented"] for row in rows if (row["experiment"], row["step"]) == ("longer", 5000))
    assert ends[:2] == [0, 0] and f"two end with none, and one with {ends[2]:.0%}".replace("%", " %") in readme
    said = re.search(r"if the mean colour is guessed: (0\.\d+)", (ROOT / "notebooks" / "09_hidden.ipynb").read_text())
    assert f"a guess has an error of {float(said[1]):.2f}" in readme


def test_what_is_said_of_other_pictures_is_in_the_committed_tables():
    readme, elsewhere = (ROOT / "README.md").read_text(), ROOT / "data" / "elsewhere"
    lines = (elsewhere / "README.md").read_text().splitlines()
    for name in ("openmoji", "china2flower"):
        scores = read_table(elsewhere / name / "scores.csv")
        floors = [f"{scores[0][f'floor_{d}']:.3f}" for d in "AB"]
        for arm in ("none", "instance"):
            rows = [row for row in scores if row["arm"] == arm]
            cells = [", ".join(f"{row[column]:.3f}" for row in rows) for column in ("cycle_A", "cycle_B")]
            assert f"| `{name}` | {arm} | {cells[0]} | {cells[1]} | {', '.join(floors)} |" in lines
            assert all(row[f"cycle_{d}"] > row[f"floor_{d}"] for row in rows for d in "AB") or arm == "none"
            if name == "openmoji":
                assert cells[0].replace(", ", " and ").replace(" and ", ", ", 1) in readme
    scores = read_table(elsewhere / "openmoji" / "scores.csv")
    assert f"floors are {scores[0]['floor_A']:.3f} for cycle_A and {scores[0]['floor_B']:.3f} for cycle_B" in readme
    for text in (readme, (elsewhere / "README.md").read_text(), (ROOT / "LICENSE").read_text()):
        assert "CC BY-SA 4.0" in text


def test_what_the_readme_says_of_the_data_is_in_the_committed_tables():
    readme, scores = (ROOT / "README.md").read_text(), read_table(ROOT / "data" / "debugging" / "scores.csv")
    found = {}
    for experiment in ("background", "background_no_identity", "identity"):
        for arm, columns in by_arm(scores, experiment, ["background_error"]).items():
            found[arm] = "{:.3f} ± {:.3f}".format(*columns["background_error"][1])
    assert f"is {found['background 0.8']} as long as one wall in five" in readme
    assert f"and {found['background 1.0']} when all do" in readme
    assert f"without it the background_error is {found['background 0.8, no identity']}" in readme
    assert f"({found['confounded, identity 0']} without, {found['confounded, identity 10']} with weight 10)" in readme
    runs = {
        (row["experiment"], row["arm"], row["seed"]) for row in scores if row["experiment"] != "batch"
    }  # notebook 04's
    assert f"{len(runs) - 12} runs" in readme  # 12 stand in two tables


def test_the_readmes_benchmark_is_the_committed_one():
    from tell import short, summary

    readme, folder = (ROOT / "README.md").read_text(), ROOT / "data" / "benchmark"
    complete, files = (folder / "README.md").read_text(), sorted(folder.glob("*.json"))
    assert files and (folder / "cost.png").is_file()
    for path in files:
        found = json.loads(path.read_text())
        assert summary(found) in complete, path.name
        assert short(found) in readme, path.name
        assert {row["batch"] for row in found["rows"] if row["pixels"] > 64} == {1}
        assert {row["batch"] for row in found["rows"] if row["pixels"] == 64} == {4}


def test_commands_to_train_are_the_demos():
    """The line in the README for those without make, and the playground's, do what `make demo` does."""
    for name in ("README.md", "playground.ipynb"):
        text = (ROOT / name).read_text()
        if name.endswith("ipynb"):
            text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
        lines = re.findall(r"cyclegan train (--dataset_name .*)", text.replace("\\\n", " "))
        assert lines, name
        for line in lines:
            config, demo = parse_config(line.split()), demo_config()
            assert (config.max_steps or config.num_epochs * 100) == 1600  # an epoch of 400 pictures, of 4 at a time
            length = dict(num_epochs=16, max_steps=None)
            as_demo = dict(dataset_name="water2wine", sample_interval=4, checkpoint_interval=0, **length)
            assert dataclasses.replace(config, **as_demo) == demo, line


def anchors(path):
    """The names that GitHub gives to a file's headings."""
    headings = re.findall(r"^#+ (.*)", path.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_and_pictures_of_the_readmes_are_there():
    readmes = [ROOT / ".ci" / "README.md", *(ROOT / name / "README.md" for name in ("", "data", "notebooks"))]
    readmes += [ROOT / "data" / name / "README.md" for name in ("ablation", "benchmark", "debugging", "elsewhere")]
    for path in readmes:
        for alt, link in re.findall(r"(!?\[[^\]]*\])\(([^)]+)\)", path.read_text()):
            if link.startswith("http"):
                continue
            file, _, anchor = link.partition("#")
            target = path.parent / file if file else path
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link
            assert not alt.startswith("!") or len(alt) > 20, f"no alt text for {link}"


def test_the_maintainers_readme_names_every_target_and_script():
    text, makefile = (ROOT / ".ci" / "README.md").read_text(), (ROOT / "Makefile").read_text()
    assert table_of(text, "target").keys() == {f"`{name}`" for name in re.findall(r"^([\w-]+):(?!=)", makefile, re.M)}
    scripts = {path.name for path in (ROOT / ".ci").iterdir() if path.is_file() and path.suffix != ".md"}
    assert table_of(text, "script").keys() == {f"`{name}`" for name in scripts}
    assert ".ci/README.md" in (ROOT / "README.md").read_text()


def modules():
    return sorted(path for path in (ROOT / "cyclegan_lib").rglob("*.py") if path.name != "__init__.py")


def test_the_layout_in_the_readme_names_every_module():
    readme = (ROOT / "README.md").read_text()
    for module in modules():
        assert f"`{module.name}`" in readme, module.name


def test_the_core_is_read_in_one_sitting():
    core = ("models", "losses", "cyclegan", "datasets", "config", "trainer")
    below = ("errors", "files", "torchvision_shim")
    length = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in modules()}
    assert sum(length[f"cyclegan_lib/{name}.py"] for name in core) <= 900
    assert sum(length[f"cyclegan_lib/{name}.py"] for name in below) <= 150
    assert max(length.values()) <= 400, max(length, key=length.get)
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 40, f"{path.name}: {node.name} does not fit a screen"


def test_installed_from_a_wheel_it_works(tmp_path):
    """As `pip install git+…` does on Colab: not editable, and nowhere near the repository."""
    pip, source = [sys.executable, "-m", "pip", "-q"], tmp_path / "source"  # building leaves files behind
    shutil.copytree(ROOT / "cyclegan_lib", source / "cyclegan_lib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, source], check=True)
    [wheel] = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True)
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in modules() if path.stem != "__main__"]
    code = f"import importlib, cyclegan_lib\nfor name in {names}: importlib.import_module(name)\n"
    code += "from cyclegan_lib.show.page import PARTS, assemble\npage = assemble(PARTS, {})\n"
    code += (
        "whole = all(f'id=\"{name}\"' in page for name in ('engine-script', 'engine-wasm', 'live', 'live-script'))\n"
    )
    code += "print(cyclegan_lib.__file__, whole)"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    told = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert told.stdout.split() == [str(site / "cyclegan_lib" / "__init__.py"), "True"], told.stderr
    command = [sys.executable, site / "bin" / "cyclegan", "--help"]
    helped = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert helped.returncode == 0 and all(f"    {name}" in helped.stdout for name in COMMANDS)


# torchvision beside another torch


def run_shim(tmp_path, body):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(body)
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n" + (
        "import cyclegan_lib.torchvision_shim as shim, torchvision\nprint(hasattr(shim, '_library'), torchvision.value)"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_the_shim_does_nothing_where_torchvision_loads(tmp_path):
    assert run_shim(tmp_path, "value = 1\n").stdout.split() == ["False", "1"]


def test_the_shim_declares_operators_after_that_error_alone(tmp_path):
    body = (
        "import torch\n"
        "if not hasattr(torch.ops.torchvision, 'qnms'):\n"
        "    raise RuntimeError('operator torchvision::nms does not exist')\n"
        "value = 2\n"
    )
    assert run_shim(tmp_path, body).stdout.split() == ["True", "2"]


def test_the_shim_hides_no_other_error(tmp_path):
    found = run_shim(tmp_path, "raise RuntimeError('something else')\n")
    assert found.returncode != 0 and "something else" in found.stderr
