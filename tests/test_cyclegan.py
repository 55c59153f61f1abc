import copy

import pytest
import torch
import torch.nn.functional as F

from cyclegan_lib.cyclegan import CycleGAN, resolve_device, resolve_precision
from cyclegan_lib.errors import UserError
from cyclegan_lib.study.floor import output_norm_floor

SMALL = dict(base_channels=4, num_residual=1)


def batch(n=2, size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(n, 3, size, size, generator=generator) * 2 - 1 for _ in "AB"]


def in_double(model):
    for network in model.networks.values():
        network.double()
    return model


def textbook_step(model, real_A, real_B):
    """One step in the order of the official code, every forward apart, by plain autograd.

    Returns the losses and the gradients of all four networks. It does not update anything.
    """
    fake_B, fake_A = model.G_AB(real_A), model.G_BA(real_B)
    rec_A, rec_B = model.G_BA(fake_B), model.G_AB(fake_A)
    idt_A, idt_B = model.G_BA(real_A), model.G_AB(real_B)
    adversarial = ((model.D_B(fake_B) - 1) ** 2).mean() + ((model.D_A(fake_A) - 1) ** 2).mean()
    cycle_A, cycle_B = (rec_A - real_A).abs().mean(), (rec_B - real_B).abs().mean()
    identity = (idt_A - real_A).abs().mean() + (idt_B - real_B).abs().mean()
    loss_G = adversarial + model.lambda_cycle * (cycle_A + cycle_B) + model.lambda_identity * identity
    of_generators = [*model.G_AB.parameters(), *model.G_BA.parameters()]
    gradients = list(torch.autograd.grad(loss_G, of_generators))
    loss_D = 0
    for D, real, fake in ((model.D_A, real_A, fake_A), (model.D_B, real_B, fake_B)):
        loss_D = loss_D + ((D(real) - 1) ** 2).mean() / 2 + (D(fake.detach()) ** 2).mean() / 2
    of_discriminators = [*model.D_A.parameters(), *model.D_B.parameters()]
    gradients += torch.autograd.grad(loss_D, of_discriminators)
    losses = dict(loss_G=loss_G, loss_D=loss_D / 2, adversarial=adversarial / 2, cycle_A=cycle_A, cycle_B=cycle_B)
    return losses | {"identity": identity / 2}, gradients


def of_all(model):
    return [p for network in model.networks.values() for p in network.parameters()]


@pytest.mark.parametrize("output_norm", ["none", "instance", "instance_affine", "batch"])
def test_a_step_is_the_textbook_step(output_norm):
    model = in_double(CycleGAN(output_norm=output_norm, lambda_identity=5.0, **SMALL))
    real_A, real_B = (pictures.double() for pictures in batch())
    expected, gradients = textbook_step(copy.deepcopy(model), real_A, real_B)
    losses, fake_A, fake_B = model.generator_step(real_A, real_B)
    found = [p.grad.clone() for p in [*model.G_AB.parameters(), *model.G_BA.parameters()]]
    assert all(p.grad is None for p in [*model.D_A.parameters(), *model.D_B.parameters()]), "not frozen"
    losses["loss_D"] = model.discriminator_step(real_A, real_B, fake_A, fake_B)
    found += [p.grad for p in [*model.D_A.parameters(), *model.D_B.parameters()]]
    for name, value in expected.items():
        assert losses[name].dtype == torch.float64
        assert losses[name].item() == pytest.approx(value.item(), rel=1e-10), name
    for ours, theirs in zip(found, gradients, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-10 * theirs.abs().max().item() + 1e-14)


def test_an_update_is_one_of_adam():
    """By hand: a first step of Adam goes lr against the sign of every gradient, in all four networks."""
    model = in_double(CycleGAN(lr=1e-3, **SMALL))
    before = copy.deepcopy(model)
    model.step(*(pictures.double() for pictures in batch()))
    for after, start in zip(of_all(model), of_all(before), strict=True):
        expected = start - 1e-3 * after.grad / (after.grad.abs() + 1e-8)
        assert torch.allclose(after, expected, rtol=0, atol=1e-12)


def test_a_step_on_every_device(device):
    """Three steps in float32 on it: the losses of float64 on the CPU, to its rounding."""
    model, exact = CycleGAN(lambda_identity=5.0, device=device, **SMALL), CycleGAN(lambda_identity=5.0, **SMALL)
    in_double(exact)
    assert {parameter.device.type for parameter in of_all(model)} == {device}
    for seed in range(3):
        found = model.step(*(pictures.to(device) for pictures in batch(seed=seed)))
        expected = exact.step(*(pictures.double() for pictures in batch(seed=seed)))
        for name, loss in expected.items():
            assert found[name].item() == pytest.approx(loss.item(), rel=1e-3), (seed, name)


def test_past_fakes_do_not_keep_their_joint_batches():
    model = CycleGAN(lambda_identity=5.0, **SMALL)
    for seed in range(2):
        model.step(*batch(4, seed=seed))
    pictures = model.fake_A_buffer.pictures + model.fake_B_buffer.pictures
    assert [picture.untyped_storage().nbytes() for picture in pictures] == [3 * 32 * 32 * 4] * 16


def test_only_generators_move_in_the_generator_step_and_only_discriminators_in_the_other():
    model = CycleGAN(**SMALL)
    before = copy.deepcopy(model)
    _, fake_A, fake_B = model.generator_step(*batch())
    moved = {name: any_moved(network, before.networks[name]) for name, network in model.networks.items()}
    assert moved == {"G_AB": True, "G_BA": True, "D_A": False, "D_B": False}
    middle = copy.deepcopy(model)
    model.discriminator_step(*batch(), fake_A, fake_B)
    moved = {name: any_moved(network, middle.networks[name]) for name, network in model.networks.items()}
    assert moved == {"G_AB": False, "G_BA": False, "D_A": True, "D_B": True}


def any_moved(network, before):
    return any(not torch.equal(a, b) for a, b in zip(network.parameters(), before.parameters(), strict=True))


def test_without_identity_it_is_none_and_no_forward_is_spent_on_it():
    model = CycleGAN(lambda_identity=0.0, **SMALL)
    seen = []
    model.G_AB.register_forward_hook(lambda module, args, out: seen.append(len(args[0])))
    assert model.step(*batch(3))["identity"] is None
    assert seen == [3, 3]


def test_one_seed_one_start_whatever_the_output_norm():
    plain, norm = CycleGAN(seed=3, **SMALL), CycleGAN(seed=3, output_norm="instance_affine", **SMALL)
    other = CycleGAN(seed=4, **SMALL)
    for name, network in plain.networks.items():
        there = norm.networks[name].state_dict()
        assert all(torch.equal(value, there[key]) for key, value in network.state_dict().items())
        assert any_moved(network, other.networks[name])
    assert any_moved(plain.G_AB, plain.G_BA)


def test_making_a_model_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    CycleGAN(**SMALL)
    assert torch.equal(before, torch.get_rng_state())


def test_init_and_no_init():
    std = {flag: CycleGAN(no_init=flag, **SMALL).G_AB.model[-2].weight.std().item() for flag in (False, True)}
    assert 0.015 < std[False] < 0.025 < std[True]


def test_vanilla_is_cross_entropy():
    model = CycleGAN(gan_mode="vanilla", lambda_cycle=0.0, **SMALL)
    real_A, real_B = batch()
    with torch.no_grad():
        scores = model.D_B(model.G_AB(real_A)), model.D_A(model.G_BA(real_B))
        expected = sum(F.softplus(-s).mean() for s in scores)
    assert model.step(real_A, real_B)["loss_G"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_floor_holds_in_training_and_only_with_the_norm(device):
    """Training on one picture: the norm keeps the cycle loss above the floor, without it it falls below."""
    dark = torch.full((1, 3, 32, 32), 10.0) / 127.5 - 1
    dark[..., 8:16, 8:16] = 60 / 127.5 - 1
    floor = output_norm_floor(dark)
    assert floor > 0.5
    ends, dark = {}, dark.to(device)
    for norm in ("none", "instance"):
        model = CycleGAN(output_norm=norm, lr=2e-3, lambda_identity=5.0, device=device, **SMALL)
        ends[norm] = min(model.step(dark, dark)["cycle_A"].item() for _ in range(60))
    assert ends["instance"] >= floor - 1e-6
    assert ends["none"] < floor / 2


def test_translate_is_there_and_back_in_eval_mode(device):
    model = CycleGAN(output_norm="batch", device=device, **SMALL)
    model.step(*(pictures.to(device) for pictures in batch()))
    real, _ = batch(5)
    fake, rec = model.translate(real, "AtoB", batch_size=2)
    G_AB, G_BA = copy.deepcopy(model.G_AB).cpu().eval(), copy.deepcopy(model.G_BA).cpu().eval()
    with torch.no_grad():
        assert torch.allclose(fake, G_AB(real), atol=1e-4) and torch.allclose(rec, G_BA(G_AB(real)), atol=1e-4)
        assert torch.allclose(model.translate(real, "BtoA")[0], G_BA(real), atol=1e-4)
    assert model.G_AB.training and model.G_BA.training
    sheet = model.sheet(real, real + 0.1)
    assert list(sheet) == ["real_A", "fake_B", "rec_A", "real_B", "fake_A", "rec_B"]
    assert torch.allclose(sheet["fake_B"], fake, atol=1e-4) and torch.equal(sheet["real_B"], real + 0.1)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_16_bits_train_close_to_fp32(device, precision):
    if precision == "fp16" and device != "cuda":
        pytest.skip("fp16 is for CUDA")
    losses = []
    for one in ("fp32", precision):
        model = CycleGAN(precision=one, device=device, **SMALL)
        losses.append(model.step(*(pictures.to(device) for pictures in batch())))
        assert {parameter.dtype for parameter in of_all(model)} == {torch.float32}
    assert losses[0]["cycle_A"].item() == pytest.approx(losses[1]["cycle_A"].item(), rel=0.02)
    assert losses[0]["loss_G"].item() != losses[1]["loss_G"].item()


def test_a_picture_that_overflows_in_fp16_is_not_kept_for_later():
    model = CycleGAN(lambda_identity=5.0, **SMALL)
    real_A, real_B = batch()
    real_A[0] = float("nan")  # as if a layer of G_AB had
    _, _, fake_B = model.generator_step(real_A, real_B)
    assert fake_B.isfinite().all() and fake_B[0].eq(0).all() and not fake_B[1].eq(0).all()


def test_float32_is_float32_in_convolutions_too(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    resolve_device("auto")
    assert not torch.backends.cudnn.allow_tf32


def test_devices_and_precisions():
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") in ("cpu", "cuda", "mps")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="cuda"):
            resolve_device("cuda")
    assert resolve_precision("fp32", "cpu") == "fp32"
    assert resolve_precision("auto", "mps") == "fp32"
    with pytest.raises(UserError, match="fp16"):
        resolve_precision("fp16", "cpu")


@pytest.mark.parametrize(
    "found, wanted",
    [
        (dict(cpu_name="AMD EPYC", avx512_bf16=True), "bf16"),
        (dict(cpu_name="AMD EPYC", avx512_bf16=False), "fp32"),
        (dict(cpu_name="Intel Xeon", avx512_bf16=True, amx_bf16=False), "fp32"),
        (dict(cpu_name="Intel Xeon", avx512_bf16=True, amx_bf16=True), "bf16"),
        ({}, "fp32"),
    ],
)
def test_auto_takes_bf16_only_on_cpus_where_it_is_faster(monkeypatch, found, wanted):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert resolve_precision("auto", "cpu") == wanted


def test_without_an_adversary_the_generators_do_not_see_the_discriminators():
    real_A, real_B = torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    after = {}
    for weight in (0.0, 1.0):
        for scale in (1.0, 3.0):
            model = CycleGAN(base_channels=4, num_residual=1, lambda_adversarial=weight)
            with torch.no_grad():
                for D in (model.D_A, model.D_B):
                    D.model[0].weight.mul_(scale)
            losses = model.step(real_A, real_B)
            after[weight, scale] = model.G_AB.state_dict()["model.1.weight"].clone()
            cycle = model.lambda_cycle * (losses["cycle_A"] + losses["cycle_B"])
            assert torch.isclose(losses["loss_G"], cycle + weight * 2 * losses["adversarial"], rtol=1e-5)
    assert torch.equal(after[0.0, 1.0], after[0.0, 3.0])
    assert not torch.equal(after[1.0, 1.0], after[1.0, 3.0])


def test_the_mirror_image_has_its_norm_in_both_discriminators():
    model = CycleGAN(base_channels=4, num_residual=1, discriminator_instance=True)
    plain = CycleGAN(base_channels=4, num_residual=1)
    for name in ("D_A", "D_B"):
        first, second = (list(of.networks[name].state_dict().values()) for of in (model, plain))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True)), "the pair must start alike"
        assert len(model.networks[name].model) == len(plain.networks[name].model) + 1
