"""Four networks and two updates: the generator step and the discriminator step."""

import importlib.util
import os
import shutil
from contextlib import nullcontext

import torch

from cyclegan_lib.errors import UserError
from cyclegan_lib.losses import FakeImageBuffer, adversarial_loss, cycle_loss, identity_loss
from cyclegan_lib.models import Discriminator, Generator, init_weights

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
DEVICES = ("auto", "cpu", "cuda", "mps")
DIRECTIONS = ("AtoB", "BtoA")


class CycleGAN:
    """`G_AB` maps A to B, `D_B` judges B; `G_BA` and `D_A` the other way.

    Pictures are (N, channels, H, W) in [-1, 1]. The arguments are those of
    `train.TrainConfig`; `precision` is "fp32", "bf16" or "fp16" (`resolve_precision`).
    With `compiled` the networks are compiled at their first step (see `has_compiler`).
    Two models with the same seed start from the same weights, whatever `output_norm` is,
    so that they differ in nothing else.
    """

    def __init__(
        self, channels=3, base_channels=64, num_residual=9, output_norm="none",
        discriminator_instance=False, lambda_adversarial=1.0, lambda_cycle=10.0, lambda_identity=0.0,
        gan_mode="lsgan", lr=2e-4, no_init=False, seed=0, device="cpu", precision="fp32",
        compiled=False,
    ):  # fmt: skip
        self.lambda_adversarial = lambda_adversarial
        self.lambda_cycle, self.lambda_identity = lambda_cycle, lambda_identity
        self.gan_mode, self.precision, self.compiled = gan_mode, precision, compiled
        self.device = torch.device(device)

        def network(number, kind, *args):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(4 * seed + number)
                made = kind(channels, base_channels, *args)
                made = (made if no_init else init_weights(made)).to(self.device)
            if compiled:
                made.compile(dynamic=False)
            return made

        self.G_AB = network(0, Generator, num_residual, output_norm)
        self.G_BA = network(1, Generator, num_residual, output_norm)
        self.D_A = network(2, Discriminator, discriminator_instance)
        self.D_B = network(3, Discriminator, discriminator_instance)
        self.fake_A_buffer, self.fake_B_buffer = FakeImageBuffer(seed=2 * seed), FakeImageBuffer(seed=2 * seed + 1)

        # BatchNorm ties the pictures of a batch together, so there they cannot share a forward.
        self.joint_identity = output_norm != "batch"
        generators = [*self.G_AB.parameters(), *self.G_BA.parameters()]
        discriminators = [*self.D_A.parameters(), *self.D_B.parameters()]
        adam = dict(lr=lr, betas=(0.5, 0.999), fused=self.device.type in ("cpu", "cuda"))
        self.optimizer_G = torch.optim.Adam(generators, **adam)
        self.optimizer_D = torch.optim.Adam(discriminators, **adam)
        self.before_update = None  # called with an optimiser's parameters once their gradients are there
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")

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
        real_A, real_B = self.in_layout(real_A), self.in_layout(real_B)
        losses, fake_A, fake_B = self.generator_step(real_A, real_B)
        losses["loss_D"] = self.discriminator_step(real_A, real_B, fake_A, fake_B)
        self.scaler.update()
        return losses

    def generator_step(self, real_A, real_B):
        """Update G_AB and G_BA. Returns the losses and the fakes, detached."""
        self._freeze_discriminators(True)  # their gradients are not needed here
        with self._autocast():
            fake_B, idt_B = self._translate(self.G_AB, real_A, real_B)
            fake_A, idt_A = self._translate(self.G_BA, real_B, real_A)
            rec_A, rec_B = self.G_BA(fake_B), self.G_AB(fake_A)
            adversarial = adversarial_loss(self.D_B(fake_B), True, self.gan_mode)
            adversarial = adversarial + adversarial_loss(self.D_A(fake_A), True, self.gan_mode)
        cycle_A, cycle_B = cycle_loss(rec_A, real_A), cycle_loss(rec_B, real_B)
        loss_G = self.lambda_adversarial * adversarial + self.lambda_cycle * (cycle_A + cycle_B)
        losses = {"adversarial": adversarial / 2, "cycle_A": cycle_A, "cycle_B": cycle_B, "identity": None}
        if self.lambda_identity > 0:
            identity = identity_loss(idt_A, real_A) + identity_loss(idt_B, real_B)
            loss_G = loss_G + self.lambda_identity * identity
            losses["identity"] = identity / 2
        losses["loss_G"] = loss_G
        self._update(self.optimizer_G, loss_G)
        losses = {name: None if loss is None else loss.detach() for name, loss in losses.items()}
        return losses, fake_A.detach(), fake_B.detach()

    def discriminator_step(self, real_A, real_B, fake_A, fake_B):
        """Update D_A and D_B on real pictures and on new and past fakes. Returns their mean loss."""
        self._freeze_discriminators(False)
        with self._autocast():
            loss_A = self._discriminator_loss(self.D_A, real_A, self.fake_A_buffer(fake_A))
            loss_B = self._discriminator_loss(self.D_B, real_B, self.fake_B_buffer(fake_B))
        self._update(self.optimizer_D, loss_A + loss_B)
        return (loss_A + loss_B).detach() / 2

    def _translate(self, G, real, already_there):
        """The translation of `real`, and of what is in the target domain already (identity).

        Both go through the network as one batch: InstanceNorm treats every picture alone,
        so the result is the same and the time is less.
        """
        if self.lambda_identity == 0:
            return G(real), None
        if not self.joint_identity:
            return G(real), G(already_there)
        return G(torch.cat([real, already_there])).split([len(real), len(already_there)])

    def _discriminator_loss(self, D, real, fake):
        """½ (loss on real + loss on fake): halved so that D learns slower (the paper, 7.1)."""
        scores = D(torch.cat([real, self.in_layout(fake.to(real.dtype))]))
        on_real = adversarial_loss(scores[: len(real)], True, self.gan_mode)
        on_fake = adversarial_loss(scores[len(real) :], False, self.gan_mode)
        return 0.5 * (on_real + on_fake)

    def in_layout(self, pictures):
        """Channels last where a step is faster so, in 16 bits on CPUs; every layer keeps the layout of its input.

        Not where the networks are compiled: what the compiler makes of the norms is slower then.
        """
        last = self.device.type == "cpu" and self.precision != "fp32" and not self.compiled
        return pictures.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)

    def _update(self, optimizer, loss):
        optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if self.before_update:
            self.before_update(optimizer.param_groups[0]["params"])
        self.scaler.step(optimizer)

    def _freeze_discriminators(self, frozen):
        for D in (self.D_A, self.D_B):
            D.requires_grad_(not frozen)

    def _autocast(self):
        if self.precision == "fp32":
            return nullcontext()
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
        return torch.autocast(self.device.type, dtype)

    @torch.inference_mode()
    def translate(self, real, direction="AtoB", batch_size=16):
        """There and back in full precision: (fake, rec), (N, channels, H, W) on the CPU.

        "AtoB" gives fake_B and rec_A, "BtoA" fake_A and rec_B.
        """
        there, back = (self.G_AB, self.G_BA) if direction == "AtoB" else (self.G_BA, self.G_AB)
        for G in (there, back):
            G.eval()
        fakes, recs = [], []
        for batch in real.split(batch_size):
            fake = there.forward(batch.to(self.device))  # by its name: not compiled again for other sizes
            fakes.append(fake.cpu())
            recs.append(back.forward(fake).cpu())
        for G in (there, back):
            G.train()
        return torch.cat(fakes), torch.cat(recs)


def resolve_device(name):
    """ "auto" → cuda, mps or cpu, the first that is there.

    Raises:
        UserError: where the named device is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device, available in there.items() if available)
    if not there.get(name, False):
        found = ", ".join(device for device, available in there.items() if available)
        raise UserError(f"--device {name}: not available here; this machine has {found}")
    return name


def resolve_precision(name, device):
    """ "auto" → what the device is known to do well; looked up, never timed.

    bf16 on CPUs with bf16 instructions and on GPUs from Ampere on, fp16 on older GPUs,
    fp32 elsewhere. So one seed on one machine stays one result.
    """
    if name == "fp16" and device != "cuda":
        raise UserError(f"--precision fp16 needs a CUDA device, and this is {device}; use bf16 or fp32")
    if name != "auto":
        return name
    if device == "cuda":
        return "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp16"
    has_bf16 = device == "cpu" and getattr(torch.cpu, "get_capabilities", dict)().get("avx512_bf16", False)
    return "bf16" if has_bf16 else "fp32"


def has_compiler(device):
    """Whether `torch.compile` can work here: it needs a C++ compiler for CPUs, and Triton for CUDA."""
    if device == "cuda":
        return importlib.util.find_spec("triton") is not None
    names = (os.environ.get("CXX"), "c++", "g++", "clang++", "cl")
    return any(shutil.which(name) for name in names if name)
