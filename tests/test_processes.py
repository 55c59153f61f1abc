"""Several processes that train one model: the gradients of one, one lock, one history, the same bits after a resume."""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from helpers import left_by, make_run, names, options, start_python, stop_at, wait_for

from cyclegan_lib.cyclegan import CycleGAN
from cyclegan_lib.datasets import BatchNumbers
from cyclegan_lib.errors import UserError
from cyclegan_lib.runs.checkpoint import read_facts
from cyclegan_lib.runs.log import read_history
from cyclegan_lib.runs.processes import Processes
from cyclegan_lib.train import make_trainer


def torchrun(*arguments, **kwargs):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", 2]
    return start_python(*launcher, *arguments, **kwargs)


def one_of(count, rank):
    processes = Processes("cpu")
    processes.count, processes.rank, processes.is_main = count, rank, rank == 0
    return processes


# Shares


def test_every_number_of_a_batch_goes_to_one_process():
    for count in range(1, 6):
        for length in range(1, 12):
            numbers = range(100, 100 + length)
            every = [one_of(count, rank) for rank in range(count)]
            weights = [one.weight(numbers) for one in every]
            shares = [one.share(numbers) for one in every]
            counted = [n for own, weight in zip(shares, weights, strict=True) if weight for n in own]
            assert sorted(counted) == list(numbers) and sum(weights) == pytest.approx(1)
            assert all(len(own) for own in shares), "one with nothing would not be there for the sum"
            assert all(w in (0, len(own) / length) for own, w in zip(shares, weights, strict=True))


def test_the_batches_of_all_processes_are_those_of_one():
    whole = list(BatchNumbers(10, 4, 1, 7))  # batches of 4, 4 and 2
    assert [list(numbers) for numbers in whole[:3]] == [[4, 5, 6, 7], [8, 9], [10, 11, 12, 13]]
    for rank in range(3):
        processes = one_of(3, rank)
        numbers = BatchNumbers(10, 4, 1, 7, processes.share)
        assert len(numbers) == 6 and list(numbers) == [processes.share(batch) for batch in whole]


# Gradients. What follows runs in this process, and again in each of two.


def a_step(pictures, processes=None):
    """{name: loss}, all gradients and all weights of one step in float64, with no buffer of fakes."""
    model = CycleGAN(base_channels=4, num_residual=1, lambda_identity=5.0)
    for network in model.networks.values():
        network.double()
    model.fake_A_buffer.size = model.fake_B_buffer.size = 0
    if processes:
        numbers = range(pictures.shape[1])
        with processes.joint_update(model, numbers) as sum_losses:
            losses = sum_losses(model.step(*pictures[:, list(processes.share(numbers))]))
    else:
        losses = model.step(*pictures)
    parameters = [p for network in model.networks.values() for p in network.parameters()]
    return losses, [p.grad for p in parameters], [p.detach() for p in parameters]


def a_batch(count):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, count, 3, 32, 32, generator=generator, dtype=torch.float64) * 2 - 1


COUNTS = (5, 1)  # 3 and 2; and 1 and none


def test_two_processes_make_the_gradients_of_one(tmp_path):
    process = torchrun(__file__, tmp_path)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for count in COUNTS:
        losses, gradients, _ = a_step(a_batch(count))
        for found in (rank[count] for rank in ranks):
            for name, loss in losses.items():
                assert found[0][name].item() == pytest.approx(loss.item(), rel=1e-10), name
            for there, here in zip(found[1], gradients, strict=True):
                assert torch.allclose(there, here, rtol=1e-10, atol=1e-13)
        for one, other in zip(ranks[0][count][2], ranks[1][count][2], strict=True):
            assert torch.equal(one, other), "the processes' networks have come apart"


# The command


def test_two_processes_train_stop_together_and_continue_with_the_same_bits(tiny_config):
    # Six pictures: an epoch is a batch of five and one of one, which has nothing for the second process.
    config = tiny_config(batch_size=5, lambda_identity=5.0, num_epochs=30, checkpoint_interval=15)
    process = torchrun("-m", "cyclegan_lib.train", *options(config))
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert "2 processes" in out and out.count("training pictures") == 1 and out.count("networks in") == 1
    rows = read_history(config.models_folder)
    assert [row["step"] for row in rows] == list(range(1, 61))

    one = dataclasses.replace(config, run_name="one")
    make_run(one, stop_at(2)).run()
    for here, there in zip(read_history(one.models_folder), rows, strict=False):  # later fakes differ, of the buffers
        assert all(there[name] == pytest.approx(here[name], rel=1e-3) for name in ("cycle_A", "loss_G", "loss_D"))

    parts = dataclasses.replace(config, run_name="parts", resume="auto")
    process = torchrun("-m", "cyclegan_lib.train", *options(parts), start_new_session=True)
    assert wait_for(parts, 2, process)
    os.killpg(process.pid, signal.SIGINT)  # Ctrl-C in a terminal, which the launcher passes on
    out, err = process.communicate(timeout=120)
    assert process.returncode != 0 and "stopped at step" in out, err
    step = len(read_history(parts.models_folder))
    [path] = parts.models_folder.glob("step_*")
    facts = read_facts(path)
    assert facts["step"] == step < 60 and facts["processes"] == 2
    assert facts["buffers"].keys() == {f"fake_{domain}_buffer.{rank}" for domain in "AB" for rank in range(2)}
    process = torchrun("-m", "cyclegan_lib.train", *options(parts))
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0 and f"after step {step} of 60" in out, err
    assert left_by(parts) == left_by(config)

    alone = dataclasses.replace(parts, num_epochs=31)
    assert make_run(alone).run().step == 62, "one process continues from what two have left"
    assert names(parts.models_folder) == ["epoch_15", "epoch_30", "epoch_31"]


LAUNCHED = """
import json, sys
from pathlib import Path
from accelerate import notebook_launcher
from cyclegan_lib.config import TrainConfig
from cyclegan_lib.train import train
if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    config = TrainConfig(**options | {name: Path(options[name]) for name in ("data_root", "output_root")})
    notebook_launcher(train, (config,), num_processes=2)
"""


def test_from_a_notebook(tiny_config, tmp_path):
    config = tiny_config(num_epochs=1)
    (tmp_path / "launched.py").write_text(LAUNCHED)
    process = start_python(tmp_path / "launched.py", json.dumps(dataclasses.asdict(config), default=str))
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    record = json.loads((config.models_folder / "config.json").read_text())
    assert record["processes"] == 2 and len(read_history(config.models_folder)) == 3


# What cannot be


def test_several_processes_refuse_what_they_cannot_train(tiny_config, monkeypatch):
    make_trainer(tiny_config(output_norm="batch"))
    monkeypatch.setattr("cyclegan_lib.train.Processes", lambda device: one_of(2, 0))
    with pytest.raises(UserError, match="--output_norm batch"):
        make_trainer(tiny_config(output_norm="batch"))


def test_more_processes_than_gpus_and_a_device_of_one(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert Processes("cuda").count == Processes("mps").count == 1, "a cluster has set it: no launcher, no peers"
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="2 processes for 1 GPUs"):
        Processes("cuda")
    with pytest.raises(UserError, match="--device mps"):
        Processes("mps")


def test_the_others_wait_for_the_first_whatever_happens_to_it():
    order = []
    for rank in (1, 0):
        processes = one_of(2, rank)
        processes.agree = lambda flag, rank=rank: order.append(f"{rank} at the barrier")
        with pytest.raises(UserError), processes.rank_0_first():
            order.append(f"{rank} works")
            raise UserError("no such folder")
    assert order == ["1 at the barrier", "1 works", "0 works", "0 at the barrier"]


def test_the_others_print_nothing(capsys):
    for rank in range(2):
        with one_of(2, rank).quietly():
            print(f"rank {rank}")
            print(f"rank {rank}", file=sys.stderr)
    assert capsys.readouterr() == ("rank 0\n", "rank 0\n")


if __name__ == "__main__":  # one of the two processes of the gradients' test
    torch.set_num_threads(1)
    processes = Processes("cpu")
    found = {count: a_step(a_batch(count), processes) for count in COUNTS}
    torch.save(found, Path(sys.argv[1]) / f"{processes.rank}.pt")
    processes.close()
