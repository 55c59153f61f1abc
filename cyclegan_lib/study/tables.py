"""The tables of the experiments: history.csv, scores.csv, and config.json, which says how they were made."""

import csv
import dataclasses
import io
import json
import platform
import shutil
from pathlib import Path

import numpy as np
import torch

from cyclegan_lib.errors import UserError
from cyclegan_lib.files import write_atomic
from cyclegan_lib.runs.resume import ON_RESUME
from cyclegan_lib.study.experiments import EXPERIMENTS, run_of
from cyclegan_lib.study.statistics import mean_and_interval
from cyclegan_lib.water2wine.scores import SCORES

LABEL = ("experiment", "arm", "seed")
HISTORY_COLUMNS = (
    *LABEL, "step", "cycle_A", "cycle_B", "loss_D", "loss_G", "identity_A", "identity_B", *SCORES,
    "deviation_A", "deviation_B", "scale_A", "scale_B",
)  # fmt: skip
SCORE_COLUMNS = (
    *LABEL, "steps", "cycle_A", "cycle_B", "identity_A", "identity_B", "loss_D", *SCORES, "colour_accuracy",
    "floor_A", "floor_B",
)  # fmt: skip
COLUMNS = {"history": HISTORY_COLUMNS, "scores": SCORE_COLUMNS}
NOT_DECISIVE = ("seed", "device", "checkpoint_minutes")  # options that config.json leaves out


class Tables:
    """history.csv and scores.csv of a folder. Rows stand in the order of the experiments."""

    def __init__(self, folder):
        self.paths = {name: Path(folder) / f"{name}.csv" for name in COLUMNS}

    def has(self, run):
        return all({*run.labels} <= {label_of(row) for row in read_table(path)} for path in self.paths.values())

    def add(self, run, history, scores):
        """Add the rows of a finished run, and copy the networks that are to be kept of it."""
        for name in run.kept_as:
            for path in run.config.models_folder.glob("kept_step_*.safetensors"):
                kept = f"{name.replace(' ', '_')}_{path.name.removeprefix('kept_')}"
                shutil.copyfile(path, self.paths["scores"].with_name(kept))
        for name, added in {"history": history, "scores": [scores]}.items():
            # Read anew: another process may have added to it.
            rows = [row for row in read_table(self.paths[name]) if label_of(row) not in run.labels]
            rows += [dict(zip(LABEL, label, strict=True)) | row for label in run.labels for row in added]
            rows.sort(key=place_of)
            write_atomic(self.paths[name], csv_of(rows, COLUMNS[name]))


def csv_of(rows, columns):
    """Rows (dicts) → the text of a CSV: floats with five digits, None as an empty field."""
    table = io.StringIO()
    writer = csv.DictWriter(table, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: f"{value:.5g}" if isinstance(value, float) else value for name, value in row.items()})
    return table.getvalue()


def place_of(row):
    """What rows are sorted by: the experiment, the seed, the arm, the step."""
    experiment, arm, seed = label_of(row)
    names, arms = list(EXPERIMENTS), list(EXPERIMENTS[experiment].arms) if experiment in EXPERIMENTS else []
    place = [order.index(name) if name in order else len(order) for order, name in ((names, experiment), (arms, arm))]
    return place[0], experiment, seed, place[1], arm, float(row.get("step", 0))


def label_of(row):
    return row["experiment"], row["arm"], int(row["seed"])


def read_table(path):
    """A table → a list of dicts, numbers as floats, "" as None; [] without a file. UserError: names a damaged line."""
    rows = []
    if not Path(path).is_file():
        return rows
    try:
        with open(path, newline="") as file:
            for row in csv.DictReader(file):
                rows.append({column: number(value) for column, value in row.items()})
                label_of(rows[-1])
    except (ValueError, TypeError, KeyError, AttributeError, csv.Error):  # also a file that is no text
        line = max(2, len(rows) + 1)
        raise UserError(f"{path}: line {line} is damaged, or no row of such a table; mend or remove it") from None
    return rows


def number(text):
    try:
        return float(text) if text else None
    except ValueError:
        return text


def by_arm(scores, experiment, columns):
    """{arm, in the experiment's order: {column: (values of its seeds, (mean, half its 95 % confidence interval))}}."""
    rows = [row for row in scores if row["experiment"] == experiment]
    order = [*(EXPERIMENTS[experiment].arms if experiment in EXPERIMENTS else ()), *(row["arm"] for row in rows)]
    groups = {}
    for arm in sorted({row["arm"] for row in rows}, key=order.index):
        values = {column: [row[column] for row in rows if row["arm"] == arm] for column in columns}
        groups[arm] = {column: (seeds, mean_and_interval(seeds)) for column, seeds in values.items()}
    return groups


def paired(rows, first, second, column):
    """The differences of two arms, each (experiment, arm), for the seeds of both: (list, (mean, half its interval))."""
    values = [
        {row["seed"]: row[column] for row in rows if (row["experiment"], row["arm"]) == arm} for arm in (first, second)
    ]
    differences = [values[0][seed] - values[1][seed] for seed in sorted(values[0].keys() & values[1].keys())]
    return differences, mean_and_interval(differences)


def describe(args):
    """What config.json holds: everything that decides the tables, and the versions."""
    base = run_of(args, 0, {}).config
    decisive = [name for name, rule in ON_RESUME.items() if rule != "place" and name not in NOT_DECISIVE]
    return {
        "base": {name: getattr(base, name) for name in decisive},
        "experiments": {name: dataclasses.asdict(EXPERIMENTS[name]) for name in args.experiments},
        "threads": 1 if args.device == "cpu" else None,
        "versions": {"torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()},
    }


def check_config(args):
    """What config.json is to hold; a `UserError` names the first setting that the tables there have otherwise."""
    path, config = args.output / "config.json", json.loads(json.dumps(describe(args)))
    if not path.is_file() and not (args.output / "scores.csv").is_file():
        return config
    try:
        before = json.loads(path.read_text())
        settings = [(name, before["base"][name], value) for name, value in config["base"].items()]
        config["experiments"] = before["experiments"] | config["experiments"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path}: damaged, or missing beside the tables; choose another --output") from None
    for name, was, value in settings:
        if was != value:
            raise UserError(f"{path}: the tables there have {name} {was}, not {value}; choose another --output")
    return config
