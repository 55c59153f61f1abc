"""What the experiments pass in: halves of a norm, and surgery."""

from itertools import pairwise

import pytest
import torch
from helpers import Do
from torch import nn

from cyclegan_lib.cyclegan import CycleGAN
from cyclegan_lib.study.ablation import make_trainer
from cyclegan_lib.study.experiments import EXPERIMENTS, PASSED_IN
from cyclegan_lib.study.variants import (
    CHANGES,
    NORMS,
    SURGERIES,
    MeanOnly,
    ScaleOnly,
    Surgery,
    demodulate,
    once_through,
)
from cyclegan_lib.trainer import Trainer

SHAPE = (2, 3, 8, 8)


def test_the_halves_of_an_instance_norm_do_half_of_it_each():
    torch.manual_seed(0)
    z = 3 * torch.randn(SHAPE, dtype=torch.float64) + torch.tensor([2.0, 0, -1])[:, None, None]
    centred, scaled = MeanOnly()(z), ScaleOnly()(z)
    assert centred.mean((2, 3)).abs().max() < 1e-12
    assert torch.allclose(centred.var((2, 3)), z.var((2, 3)))
    assert torch.allclose(scaled.mean((2, 3)), z.mean((2, 3)))
    assert (scaled.var((2, 3), correction=0) - 1).abs().max() < 1e-4
    whole = nn.InstanceNorm2d(3).double()(z)
    for halves in (MeanOnly()(scaled), ScaleOnly()(centred)):
        assert torch.allclose(halves, whole, atol=1e-12)


def test_demodulated_weights_have_norm_one_whatever_their_scale():
    model = CycleGAN(base_channels=2, num_residual=1)
    before = [*model.G_AB.parameters()]
    pictures = torch.rand(SHAPE) * 2 - 1
    for G in (model.G_AB, model.G_BA):
        demodulate(G)
    once = model.G_AB(pictures)
    conv = model.G_AB.model[-2]
    for scale in (10, 100):
        with torch.no_grad():
            conv.parametrizations.weight.original.mul_(scale)
        assert torch.allclose(conv.weight.square().sum((1, 2, 3)), torch.ones(3), atol=1e-3)
        assert torch.allclose(model.G_AB(pictures), once, atol=1e-3)
    assert {*map(id, before)} == {*map(id, model.G_AB.parameters())}, "Adam would train others"


def weights(model):
    return {f"{name}.{key}": value.clone() for name, network in model.networks.items()
            for key, value in network.state_dict().items()}  # fmt: skip


def test_surgery_changes_one_layer_and_no_weight(tiny_config):
    at = []
    trainer = Trainer(tiny_config(max_steps=3, output_norm="instance"), [Surgery(3)])
    trainer.hooks.insert(0, Do(lambda trainer: at.append(weights(trainer.model)), 3))
    layers, real = [*map(type, trainer.model.G_AB.model)], trainer.data.test("A", 2)
    assert trainer.model.G_AB.model[:-1](real).mean((2, 3)).abs().max() < 1e-5
    trainer.run()
    now = [*map(type, trainer.model.G_AB.model)]
    assert [i for i, layer in enumerate(now) if layer is not layers[i]] == [len(layers) - 2]
    assert trainer.model.G_AB.model[:-1](real).mean((2, 3)).abs().max() > 1e-3
    after = weights(trainer.model)
    assert after.keys() == at[0].keys() and all(torch.equal(value, at[0][key]) for key, value in after.items())


def test_the_layer_stays_until_the_cut(tiny_config):
    seen = {}
    watch = Do(lambda trainer: seen.update({trainer.step: type(trainer.model.G_BA.model[-2])}))
    Trainer(tiny_config(max_steps=4, output_norm="instance"), [Surgery(3), watch]).run()
    assert seen == {1: nn.InstanceNorm2d, 2: nn.InstanceNorm2d, 3: nn.Identity, 4: nn.Identity}


def test_once_through_is_the_generator_and_measures_what_its_tanh_gets():
    torch.manual_seed(0)
    pictures = torch.rand(5, 3, 16, 16).double() * 2 - 1
    for norm, expected in (("instance", 1), ("none", None)):
        G = CycleGAN(base_channels=2, num_residual=1, output_norm=norm).G_AB.double()
        same, deviation = once_through(G, pictures, batch_size=2)
        with torch.inference_mode():
            whole = G(pictures)
        assert torch.allclose(same, whole, atol=1e-9)
        expected = expected or whole.atanh().std((2, 3), correction=0).mean().item()
        assert deviation == pytest.approx(expected, rel=1e-2)


def test_the_last_convolution_trains_alone_first(tiny_config):
    seen, surgery = [], Surgery(1, "last layer first")
    surgery.alone = 2
    hooks = [surgery, Do(lambda trainer: seen.append(weights(trainer.model)))]
    Trainer(tiny_config(max_steps=4, output_norm="instance"), hooks).run()
    generators = {key for key in seen[0] if key[0] == "G"}
    moved = [{key for key in generators if not torch.equal(*(step[key] for step in pair))} for pair in pairwise(seen)]
    last = list(seen[0])[len(generators) // 2 - 2 : len(generators) // 2]
    assert moved == [{f"{G}.{key.split('.', 1)[1]}" for G in ("G_AB", "G_BA") for key in last}] * 2 + [generators]


def test_a_layer_is_put_in(tiny_config):
    config = tiny_config(max_steps=2)
    model = CycleGAN.from_config(config, output_norm=NORMS["removed"])
    real = torch.rand(SHAPE)
    as_none = CycleGAN.from_config(config)
    assert torch.equal(model.G_AB(real), as_none.G_AB(real))
    Trainer(config, [Surgery(1, "put in")], model).run()
    assert model.G_AB.model[:-1](real).mean((2, 3)).abs().max() < 1e-6


@pytest.mark.parametrize("changed", CHANGES)
def test_a_changed_generator_trains_all_its_weights_and_is_the_same_again(changed, tiny_config):
    norm = "instance_affine" if "scale" in changed else "none" if changed == "demodulated" else "instance"
    config = tiny_config(max_steps=1, output_norm=norm, lambda_identity=1.0)
    ends = []
    for _ in range(2):
        trainer = make_trainer(config, changed=changed)
        before = weights(trainer.model)
        ends.append(weights(trainer.run().model))
    assert all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())
    still = [key for key in before if key[0] == "G" and torch.equal(before[key], ends[0][key])]
    assert not still


def test_learned_scales_begin_where_they_are_told_to():
    for name, scale in (("scale 3", 3), ("scale 10", 10)):
        G = CycleGAN(base_channels=2, num_residual=1, output_norm="instance_affine").G_AB
        CHANGES[name](G)
        assert G.model[-2].weight.tolist() == pytest.approx([scale] * 3, rel=0.1)


def test_what_norms_hide_is_handed_on():
    """A picture and the same with another mean: all norms make them equal, but not where means are handed on."""
    torch.manual_seed(0)
    G = CycleGAN(base_channels=4, num_residual=1, output_norm="instance").G_AB
    inner = CycleGAN(base_channels=4, num_residual=1, output_norm="instance").G_AB
    picture = torch.rand(1, 3, 16, 16)
    for network in (G, inner):
        network.double()
    CHANGES["without inner norms"](inner)
    assert not [layer for layer in inner.model[:-2].modules() if isinstance(layer, nn.InstanceNorm2d)]

    def change(network):
        network.double()
        return (network(picture.double() + 0.5) - network(picture.double())).abs().max().item()

    assert change(G) < 1e-6
    CHANGES["means handed on"](G)
    assert change(G) > 1e-3
    assert once_through(G.double(), torch.rand(5, 3, 16, 16).double(), batch_size=2)[0].shape == (5, 3, 16, 16)


def test_arms_name_what_there_is():
    arms = {arm: changes for experiment in EXPERIMENTS.values() for arm, changes in experiment.arms.items()}
    for key, known in (("norm", NORMS), ("changed", CHANGES), ("surgery", SURGERIES)):
        assert {changes[key] for changes in arms.values() if key in changes} == set(known)
    assert {changes["trunk"] for changes in arms.values() if "trunk" in changes} <= set(arms)
    assert all(changes["times"] == 2 for changes in arms.values() if "surgery" in changes)
    assert set(PASSED_IN) == {"times", "norm", "changed", "surgery", "trunk"}
