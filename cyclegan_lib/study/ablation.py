"""The experiment: arms × seeds → tables and small networks, `python -m cyclegan_lib.ablation`.

    data/ablation/history.csv   losses on the test pictures at a few steps of every run
    data/ablation/scores.csv    how every run ended, and the floors of the test pictures
    data/ablation/config.json   the exact configuration and versions
    data/ablation/*.safetensors G_AB of the two main arms at several steps, in half precision

and data/debugging/ alike, for the experiments about what the data teach.
Runs with the same seed see the same pictures in the same order and start from the same weights,
as far as the shapes allow: their differences are the arms'.
"""

import csv
import dataclasses
import io
import json
import math
import multiprocessing
import os
import platform
import re
import shutil
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from cyclegan_lib.cyclegan import DEVICES, PRECISIONS, resolve_device, resolve_precision
from cyclegan_lib.datasets import training_batches
from cyclegan_lib.errors import Parser, UserError
from cyclegan_lib.files import remove, write_tensors, write_whole
from cyclegan_lib.models import OUTPUT_NORMS
from cyclegan_lib.pictures.check import GENERATED, dataset_folder, prepare_dataset
from cyclegan_lib.show import plots
from cyclegan_lib.study.floor import output_norm_floor
from cyclegan_lib.study.statistics import colour_accuracy, mean_and_interval
from cyclegan_lib.train import FIXED, FLUSH_STEPS, HARMLESS, WHERE, TrainConfig, Trainer, demo_config
from cyclegan_lib.water2wine.dataset import write_dataset
from cyclegan_lib.water2wine.scores import SCORES, Water2WineTest

MAIN_ARMS = ("none", "instance")
NO_LIMIT = 10**6  # epochs: a run ends after its steps
# What the student began with, and what they then added, one by one and together.
DIARY = {
    "": dict(lambda_identity=0.0, decay_epoch=NO_LIMIT, no_init=True),
    " + identity": dict(decay_epoch=NO_LIMIT, no_init=True),
    " + decay": dict(lambda_identity=0.0, no_init=True),
    " + init": dict(lambda_identity=0.0, decay_epoch=NO_LIMIT),
    " + all": dict(),
}
MAIN = {norm: dict(output_norm=norm) for norm in MAIN_ARMS}
# What of an arm is for `scenes.write_dataset`, and what it is in water2wine; the rest is a run's.
DRAWN = {"confounding": 0.5, "glass_confounding": 0.5, "num_train": 400}
CONFOUNDINGS = (0.5, 0.65, 0.8, 0.9, 1.0)


@dataclass(frozen=True)
class Experiment:
    """Arms, each a change to the base configuration, and how many seeds each is run with."""

    seeds: int
    arms: dict
    keep: tuple = ()  # arms: of the first seed's runs G_AB is kept
    keep_at: tuple = (1,)  # when, as shares of the run


OUTPUT_NORM_EXPERIMENTS = {
    "output_norm": Experiment(
        5, {norm: dict(output_norm=norm) for norm in OUTPUT_NORMS}, MAIN_ARMS, (0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1)
    ),
    "diary": Experiment(3, {
        norm + added: dict(output_norm=norm, **changes) for norm in MAIN_ARMS for added, changes in DIARY.items()
    }),
    "mirror": Experiment(3, {"discriminator_instance": dict(discriminator_instance=True)}),
    # What keeps the arm with the norm above the floor? The same without an adversary, and with
    # the identity loss alone: one generator, once through.
    "above_the_floor": Experiment(3, {
        "instance, no adversary": dict(output_norm="instance", lambda_adversarial=0.0),
        "instance, identity alone": dict(output_norm="instance", lambda_adversarial=0.0, lambda_cycle=0.0),
    }),
    "confounded": Experiment(5, {
        norm: dict(output_norm=norm, confounding=0.95, glass_confounding=0.95) for norm in MAIN_ARMS
    }),
}  # fmt: skip
# What the data taught it: walls or glasses that follow the liquid, and what might help.
BACKGROUND = {f"background {share}": dict(confounding=share) for share in CONFOUNDINGS}
GLASS = {f"glass {share}": dict(glass_confounding=share) for share in CONFOUNDINGS}
ALIKE = {"independent": {}, "confounded": dict(confounding=1.0, glass_confounding=1.0)}
DATA_EXPERIMENTS = {
    "background": Experiment(3, BACKGROUND, tuple(BACKGROUND)),
    "glass": Experiment(3, GLASS, tuple(GLASS)[1:]),
    "identity": Experiment(3, {
        f"{data}, identity {weight:g}": dict(lambda_identity=weight, **changes)
        for data, changes in ALIKE.items() for weight in (0.0, 5.0, 10.0)
    }),
    "augmentation": Experiment(3, {
        f"{count} pictures, {name}": dict(num_train=count, no_augment=not augment)
        for count in (400, 40) for name, augment in {"augmented": True, "as they are": False}.items()
    }),
}  # fmt: skip
EXPERIMENTS = OUTPUT_NORM_EXPERIMENTS | DATA_EXPERIMENTS
HISTORY_COLUMNS = ("experiment", "arm", "seed", "step", "cycle_A", "cycle_B", "loss_D", "loss_G")
SCORE_COLUMNS = (
    "experiment", "arm", "seed", "steps", "cycle_A", "cycle_B", "identity_A", "identity_B", "loss_D", *SCORES,
    "colour_accuracy", "floor_A", "floor_B",
)  # fmt: skip
# When the test pictures are translated, as shares of the run: often where the curves are steep.
EVALUATED = (0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1)
# What of a run's settings may differ when it goes on: paths, and what does not change the numbers.
MAY_CHANGE = (*WHERE, *HARMLESS, "device")
RANGES = {"steps": (1, 10**7), "size": (24, 4096), "seeds": (1, 100), "jobs": (1, 256), "batch_size": (1, 10**4)}


@dataclass
class Run:
    """One training, and the rows it stands for: two experiments may share an arm."""

    config: TrainConfig
    drawn: dict  # how its data set is drawn
    labels: list = field(default_factory=list)  # (experiment, arm, seed)

    @property
    def folder(self):
        return self.config.models_folder

    @property
    def kept_as(self):
        """The names under which its networks are kept; a run that stands in two experiments may have two."""
        return [arm for name, arm, seed in self.labels if arm in EXPERIMENTS[name].keep and seed == 0]

    @property
    def keep_at(self):
        """When G_AB is kept, as shares of the run."""
        return sorted(
            {share for name, arm, _ in self.labels if arm in self.kept_as for share in EXPERIMENTS[name].keep_at}
        )


def steps_at(shares, steps):
    """Shares of a run → its steps, where losses are read anyway."""
    return sorted({min(steps, round(share * steps / FLUSH_STEPS) * FLUSH_STEPS) for share in shares} | {steps})


def base_config(**changes):
    """`demo_config`, narrower and shorter, so that sixty runs fit into an evening."""
    base = dict(base_channels=12, num_residual=3, lr=1e-3, num_epochs=NO_LIMIT, sample_interval=0, num_workers=0)
    return demo_config(**{**base, **changes})


def plan(args):
    """The runs in the order in which they are wanted, without those that are one and the same."""
    runs = {}
    for name in dict.fromkeys(args.experiments):
        experiment = EXPERIMENTS[name]
        for seed in range(args.seeds or experiment.seeds):
            for arm, changes in arms_of(args, experiment).items():
                if args.arms and arm not in args.arms:
                    continue
                drawn = DRAWN | {key: value for key, value in changes.items() if key in DRAWN}
                changes = {key: value for key, value in changes.items() if key not in DRAWN}
                config = base_config(
                    dataset_name=dataset_name(args, drawn), data_root=args.data_root, output_root=args.work,
                    img_height=args.size, img_width=args.size, max_steps=args.steps, batch_size=args.batch_size,
                    device=args.device, precision=args.precision, seed=seed, **changes,
                )  # fmt: skip
                run = runs.setdefault(dataclasses.astuple(config), Run(config, drawn))
                run.labels.append((name, arm, seed))
    for run in runs.values():
        experiment, arm, seed = run.labels[0]
        name = f"{experiment} {arm} {seed}".replace(" + ", "+").replace(", ", "-").replace(" ", "_")
        run.config = dataclasses.replace(run.config, run_name=name)
        run.config.check()
    return list(runs.values())


def arms_of(args, experiment):
    """Other people's pictures get the two main arms."""
    return experiment.arms if args.dataset_name == GENERATED else MAIN


def dataset_name(args, drawn):
    """The name of a water2wine that is drawn so; any other data set is as it is."""
    if args.dataset_name != GENERATED:
        return args.dataset_name
    return "_".join([GENERATED, *(f"{key}_{value}" for key, value in drawn.items() if value != DRAWN[key])])


def prepare(args, runs):
    """Draw the data sets that are missing."""
    for name, drawn in {run.config.dataset_name: run.drawn for run in runs}.items():
        root = dataset_folder(args.data_root, name)
        if name != args.dataset_name and not root.exists():
            write_dataset(root, size=max(64, args.size), **drawn)
        prepare_dataset(args.data_root, name, args.size)


class Evaluation:
    """The training callback that looks at the test pictures, always the same ones.

    Writes a line for each of its steps to `evaluations/<run>.jsonl`, and G_AB to
    `step_<n>.safetensors` in the run's folder where it is to be kept.
    """

    def __init__(self, trainer, progress, keep_at=()):
        self.trainer, self.progress = trainer, progress
        steps = trainer.total_steps
        self.steps, self.kept = steps_at(EVALUATED, steps), steps_at(keep_at, steps)
        self.path = trainer.config.output_root / "evaluations" / f"{trainer.config.name}.jsonl"
        try:
            lines = self.path.read_text().splitlines() if trainer.step else []
            self.rows = [row for row in map(json.loads, lines) if row["step"] <= trainer.step]
        except (OSError, ValueError):
            raise UserError(f"{self.path}: missing or damaged; remove {trainer.config.models_folder} too") from None

    def __call__(self, trainer):
        self.progress.value = trainer.step
        if trainer.step not in self.steps or any(row["step"] == trainer.step for row in self.rows):
            return
        pictures = self.translate()
        before = self.rows[-1]["step"] if self.rows else 0
        recent = [row for row in trainer.history if before < row["step"] <= trainer.step]
        row = {"step": trainer.step}
        row |= {f"cycle_{d}": distance(pictures[f"rec_{d}"], trainer.test[d]) for d in "AB"}
        for loss in ("loss_D", "loss_G"):  # of training, the mean since the last time
            row[loss] = sum(row[loss] for row in recent) / len(recent) if recent else None
        self.rows.append(row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, "".join(json.dumps(row) + "\n" for row in self.rows))
        if trainer.step and trainer.step in self.kept:  # the folder is made when training begins
            facts = {name: getattr(trainer.config, name) for name in FIXED} | {"step": trainer.step}
            halves = {key: value.half() for key, value in trainer.model.G_AB.state_dict().items()}
            write_tensors(trainer.config.models_folder / f"step_{trainer.step}.safetensors", halves, facts)

    def translate(self):
        fake_B, rec_A = self.trainer.model.translate(self.trainer.test["A"], "AtoB")
        fake_A, rec_B = self.trainer.model.translate(self.trainer.test["B"], "BtoA")
        return {"fake_A": fake_A, "fake_B": fake_B, "rec_A": rec_A, "rec_B": rec_B}

    def scores(self):
        """What scores.csv says of a finished run, but for its label."""
        trainer, pictures = self.trainer, self.translate()
        last = self.rows[-1]
        scores = {"steps": last["step"], **{name: last[name] for name in ("cycle_A", "cycle_B", "loss_D")}}
        for domain, direction in (("A", "BtoA"), ("B", "AtoB")):
            real = trainer.test[domain]
            scores[f"identity_{domain}"] = distance(trainer.model.translate(real, direction)[0], real)
            scores[f"floor_{domain}"] = output_norm_floor(real)
        if (trainer.root / "scenes.json").is_file():
            test = Water2WineTest(trainer.root, trainer.config.size, trainer.config.channels)
            translate = trainer.model.translate  # all of them: trainer.test stops at 100
            scores |= test.scores(translate(test.real["A"], "AtoB")[0], translate(test.real["B"], "BtoA")[0])
        accuracies = [colour_accuracy(trainer.test[d], pictures[f"fake_{d}"]) for d in "AB"]
        return scores | {"colour_accuracy": sum(accuracies) / 2}


def distance(pictures, others):
    return (pictures - others).abs().mean().item()


def train_one(config, progress, keep_at=()):
    """Train one run, in a process of its own; its rows are in `result.json` in its folder then.

    A run that was stopped goes on from where it saved itself. Ends with exit code 1 if stopped.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # but for the training, which then stops and saves
    threading.Thread(target=end_with_parent, daemon=True).start()
    if config.device == "cpu":
        torch.set_num_threads(1)
    try:
        trainer = Trainer(dataclasses.replace(config, resume="auto", overwrite=True))
        evaluation = Evaluation(trainer, progress, keep_at)
        evaluation(trainer)
        trainer.run(evaluation, show_bar=False)
    except UserError as error:
        print(f"error: {config.name}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    if trainer.stopped:
        raise SystemExit(1)
    result = {"history": evaluation.rows, "scores": evaluation.scores()}
    write_whole(config.models_folder / "result.json", json.dumps(result) + "\n")
    remove(trainer.checkpoint)  # nobody goes on from here


def end_with_parent():
    """If the experiment's own process is killed, its runs must not go on: a new one would meet them."""
    multiprocessing.parent_process().join()
    os._exit(1)


def is_of(config):
    """Whether what lies in a run's folder was made with these settings."""
    try:
        there = json.loads((config.models_folder / "config.json").read_text())
    except (OSError, ValueError):
        return False
    here = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    return all(there.get(name) == value for name, value in here.items() if name not in MAY_CHANGE)


def train_all(runs, jobs, finished, bar):
    """Train each run in a process of its own, `jobs` at a time; `finished(run)` after each.

    Raises:
        KeyboardInterrupt: on Ctrl-C or SIGTERM, when all processes have saved and ended.
        UserError: naming a run that failed; the others have stopped then, too.
    """
    context = multiprocessing.get_context("spawn")  # forking a process that has used torch can hang
    waiting, active, done = list(runs), [], 0

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        while waiting or active:
            while waiting and len(active) < jobs:
                run, progress = waiting.pop(0), context.Value("q", 0)
                process = context.Process(target=train_one, args=(run.config, progress, run.keep_at))
                process.start()
                active.append((run, process, progress))
            time.sleep(0.2)
            for run, process, progress in [entry for entry in active if not entry[1].is_alive()]:
                active.remove((run, process, progress))
                if process.exitcode:
                    raise UserError(f"the run {run.config.name} failed (exit code {process.exitcode}), see above")
                done += run.config.max_steps
                finished(run)
            bar.n = done + sum(progress.value for _, _, progress in active)
            bar.refresh()
    finally:
        for _, process, _ in active:
            process.terminate()
        for run, process, _ in active:
            process.join()
            if process.exitcode == 0:  # it was about to end anyway
                finished(run)
        signal.signal(signal.SIGTERM, before)


class Tables:
    """history.csv and scores.csv of a folder. Rows stand in the order of the plan."""

    def __init__(self, folder, runs):
        self.folder = Path(folder)
        self.read()
        self.place = {label: i for i, label in enumerate(label for run in runs for label in run.labels)}

    def read(self):
        self.rows = {name: read_table(self.folder / f"{name}.csv") for name in ("history", "scores")}

    def has(self, run):
        there = [{label_of(row) for row in rows} for rows in self.rows.values()]
        return all(label in labels for labels in there for label in run.labels)

    def add(self, run):
        """Take in the result of a finished run, and keep its networks if it is a main arm's first."""
        result = json.loads((run.folder / "result.json").read_text())
        self.read()  # another process may have added to them
        for name, rows in self.rows.items():
            self.rows[name] = [row for row in rows if label_of(row) not in run.labels]
        for label in run.labels:
            named = dict(zip(("experiment", "arm", "seed"), label, strict=True))
            self.rows["history"] += [{**named, **row} for row in result["history"]]
            self.rows["scores"].append({**named, **result["scores"]})
        for name in run.kept_as:
            for path in run.folder.glob("step_*.safetensors"):
                shutil.copyfile(path, self.folder / f"{name.replace(' ', '_')}_{path.name}")
        self._write("history", HISTORY_COLUMNS)
        self._write("scores", SCORE_COLUMNS)

    def _write(self, name, columns):
        def order(row):
            return self.place.get(label_of(row), len(self.place)), float(row.get("step", 0))

        self.rows[name].sort(key=order)
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([in_table(row.get(column)) for column in columns] for row in self.rows[name])
        write_whole(self.folder / f"{name}.csv", table.getvalue())


def in_table(value):
    """Five digits of a float; nothing for what was not measured."""
    return f"{value:.5g}" if isinstance(value, float) else value


def label_of(row):
    return row["experiment"], row["arm"], int(row["seed"])


def read_table(path):
    """A CSV of this module → a list of dicts: numbers as floats, what is empty as None.

    An empty list where there is no such file.

    Raises:
        UserError: naming the first line that is not a row of such a table.
    """
    if not Path(path).is_file():
        return []
    rows = []
    try:
        with open(path, newline="") as file:
            for row in csv.DictReader(file):
                rows.append({column: number(value) for column, value in row.items()})
                label_of(rows[-1])
    except (ValueError, TypeError, KeyError, AttributeError, csv.Error):  # also what is no text at all
        line = max(2, len(rows) + 1)
        raise UserError(f"{path}: line {line} is damaged, or no row of such a table; mend or remove it") from None
    return rows


def number(text):
    try:
        return float(text) if text else None
    except ValueError:
        return text


def by_arm(scores, experiment, columns):
    """The rows of an experiment in `scores.csv` → what `plots.arms_at_end` draws, arm by arm."""
    arms = {}
    for row in scores:
        if row["experiment"] == experiment:
            arms.setdefault(row["arm"], []).append(row)
    known = EXPERIMENTS[experiment].arms if experiment in EXPERIMENTS else {}
    groups = {}
    for arm, rows in sorted(arms.items(), key=lambda item: [*known, item[0]].index(item[0])):
        found = {column: [row[column] for row in rows] for column in columns}
        colour = plots.COLOURS.get(re.match(r"\w+", arm)[0], plots.COLOURS["loss_D"])
        groups[arm] = colour, {column: (values, mean_and_interval(values)) for column, values in found.items()}
    return groups


def describe(args):
    """What config.json holds: everything that decides the tables, and the versions."""
    base = base_config(
        dataset_name=args.dataset_name, img_height=args.size, img_width=args.size, max_steps=args.steps,
        batch_size=args.batch_size, precision=args.precision,
    )  # fmt: skip
    left_out = (*WHERE, "seed", "device", "checkpoint_minutes", "compile")
    return {
        "base": {key: value for key, value in dataclasses.asdict(base).items() if key not in left_out},
        "experiments": {name: dataclasses.asdict(EXPERIMENTS[name]) for name in args.experiments},
        "threads": 1 if args.device == "cpu" else None,
        "versions": {"torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()},
    }


def check_config(args):
    """What config.json is to hold, in agreement with the tables that are there.

    Raises:
        UserError: naming the first setting that differs from those of the tables.
    """
    path, config = args.output / "config.json", json.loads(json.dumps(describe(args)))
    if not path.is_file():
        if (args.output / "scores.csv").is_file():
            raise UserError(f"{args.output} has tables, but no config.json that says what of; choose another --output")
        return config
    try:
        there = json.loads(path.read_text())
        differing = [(key, there["base"][key], value) for key, value in config["base"].items()
                     if there["base"][key] != value]  # fmt: skip
        config["experiments"] = there["experiments"] | config["experiments"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: damaged; choose another --output") from None
    for key, was, value in differing:
        raise UserError(f"{path}: the tables there have {key} {was}, not {value}; choose another --output")
    return config


def seconds_a_step(run):
    """The time of a step of the first run, alone on its thread: ten are tried, on a model thrown away."""
    if run.config.device == "cpu":
        torch.set_num_threads(1)
    trainer = Trainer(dataclasses.replace(run.config, overwrite=True))
    for real in training_batches(trainer.data, run.config.batch_size, 0, 12):
        trainer.model.step(*(pictures.to(trainer.device) for pictures in real))["loss_D"].item()
        trainer.step += 1
        if trainer.step == 2:  # the first ones are slow
            began = time.perf_counter()
    return (time.perf_counter() - began) / 10


def parse(argv):
    parser = Parser(prog="python -m cyclegan_lib.ablation", description="Norm at the output or not: the experiment.")
    parser.add_argument("--experiments", nargs="+", choices=EXPERIMENTS, default=list(OUTPUT_NORM_EXPERIMENTS),
                        help="which of them (default: those of notebook 05); on other data than water2wine only the "
                        "two main arms are run")  # fmt: skip
    parser.add_argument("--arms", nargs="+", default=None, help="only these arms (default: all)")
    parser.add_argument("--seeds", type=int, default=None, help="seeds an arm (default: the experiment's)")
    parser.add_argument("--steps", type=int, default=500, help="training steps of a run")
    parser.add_argument("--size", type=int, default=64, help="side of the pictures in pixels")
    parser.add_argument("--batch_size", type=int, default=4, help="pictures of each side in a step")
    parser.add_argument("--dataset_name", default=GENERATED, help="a folder in data_root")
    parser.add_argument("--data_root", type=Path, default=Path("data"), help="the folder of data sets")
    parser.add_argument("--output", type=Path, default=None, help="where the tables go (default: DATA_ROOT/ablation; "
                        "DATA_ROOT/debugging for the experiments of notebook 06, runs/ablation_<dataset_name> for "
                        "other data)")  # fmt: skip
    parser.add_argument("--work", type=Path, default=None, help="where runs are kept (default: runs/<output>)")
    parser.add_argument("--device", default="cpu", choices=DEVICES, help="where to train")
    parser.add_argument("--precision", default="fp32", choices=PRECISIONS,
                        help="fp32 by default, which every machine has")  # fmt: skip
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs side by side, on CPUs a thread each")
    args = parser.parse_args(argv)
    parser.check_ranges(args, {name: limits for name, limits in RANGES.items() if getattr(args, name) is not None})
    if args.dataset_name != GENERATED:
        args.experiments = ["output_norm"]
    arms = {arm for name in args.experiments for arm in arms_of(args, EXPERIMENTS[name])}
    unknown = sorted(set(args.arms or ()) - arms)
    if unknown:
        parser.error(f"--arms {unknown[0]!r}: not in these experiments; there are {', '.join(sorted(arms))}")
    own = args.data_root / ("debugging" if set(args.experiments) <= set(DATA_EXPERIMENTS) else "ablation")
    if args.dataset_name != GENERATED:
        own = Path(f"runs/ablation_{args.dataset_name}")
    args.output = args.output or own
    args.work = args.work or Path("runs") / args.output.name
    return args, parser


def main(argv=None):
    args, parser = parse(argv)
    with parser.one_line_errors():
        args.device = resolve_device(args.device)
        args.precision = resolve_precision(args.precision, args.device)
        runs = plan(args)
        config, tables = check_config(args), Tables(args.output, runs)
        prepare(args, runs)
        missing = [run for run in runs if not tables.has(run)]
        print(f"{len(runs)} runs of {args.steps} steps, {len(runs) - len(missing)} of them in {args.output} already")
        if missing:
            minutes = seconds_a_step(missing[0]) * args.steps * math.ceil(len(missing) / args.jobs) / 60
            print(f"about {minutes:.0f} minutes, {args.jobs} side by side, if these do not slow each other down")
        args.output.mkdir(parents=True, exist_ok=True)
        write_whole(args.output / "config.json", json.dumps(config, indent=1) + "\n")
        for run in missing.copy():
            if (run.folder / "result.json").is_file() and is_of(run.config):  # the experiment was killed right then
                tables.add(run)
                missing.remove(run)
    with parser.one_line_errors(), tqdm(total=len(missing) * args.steps, unit="step", smoothing=0) as bar:
        try:
            train_all(missing, args.jobs, tables.add, bar)
        except KeyboardInterrupt:
            bar.close()
            left = sum(not tables.has(run) for run in runs)
            parser.exit(130, f"stopped with {left} runs to go; the same command goes on\n")
    print(f"{args.output}: history.csv and scores.csv hold all {len(runs)} runs")


if __name__ == "__main__":
    main()
