import contextlib
import io
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tqdm.auto import tqdm

from cyclegan_lib import cli
from cyclegan_lib.config import OUTPUT_NORMS, TrainConfig
from cyclegan_lib.errors import UserError
from cyclegan_lib.pictures.weights import load_generator
from cyclegan_lib.study import ablation, experiments, tables
from cyclegan_lib.study.tables import Tables, by_arm, label_of, paired, read_table
from cyclegan_lib.water2wine.dataset import write_dataset
from cyclegan_lib.water2wine.scores import SCORES

ROOT = Path(__file__).resolve().parents[1]
COMMITTED = ROOT / "data" / "ablation"


def arguments(*argv):
    return experiments.settled(cli.parse(["ablation", *map(str, argv)])[1])


def plan(*argv):
    return experiments.plan(arguments(*argv))


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
        ("none", "none + all"), ("instance", "instance + all"), ("instance_affine", "scale 1"),
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
    args = arguments("--experiments", *experiments.DATA_EXPERIMENTS, "--data_root", tmp_path)
    runs = experiments.plan(args)
    assert len(runs) == 69 and args.output == tmp_path / "debugging"
    assert sorted(len(run.labels) for run in runs) == [1] * 63 + [2] * 3 + [5] * 3
    ones = [run for run in runs if run.config.batch_size == 1]
    assert sorted(run.config.max_steps for run in ones) == [500] * 3 + [2000] * 3
    walls = [run for run in runs if run.labels[0] == ("background", "background 0.9", 0)]
    assert walls[0].drawn == {"confounding": 0.9, "glass_confounding": 0.5, "num_train": 400}
    assert walls[0].config.dataset_name == "water2wine_confounding_0.9" and walls[0].keep_at == {1}
    few = [run for run in runs if run.labels[0] == ("augmentation", "40 pictures, as they are", 1)]
    assert few[0].config.no_augment and few[0].drawn["num_train"] == 40 and few[0].kept_as == []
    ablation.prepare(args, few)
    [drawn] = tmp_path.iterdir()
    assert drawn.name == few[0].config.dataset_name and len(list((drawn / "trainB").iterdir())) == 40


def test_the_confounded_experiment_has_its_own_pictures():
    names = {run.config.dataset_name for run in plan("--experiments", "confounded")}
    assert names == {"water2wine_confounding_0.95_glass_confounding_0.95"}


# A small experiment


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    """A small water2wine, so that nothing has to be drawn."""
    root = tmp_path_factory.mktemp("data")
    write_dataset(root / "water2wine", num_train=8, num_test=10, size=32)
    return root


def small_runs(data_root, folder, *more):
    """Command-line arguments of an experiment of seconds."""
    small = ["--data_root", data_root, "--output", folder / "out", "--work", folder / "work", "--size", "32"]
    return [str(argument) for argument in (*small, "--batch_size", "2", "--jobs", "2", *more)]


def run(argv):
    """What the command prints."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        cli.main(["ablation", *argv])
    return said.getvalue()


@pytest.fixture(scope="module")
def small(data_root, tmp_path_factory):
    """(folder, arguments, what it said): two main arms, and three of the diary's, four steps each."""
    folder = tmp_path_factory.mktemp("small")
    arms = ("--experiments", "output_norm", "diary", "--arms", "none", "instance", "instance + all")
    argv = small_runs(data_root, folder, *arms, "--seeds", "1", "--steps", "4")
    return folder, argv, run(argv)


def test_it_says_how_long_it_takes_and_writes_the_tables(small):
    folder, _, said = small
    assert re.search(r"4 runs of 4 steps, 0 of them .* already\nabout \d+ minutes, 2 side by side", said)
    scores, history = (read_table(folder / "out" / f"{name}.csv") for name in ("scores", "history"))
    assert len(scores) == 5 and len(history) == 10  # one of them stands in both experiments
    assert tuple(history[0]) == tables.HISTORY_COLUMNS and tuple(scores[0]) == tables.SCORE_COLUMNS
    for row in scores:
        assert all(isinstance(row[name], float) for name in (*SCORES, "colour_accuracy", "floor_A", "floor_B"))
        end = [other for other in history if label_of(other) == label_of(row)][-1]
        assert end["cycle_A"] == row["cycle_A"] and end["step"] == row["steps"] == 4
    config = json.loads((folder / "out" / "config.json").read_text())
    assert config["base"]["max_steps"] == 4 and config["versions"]["torch"] == torch.__version__
    assert not list((folder / "work").rglob("epoch_*.safetensors")), "checkpoints of finished runs are removed"


def test_rerun_or_committed_no_run_with_the_norm_is_below_the_floor(small):
    """At every step, of every evaluated set of pictures: the theorem."""
    for folder in (small[0] / "out", COMMITTED):
        floors = {label_of(row): row for row in read_table(folder / "scores.csv")}
        checked = 0
        for row in read_table(folder / "history.csv"):
            if experiments.has_output_norm(row):
                floor = floors[label_of(row)]
                assert row["cycle_A"] >= floor["floor_A"] and row["cycle_B"] >= floor["floor_B"], row
                checked += 1
        assert checked >= 6


def test_a_shared_run_has_a_row_in_both_experiments(small):
    rows = {label_of(row): row for row in read_table(small[0] / "out" / "scores.csv")}
    one, other = rows["output_norm", "instance", 0], rows["diary", "instance + all", 0]
    assert all(one[name] == other[name] for name in tables.SCORE_COLUMNS[2:])
    assert rows["diary", "instance", 0]["cycle_A"] != one["cycle_A"]


def test_networks_of_the_main_arms_are_kept_in_half_precision(small):
    for arm in ("none", "instance"):
        path = small[0] / "out" / f"{arm}_step_4.safetensors"
        for direction in ("AtoB", "BtoA"):
            G = load_generator(path, direction)
            assert G(torch.zeros(1, 3, 32, 32)).abs().max() <= 1
        assert sum(parameter.numel() for parameter in G.parameters()) * 4 < path.stat().st_size < 640_000
    assert {path.stem.split("_")[0] for path in (small[0] / "out").glob("*.safetensors")} == {"none", "instance"}


def test_finished_runs_are_not_trained_again(small):
    folder, argv, _ = small
    before = {path.name: path.read_bytes() for path in (folder / "out").iterdir()}
    said = run(argv)
    assert "4 runs of 4 steps, 4 of them" in said and "minutes" not in said
    assert {path.name: path.read_bytes() for path in (folder / "out").iterdir()} == before


def test_rows_are_replaced_not_doubled(small, tmp_path):
    folder, argv, _ = small
    shutil.copytree(folder / "out", tmp_path / "out")
    runs = plan(*argv)
    copied = Tables(tmp_path / "out")
    for a_run in runs:
        assert copied.has(a_run)
        rows = {}
        for name in ("history", "scores"):
            table = read_table(folder / "out" / f"{name}.csv")
            own = [row for row in table if label_of(row) == a_run.labels[0]]
            rows[name] = [{key: value for key, value in row.items() if key not in tables.LABEL} for row in own]
        copied.add(a_run, rows["history"], *rows["scores"])
    for name in ("history.csv", "scores.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / "out" / name).read_bytes()


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
        run(small_runs(data_root, tmp_path, "--steps", "4"))
    said = capsys.readouterr().err
    assert error.value.code == 2 and name in said and said.count("\n") == 1


def test_tables_of_another_configuration_are_not_mixed(small, data_root, capsys):
    with pytest.raises(SystemExit) as error:
        run(small_runs(data_root, small[0], "--steps", "5"))
    assert error.value.code == 2
    assert "have max_steps 4, not 5; choose another --output" in capsys.readouterr().err


# Stopped and continued


ONE = ("--experiments", "output_norm", "--arms", "instance", "--seeds", "1", "--steps", "30")
CUT = ("--experiments", "surgery", "--arms", "taken out", "--seeds", "1", "--steps", "6")


@pytest.fixture(scope="module")
def whole(data_root, tmp_path_factory):
    """The tables of an experiment that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    run(small_runs(data_root, folder, *ONE))
    return folder / "out"


class StopAfter:
    """An event that is set after some questions."""

    def __init__(self, questions):
        self.questions = questions

    def is_set(self):
        self.questions -= 1
        return self.questions < 0


@pytest.mark.parametrize("steps", [1, 25, 30])
def test_a_stopped_run_continues_to_the_same_rows(data_root, tmp_path, whole, monkeypatch, steps):
    """Also one that was finished, and whose rows did not get into the tables."""
    [a_run], steps_done = plan(*small_runs(data_root, tmp_path, *ONE)), multiprocessing.Value("q", 0)
    monkeypatch.setattr(ablation, "LINK", (steps_done, StopAfter(steps)), raising=False)
    stopped = ablation.train_one(a_run)
    assert (stopped is None) == (steps < 30) and steps_done.value == steps
    monkeypatch.setattr(ablation, "LINK", (steps_done, StopAfter(100)))
    history, scores, _ = ablation.train_one(a_run)
    (tmp_path / "out").mkdir()
    Tables(tmp_path / "out").add(a_run, history, scores)
    for path in whole.glob("*.csv"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


@pytest.fixture(scope="module")
def cut(data_root, tmp_path_factory):
    """(tables, work) of a run of 12 steps in which the norm is taken out after six."""
    folder = tmp_path_factory.mktemp("cut")
    run(small_runs(data_root, folder, *CUT))
    return folder / "out", folder / "work"


@pytest.mark.parametrize("steps", [5, 6, 7])
def test_a_run_stopped_beside_its_surgery_continues_to_the_same_rows(data_root, tmp_path, cut, monkeypatch, steps):
    [a_run], steps_done = plan(*small_runs(data_root, tmp_path, *CUT)), multiprocessing.Value("q", 0)
    monkeypatch.setattr(ablation, "LINK", (steps_done, StopAfter(steps)), raising=False)
    assert ablation.train_one(a_run) is None and steps_done.value == steps
    monkeypatch.setattr(ablation, "LINK", (steps_done, StopAfter(100)))
    history, scores, _ = ablation.train_one(a_run)
    (tmp_path / "out").mkdir()
    Tables(tmp_path / "out").add(a_run, history, scores)
    for path in cut[0].glob("*.csv"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_a_branch_of_a_trunk_has_the_rows_of_a_run_from_the_start(data_root, tmp_path, cut):
    """And until the cut those of the trunk."""
    said = run(small_runs(data_root, tmp_path, *CUT[:2], "--seeds", "1", "--steps", "6"))
    assert "continuing from surgery_taken_out_0/step_6" in said or "2 runs" in said
    for name in ("history", "scores"):
        rows, alone = (read_table(folder / f"{name}.csv") for folder in (tmp_path / "out", cut[0]))
        by_arm = {arm: [row for row in rows if row["arm"] == arm] for arm in ("it stays", "taken out")}
        assert by_arm["taken out"] == alone
    trunk, branch = (
        {row["step"]: {key: row[key] for key in row if key != "arm"} for row in read_table(tmp_path / "out/history.csv")
         if row["arm"] == arm} for arm in ("it stays", "taken out")
    )  # fmt: skip
    assert [step for step in trunk if trunk[step] == branch[step]] == [0]
    assert trunk[6]["loss_D"] == branch[6]["loss_D"] and trunk[6]["cycle_A"] != branch[6]["cycle_A"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_experiment_continues_to_the_same_tables(data_root, tmp_path, whole, how):
    """A terminal sends Ctrl-C to the processes of the runs, too; a kill is for the experiment's alone."""
    command = [sys.executable, "-m", "cyclegan_lib", "ablation", *small_runs(data_root, tmp_path, *ONE)]
    pipes = dict(stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    stopped = subprocess.Popen(command, cwd=ROOT, start_new_session=True, **pipes)
    evaluations = tmp_path / "work" / "saved_models" / "output_norm_instance_0" / "evaluations.jsonl"
    while not evaluations.is_file():  # it trains
        assert stopped.poll() is None
        time.sleep(0.02)
    if how == signal.SIGKILL:
        stopped.kill()
    else:
        os.killpg(stopped.pid, how)
    _, errors = stopped.communicate(timeout=100)
    assert "Traceback" not in errors
    if how != signal.SIGKILL:
        assert stopped.returncode == 130 and "stopped with 1 runs to go; the same command continues" in errors
        assert list(evaluations.parent.glob("step_*.safetensors")), "it was over before it could be stopped"
    run(small_runs(data_root, tmp_path, *ONE))
    for name in ("history.csv", "scores.csv", "instance_step_30.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_run_that_fails_is_named(tmp_path):
    config = TrainConfig(dataset_name="nowhere", data_root=tmp_path, output_root=tmp_path, run_name="one", device="cpu")
    with pytest.raises(UserError, match="^one: .*nowhere"):
        ablation.train_all([experiments.Run(config, {})], 2, None, tqdm(disable=True))
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(("more", "said"), [
    (["--steps", "0"], "--steps: must"), (["--seeds", "0"], "--seeds: must"), (["--jobs", "0"], "--jobs: must"),
    (["--arms", "nonsense"], "--arms 'nonsense': there is none of that name; there are none, instance,"),
    (["--experiments", "x"], "--experiments 'x': there is none of that name; there are output_norm,"),
    (["--size", "30"], "--size: must be a multiple of 4"), (["--dataset_name", "../x"], "not a path"),
    (["--dataset_name", "nowhere"], "nowhere"),
])  # fmt: skip
def test_mistakes_are_one_line_at_once(data_root, tmp_path, capsys, more, said):
    with pytest.raises(SystemExit) as error:
        run(small_runs(data_root, tmp_path, *more))
    assert error.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "work").exists() and not (tmp_path / "out").exists()


def test_pairs_are_of_the_same_seed_in_any_order():
    rows = [{"experiment": "x", "arm": arm, "seed": seed, "cycle_A": value} for arm, seed, value in
            [("a", 2, 5.0), ("b", 0, 1.0), ("a", 0, 2.0), ("b", 2, 3.0), ("b", 1, 9.0)]]  # fmt: skip
    differences, (mean, half) = paired(rows, ("x", "a"), ("x", "b"), "cycle_A")
    assert differences == [1, 2] and mean == 1.5 and half == pytest.approx(12.706 * 0.5, rel=1e-3)


def test_arms_are_grouped_in_the_experiments_order():
    scores = [{"experiment": "diary", "arm": arm, "seed": seed, "cycle_A": seed + 1.0}
              for arm in ("instance + all", "instance", "none", "mine") for seed in (0, 1)]  # fmt: skip
    groups = by_arm(scores, "diary", ["cycle_A"])
    assert list(groups) == ["none", "instance", "instance + all", "mine"]
    values, (mean, half) = groups["instance + all"]["cycle_A"]
    assert values == [1, 2] and mean == 1.5 and half == pytest.approx(12.706 * 0.5, rel=1e-3)


# What is committed


def test_committed_tables_are_complete_and_small():
    scores = read_table(COMMITTED / "scores.csv")
    seeds = {}
    for row in scores:
        seeds.setdefault((row["experiment"], row["arm"]), set()).add(row["seed"])
    for name, experiment in experiments.OUTPUT_NORM_EXPERIMENTS.items():
        assert all(len(seeds.get((name, arm), ())) >= experiment.seeds for arm in experiment.arms), name
    steps = {}
    for path in COMMITTED.glob("*.safetensors"):
        arm, step = path.stem.split("_step_")
        steps.setdefault(arm, set()).add(int(step))
    kept = {"none", "instance", "it_stays", "taken_out", "mean_only", "scale_only"}
    assert set(steps) == kept | {"stuck"} and len(steps["none"]) <= 8
    assert steps["none"] == steps["instance"] and steps["it_stays"] == steps["taken_out"]
    assert sum(path.stat().st_size for path in COMMITTED.rglob("*")) < 25e6
    config = json.loads((COMMITTED / "config.json").read_text())
    assert config["base"] == json.loads(json.dumps(tables.describe(arguments())))["base"]


def test_committed_tables_about_the_data_are_complete_and_small():
    folder = ROOT / "data" / "debugging"
    seeds = {}
    for row in read_table(folder / "scores.csv"):
        seeds.setdefault((row["experiment"], row["arm"]), set()).add(row["seed"])
    wanted = {
        (name, arm): {0, 1, 2} for name, experiment in experiments.DATA_EXPERIMENTS.items() for arm in experiment.arms
    }
    assert seeds == wanted
    kept = [arm for experiment in experiments.DATA_EXPERIMENTS.values() for arm in experiment.keep]
    files = {f"{arm.replace(' ', '_')}_step_500.safetensors" for arm in kept}
    assert {path.name for path in folder.glob("*.safetensors")} == files
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8e6
    described = tables.describe(arguments("--experiments", *experiments.DATA_EXPERIMENTS))
    config, described = json.loads((folder / "config.json").read_text()), json.loads(json.dumps(described))
    assert config["base"] == described["base"] and config["experiments"] == described["experiments"]


def test_committed_runs_without_the_norm_end_below_the_floor():
    for row in read_table(COMMITTED / "scores.csv"):
        if row["experiment"] == "output_norm" and row["arm"] == "none":
            assert row["cycle_A"] < row["floor_A"] and row["cycle_B"] < row["floor_B"]


def test_the_tables_in_the_readme_of_the_ablation_are_the_committed_ones():
    readme, scores = (COMMITTED / "README.md").read_text(), read_table(COMMITTED / "scores.csv")

    def line(experiment, arm, *columns):
        rows = [row for row in scores if (row["experiment"], row["arm"]) == (experiment, arm) and row["seed"] < 3]
        cells = [
            ", ".join(f"{row[column]:.3f}" for row in sorted(rows, key=lambda row: row["seed"])) for column in columns
        ]
        return f"| {' | '.join([arm, *cells])} |\n"

    for arm in experiments.EXPERIMENTS["diary"].arms:
        assert line("diary", arm, "cycle_A", "success_rate", "background_error") in readme
    for experiment, arm in [("output_norm", "none"), ("output_norm", "instance"), ("mirror", "discriminator_instance")]:
        assert line(experiment, arm, "cycle_A", "background_error", "colour_accuracy", "loss_D") in readme
    diary = [row for row in scores if row["experiment"] == "diary"]
    inverted = [row["arm"] for row in diary if row["background_error"] > 0.6]
    assert f"in {len(inverted)} of the {len(diary)} runs" in readme
    assert not any("identity" in arm or "all" in arm for arm in inverted)
    assert all(row["cycle_A"] > row["floor_A"] for row in diary if row["arm"].startswith("instance"))
    success = {
        arm: [row["success_rate"] for row in diary if row["arm"] == arm] for arm in ("instance", "instance + identity")
    }
    assert all(after < before for before, after in zip(*success.values(), strict=True))


def test_what_came_out_of_the_later_runs_is_in_the_committed_tables():
    readme, scores = (COMMITTED / "README.md").read_text(), read_table(COMMITTED / "scores.csv")
    history = read_table(COMMITTED / "history.csv")

    def values(rows, arm, column, **wanted):
        found = [row for row in rows if row["arm"] == arm and all(row[name] == value for name, value in wanted.items())]
        return ", ".join(f"{row[column]:.3f}" for row in sorted(found, key=lambda row: row["seed"]))

    for arm in ("scale 3", "scale 10", "none, no adversary", "put in"):
        assert values(scores, arm, "cycle_A") in readme, arm
    assert values(scores, "never there", "cycle_A") == "0.133, 0.133, 0.133" and "0.133 in each" in readme
    assert values(history, "last layer first", "background_error", step=550) in readme
    assert values(history, "last layer first", "cycle_A", step=500) in readme
    for column, arm, sign in (("identity_A", "without first norm", -1), ("identity_A", "without inner norms", 1)):
        _, (mean, half) = tables.paired(scores, ("above_the_floor", arm),
                                        ("above_the_floor", "instance, identity alone"), column)  # fmt: skip
        assert sign * mean > half and f"{abs(mean):.3f} {'higher' if sign > 0 else 'lower'} without" in readme
    _, (mean, half) = tables.paired(scores, ("mirror", "both"), ("output_norm", "instance"), "cycle_A")
    assert f"cycle_A is higher by {mean:.3f} ± {half:.3f}" in readme
