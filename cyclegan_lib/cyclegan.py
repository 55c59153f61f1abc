"""Four networks and two updates: the generator step and the discriminator step."""

import inspect
from contextlib import nullcontext

import torch
from torch import nn

from cyclegan_lib.errors import UserError
from cyclegan_lib.losses import FakeImageBuffer, adversarial_loss, cycle_loss, identity_loss
from cyclegan_lib.models import Discriminator, Generator, init_weights


class CycleGAN:
    """`G_AB` maps A to B and `D_B` judges B; `G_BA` and `D_A` do the same the other way.

    Pictures are (N, channels, H, W) in [-1, 1]. The arguments are options of `TrainConfig`;
    `precision` is "fp32", "bf16" or "fp16". Two models with the same seed start from the same
    weights, whatever `output_norm` is, so that they differ in nothing else.
    """

    def __init__(
        self, channels=3, base_channels=64, num_residual=9, output_norm="none", discriminator_instance=False,
        lambda_adversarial=1.0, lambda_cycle=10.0, lambda_identity=0.0, gan_mode="lsgan", lr=2e-4, no_init=False,
        seed=0, device="cpu", precision="fp32",
    ):  # fmt: skip
        self.lambda_adversarial = lambda_adversarial
        self.lambda_cycle, self.lambda_identity = lambda_cycle, lambda_identity
        self.gan_mode, self.precision, self.device = gan_mode, precision, torch.device(device)

        def network(number, kind, *args):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(4 * seed + number)
                made = kind(channels, base_channels, *args)
                return (made if no_init else init_weights(made)).to(self.device)

        self.G_AB = network(0, Generator, num_residual, output_norm)
        self.G_BA = network(1, Generator, num_residual, output_norm)
        self.D_A = network(2, Discriminator, discriminator_instance)
        self.D_B = network(3, Discriminator, discriminator_instance)
        self.fake_A_buffer, self.fake_B_buffer = FakeImageBuffer(seed=2 * seed), FakeImageBuffer(seed=2 * seed + 1)
        generators = [*self.G_AB.parameters(), *self.G_BA.parameters()]
        discriminators = [*self.D_A.parameters(), *self.D_B.parameters()]
        adam = dict(lr=lr, betas=(0.5, 0.999), fused=self.device.type in ("cpu", "cuda"))
        self.optimizer_G = torch.optim.Adam(generators, **adam)
        self.optimizer_D = torch.optim.Adam(discriminators, **adam)
        self.before_update = None  # called with an optimiser's parameters before it updates them; gradients are scaled
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")

    @classmethod
    def from_config(cls, config, **changes):
        """The model that a `TrainConfig` describes, on its device and in its precision; `changes` are arguments."""
        device = resolve_device(config.device)
        names = inspect.signature(CycleGAN).parameters
        settings = {name: value for name, value in vars(config).items() if name in names}
        return cls(**settings | dict(device=device, precision=resolve_precision(config.precision, device)) | changes)

    @property
    def networks(self):
        return {"G_AB": self.G_AB, "G_BA": self.G_BA, "D_A": self.D_A, "D_B": self.D_B}

    def set_lr(self, lr):
        for optimizer in (self.optimizer_G, self.optimizer_D):
            for group in optimizer.param_groups:
                group["lr"] = lr

    def step(self, real_A, real_B):
        """Both updates on one batch. Returns the losses by name, as tensors on the device.

        `adversarial`, `identity` and `loss_D` are means over the two directions, without λ;
        `loss_G` is what the generators minimise. `identity` is None when λ_identity is 0.
        """
        losses, fake_A, fake_B = self.generator_step(real_A, real_B)
        losses["loss_D"] = self.discriminator_step(real_A, real_B, fake_A, fake_B)
        self.scaler.update()
        return losses

    def generator_step(self, real_A, real_B):
        """Update G_AB and G_BA. Returns the losses and the fakes, detached."""
        self.freeze_discriminators(True)  # their gradients are not needed here
        with self.autocast():
            fake_B, idt_B = self.translate_with_identity(self.G_AB, real_A, real_B)
            fake_A, idt_A = self.translate_with_identity(self.G_BA, real_B, real_A)
            cycle_A, cycle_B = self.cycle_losses(real_A, real_B, fake_A, fake_B)
            adversarial = adversarial_loss(self.D_B(fake_B), True, self.gan_mode)
            adversarial = adversarial + adversarial_loss(self.D_A(fake_A), True, self.gan_mode)
        loss_G = self.lambda_adversarial * adversarial + self.lambda_cycle * (cycle_A + cycle_B)
        losses = {"adversarial": adversarial / 2, "cycle_A": cycle_A, "cycle_B": cycle_B, "identity": None}
        if self.lambda_identity > 0:
            identity = identity_loss(idt_A, real_A) + identity_loss(idt_B, real_B)
            loss_G = loss_G + self.lambda_identity * identity
            losses["identity"] = identity / 2
        losses["loss_G"] = loss_G
        self.update(self.optimizer_G, loss_G)
        losses = {name: None if loss is None else loss.detach() for name, loss in losses.items()}
        return losses, fake_A.detach().nan_to_num(), fake_B.detach().nan_to_num()  # fp16 may overflow: no NaN is kept

    def cycle_losses(self, real_A, real_B, fake_A, fake_B):
        """Each way back, compared with where it began. A subclass may ask for something else."""
        return cycle_loss(self.G_BA(fake_B), real_A), cycle_loss(self.G_AB(fake_A), real_B)

    def discriminator_step(self, real_A, real_B, fake_A, fake_B):
        """Update D_A and D_B on real pictures and on new and past fakes. Returns the mean of their losses."""
        self.freeze_discriminators(False)
        with self.autocast():
            loss_A = self.discriminator_loss(self.D_A, real_A, self.fake_A_buffer(fake_A))
            loss_B = self.discriminator_loss(self.D_B, real_B, self.fake_B_buffer(fake_B))
        self.update(self.optimizer_D, loss_A + loss_B)
        return (loss_A + loss_B).detach() / 2

    def translate_with_identity(self, G, real, target):
        """(the translation of `real`, the identity picture of `target`, which is in G's domain already).

        Both go through the network as one batch, which is faster. InstanceNorm treats every
        picture separately, so the result is the same; with a BatchNorm it would not be.
        """
        if self.lambda_identity == 0:
            return G(real), None
        if any(isinstance(layer, nn.BatchNorm2d) for layer in G.modules()):
            return G(real), G(target)
        return G(torch.cat([real, target])).split([len(real), len(target)])

    def discriminator_loss(self, D, real, fake):
        """½ (loss on real + loss on fake): halved as in the paper (7.1); with Adam that hardly matters."""
        scores = D(torch.cat([real, fake.to(real.dtype)]))
        on_real = adversarial_loss(scores[: len(real)], True, self.gan_mode)
        on_fake = adversarial_loss(scores[len(real) :], False, self.gan_mode)
        return 0.5 * (on_real + on_fake)

    def update(self, optimizer, loss):
        optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if self.before_update:
            self.before_update(optimizer.param_groups[0]["params"])
        self.scaler.step(optimizer)

    def freeze_discriminators(self, frozen):
        for D in (self.D_A, self.D_B):
            D.requires_grad_(not frozen)

    def autocast(self):
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, {"bf16": torch.bfloat16, "fp16": torch.float16}[self.precision])

    @torch.inference_mode()
    def translate(self, real, direction="AtoB", batch_size=16):
        """There and back, in full precision, on the CPU: (fake_B, rec_A); with "BtoA" (fake_A, rec_B)."""
        there, back = (self.G_AB, self.G_BA) if direction == "AtoB" else (self.G_BA, self.G_AB)
        for G in (there, back):
            G.eval()
        fakes = [there(batch.to(self.device)) for batch in real.split(batch_size)]
        recs = [back(fake) for fake in fakes]
        for G in (there, back):
            G.train()
        return torch.cat(fakes).cpu(), torch.cat(recs).cpu()

    def sheet(self, real_A, real_B):
        """The six rows of a sample sheet, {"real_A", "fake_B", "rec_A", "real_B", "fake_A", "rec_B"}."""
        fake_B, rec_A = self.translate(real_A, "AtoB")
        fake_A, rec_B = self.translate(real_B, "BtoA")
        return dict(real_A=real_A, fake_B=fake_B, rec_A=rec_A, real_B=real_B, fake_A=fake_A, rec_B=rec_B)


def resolve_device(name):
    """ "auto" → cuda, mps or cpu, the first that is there. Raises a `UserError` where the named one is not."""
    torch.backends.cudnn.allow_tf32 = False  # a GPU from Ampere on would round what fp32 convolutions take to 10 bits
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    found = [device for device, available in there.items() if available]
    if name not in ("auto", *found):
        raise UserError(f"--device {name}: not available here; this machine has {', '.join(found)}")
    return found[0] if name == "auto" else name


def resolve_precision(name, device):
    """ "auto" → what the device is known to do well. It is looked up, never timed: one seed stays one result.

    bf16 on GPUs from Ampere on and on CPUs with AMX or AMD's AVX-512 (an Intel Xeon without AMX is slower in bf16 than
    in fp32: notebook 04), fp16 on older GPUs, fp32 elsewhere.
    """
    if name == "fp16" and device != "cuda":
        raise UserError(f"--precision fp16 needs a CUDA device, and this is {device}; use bf16 or fp32")
    if name != "auto":
        return name
    if device == "cuda":
        return "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp16"
    cpu = getattr(torch.cpu, "get_capabilities", dict)() if device == "cpu" else {}
    return "bf16" if cpu.get("amx_bf16") or "AMD" in cpu.get("cpu_name", "") and cpu.get("avx512_bf16") else "fp32"
