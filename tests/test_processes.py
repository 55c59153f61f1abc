import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from cyclegan_lib import cyclegan
from cyclegan_lib import train as train_module
from cyclegan_lib.cyclegan import CycleGAN
from cyclegan_lib.datasets import BatchNumbers
from cyclegan_lib.errors import UserError
from cyclegan_lib.files import read_facts
from cyclegan_lib.runs.checkpoint import load_checkpoint
from cyclegan_lib.runs.folder import read_history
from cyclegan_lib.runs.processes import Processes, share
from cyclegan_lib.train import Trainer

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def torchrun(*arguments, count=2):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    return subprocess.Popen(
        [sys.executable, *launcher, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=ENVIRONMENT, cwd=ROOT,
    )  # fmt: skip


def test_every_number_of_a_batch_goes_to_one_process():
    for count in range(1, 6):
        for length in range(1, 12):
            shares = [share(range(100, 100 + length), rank, count) for rank in range(count)]
            counted = [number for own, weight in shares if weight for number in own]
            assert sorted(counted) == list(range(100, 100 + length))
            assert all(len(own) for own, _ in shares), "one with nothing would not be there for the sum"
            assert sum(weight for _, weight in shares) == pytest.approx(1)
            assert all(weight == (len(own) / length if weight else 0) for own, weight in shares)


def test_the_batches_of_all_processes_are_those_of_one():
    for rank in range(3):
        numbers = BatchNumbers(range(10), 4, 1, 7, rank, 3)  # batches of 4, 4 and 2
        assert len(list(numbers)) == 6
        for step, own in zip(range(1, 7), numbers, strict=True):
            [whole] = BatchNumbers(range(10), 4, step, step + 1)
            assert own == share(whole, rank, 3)[0]


# Gradients. What follows runs in this process, and again in each of two.

IN_DOUBLE = dict(adversarial_loss=lambda s, real, mode: ((s - float(real)) ** 2).mean(),
                 cycle_loss=F.l1_loss, identity_loss=F.l1_loss)  # fmt: skip


def a_step(pictures, weight=1.0, processes=None):
    """{name: loss} and all gradients of one step in float64, with no buffer of fakes."""
    for name, loss in IN_DOUBLE.items():
        setattr(cyclegan, name, loss)
    model = CycleGAN(base_channels=4, num_residual=1, lambda_identity=5.0)
    for network in model.networks.values():
        network.double()
    model.fake_A_buffer.size = model.fake_B_buffer.size = 0
    if processes:
        model.before_update = lambda parameters: processes.sum_gradients(parameters, weight)
    losses = model.step(*pictures)
    if processes:
        losses = processes.sum_losses(losses, weight)
    parameters = [p for network in model.networks.values() for p in network.parameters()]
    return losses, [p.grad for p in parameters], [p.detach() for p in parameters]


def a_batch(count):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, count, 3, 32, 32, generator=generator, dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize("pictures", [5, 1])  # 3 and 2; and 1 and none
def test_two_processes_make_the_gradients_of_one(pictures, tmp_path, monkeypatch):
    for name in IN_DOUBLE:
        monkeypatch.setattr(cyclegan, name, getattr(cyclegan, name))  # put back in the end
    process = torchrun(__file__, pictures, tmp_path)
    assert process.wait(timeout=120) == 0, process.stderr.read()
    losses, gradients, weights = a_step(a_batch(pictures))
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert found["count"] == 2
        for name, loss in losses.items():
            assert found["losses"][name].item() == pytest.approx(loss.item(), rel=1e-10), name
        for there, here in zip(found["gradients"], gradients, strict=True):
            assert torch.allclose(there, here, rtol=1e-10, atol=1e-13)
        for there, here in zip(found["weights"], torch.load(tmp_path / "0.pt")["weights"], strict=True):
            assert torch.equal(there, here), "the processes' networks have come apart"
    assert any(not torch.equal(a, b) for a, b in zip(weights, a_step(a_batch(3))[2], strict=True))


# The command


def options(config):
    given = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value != field.default:
            given += [f"--{field.name}"] if value is True else [f"--{field.name}", value]
    return given


def last_checkpoint(config):
    folder = config.models_folder / "epoch_3"
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".safetensors"}


def test_two_processes_train_stop_together_and_go_on_with_the_same_bits(tiny_config, tmp_path):
    # Six pictures: an epoch is a batch of five and one of one, which has nothing for the second process.
    config = tiny_config(batch_size=5, output_root=tmp_path / "whole", lambda_identity=5.0, decay_epoch=3)
    process = torchrun("-m", "cyclegan_lib.train", *options(config))
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert "2 processes" in out and out.count("training pictures") == 1 and out.count("networks in") == 1
    assert err.count("epoch 3/3") >= 1
    rows = read_history(config.models_folder / "history.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 7))
    facts = read_facts(config.models_folder / "epoch_3" / "state.safetensors")
    assert {"fake_A_buffer", "fake_A_buffer.1"} <= facts.keys()

    one = Trainer(dataclasses.replace(config, output_root=tmp_path / "one")).run()
    for here, there in zip(one.history[:2], rows, strict=False):  # later ones have other fakes from the buffers
        assert all(there[name] == pytest.approx(here[name], rel=1e-3) for name in ("cycle_A", "loss_G", "loss_D"))

    parts = dataclasses.replace(config, output_root=tmp_path / "parts")
    for changes in (dict(max_steps=3), dict(resume="auto")):
        process = torchrun("-m", "cyclegan_lib.train", *options(dataclasses.replace(parts, **changes)))
        _, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
    assert last_checkpoint(parts) == last_checkpoint(config)

    alone = dataclasses.replace(parts, num_epochs=4, resume="auto")
    assert Trainer(alone).run().step == 8, "one process goes on from what two have left"


def test_sigterm_stops_both_processes_at_the_same_step(tiny_config):
    config = tiny_config(num_epochs=10**5, checkpoint_interval=0)
    process = torchrun("-m", "cyclegan_lib.train", *options(config))
    history, deadline = config.models_folder / "history.jsonl", time.monotonic() + 120
    while not read_history(history):
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode != 0 and "stopped at step" in out, err
    [saved] = config.models_folder.glob("step_*")
    assert int(saved.name.removeprefix("step_")) == len(read_history(history))
    assert {"fake_A_buffer.1", "fake_B_buffer.1"} <= read_facts(saved / "state.safetensors").keys()


LAUNCHED = """
import json, sys
from pathlib import Path
from accelerate import notebook_launcher
from cyclegan_lib.train import TrainConfig, train
if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    config = TrainConfig(**options | {name: Path(options[name]) for name in ("data_root", "output_root")})
    notebook_launcher(train, (config,), num_processes=2)
"""


def test_from_a_notebook(tiny_config, tmp_path):
    config = tiny_config(num_epochs=1)
    (tmp_path / "launched.py").write_text(LAUNCHED)
    options_ = json.dumps(dataclasses.asdict(config), default=str)
    subprocess.run([sys.executable, tmp_path / "launched.py", options_], env=ENVIRONMENT, check=True, timeout=240)
    record = json.loads((config.models_folder / "config.json").read_text())
    assert record["processes"] == 2 and len(read_history(config.models_folder / "history.jsonl")) == 3


# What cannot be


class Three:
    count, rank, is_main = 3, 0, True

    def __init__(self, device):
        pass

    quietly = Processes.quietly


def test_several_processes_refuse_what_they_cannot_train(tiny_config, monkeypatch):
    monkeypatch.setattr(train_module, "Processes", Three)
    with pytest.raises(UserError, match="--batch_size 2 for 3 processes"):
        Trainer(tiny_config())
    with pytest.raises(UserError, match="--output_norm batch"):
        Trainer(tiny_config(batch_size=3, output_norm="batch"))


def test_more_processes_than_gpus_and_a_device_of_one(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="2 processes for 1 GPUs"):
        Processes("cuda")
    with pytest.raises(UserError, match="--device mps"):
        Processes("mps")


def test_one_process_that_accelerate_launched_says_so(tiny_config, monkeypatch, capsys):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    train_module.announce(Trainer(tiny_config()))
    assert "torchrun --nproc_per_node 2" in capsys.readouterr().err


def test_a_process_that_was_not_there_begins_with_empty_buffers(tiny_config):
    trainer = Trainer(tiny_config(num_epochs=1)).run()
    other = CycleGAN(base_channels=4, num_residual=1)
    load_checkpoint(trainer.checkpoint, other, rank=1)
    assert other.fake_A_buffer.pictures == [] and len(trainer.model.fake_A_buffer.pictures) == 6


if __name__ == "__main__":  # one of the two processes of the gradients' test
    torch.set_num_threads(1)
    processes = Processes("cpu")
    numbers, weight = share(range(int(sys.argv[1])), processes.rank, processes.count)
    losses, gradients, weights = a_step([side[list(numbers)] for side in a_batch(int(sys.argv[1]))], weight, processes)
    found = {"count": processes.count, "losses": losses, "gradients": gradients, "weights": weights}
    torch.save(found, Path(sys.argv[2]) / f"{processes.rank}.pt")
    processes.close()
