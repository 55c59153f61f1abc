"""`cyclegan ablation` runs the experiments: arms × seeds → tables and small networks, see data/ablation/README.md."""

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, ProcessPoolExecutor, wait

import torch
from torch.nn.functional import l1_loss
from tqdm.auto import tqdm

from cyclegan_lib.cyclegan import CycleGAN, resolve_device, resolve_precision
from cyclegan_lib.datasets import UnpairedDataset
from cyclegan_lib.errors import UserError
from cyclegan_lib.files import write_atomic, write_tensors
from cyclegan_lib.pictures.check import prepare_dataset
from cyclegan_lib.pictures.reading import read_picture
from cyclegan_lib.runs.fast import speed_up
from cyclegan_lib.runs.log import FLUSH_STEPS, Log, read_history
from cyclegan_lib.runs.processes import Processes
from cyclegan_lib.runs.resume import ON_RESUME, Checkpoints, Resume
from cyclegan_lib.runs.timing import seconds_per_step
from cyclegan_lib.study.experiments import plan, settled
from cyclegan_lib.study.floor import output_norm_floor
from cyclegan_lib.study.statistics import colour_accuracy
from cyclegan_lib.study.tables import Tables, check_config
from cyclegan_lib.study.variants import CHANGES, NORMS, Surgery, Trunk, branch_off, once_through, trunk_file
from cyclegan_lib.trainer import Hook, Trainer
from cyclegan_lib.water2wine.dataset import write_dataset
from cyclegan_lib.water2wine.scores import Water2WineTest

# When the test pictures are translated, as shares of the run: often where the curves are steep.
EVALUATED = (0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1)
AFTER_CUT = (0, 1, 2, 5, 10, 20, 50, 100, 200)  # and so many steps after a surgery


class Evaluation(Hook):
    """Observer, after `Log`: scores the test pictures at a few steps, and at some keeps the generators, in 16 bits."""

    def __init__(self, run):
        self.folder, self.run = run.config.models_folder, run
        self.path = self.folder / "evaluations.jsonl"

    def start(self, trainer):
        config, drawn = trainer.config, (trainer.data.root / "scenes.json").is_file()
        self.test = Water2WineTest(trainer.data.root, config.size, config.channels) if drawn else None
        self.real = self.test.real if drawn else {domain: trainer.data.test(domain) for domain in "AB"}
        total = trainer.total_steps
        self.steps = {total, *(min(total, round(share * total / FLUSH_STEPS) * FLUSH_STEPS) for share in EVALUATED)}
        self.kept = {round(share * total) for share in self.run.keep_at} - {0}
        if self.run.cut:
            self.steps |= {min(total, self.run.cut + steps) for steps in AFTER_CUT}
        try:
            lines = self.path.read_text().splitlines() if trainer.step else []
            self.rows = [row for row in map(json.loads, lines) if row["step"] <= trainer.step]
        except (OSError, ValueError):
            raise UserError(f"{self.path}: missing or damaged; remove {self.folder} to begin this run anew") from None
        self.after_step(trainer)  # the first row is of the untrained networks

    def after_step(self, trainer):
        if trainer.step in self.steps and all(row["step"] != trainer.step for row in self.rows):
            self.evaluate(trainer)
        if trainer.step in self.kept:
            self.keep(trainer)

    def evaluate(self, trainer):
        trainer.hook(Log).flush()
        before = self.rows[-1]["step"] if self.rows else 0
        recent = [row for row in read_history(self.folder, trainer.step) if row["step"] > before]
        row = {"step": trainer.step} | self.measured(trainer.model)
        for loss in ("loss_D", "loss_G"):  # of training, the mean since the last time
            row[loss] = sum(row[loss] for row in recent) / len(recent) if recent else None
        self.rows.append(row)
        write_atomic(self.path, "".join(json.dumps(row) + "\n" for row in self.rows))

    def keep(self, trainer):
        facts = {name: getattr(trainer.config, name) for name, rule in ON_RESUME.items() if rule == "refuse"}
        generators = {name: trainer.model.networks[name] for name in ("G_AB", "G_BA")}
        if isinstance(trainer.model.G_AB.model[-2], torch.nn.Identity):  # the norm was taken out
            facts["output_norm"] = "none"
        halves = {
            f"{name}.{key}": value.half() for name, G in generators.items() for key, value in G.state_dict().items()
        }
        write_tensors(self.folder / f"kept_step_{trainer.step}.safetensors", halves, facts | {"step": trainer.step})

    def measured(self, model):
        """What both tables say of a model, {column: number}."""
        sheet, row = model.sheet(self.real["A"], self.real["B"]), {}
        for domain, G in (("A", model.G_BA), ("B", model.G_AB)):
            real = self.real[domain]
            same, deviation = once_through(G, real.to(model.device))
            row[f"cycle_{domain}"] = l1_loss(sheet[f"rec_{domain}"], real).item()
            row[f"identity_{domain}"], row[f"deviation_{domain}"] = l1_loss(same.cpu(), real).item(), deviation
            norm = G.model[-2]
            row[f"scale_{domain}"] = norm.weight.mean().item() if getattr(norm, "affine", False) else None
        return row | (self.test.scores(sheet["fake_B"], sheet["fake_A"]) if self.test else {})

    def scores(self, trainer):
        """What scores.csv says of a finished run, but for its label."""
        model, last = trainer.model, self.rows[-1]
        sheet = model.sheet(self.real["A"], self.real["B"])
        scores = {"steps": last["step"], **last, "colour_accuracy": 0}
        for domain, real in self.real.items():
            scores[f"floor_{domain}"] = output_norm_floor(real)
            scores["colour_accuracy"] += colour_accuracy(real, sheet[f"fake_{domain}"]) / 2
        return scores


class Link(Hook):
    """Observer: tells the experiment's process how many steps are done, and stops when that one asks for it."""

    def __init__(self, steps_done, is_to_stop):
        self.steps_done, self.is_to_stop, self.counted = steps_done, is_to_stop, 0

    def after_step(self, trainer):
        with self.steps_done.get_lock():
            self.steps_done.value += trainer.step - self.counted
        self.counted = trainer.step
        if self.is_to_stop.is_set():
            trainer.stop()


def make_trainer(config, hooks=(), norm=None, changed=None):
    """A trainer that reads every picture file that `cyclegan train` reads and has the faster layers.

    Args:
        norm: the name of one of `variants.NORMS`, instead of the configuration's output norm.
        changed: the name of one of `variants.CHANGES`.
    """
    if config.device == "cpu":
        torch.set_num_threads(1)
    model = CycleGAN.from_config(config, **({"output_norm": NORMS[norm]} if norm else {}))
    if changed:
        torch.manual_seed(config.seed)
        generators = (model.G_AB, model.G_BA)
        for G in generators:
            CHANGES[changed](G)
        model.optimizer_G.param_groups[0]["params"] = [weights for G in generators for weights in G.parameters()]
    return Trainer(config, hooks, speed_up(model), UnpairedDataset.from_config(config, read_picture))


def begin_process(*link):
    """What each process does first. A terminal sends Ctrl-C to all of them: the experiment's own one decides."""
    global LINK  # what is shared between processes can only be given to them as they begin
    LINK = link
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent():
    """If the experiment's process is killed, its runs must end too: a new experiment would meet them."""
    multiprocessing.parent_process().join()
    os._exit(1)


def train_one(run):
    """Train a run, or its rest → (rows of history.csv, row of scores.csv, last checkpoint); None if it was stopped."""
    config, (_, is_to_stop) = run.config, LINK
    if run.trunk and not config.models_folder.exists():
        while not trunk_file(run.trunk).is_file() and not is_to_stop.is_set():
            time.sleep(0.2)  # it is being trained beside this one
        if not is_to_stop.is_set():
            branch_off(run.trunk, config.models_folder, run.cut)
    if is_to_stop.is_set():
        return None
    log, resume = Log(config), Resume(config, Processes(config.device))
    checkpoints, evaluation = Checkpoints(config, log, resume), Evaluation(run)
    hooks = [resume, log, checkpoints]
    if run.cut:
        kind = run.passed_in.get("surgery")
        hooks.append(Surgery(run.cut, kind) if kind else Trunk(config, run.cut))
    changes = (run.passed_in.get("norm"), run.passed_in.get("changed"))
    trainer = make_trainer(config, [*hooks, evaluation, Link(*LINK)], *changes).run()
    return None if trainer.stopped else (evaluation.rows, evaluation.scores(trainer), checkpoints.path)


def train_all(runs, jobs, tables, bar):
    """Train each run in a process and add its rows to the tables; what it raises, it raises when all have saved."""
    context = multiprocessing.get_context("spawn")  # forking a process that has used torch can hang
    steps_done, is_to_stop = link = context.Value("q", 0), context.Event()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    pool = ProcessPoolExecutor(max(1, min(jobs, len(runs))), context, begin_process, link)
    waiting = {pool.submit(train_one, run): run for run in runs}
    try:
        while waiting:
            for future in wait(waiting, 0.2, FIRST_COMPLETED).done:
                finish(future, waiting.pop(future), tables)
            bar.update(steps_done.value - bar.n)
    finally:
        is_to_stop.set()
        pool.shutdown(cancel_futures=True)
        for future, run in waiting.items():  # some were about to end anyway
            if not future.cancelled() and not future.exception() and future.result():
                finish(future, run, tables)
        signal.signal(signal.SIGTERM, before)


def finish(future, run, tables):
    """Add the rows of a run to the tables."""
    try:
        history, scores, checkpoint = future.result()
    except UserError as error:
        raise UserError(f"{run.config.name}: {error}") from None
    except BrokenExecutor:
        raise UserError(f"{run.config.name}: a process was killed, for want of memory perhaps") from None
    tables.add(run, history, scores)
    checkpoint.unlink()


def prepare(args, runs):
    """Draw the data sets that are missing, and check all."""
    for root, drawn in {run.config.dataset_folder: run.drawn for run in runs}.items():
        if root.name != args.dataset_name and not root.exists():
            write_dataset(root, size=max(64, args.size), **drawn)
        prepare_dataset(args.data_root, root.name, args.size)


def command(args):
    """`cyclegan ablation`; 130 if it was stopped. The same command continues."""
    settled(args)
    args.device = resolve_device(args.device)
    args.precision = resolve_precision(args.precision, args.device)
    runs = plan(args)
    config, tables = check_config(args), Tables(args.output)
    missing = [run for run in runs if not tables.has(run)]
    folders = [run.config.models_folder for run in missing]
    for run in missing:  # without its trunk it trains from the start: slower, and the same
        if run.trunk and run.trunk not in folders and not trunk_file(run.trunk).is_file():
            run.trunk = None
    prepare(args, runs)
    print(f"{len(runs)} runs of {args.steps} steps, {len(runs) - len(missing)} of them in {args.output} already")
    if missing:
        steps = sum(run.config.max_steps - (run.cut if run.trunk else 0) for run in missing)
        seconds = seconds_per_step(make_trainer(missing[0].config)) * steps / min(args.jobs, len(missing))
        print(f"about {seconds / 60:.0f} minutes, {args.jobs} side by side, if these do not slow each other down")
    args.output.mkdir(parents=True, exist_ok=True)
    write_atomic(args.output / "config.json", json.dumps(config, indent=1) + "\n")
    try:
        with tqdm(total=sum(run.config.max_steps for run in missing), unit="step", smoothing=0) as bar:
            train_all(missing, args.jobs, tables, bar)
    except KeyboardInterrupt:
        left = sum(not tables.has(run) for run in runs)
        print(f"stopped with {left} runs to go; the same command continues", file=sys.stderr)
        return 130
    print(f"{args.output}: history.csv and scores.csv hold all {len(runs)} runs")
    return None
