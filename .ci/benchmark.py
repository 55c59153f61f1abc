"""The textbook step against ours, on this machine: `make benchmark`.

    data/benchmark/<machine>.json   what was measured, with the machine and its versions
    data/benchmark/cost.png, and the tables in the README and in data/benchmark/README.md,
    are made from it, see `tell.py`

Every part is written as soon as it is measured, and is not measured again: a benchmark that
was stopped continues. There is no time of day in the file.
"""

import functools
import json
import multiprocessing
import platform
import re
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from tell import GOOD, summary, write_figure, write_readmes
from torch.utils.flop_counter import FlopCounterMode
from tqdm.auto import tqdm

from cyclegan_lib.cli import Parser
from cyclegan_lib.config import DEVICES, demo_config
from cyclegan_lib.cyclegan import CycleGAN, resolve_device, resolve_precision
from cyclegan_lib.datasets import UnpairedDataset, training_batches
from cyclegan_lib.files import write_atomic
from cyclegan_lib.pictures.check import prepare_dataset
from cyclegan_lib.runs.fast import speed_up, workers_for
from cyclegan_lib.trainer import Hook, Trainer
from cyclegan_lib.water2wine.scores import Water2WineTest

ROOT = Path(__file__).resolve().parents[1]
PAPER = dict(base_channels=64, num_residual=9, lambda_identity=5.0)
DEMO = dict(base_channels=16, num_residual=4, lambda_identity=5.0)
QUICK = dict(base_channels=4, num_residual=1, lambda_identity=5.0)
SETTINGS = {64: (4, DEMO), 128: (1, PAPER), 256: (1, PAPER)}  # pixels: (batch, networks)
# What grows in the figure, one at a time, from the middle.
MIDDLE = dict(pixels=128, batch=1, num_residual=6, base_channels=32)
GROWS = {"pixels": (64, 96, 128, 192, 256), "batch": (1, 2, 4, 8), "num_residual": (3, 6, 9, 12)}
GROWS["base_channels"] = (16, 32, 48, 64)
LOADER_BUDGET = 64 * 1024**2  # bytes, for the measurement of the loader's memory only
PICTURES = (50, 100, 200, 300, 400)  # of each side, in that measurement


class Textbook(CycleGAN):
    """The step as public code takes it: full precision, every forward apart, a plain Adam, every loss read at once.

    The order is that of `models/cycle_gan_model.py` of the official code.
    """

    def __init__(self, **settings):
        super().__init__(**settings)
        for name in ("optimizer_G", "optimizer_D"):
            [group] = getattr(self, name).param_groups
            setattr(self, name, torch.optim.Adam(group["params"], group["lr"], betas=(0.5, 0.999)))

    def step(self, real_A, real_B):
        """Both updates on one batch. Returns the losses by name, as `CycleGAN.step` does, as numbers."""
        fake_B, fake_A = self.G_AB(real_A), self.G_BA(real_B)
        rec_A, rec_B = self.G_BA(fake_B), self.G_AB(fake_A)
        self.freeze_discriminators(True)
        self.optimizer_G.zero_grad()
        idt_B, idt_A = self.G_AB(real_B), self.G_BA(real_A)
        identity = F.l1_loss(idt_A, real_A) + F.l1_loss(idt_B, real_B)
        adversarial = mean_square(self.D_B(fake_B), 1) + mean_square(self.D_A(fake_A), 1)
        cycle_A, cycle_B = F.l1_loss(rec_A, real_A), F.l1_loss(rec_B, real_B)
        loss_G = adversarial + self.lambda_cycle * (cycle_A + cycle_B) + self.lambda_identity * identity
        loss_G.backward()
        self.optimizer_G.step()
        self.freeze_discriminators(False)
        self.optimizer_D.zero_grad()
        loss_D = 0
        sides = (self.D_A, real_A, self.fake_A_buffer(fake_A)), (self.D_B, real_B, self.fake_B_buffer(fake_B))
        for D, real, fake in sides:
            loss = (mean_square(D(real), 1) + mean_square(D(fake.detach()), 0)) / 2
            loss.backward()
            loss_D += loss.item()
        self.optimizer_D.step()
        losses = dict(loss_G=loss_G, adversarial=adversarial / 2, identity=identity / 2)
        losses |= dict(cycle_A=cycle_A, cycle_B=cycle_B)
        return {name: loss.item() for name, loss in losses.items()} | {"loss_D": loss_D / 2}


def mean_square(scores, target):
    return F.mse_loss(scores, torch.full_like(scores, target))


def ours(networks, precision, device):
    return speed_up(CycleGAN(**networks, device=device, precision=precision))


def random_batch(pixels, batch, device="cpu"):
    generator = torch.Generator().manual_seed(0)
    return [(torch.rand(batch, 3, pixels, pixels, generator=generator) * 2 - 1).to(device) for _ in "AB"]


def in_turn(functions, rounds, device="cpu", of=statistics.median):
    """Milliseconds of each of {name: function}, called in turn so that a busy machine slows all alike: the median."""
    times = {name: [] for name in functions}
    for round_ in range(rounds + 1):
        for name, function in functions.items():
            began = time.perf_counter()
            function()
            if device == "cuda":
                torch.cuda.synchronize()
            if round_:  # the first one is slow
                times[name].append(1000 * (time.perf_counter() - began))
    return {name: of(values) for name, values in times.items()}


def matmul_peak(precision, device, side, rounds=5):
    """GFLOP/s of a square matrix product, the faster of the two ways that torch has: a 1×1 convolution is one, too."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    a, b = torch.rand(2, side, side, device=device).to(dtype)
    pixels, kernel = a.t().reshape(1, side, -1, 32), b.reshape(side, side, 1, 1)
    with torch.inference_mode():
        ways = {"matmul": lambda: a @ b, "convolution": lambda: F.conv2d(pixels, kernel)}
        return 2 * side**3 / min(in_turn(ways, rounds, device, of=min).values()) / 1e6


def gflop(model, real_A, real_B):
    """Billions of multiplications and additions in a step: both of these count."""
    with FlopCounterMode(display=False) as counter:
        model.step(real_A, real_B)
    return counter.get_total_flops() / 1e9


def measure_step(pixels, batch, networks, precision, device, rounds, matmul_side=2048):
    """A row of the table: both steps in turn, from the same weights on the same pictures."""
    model, textbook = ours(networks, precision, device), Textbook(**networks, device=device)
    real = random_batch(pixels, batch, device)
    work = gflop(model, *real)
    times = in_turn({"textbook": lambda: textbook.step(*real), "ours": lambda: model.step(*real)}, rounds, device)
    textbook_ms, ours_ms = round(times["textbook"], 1), round(times["ours"], 1)
    return {
        "device": device, "pixels": pixels, "batch": batch, "precision": precision, "textbook_ms": textbook_ms,
        "ours_ms": ours_ms, "ratio": round(textbook_ms / ours_ms, 2), "gflop": round(work, 1),
        "share_of_peak": round(work / ours_ms / matmul_peak(precision, device, matmul_side) * 1000, 3),
        "peak_memory_mb": in_new_process(peak_memory, pixels, batch, networks, precision, device),
    }  # fmt: skip


# Memory is measured in a process of its own: a process does not give back what it once had.


def in_new_process(function, *args):
    """function(*args), computed in a process that has done nothing before."""
    context, threads = multiprocessing.get_context("spawn"), torch.get_num_threads()
    with ProcessPoolExecutor(1, context, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        return pool.submit(function, *args).result()


def peak_memory(pixels, batch, networks, precision, device):
    """Megabytes that this process has at most while it takes three steps; on CUDA, of the device's memory."""
    model, real = ours(networks, precision, device), random_batch(pixels, batch, device)
    for _ in range(3):
        model.step(*real)
    return round(torch.cuda.max_memory_allocated() / 1e6) if device == "cuda" else memory_of_process("VmHWM")


def memory_of_process(which):
    """Megabytes of this process: "VmRSS" now, "VmHWM" at most so far. None where the system does not say (not Linux).

    Not `getrusage`: there a child begins with the maximum of its parent.
    """
    status = Path("/proc/self/status")
    found = re.search(rf"{which}:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return round(int(found[1]) * 1024 / 1e6) if found else None


def kept_megabytes(model, real_A, real_B):
    """What a generator step keeps, in megabytes: all weights with a gradient and two moments of Adam, and
    what the forward passes keep for the backward ones.
    """
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.generator_step(real_A, real_B)
    for network in model.networks.values():
        for weight in network.parameters():
            kept[weight.untyped_storage().data_ptr()] = 4 * weight.untyped_storage().nbytes()
    return sum(kept.values()) / 1e6


@functools.cache  # the middle is a point of all four curves
def measure_point(precision, device, pixels, batch, **networks):
    networks = {**networks, "lambda_identity": 5.0}
    model, real = ours(networks, precision, device), random_batch(pixels, batch, device)
    return {
        "gflop": round(gflop(model, *real), 1),
        "kept_mb": round(kept_megabytes(model, *real)),
        "ms": round(in_turn({"ours": lambda: model.step(*real)}, 3, device)["ours"], 1),
        "memory_mb": in_new_process(peak_memory, pixels, batch, networks, precision, device),
    }


def measure_cost(precision, device):
    """How a step's time and memory grow: {what grows: [{its value, ms, gflop, memory_mb, kept_mb}]}."""
    return {
        name: [{"value": value} | measure_point(precision, device, **{**MIDDLE, name: value}) for value in values]
        for name, values in GROWS.items()
    }


def write_jpegs(root, count, pixels=256):
    """A data set of `count` training pictures of each side, as JPEG files as photographs are: detail, and noise."""
    rng = np.random.default_rng(0)
    for domain in "AB":
        folder = Path(root) / f"train{domain}"
        folder.mkdir(parents=True)
        for i in range(count):
            coarse = Image.fromarray(rng.integers(0, 255, (9, 9, 3), np.uint8)).resize((pixels, pixels), 3)
            noisy = np.asarray(coarse, np.int16) + rng.normal(0, 12, (pixels, pixels, 1)).astype(np.int16)
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{i:04d}.jpg", quality=92)
    return Path(root)


def measure_loader(pixels, batch, networks, precision, device, steps, in_memory):
    """Pictures a second, and the share of training that is spent waiting for them."""
    model = ours(networks, precision, device)
    with tempfile.TemporaryDirectory() as folder:
        root = write_jpegs(folder, 4 * batch, pixels)
        data = UnpairedDataset(root, (pixels, pixels), **({} if in_memory else {"memory_budget": 0}))
        began = time.perf_counter()
        loaded = sum(len(real_A) + len(real_B) for real_A, real_B in training_batches(data, batch, 0, 40))
        rate, workers, waited = loaded / (time.perf_counter() - began), workers_for(data, model.device), 0
        batches = iter(training_batches(data, batch, 0, steps + 2, workers, device == "cuda"))
        for step in range(steps + 2):
            asked = time.perf_counter()
            if step == 2:  # the first ones are slow
                began, waited = asked, 0
            real = next(batches)
            waited += time.perf_counter() - asked
            losses = model.step(*(pictures.to(device, non_blocking=True) for pictures in real))
        losses["loss_D"].item()  # waits for the device
        share = waited / (time.perf_counter() - began)
    return {
        "pixels": pixels, "batch": batch, "pictures": "in memory" if in_memory else "JPEG files", "workers": workers,
        "pictures_per_second": round(rate), "waiting": round(share, 4),
    }  # fmt: skip


def measure_loader_memory():
    """[{pictures, megabytes}]: what a data set of 256 pixels takes in memory, of a budget of `LOADER_BUDGET` bytes."""
    points = []
    for count in PICTURES:
        with tempfile.TemporaryDirectory() as folder:
            root = write_jpegs(folder, count)
            points.append({"pictures": 2 * count, "memory_mb": in_new_process(loader_memory, root)})
    return {"budget_mb": round(LOADER_BUDGET / 1e6), "points": points}


def loader_memory(root):
    # Once without memory, for what decoding itself takes when it is first called.
    list(training_batches(UnpairedDataset(root, (256, 256), memory_budget=0), 1, 0, 20))
    before = memory_of_process("VmRSS")
    data = UnpairedDataset(root, (256, 256), memory_budget=LOADER_BUDGET)
    list(training_batches(data, 1, 0, 20))
    return memory_of_process("VmRSS") - before if before else None


class UntilGood(Hook):
    """Observer: looks at `success_rate` on the test pictures every so many steps, and stops where it is `GOOD`.

    `seconds` are those of training alone. The test pictures decide nothing but when to stop.
    """

    def __init__(self, every):
        self.every, self.seconds, self.rate = every, 0, 0.0

    def start(self, trainer):
        self.test = Water2WineTest(trainer.data.root, trainer.config.size)
        self.began = time.perf_counter()

    def after_step(self, trainer):
        if trainer.step % self.every:
            return
        trainer.losses["loss_D"].item()  # waits for the device
        self.seconds += time.perf_counter() - self.began
        fakes = [trainer.model.translate(self.test.real[way[0]], way)[0] for way in ("AtoB", "BtoA")]
        self.rate = self.test.scores(*fakes)["success_rate"]
        if self.rate >= GOOD:
            trainer.stop()
        self.began = time.perf_counter()


def time_to_quality(seed, device, precision, every=100, **changes):
    """Train the demo until its water is wine: {"seed", "steps", "seconds", "success_rate"}; steps: None, if never."""
    config, until = demo_config(seed=seed, device=device, precision=precision, **changes), UntilGood(every)
    prepare_dataset(config.data_root, config.dataset_name, max(config.size))
    trainer = Trainer(config, [until])
    speed_up(trainer.model)
    steps = trainer.run().step if until.rate >= GOOD else None
    return {"seed": seed, "steps": steps, "seconds": round(until.seconds, 1), "success_rate": until.rate}


def machine_name(device):
    """ "AMD EPYC, 2 threads", say, of the processor or the GPU."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    cpuinfo, name = Path("/proc/cpuinfo"), platform.processor() or platform.machine()
    found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    threads = torch.get_num_threads()
    return f"{found[1].strip() if found else name}, {threads} thread{'s' if threads > 1 else ''}"


class Results:
    """`<machine>.json`: written after every part."""

    def __init__(self, folder, device, overwrite=False):
        machine, versions = machine_name(device), {"torch": torch.__version__, "threads": torch.get_num_threads()}
        self.path = Path(folder) / f"{re.sub('[^a-z0-9]+', '_', machine.lower()).strip('_')}.json"
        self.found = {"machine": machine, **versions, "capabilities": torch.backends.cpu.get_cpu_capability()}
        if self.path.is_file() and not overwrite:
            self.found |= json.loads(self.path.read_text())

    def part(self, name, key, measure, *args):
        """Measure what is not there yet: an item of the list `name` that begins with `key`, or `name` itself."""
        if key is None:
            if name not in self.found:
                self.found[name] = measure(*args)
        elif not any(key.items() <= item.items() for item in self.found.setdefault(name, [])):
            self.found[name].append(measure(*args))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path, json.dumps(self.found, indent=1) + "\n")


def parts(device, precision, quick=False):
    """All that is measured: (name, key, function, its arguments), as `Results.part` takes them."""
    for pixels, (batch, networks) in ({32: (2, QUICK)} if quick else SETTINGS).items():
        rounds = 1 if quick else {64: 30, 128: 7}.get(pixels, 4)
        for name in dict.fromkeys(("fp32", precision)):
            key, side = {"device": device, "pixels": pixels, "precision": name}, 256 if quick else 2048
            yield "rows", key, measure_step, pixels, batch, networks, name, device, rounds, side
        for in_memory, pictures in ((True, "in memory"), (False, "JPEG files")):
            key = {"pixels": pixels, "pictures": pictures}
            yield "loader", key, measure_loader, pixels, batch, networks, precision, device, rounds, in_memory
    if not quick:
        yield "cost", None, measure_cost, precision, device
        yield "loader_memory", None, measure_loader_memory
        for seed in range(3):
            yield "quality", {"seed": seed}, time_to_quality, seed, device, precision


def main(argv=None):
    parser = Parser(prog="make benchmark", description="Measure the textbook step and ours, in turn.")
    parser.add_argument("--device", default="auto", choices=DEVICES, help="where to measure")
    parser.add_argument("--output", type=Path, default=ROOT / "data" / "benchmark", help="where <machine>.json goes")
    parser.add_argument("--overwrite", action="store_true", help="measure again what is there already")
    parser.add_argument("--quick", action="store_true", help="one tiny network and nothing long: a trial of the code")
    args = parser.parse_args(argv)
    with parser.one_line_errors():
        device = resolve_device(args.device)
        results = Results(args.output, device, args.overwrite)
        for part in tqdm([*parts(device, resolve_precision("auto", device), args.quick)], unit="part"):
            results.part(*part)
        print(summary(results.found))
        if "cost" in results.found:
            write_figure(results.found, args.output / "cost.png")
            write_readmes()
        print(results.path)


if __name__ == "__main__":
    main()
