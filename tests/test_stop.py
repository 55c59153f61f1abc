"""A training that ends before its last step: an error, a closed terminal, a closed pipe. It saves first."""

import multiprocessing
import os
import signal
import subprocess
import sys

import pytest
import torch
from helpers import Do

from cyclegan_lib import cli, datasets, train
from cyclegan_lib.errors import UserError
from cyclegan_lib.runs.folder import newest_whole
from cyclegan_lib.train import make_trainer


@pytest.fixture
def run(folders, tiny_config, tmp_path, monkeypatch):
    """Makes a training of 5 + 5 pictures that are read from the disk, as those of a large data set are."""
    folders(5, 5, 1, 1, root=tmp_path / "large")
    plain = datasets.UnpairedDataset.__init__
    monkeypatch.setattr(
        datasets.UnpairedDataset, "__init__", lambda *a, **options: plain(*a, **{**options, "memory_budget": 0})
    )

    def make(*hooks, **options):
        config = tiny_config(dataset_name="large", data_root=tmp_path, run_name="ended", batch_size=1, **options)
        return make_trainer(config, hooks, show_bar=False)[0]

    return make


def ended(trainer):
    """(what it says at its end, the step that is saved)."""
    with pytest.raises(UserError) as error:
        trainer.run()
    saved = newest_whole(trainer.config.models_folder)[0]
    return str(error.value), saved and saved.step


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_breaks_while_it_trains_is_named_and_the_steps_are_saved(run, workers):
    def damage(trainer):
        for path in trainer.data.paths["B"]:
            path.write_bytes(path.read_bytes()[:90])

    trainer = run(Do(damage, 3), num_workers=workers)
    said, step = ended(trainer)
    assert step == trainer.step >= 3 and said.count("\n") == 0
    assert said.startswith(f"{trainer.data.root / 'trainB'}") and ".safetensors, --resume auto" in said
    assert multiprocessing.active_children() == []


def test_a_loading_process_that_dies_ends_the_run(run):
    def kill(trainer):
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    trainer = run(Do(kill, 2), num_workers=1)
    said, step = ended(trainer)
    assert step == trainer.step >= 2 and "a process that loads pictures has ended" in said and "\n" not in said


@pytest.mark.parametrize("name", ["translate_with_identity", "discriminator_loss"])
def test_out_of_memory_is_one_line_and_networks_that_may_be_of_two_steps_are_not_saved(run, monkeypatch, name):
    trainer = run()
    whole = getattr(trainer.model, name)

    def full(*args):
        if trainer.step == 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return whole(*args)

    monkeypatch.setattr(trainer.model, name, full)
    said, step = ended(trainer)
    assert said.startswith("out of memory; lower --batch_size") and "\n" not in said and step is None


def test_another_error_is_a_bug_and_stays_one(run):
    def bug(trainer):
        raise RuntimeError("an index is wrong")

    with pytest.raises(RuntimeError, match="an index is wrong"):
        run(Do(bug, 2)).run()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP on this system")
def test_a_closed_terminal_saves_and_nohup_goes_on(run):
    def hang_up(trainer):
        for _ in range(2):  # the system's and the shell's
            os.kill(os.getpid(), signal.SIGHUP)

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run(Do(hang_up, 2), max_steps=4).run().step == 4
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        trainer = run(max_steps=4, overwrite=True)
        trainer.hooks.insert(0, Do(hang_up, 2))
        trainer.run()
        assert trainer.step == 2 and newest_whole(trainer.config.models_folder)[0].step == 2
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


CLOSED = """
import sys
from cyclegan_lib import cli, train
def command(args):
    print("first", flush=True)
    sys.stdin.readline()  # until the reader has gone
    for i in range(20000):
        print("lost", i)
        print("lost", i, file=sys.stderr)
    open(sys.argv[1], "w").write("done")
cli.importlib.import_module = lambda name: type("Room", (), {"command": command})
cli.main(["train"])
"""


def test_a_command_whose_reader_has_gone_ends_as_if_it_were_there(tmp_path):
    pipe = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    with subprocess.Popen([sys.executable, "-c", CLOSED, tmp_path / "done"], **pipe) as process:
        assert process.stdout.readline() == b"first\n"
        process.stdout.close()
        process.stdin.write(b"\n")
        process.stdin.close()
        assert process.wait() == 0 and (tmp_path / "done").read_text() == "done"


def test_a_name_that_the_terminal_cannot_show_ends_no_command(tmp_path):
    stream = open(tmp_path / "log", "w", encoding="cp1251")  # noqa: SIM115
    with stream:
        output = cli.Output(stream)
        print("край", "café-日\udcff.png", file=output)
    assert (tmp_path / "log").read_text("cp1251") == "край caf\\xe9-\\u65e5\\udcff.png\n"


def test_out_of_memory_is_one_line_in_every_command(monkeypatch, capsys):
    def command(args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 5.00 GiB.\nGPU 0 has …")

    monkeypatch.setattr(train, "command", command)
    with pytest.raises(SystemExit) as end:
        cli.main(["train"])
    assert end.value.code == 2 and capsys.readouterr().err.startswith("error: out of memory; lower --batch_size")
