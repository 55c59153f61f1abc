"""Averaged generators: what they are, that they are shown and saved, and that a stopped run goes on with them."""

import copy
import dataclasses

import pytest
import torch
from helpers import Do, contents, make_run, stop_at, tiny

from cyclegan_lib.pictures.weights import load_generator, load_generators
from cyclegan_lib.runs.average import Average
from cyclegan_lib.runs.checkpoint import read_checkpoint
from cyclegan_lib.train import train
from cyclegan_lib.trainer import Hook, Trainer


@pytest.fixture(scope="module")
def averaged(tiny_root, tmp_path_factory):
    """The configuration and the trainer of a run of 9 steps with averaged generators. Read-only."""
    torch.set_num_threads(1)
    config = tiny(tiny_root.parent, tmp_path_factory.mktemp("averaged"), average=0.8)
    return config, train(config, show_bar=False)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_the_average_is_the_sum_of_all_weights_each_with_its_share(tiny_config, norm):
    config, decay, seen = tiny_config(max_steps=7, output_norm=norm), 0.6, []
    watch = Do(lambda trainer: seen.append(copy.deepcopy(trainer.model.G_AB.state_dict())))
    trainer = Trainer(config, [watch, Average(decay)])
    first = copy.deepcopy(trainer.model.G_AB.state_dict())
    trainer.run()
    shares, left = [], 1.0  # of the weights after each step, from the last one on; what is left is the first ones'
    for step in range(len(seen), 0, -1):
        kept = min(decay, (1 + step) / (10 + step))
        shares.append(left * (1 - kept))
        left *= kept
    for key, value in dict(trainer.shown.G_AB.named_parameters()).items():
        wanted = left * first[key] + sum(
            share * state[key] for share, state in zip(shares, reversed(seen), strict=True)
        )
        torch.testing.assert_close(value.detach(), wanted, rtol=1e-5, atol=1e-7)
    latest = dict(trainer.model.G_AB.named_buffers())
    assert bool(latest) == (norm == "batch")
    for key, value in dict(trainer.shown.G_AB.named_buffers()).items():
        assert torch.equal(value, latest[key]), "a norm's own averages are not averaged again"
    assert trainer.shown.D_B is trainer.model.D_B and trainer.shown.G_AB is not trainer.model.G_AB


def test_without_it_what_is_shown_is_the_model(tiny_config):
    trainer = Trainer(tiny_config())
    assert trainer.shown is trainer.model


def test_training_is_the_same_with_it(averaged, tmp_path):
    config, trainer = averaged
    plain = train(dataclasses.replace(config, average=0.0, output_root=tmp_path), show_bar=False)
    for name, network in trainer.model.networks.items():
        for key, value in network.state_dict().items():
            assert torch.equal(value, plain.model.networks[name].state_dict()[key])


def test_what_is_read_from_a_checkpoint_and_drawn_is_the_average(averaged):
    config, trainer = averaged
    path = config.models_folder / "epoch_3.safetensors"
    for name, G in zip(("G_AB", "G_BA"), load_generators(path), strict=True):
        for key, value in G.state_dict().items():
            assert torch.equal(value, trainer.shown.networks[name].state_dict()[key])
    states, _ = read_checkpoint(path)
    assert all(torch.equal(value, states["G_AB"][key]) for key, value in trainer.model.G_AB.state_dict().items())
    real = trainer.data.test("A", 2)
    with torch.inference_mode():
        torch.testing.assert_close(trainer.sheet(2)["fake_B"], load_generator(path)(real), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(trainer.sheet(2)["fake_B"], trainer.model.translate(real)[0], atol=1e-3)


def test_a_stopped_run_ends_as_one_that_was_not(averaged, tmp_path):
    config, _ = averaged
    config = dataclasses.replace(config, output_root=tmp_path)
    train(config, [stop_at(4)], show_bar=False)
    train(dataclasses.replace(config, resume="auto"), show_bar=False)
    whole, again = (contents(folder / "saved_models") for folder in (averaged[0].output_root, tmp_path))
    path = next(path for path in whole if path.name == "epoch_3.safetensors")
    assert again[path] == whole[path]


class SameAtFirst(Hook):
    """Says whether the averaged generators begin as the latest ones."""

    def start(self, trainer):
        latest, shown = (model.G_BA.state_dict() for model in (trainer.model, trainer.shown))
        self.same = all(torch.equal(value, shown[key]) for key, value in latest.items())


def test_a_run_that_was_not_averaged_goes_on_with_its_latest_weights(tiny_config, capsys):
    make_run(config := tiny_config(num_epochs=2), stop_at(2)).run()
    hook = SameAtFirst()
    trainer = train(dataclasses.replace(config, average=0.9, resume="auto"), [hook], show_bar=False)
    assert "--average is 0.9 and was 0.0" in capsys.readouterr().err
    assert hook.same and not trainer.stopped and trainer.shown is not trainer.model
