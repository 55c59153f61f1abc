import dataclasses
import json
import multiprocessing
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cyclegan_lib.errors import UserError
from cyclegan_lib.models import OUTPUT_NORMS
from cyclegan_lib.pictures.weights import load_generator
from cyclegan_lib.show import plots
from cyclegan_lib.study import ablation
from cyclegan_lib.train import TrainConfig
from cyclegan_lib.water2wine.dataset import write_dataset
from cyclegan_lib.water2wine.scores import SCORES

ROOT = Path(__file__).resolve().parents[1]
COMMITTED = ROOT / "data" / "ablation"


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    """A small water2wine, so that nothing has to be drawn."""
    root = tmp_path_factory.mktemp("data")
    write_dataset(root / "water2wine", num_train=8, num_test=10, size=32)
    return root


def arguments(data_root, tmp_path, *more):
    small = ["--data_root", data_root, "--output", tmp_path / "out", "--work", tmp_path / "work", "--size", "32"]
    return [str(argument) for argument in (*small, "--batch_size", "2", "--jobs", "2", *more)]


def plan(*argv):
    return ablation.plan(ablation.parse(list(argv))[0])


# The plan


def test_the_plan_has_every_arm_with_enough_seeds():
    labels = [label for run in plan() for label in run.labels]
    seeds = {}
    for experiment, arm, seed in labels:
        seeds.setdefault((experiment, arm), set()).add(seed)
    assert {arm for experiment, arm in seeds if experiment == "output_norm"} == set(OUTPUT_NORMS)
    assert all(len(found) >= (5 if experiment == "output_norm" else 3) for (experiment, _), found in seeds.items())
    for norm in ("none", "instance"):
        for added in ("", " + identity", " + decay", " + init", " + all"):
            assert ("diary", norm + added) in seeds
    assert ("mirror", "discriminator_instance") in seeds
    assert len(labels) == len(set(labels))


def test_a_run_that_stands_in_two_experiments_is_trained_once():
    shared = [run for run in plan() if len(run.labels) > 1]
    assert {tuple(sorted(arm for _, arm, _ in run.labels)) for run in shared} == {
        ("none", "none + all"), ("instance", "instance + all"),
    }  # fmt: skip


def test_the_diary_adds_one_thing_at_a_time():
    config = {run.labels[-1][1]: run.config for run in plan("--experiments", "diary", "--seeds", "1")}

    def added(arm):
        names = ("lambda_identity", "decay_epoch", "no_init", "output_norm")
        return {name for name in names if getattr(config[arm], name) != getattr(config["instance"], name)}

    assert added("instance + identity") == {"lambda_identity"}
    assert added("instance + decay") == {"decay_epoch"}
    assert added("instance + init") == {"no_init"}
    assert added("instance + all") == {"lambda_identity", "decay_epoch", "no_init"}
    assert added("none") == {"output_norm"}
    assert config["instance"].no_init and config["instance"].lambda_identity == 0


def test_other_data_gets_the_two_main_arms():
    runs = plan("--dataset_name", "mine")
    assert {run.labels[0][1] for run in runs} == {"none", "instance"}
    assert {run.config.dataset_name for run in runs} == {"mine"}


def test_experiments_about_the_data_share_runs_and_draw_their_own_pictures(tmp_path):
    args, _ = ablation.parse(["--experiments", *ablation.DATA_EXPERIMENTS, "--data_root", str(tmp_path)])
    runs = ablation.plan(args)
    assert len(runs) == 51 and args.output == tmp_path / "debugging"
    assert sorted(len(run.labels) for run in runs) == [1] * 48 + [4] * 3
    walls = [run for run in runs if run.labels[0] == ("background", "background 0.9", 0)]
    assert walls[0].drawn == {"confounding": 0.9, "glass_confounding": 0.5, "num_train": 400}
    assert walls[0].config.dataset_name == "water2wine_confounding_0.9" and walls[0].keep_at == [1]
    few = [run for run in runs if run.labels[0] == ("augmentation", "40 pictures, as they are", 1)]
    assert few[0].config.no_augment and few[0].drawn["num_train"] == 40 and few[0].kept_as == []
    ablation.prepare(args, few)
    [drawn] = tmp_path.iterdir()
    assert drawn.name == few[0].config.dataset_name and len(list((drawn / "trainB").iterdir())) == 40


def test_the_confounded_experiment_has_its_own_pictures(tmp_path):
    args, _ = ablation.parse(["--experiments", "confounded", "--data_root", str(tmp_path), "--size", "32"])
    names = {run.config.dataset_name for run in ablation.plan(args)}
    assert names == {"water2wine_confounding_0.95_glass_confounding_0.95"}


# A small experiment


@pytest.fixture(scope="module")
def small(data_root, tmp_path_factory):
    """(folder, command, what it did): two main arms, and three of the diary's, four steps each."""
    tmp_path = tmp_path_factory.mktemp("small")
    command = [sys.executable, "-m", "cyclegan_lib.ablation", *arguments(data_root, tmp_path)]
    command += ["--experiments", "output_norm", "diary", "--arms", "none", "instance", "instance + all"]
    command += ["--seeds", "1", "--steps", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return tmp_path, command, done


def test_it_says_how_long_it_takes_and_writes_the_tables(small):
    tmp_path, _, done = small
    assert re.search(r"4 runs of 4 steps, 0 of them .* already\nabout \d+ minutes, 2 side by side", done.stdout)
    scores, history = (ablation.read_table(tmp_path / "out" / f"{name}.csv") for name in ("scores", "history"))
    assert len(scores) == 5 and len(history) == 10  # one of them stands in both experiments
    assert tuple(history[0]) == ablation.HISTORY_COLUMNS and tuple(scores[0]) == ablation.SCORE_COLUMNS
    for row in scores:
        assert all(isinstance(row[name], float) for name in (*SCORES, "colour_accuracy", "floor_A", "floor_B"))
        end = [found for found in history if ablation.label_of(found) == ablation.label_of(row)][-1]
        assert end["cycle_A"] == row["cycle_A"] and end["step"] == row["steps"] == 4
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["base"]["max_steps"] == 4 and config["versions"]["torch"] == torch.__version__


def test_rerun_or_committed_no_run_with_the_norm_is_below_the_floor(small):
    """At every step, of every evaluated set of pictures: the theorem."""
    for folder in (small[0] / "out", COMMITTED):
        floors = {ablation.label_of(row): row for row in ablation.read_table(folder / "scores.csv")}
        checked = 0
        for row in ablation.read_table(folder / "history.csv"):
            if row["arm"].startswith("instance") and row["arm"] != "instance_affine":
                floor = floors[ablation.label_of(row)]
                assert row["cycle_A"] >= floor["floor_A"] and row["cycle_B"] >= floor["floor_B"], row
                checked += 1
        assert checked >= 6


def test_a_shared_run_has_a_row_in_both_experiments(small):
    rows = {ablation.label_of(row): row for row in ablation.read_table(small[0] / "out" / "scores.csv")}
    one, other = rows["output_norm", "instance", 0], rows["diary", "instance + all", 0]
    assert all(one[name] == other[name] for name in ablation.SCORE_COLUMNS[2:])
    assert rows["diary", "instance", 0]["cycle_A"] != one["cycle_A"]


def test_networks_of_the_main_arms_are_kept_in_half_precision(small):
    for arm in ("none", "instance"):
        path = small[0] / "out" / f"{arm}_step_4.safetensors"
        G = load_generator(path)
        assert sum(parameter.numel() for parameter in G.parameters()) * 2 < path.stat().st_size < 320_000
        assert G(torch.zeros(1, 3, 32, 32)).abs().max() <= 1
    assert len(list((small[0] / "out").glob("*.safetensors"))) == 2


def test_finished_runs_are_not_trained_again(small):
    tmp_path, command, _ = small
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    began = time.monotonic()
    again = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=ROOT)
    assert again.returncode == 0 and "4 runs of 4 steps, 4 of them" in again.stdout and time.monotonic() - began < 60
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_finished_run_is_taken_in_though_its_row_is_missing(small, tmp_path):
    """As after a kill between the end of a run and its row."""
    folder, command, _ = small
    shutil.copytree(folder, tmp_path / "copy")
    command = [argument.replace(str(folder), str(tmp_path / "copy")) for argument in command]
    for name in ("history", "scores"):
        path = tmp_path / "copy" / "out" / f"{name}.csv"
        path.write_text("".join([line for line in path.open() if not line.startswith("diary,none,")]))
    for path in (tmp_path / "copy" / "work").rglob("config.json"):
        path.write_text(path.read_text().replace(str(folder), str(tmp_path / "copy")))
    again = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=ROOT)
    assert again.returncode == 0 and "3 of them" in again.stdout, again.stderr
    for name in ("history", "scores"):
        table = (folder / "out" / f"{name}.csv").read_bytes()
        assert (tmp_path / "copy" / "out" / f"{name}.csv").read_bytes() == table


def test_rows_are_replaced_not_doubled(small, tmp_path):
    folder, command, _ = small
    shutil.copytree(folder / "out", tmp_path / "out")
    runs = ablation.plan(ablation.parse(command[3:])[0])
    tables = ablation.Tables(tmp_path / "out", runs)
    for run in runs:
        assert tables.has(run)
        tables.add(run)
    assert (tmp_path / "out" / "scores.csv").read_bytes() == (folder / "out" / "scores.csv").read_bytes()


def test_what_another_configuration_left_is_not_gone_on_with(small):
    _, command, _ = small
    [run, *_] = ablation.plan(ablation.parse(command[3:])[0])
    assert ablation.is_of(run.config)
    assert not ablation.is_of(dataclasses.replace(run.config, lr=0.1))
    assert not ablation.is_of(dataclasses.replace(run.config, run_name="never_trained"))


@pytest.mark.parametrize(("name", "content"), [
    ("scores.csv", "experiment;arm;seed\nx;y;0\n"), ("scores.csv", "experiment,arm,seed\na,b,x\n"),
    ("history.csv", "\ufeffexperiment,arm,seed\na,b,0\n"), ("scores.csv", "experiment,arm,seed\na,b,0,1,2\n"),
    ("config.json", ""), ("config.json", "[]"), ("config.json", "{}"), ("config.json", None),
])  # fmt: skip
def test_damaged_tables_are_named(small, data_root, tmp_path, capsys, name, content):
    shutil.copytree(small[0] / "out", tmp_path / "out")
    path = tmp_path / "out" / name
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(SystemExit) as error:
        ablation.main(arguments(data_root, tmp_path, "--steps", "4"))
    said = capsys.readouterr().err
    assert error.value.code == 2 and name in said and said.count("\n") == 1


def start_one(data_root, folder):
    more = ("--experiments", "output_norm", "--arms", "instance", "--seeds", "1", "--steps", "60")
    command = [sys.executable, "-m", "cyclegan_lib.ablation", *arguments(data_root, folder, *more)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT)


@pytest.fixture(scope="module")
def whole(data_root, tmp_path_factory):
    """The tables of an experiment that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    assert start_one(data_root, folder).wait(timeout=200) == 0
    return folder / "out"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_experiment_goes_on_to_the_same_tables(data_root, tmp_path, whole, how):
    stopped = start_one(data_root, tmp_path)
    history = tmp_path / "work" / "saved_models" / "output_norm_instance_0" / "history.jsonl"
    deadline = time.monotonic() + 120
    while not (history.is_file() and history.read_text()):  # the first losses of the run
        assert stopped.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    stopped.send_signal(how)
    _, errors = stopped.communicate(timeout=60)
    assert "Traceback" not in errors
    if how != signal.SIGKILL:
        assert stopped.returncode == 130 and "stopped with 1 runs to go; the same command goes on" in errors
        assert 0 < len(history.read_text().splitlines()) < 60, "it was over before it could be stopped"
    assert start_one(data_root, tmp_path).wait(timeout=120) == 0
    for name in ("history.csv", "scores.csv", "instance_step_60.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_run_that_fails_is_named(tmp_path, capfd):
    config = TrainConfig(dataset_name="nowhere", data_root=tmp_path, output_root=tmp_path, run_name="one", max_steps=2)
    run, bar = ablation.Run(config, ablation.DRAWN), type("Bar", (), {"n": 0, "refresh": lambda self: None})()
    with pytest.raises(UserError, match="the run one failed"):
        ablation.train_all([run], 1, print, bar)
    errors = capfd.readouterr().err
    assert "error: one: " in errors and "nowhere" in errors and "Traceback" not in errors
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(("more", "said"), [
    (["--steps", "0"], "--steps must be"), (["--seeds", "0"], "--seeds must be"), (["--jobs", "0"], "--jobs must be"),
    (["--arms", "nonsense"], "--arms 'nonsense': not in these experiments"), (["--experiments", "x"], "invalid choice"),
    (["--size", "30"], "img_height must be a multiple of 4"), (["--dataset_name", "../x"], "not a path"),
    (["--dataset_name", "nowhere"], "nowhere"),
])  # fmt: skip
def test_mistakes_are_one_line_at_once(data_root, tmp_path, capsys, more, said):
    with pytest.raises(SystemExit) as error:
        ablation.main(arguments(data_root, tmp_path, *more))
    assert error.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "work").exists() and not (tmp_path / "out").exists()


def test_tables_of_another_configuration_are_not_mixed(small, data_root, capsys):
    tmp_path, _, _ = small
    with pytest.raises(SystemExit) as error:
        ablation.main(arguments(data_root, tmp_path, "--steps", "5"))
    assert error.value.code == 2
    assert "have max_steps 4, not 5; choose another --output" in capsys.readouterr().err


def test_arms_are_grouped_in_the_experiments_order():
    scores = [{"experiment": "diary", "arm": arm, "seed": seed, "cycle_A": seed + 1.0}
              for arm in ("instance + all", "instance", "none", "mine") for seed in (0, 1)]  # fmt: skip
    groups = ablation.by_arm(scores, "diary", ["cycle_A"])
    assert list(groups) == ["none", "instance", "instance + all", "mine"]
    colour, found = groups["instance + all"]
    values, (mean, half) = found["cycle_A"]
    assert colour == plots.COLOURS["instance"] and values == [1, 2] and mean == 1.5
    assert half == pytest.approx(12.706 * 0.5, rel=1e-3)


# What is committed


def test_committed_tables_are_complete_and_small():
    scores = ablation.read_table(COMMITTED / "scores.csv")
    seeds = {}
    for row in scores:
        seeds.setdefault((row["experiment"], row["arm"]), set()).add(row["seed"])
    for name, experiment in ablation.OUTPUT_NORM_EXPERIMENTS.items():
        assert all(len(seeds.get((name, arm), ())) >= experiment.seeds for arm in experiment.arms), name
    steps = {}
    for path in COMMITTED.glob("*.safetensors"):
        arm, step = path.stem.split("_step_")
        steps.setdefault(arm, set()).add(int(step))
    assert set(steps) == {"none", "instance"} and steps["none"] == steps["instance"] and len(steps["none"]) <= 8
    assert sum(path.stat().st_size for path in COMMITTED.rglob("*")) < 15e6
    config = json.loads((COMMITTED / "config.json").read_text())
    assert config["base"] == json.loads(json.dumps(ablation.describe(ablation.parse([])[0])))["base"]


def test_committed_tables_about_the_data_are_complete_and_small():
    folder = ROOT / "data" / "debugging"
    seeds = {}
    for row in ablation.read_table(folder / "scores.csv"):
        seeds.setdefault((row["experiment"], row["arm"]), set()).add(row["seed"])
    wanted = {
        (name, arm): {0, 1, 2} for name, experiment in ablation.DATA_EXPERIMENTS.items() for arm in experiment.arms
    }
    assert seeds == wanted
    kept = [arm for experiment in ablation.DATA_EXPERIMENTS.values() for arm in experiment.keep]
    files = {f"{arm.replace(' ', '_')}_step_500.safetensors" for arm in kept}
    assert {path.name for path in folder.glob("*.safetensors")} == files
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8e6
    described = ablation.describe(ablation.parse(["--experiments", *ablation.DATA_EXPERIMENTS])[0])
    config, described = json.loads((folder / "config.json").read_text()), json.loads(json.dumps(described))
    assert config["base"] == described["base"] and config["experiments"] == described["experiments"]


def test_committed_runs_without_the_norm_end_below_the_floor():
    for row in ablation.read_table(COMMITTED / "scores.csv"):
        if row["experiment"] == "output_norm" and row["arm"] == "none":
            assert row["cycle_A"] < row["floor_A"] and row["cycle_B"] < row["floor_B"]
