"""The torture of a training run: `make torture`. `tests/test_torture.py` does a little of each in the suite.

A run is killed again and again, its disk fills, it is stopped in a notebook and goes on as a command. However it
comes to its end, that is bit for bit the end of the same run left in peace.
"""

import argparse
import dataclasses
import gc
import hashlib
import os
import random
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import matplotlib.figure
import matplotlib.pyplot as plt
import torch
from helpers import PATIENCE, Do, finish, left_by, start, tiny, wait_for

from cyclegan_lib.runs.folder import newest_whole
from cyclegan_lib.runs.log import read_history
from cyclegan_lib.train import train
from cyclegan_lib.water2wine.dataset import write_dataset


def make_config(data_root, output_root, **changes):
    """Fourteen epochs of three steps, many of which are saved."""
    more = dict(
        num_epochs=14, lambda_identity=5.0, sample_interval=5, checkpoint_interval=2, checkpoint_minutes=1e-3,
        keep_checkpoints=2, resume="auto",
    )  # fmt: skip
    return tiny(data_root, output_root, **{**more, **changes})


def result(config):
    """Hashes of what a run leaves: its last checkpoint, its history, its pictures."""
    name, checkpoint, history = left_by(config)
    found = {name: checkpoint, "history.jsonl": history}
    found |= {path.name: path.read_bytes() for path in config.images_folder.glob("*.png")}
    return {name: hashlib.sha256(content).hexdigest() for name, content in sorted(found.items())}


def check_history(config):
    """No step twice, none missing."""
    last = -(-6 // config.batch_size) * config.num_epochs
    steps = [row["step"] for row in read_history(config.models_folder)]
    assert steps == list(range(1, last + 1))


def killed_again_and_again(config, kills, seed=0):
    """Kill the run so many times, each time a few steps further on, and let it finish then.

    Returns how many were killed, and how many of these while a checkpoint was written.
    """
    rng = random.Random(seed)
    total, killed, in_a_save = 3 * config.num_epochs, 0, 0
    while killed < kills:
        process = start(config)
        saved = newest_whole(config.models_folder)[0]
        further = rng.randint(1, max(1, 2 * (total - 6) // kills))  # on average what is left is enough for all
        step = min((saved.step if saved else 0) + further, total - 3)
        alive = wait_for(config, step, process)
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        _, errors = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), errors
        assert alive or process.returncode == 0, errors
        killed += process.returncode == -signal.SIGKILL
        in_a_save += any(config.models_folder.glob(".*.partial"))
        found, damaged = newest_whole(config.models_folder)
        assert not damaged, damaged
    finish(config)
    return killed, in_a_save


@contextmanager
def small_disk(folder, megabytes):
    """A disk of its own in memory. Only root can have one."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], capture_output=True)
    if done.returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def disk_filled(config, seed=0):
    """Fill the disk up to a random rest while it trains; make room, and let it finish."""
    rng = random.Random(seed)
    process = start(config)
    assert wait_for(config, rng.randint(6, 3 * config.num_epochs // 2), process)
    disk, ballast = config.output_root, config.output_root / "ballast"
    with suppress(OSError), open(ballast, "wb", buffering=0) as file:  # it may be full before: the run writes as well
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        file.write(bytes(max(0, free - rng.randrange(200_000))))
    _, errors = process.communicate(timeout=PATIENCE)
    lines = [line for line in errors.splitlines() if line.startswith("error")]
    assert process.returncode == 2 and len(lines) == 1 and "Traceback" not in errors, errors
    assert "No space left on device" in lines[0] and str(disk) in lines[0], lines
    found, damaged = newest_whole(config.models_folder)
    assert found and not damaged
    assert not list(config.models_folder.glob(".*.partial")), "it left a half behind"
    ballast.unlink()
    finish(config)
    return lines[0]


def stopped_in_a_notebook(config, seed=0):
    """In this process to a random step and Ctrl-C, as a command and killed, and here to the end."""
    rng = random.Random(seed)
    total = 3 * config.num_epochs
    interrupt_at = rng.randint(total // 6, total // 3)

    torch.set_num_threads(1)
    interrupt = Do(lambda trainer: signal.raise_signal(signal.SIGINT), interrupt_at)
    assert train(config, [interrupt], show_bar=False).stopped
    process = start(config)
    assert wait_for(config, interrupt_at + total // 4, process)
    process.kill()
    process.communicate()
    assert not train(config, show_bar=False).stopped


def grows(config, steps, every):
    """Train so many steps, and look at the process each `every` steps: a list of dicts.

    "memory" is what is resident, in bytes; "files" are open, "figures" are alive.
    """
    seen = []

    def look(trainer):
        if trainer.step % every == 0:
            gc.collect()
            figures = sum(issubclass(type(thing), matplotlib.figure.Figure) for thing in gc.get_objects())
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            seen.append({
                "step": trainer.step, "memory": pages * os.sysconf("SC_PAGE_SIZE"),
                "files": len(os.listdir("/proc/self/fd")), "figures": figures + len(plt.get_fignums()),
            })  # fmt: skip

    torch.set_num_threads(1)
    train(dataclasses.replace(config, num_epochs=-(-steps // 3)), [Do(look)], show_bar=False)
    return seen


def check_growth(seen):
    """Within 5 %, from when the buffers of past fakes are full."""
    first = seen[0]
    for row in seen[1:]:
        assert row["memory"] <= 1.05 * first["memory"], (first, row)
        assert (row["files"], row["figures"]) == (first["files"], first["figures"]), (first, row)
    return max(row["memory"] for row in seen) / first["memory"] - 1


def main():
    parser = argparse.ArgumentParser(description="Kill, fill and interrupt small runs until they have to end right.")
    parser.add_argument("--kills", type=int, default=50, help="kills of the plain run; a fifth for each variant")
    parser.add_argument("--disks", type=int, default=5, help="disks that fill")
    parser.add_argument("--steps", type=int, default=20_000, help="steps of the run whose memory is watched")
    parser.add_argument("--seed", type=int, default=0, help="decides what is not left to chance")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        torture(args, Path(work))


def say(what):
    print(what, flush=True)


def torture(args, work):
    """All of it, with a line for each part."""
    data = write_dataset(work / "data" / "tiny", num_train=6, num_test=4, size=32).parent
    for name, changes, kills in (
        ("fp32", {}, args.kills),
        ("2 workers", dict(num_workers=2), args.kills // 5),
        ("bf16", dict(precision="bf16"), args.kills // 5),
    ):
        peace, tortured = (make_config(data, work / name / how, **changes) for how in ("peace", "tortured"))
        if kills > 20:
            peace, tortured = (dataclasses.replace(config, num_epochs=60) for config in (peace, tortured))
        finish(peace)
        killed, in_a_save = killed_again_and_again(tortured, kills, args.seed)
        check_history(tortured)
        assert result(tortured) == result(peace), name
        say(f"{name}: {killed} kills, {in_a_save} of them while a checkpoint was written; the same end")
    peace, notebook = (make_config(data, work / how) for how in ("notebook_peace", "notebook"))
    finish(peace)
    stopped_in_a_notebook(notebook, args.seed)
    assert result(notebook) == result(peace)
    say("notebook, command, notebook: the same end")
    for number in range(args.disks):
        with small_disk(work / f"disk_{number}", megabytes=40) as there:
            if not there:
                say("no disk can be made (only root can): none was filled")
                break
            config = make_config(data, work / f"disk_{number}")
            say(f"disk {number}: {disk_filled(config, args.seed + number)}")
            assert result(config) == result(peace)
            say("  made room: the same end")
    config = make_config(data, work / "long", checkpoint_minutes=0.0, checkpoint_interval=30, sample_interval=100)
    seen = grows(config, args.steps, every=300)
    for row in seen[:: max(1, len(seen) // 10)]:
        say(row)
    say(f"memory after {args.steps} steps: at most {check_growth(seen):+.1%} of that after {seen[0]['step']}")


if __name__ == "__main__":
    main()
