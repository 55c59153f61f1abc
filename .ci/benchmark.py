"""The textbook step against ours, on this machine: `python -m cyclegan_lib.benchmark`.

    data/benchmark/<machine>.json   what was measured, with the machine and its versions
    data/benchmark/cost.png         how time and memory grow, drawn from it

Every part is written as soon as it is measured, and left alone when it is there: a benchmark that
was stopped goes on. There is no time of day in the file.
"""

import copy
import json
import multiprocessing
import os
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
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm.auto import tqdm

from cyclegan_lib.cyclegan import DEVICES, CycleGAN, has_compiler, resolve_device, resolve_precision
from cyclegan_lib.datasets import UnpairedDataset, training_batches, workers_for
from cyclegan_lib.errors import Parser
from cyclegan_lib.models import InstanceNorm, ReflectionPad
from cyclegan_lib.show import plots
from cyclegan_lib.train import Trainer, demo_config, learning_rate
from cyclegan_lib.water2wine.scores import Water2WineTest

PAPER = dict(base_channels=64, num_residual=9, lambda_identity=5.0)
DEMO = dict(base_channels=16, num_residual=4, lambda_identity=5.0)
SETTINGS = {64: (4, DEMO), 128: (1, PAPER), 256: (1, PAPER)}  # pixels: (batch, networks)
# What grows in the figure, one at a time, from the middle.
MIDDLE = dict(pixels=128, batch=1, num_residual=6, base_channels=32)
GROWS = {"pixels": (64, 96, 128, 192, 256), "batch": (1, 2, 4, 8), "num_residual": (3, 6, 9, 12),
         "base_channels": (16, 32, 48, 64)}  # fmt: skip
GOOD = 0.95  # of `success_rate`: then the demo's water has become wine
LOADER_BUDGET = 64 * 1024**2  # bytes, for the measurement of the loader's memory only
PICTURES = (50, 100, 200, 300, 400)  # of each side, in that measurement
# Dense matmul peaks of the makers' data sheets in TFLOP/s: 16-bit, without sparsity.
DATA_SHEETS = {"T4": 65, "A100": 312, "H100": 989}
LIKELY_SHARE = (0.2, 0.4)  # of such a peak, that convolutions of this size reach: an assumption
HORSE2ZEBRA = 1334  # steps of one picture in an epoch: the larger side


class Textbook:
    """The step as public code takes it, from the weights of `model` (a `CycleGAN`, least squares).

    Full precision, `nn.InstanceNorm2d`, every forward apart, a plain Adam, and every loss read at
    once. The order is that of `models/cycle_gan_model.py` of the official code.
    """

    def __init__(self, model):
        self.model = model
        self.G_AB, self.G_BA, self.D_A, self.D_B = map(textbook_network, model.networks.values())
        self.fake_A_buffer, self.fake_B_buffer = copy.deepcopy((model.fake_A_buffer, model.fake_B_buffer))
        lr = model.optimizer_G.param_groups[0]["lr"]
        generators = [*self.G_AB.parameters(), *self.G_BA.parameters()]
        discriminators = [*self.D_A.parameters(), *self.D_B.parameters()]
        self.optimizer_G = torch.optim.Adam(generators, lr, betas=(0.5, 0.999))
        self.optimizer_D = torch.optim.Adam(discriminators, lr, betas=(0.5, 0.999))

    def step(self, real_A, real_B):
        """Both updates on one batch. Returns the losses by name, as `CycleGAN.step` does, as numbers."""
        fake_B, fake_A = self.G_AB(real_A), self.G_BA(real_B)
        rec_A, rec_B = self.G_BA(fake_B), self.G_AB(fake_A)
        for D in (self.D_A, self.D_B):
            D.requires_grad_(False)
        self.optimizer_G.zero_grad()
        idt_B, idt_A = self.G_AB(real_B), self.G_BA(real_A)
        identity = F.l1_loss(idt_A, real_A) + F.l1_loss(idt_B, real_B)
        adversarial = mean_square(self.D_B(fake_B), 1) + mean_square(self.D_A(fake_A), 1)
        cycle_A, cycle_B = F.l1_loss(rec_A, real_A), F.l1_loss(rec_B, real_B)
        loss_G = adversarial + self.model.lambda_cycle * (cycle_A + cycle_B) + self.model.lambda_identity * identity
        loss_G.backward()
        self.optimizer_G.step()
        for D in (self.D_A, self.D_B):
            D.requires_grad_(True)
        self.optimizer_D.zero_grad()
        loss_D = 0
        sides = (self.D_A, real_A, self.fake_A_buffer(fake_A)), (self.D_B, real_B, self.fake_B_buffer(fake_B))
        for D, real, fake in sides:
            loss = (mean_square(D(real), 1) + mean_square(D(fake), 0)) / 2
            loss.backward()
            loss_D += loss.item()
        self.optimizer_D.step()
        return {"loss_G": loss_G.item(), "adversarial": adversarial.item() / 2, "cycle_A": cycle_A.item(),
                "cycle_B": cycle_B.item(), "identity": identity.item() / 2, "loss_D": loss_D / 2}  # fmt: skip


def mean_square(scores, target):
    return F.mse_loss(scores, torch.full_like(scores, target))


def textbook_network(network):
    """A copy of one of our networks, with the weights, of torch's own layers."""
    network = copy.deepcopy(network)
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, InstanceNorm):
                setattr(parent, name, nn.InstanceNorm2d(layer.channels))
            elif isinstance(layer, ReflectionPad):
                setattr(parent, name, nn.ReflectionPad2d(layer.padding))
    return network


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
    model = CycleGAN(**networks, device=device, precision=precision)
    real = random_batch(pixels, batch, device)
    textbook = Textbook(model)
    work = gflop(model, *real)
    steps = {"textbook": lambda: textbook.step(*real), "ours": lambda: model.step(*real)}
    times = in_turn(steps, rounds, device)
    textbook_ms, ours_ms = round(times["textbook"], 1), round(times["ours"], 1)
    return {
        "device": device, "pixels": pixels, "batch": batch, "precision": precision, "textbook_ms": textbook_ms,
        "ours_ms": ours_ms, "ratio": round(textbook_ms / ours_ms, 2), "gflop": round(work, 1),
        "share_of_peak": round(work / ours_ms / matmul_peak(precision, device, matmul_side) * 1000, 3),
        "peak_memory_mb": peak_memory(pixels, batch, networks, precision, device),
    }  # fmt: skip


def measure_compiled(pixels, batch, networks, precision, device, rounds):
    """Our step with its networks compiled and without, in turn, and how long compiling takes."""
    real = random_batch(pixels, batch, device)
    plain, compiled = (CycleGAN(**networks, device=device, precision=precision, compiled=c) for c in (False, True))
    began = time.perf_counter()
    compiled.step(*real)["loss_D"].item()
    seconds = time.perf_counter() - began
    times = in_turn({"plain": lambda: plain.step(*real), "compiled": lambda: compiled.step(*real)}, rounds, device)
    return {
        "device": device, "pixels": pixels, "batch": batch, "precision": precision,
        "ours_ms": round(times["plain"], 1), "compiled_ms": round(times["compiled"], 1),
        "ratio": round(times["plain"] / times["compiled"], 2), "seconds_to_compile": round(seconds, 1),
    }  # fmt: skip


# Memory is measured in a process of its own: what a process has had once, it keeps.


def peak_memory(*step):
    """Megabytes that a process has at most while it takes three steps; on CUDA, of the device's memory."""
    return in_new_process(_peak_memory, *step)


def _peak_memory(pixels, batch, networks, precision, device):
    model, real = CycleGAN(**networks, device=device, precision=precision), random_batch(pixels, batch, device)
    for _ in range(3):
        model.step(*real)
    if device == "cuda":
        return round(torch.cuda.max_memory_allocated() / 1e6)
    return memory_of_process("VmHWM")


def memory_of_process(which):
    """Megabytes of this process: "VmRSS" now, "VmHWM" at most so far. None where the system does not say (not Linux).

    Not `getrusage`: there a child begins with the maximum of its parent.
    """
    status = Path("/proc/self/status")
    found = re.search(rf"{which}:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return round(int(found[1]) * 1024 / 1e6) if found else None


def in_new_process(function, *args):
    """function(*args), computed in a process that has done nothing before."""
    context, threads = multiprocessing.get_context("spawn"), torch.get_num_threads()
    with ProcessPoolExecutor(1, context, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        return pool.submit(function, *args).result()


def kept_megabytes(model, real_A, real_B):
    """What a generator step keeps, in megabytes: all weights with a gradient and two moments of Adam, and
    what the forward passes keep for the backward ones.
    """
    weights = [p for network in model.networks.values() for p in network.parameters()]
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.generator_step(model.in_layout(real_A), model.in_layout(real_B))
    for weight in weights:
        kept[weight.untyped_storage().data_ptr()] = 4 * weight.untyped_storage().nbytes()
    return sum(kept.values()) / 1e6


def measure_cost(precision, device, rounds):
    """How a step's time and memory grow: {what grows: [{its value, ms, gflop, memory_mb, kept_mb}]}."""
    found, middle = {}, None
    for name, values in GROWS.items():
        found[name] = []
        for value in values:
            if value == MIDDLE[name] and middle:
                found[name].append(middle | {"value": value})
                continue
            setting = MIDDLE | {name: value}
            pixels, batch = setting.pop("pixels"), setting.pop("batch")
            networks = {**setting, "lambda_identity": 5.0}
            model, real = CycleGAN(**networks, device=device, precision=precision), random_batch(pixels, batch, device)
            point = {"value": value, "gflop": round(gflop(model, *real), 1),
                     "kept_mb": round(kept_megabytes(model, *real)),
                     "ms": round(in_turn({"ours": lambda m=model, r=real: m.step(*r)}, rounds, device)["ours"], 1),
                     "memory_mb": peak_memory(pixels, batch, networks, precision, device)}  # fmt: skip
            found[name].append(point)
            middle = point if value == MIDDLE[name] else middle
    return found


# The loader


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
    with tempfile.TemporaryDirectory() as folder:
        root = write_jpegs(folder, 4 * batch, pixels)
        data = UnpairedDataset(root, (pixels, pixels), **({} if in_memory else {"memory_budget": 0}))
        began = time.perf_counter()
        loaded = sum(len(real_A) + len(real_B) for real_A, real_B in training_batches(data, batch, 0, 40))
        rate = loaded / (time.perf_counter() - began)
        model, waited, last = CycleGAN(**networks, device=device, precision=precision), 0, None
        batches = iter(training_batches(data, batch, 0, steps + 2, workers_for(data, device), device == "cuda"))
        for step in range(steps + 2):
            if step == 2:  # the first ones are slow
                began, waited = time.perf_counter(), 0
            asked = time.perf_counter()
            real_A, real_B = next(batches)
            waited += time.perf_counter() - asked
            last = model.step(real_A.to(device, non_blocking=True), real_B.to(device, non_blocking=True))
        last["loss_D"].item()  # waits for the device
        share = waited / (time.perf_counter() - began)
    return {"pixels": pixels, "batch": batch, "pictures": "in memory" if in_memory else "JPEG files",
            "workers": workers_for(data, device), "pictures_per_second": round(rate),
            "waiting": round(share, 4)}  # fmt: skip


def measure_loader_memory(counts):
    """[{pictures, megabytes}]: what a data set of 256 pixels takes in memory, of a budget of `LOADER_BUDGET` bytes."""
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for count in counts:
            root = write_jpegs(Path(folder) / str(count), count)
            found.append({"pictures": 2 * count, "memory_mb": in_new_process(_loader_memory, root)})
    return {"budget_mb": round(LOADER_BUDGET / 1e6), "points": found}


def _loader_memory(root):
    # Once without memory, for what decoding itself takes when it is first called.
    list(training_batches(UnpairedDataset(root, (256, 256), memory_budget=0), 1, 0, 20))
    before = memory_of_process("VmRSS")
    data = UnpairedDataset(root, (256, 256), memory_budget=LOADER_BUDGET)
    list(training_batches(data, 1, 0, 20))
    return memory_of_process("VmRSS") - before if before else None


# Time to quality


def time_to_quality(seed, device, precision, most, every=100, **changes):
    """Train the demo until `success_rate` on the test pictures is `GOOD`, looked at now and then.

    Returns {"seed", "steps", "seconds", "success_rate"}: steps is None if it was not reached in
    `most` steps. Only training is timed. The test pictures decide nothing but when to stop.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = demo_config(seed=seed, device=device, precision=precision, output_root=Path(folder), **changes)
        trainer = Trainer(config)
        test, seconds, began = Water2WineTest(trainer.root, config.size), 0, time.perf_counter()
        for real_A, real_B in training_batches(trainer.data, config.batch_size, 0, min(most, trainer.total_steps)):
            trainer.model.set_lr(learning_rate(config, trainer.step, trainer.total_steps, trainer.steps_per_epoch))
            losses = trainer.model.step(real_A.to(device), real_B.to(device))
            trainer.step += 1
            if trainer.step % every == 0:
                losses["loss_D"].item()  # waits for the device
                seconds += time.perf_counter() - began
                translated = [
                    trainer.model.translate(test.real[d], way)[0] for d, way in (("A", "AtoB"), ("B", "BtoA"))
                ]
                rate = test.scores(*translated)["success_rate"]
                if rate >= GOOD:
                    return {"seed": seed, "steps": trainer.step, "seconds": round(seconds, 1), "success_rate": rate}
                began = time.perf_counter()
    return {"seed": seed, "steps": None, "seconds": round(seconds, 1), "success_rate": rate}


# What it is told


def estimate_hours(cost_gflop, epochs=1000):
    """{GPU: (least, most) hours} of `epochs` of horse2zebra at 256 pixels in batches of one, estimated.

    The work of a step (counted), the makers' peaks, and the share of them that is likely to be
    reached: `LIKELY_SHARE`. Nothing here was measured on such a device.
    """
    work = cost_gflop * HORSE2ZEBRA * epochs / 3600 / 1000
    return {name: tuple(work / tflops / share for share in LIKELY_SHARE[::-1])
            for name, tflops in DATA_SHEETS.items()}  # fmt: skip


def machine_name(device):
    """ "AMD EPYC, 2 threads", say, of the processor or the GPU."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    cpuinfo, name = Path("/proc/cpuinfo"), platform.processor() or platform.machine()
    found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    threads = torch.get_num_threads()
    return f"{found[1].strip() if found else name}, {threads} thread{'s' if threads > 1 else ''}"


class Results:
    """`<machine>.json`: written whole after every part."""

    def __init__(self, folder, device, overwrite=False):
        machine = machine_name(device)
        self.path = Path(folder) / f"{re.sub('[^a-z0-9]+', '_', machine.lower()).strip('_')}.json"
        self.found = {"machine": machine, "torch": torch.__version__, "threads": torch.get_num_threads(),
                      "capabilities": cpu_capability(), "rows": []}  # fmt: skip
        if self.path.is_file() and not overwrite:
            self.found |= json.loads(self.path.read_text())

    def part(self, name, key, measure):
        """Measure what is not there yet: an item of the list `name` that begins with `key`, or `name` itself."""
        if key is None:
            if name not in self.found:
                self.found[name] = measure()
        elif not any(key.items() <= item.items() for item in self.found.setdefault(name, [])):
            self.found[name].append(measure())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.found, indent=1) + "\n")
        os.replace(partial, self.path)


def cpu_capability():
    return torch.backends.cpu.get_cpu_capability()


def parts(device, precision, quick=False):
    """All that is measured: [(name, key, function)], as `Results.part` takes them."""
    settings = {32: (2, dict(base_channels=4, num_residual=1, lambda_identity=5.0))} if quick else SETTINGS
    rounds = {pixels: 1 if quick else {64: 30, 128: 7}.get(pixels, 4) for pixels in settings}
    found = []
    for pixels, (batch, networks) in settings.items():
        for name in dict.fromkeys(("fp32", precision)):
            key = {"device": device, "pixels": pixels, "precision": name}
            args = (pixels, batch, networks, name, device, rounds[pixels])
            side = 256 if quick else 2048
            found.append(("rows", key, lambda args=args, side=side: measure_step(*args, side)))
        for in_memory in (True, False):
            key = {"pixels": pixels, "pictures": "in memory" if in_memory else "JPEG files"}
            args = (pixels, batch, networks, precision, device, rounds[pixels], in_memory)
            found.append(("loader", key, lambda args=args: measure_loader(*args)))
        if has_compiler(device) and not quick:
            args = (pixels, batch, networks, precision, device, rounds[pixels])
            key = {"pixels": pixels, "precision": precision}
            found.append(("compiled", key, lambda args=args: measure_compiled(*args)))
    if not quick:
        found.append(("cost", None, lambda: measure_cost(precision, device, 3)))
        found.append(("loader_memory", None, lambda: measure_loader_memory(PICTURES)))
        for seed in range(3):
            found.append(("quality", {"seed": seed}, lambda s=seed: time_to_quality(s, device, precision, 1800)))
    return found


def summary(found):
    """All that `Results` holds in words and tables, as the README has it."""
    parts = [f"**{found['machine']}**, torch {found['torch']}:", steps_table(found["rows"])]
    if found["loader"]:
        parts.append(loader_table(found["loader"]))
    if "compiled" in found:
        rates = ", ".join(
            f"{row['compiled_ms']:.0f} for {row['ours_ms']:.0f} ms at {row['pixels']} pixels, after "
            f"{row['seconds_to_compile']:.0f} s of compiling" for row in found["compiled"]
        )  # fmt: skip
        parts.append(f"With `--compile`: {rates}.")
    reached = [row for row in found.get("quality", []) if row["steps"]]
    if reached:
        rates = ", ".join(f"{row['steps']} steps ({row['seconds']:.0f} s)" for row in reached)
        count = len(found["quality"])
        parts.append(
            f"To a success_rate of {GOOD} on water2wine (looked at every 100 steps): {rates}, of {count} seeds."
        )
    if any(row["pixels"] == 256 for row in found["rows"]):
        parts.append(hours_table(found))
    return "\n\n".join(parts)


def loader_table(rows):
    lines = ["| the loader: pixels | pictures | a second | of a training spent waiting |", "|---|---|---|---|"]
    lines += [
        f"| {row['pixels']} | {row['pictures']} | {row['pictures_per_second']:,} | {row['waiting']:.1%} |"
        for row in rows
    ]
    return "\n".join(lines)


def steps_table(rows):
    names = ("pixels", "batch", "precision", "textbook", "ours", "ratio", "of the peak", "memory")
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for row in rows:
        memory = "" if row["peak_memory_mb"] is None else f"{row['peak_memory_mb']} MB"
        lines.append(
            f"| {row['pixels']} | {row['batch']} | {row['precision']} | {row['textbook_ms']:.0f} ms | "
            f"{row['ours_ms']:.0f} ms | {row['ratio']:.2f} | {row['share_of_peak']:.0%} | {memory} |"
        )
    return "\n".join(lines)


def hours_table(found):
    """1,000 epochs of horse2zebra at 256 pixels: on GPUs (estimated), and here (from a measured step)."""
    here = [row for row in found["rows"] if row["pixels"] == 256][-1]
    lines = ["| 1,000 epochs of horse2zebra, 256 pixels | 16-bit peak | time | |", "|---|---|---|---|"]
    for name, (least, most) in estimate_hours(here["gflop"]).items():
        lines.append(f"| {name} | {DATA_SHEETS[name]} TFLOP/s | {least:.0f} to {most:.0f} hours | estimate |")
    days = here["ours_ms"] / 1000 * HORSE2ZEBRA * 1000 / 86400
    lines.append(f"| {found['machine']} | | {days:.0f} days | 1,334,000 times the step above |")
    return "\n".join(lines)


def main(argv=None):
    parser = Parser(prog="python -m cyclegan_lib.benchmark", description="Measure the textbook step and ours, in turn.")
    parser.add_argument("--device", default="auto", choices=DEVICES, help="where to measure")
    parser.add_argument("--output", type=Path, default=Path("data/benchmark"), help="where <machine>.json goes")
    parser.add_argument("--overwrite", action="store_true", help="measure again what is there already")
    parser.add_argument("--quick", action="store_true", help="one tiny network and nothing long: a trial of the code")
    args = parser.parse_args(argv)
    with parser.one_line_errors():
        device = resolve_device(args.device)
        results = Results(args.output, device, args.overwrite)
        for name, key, measure in tqdm(parts(device, resolve_precision("auto", device), args.quick), unit="part"):
            results.part(name, key, measure)
        print(summary(results.found))
        if "cost" in results.found:
            figure = plots.cost(results.found["cost"], results.found["loader_memory"])
            (args.output / "cost.png").write_bytes(plots.to_png(figure, colours=64))
        print(results.path)


if __name__ == "__main__":
    main()
