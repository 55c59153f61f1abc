"""The adversarial, the cycle and the identity loss, and the buffer of past fakes.

Losses are computed in float32 at least: 16-bit pictures are widened first, float64 stays float64.
"""

import random

import torch
import torch.nn.functional as F

from cyclegan_lib.config import GAN_MODES


def widen(x):
    """A tensor in float32, or in its own type if that is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def adversarial_loss(scores, is_real, gan_mode="lsgan"):
    """How far discriminator scores are from their target: a mean over all of them.

    Args:
        scores: raw scores, any shape.
        is_real: the target: True → 1, False → 0.
        gan_mode: "lsgan", the mean of (score − target)² (the paper, section 4), or
            "vanilla", the cross-entropy of sigmoid(score) (equation 1 for D; G minimises -log D).
    """
    scores = widen(scores)
    target = torch.full_like(scores, float(is_real))
    if gan_mode == "lsgan":
        return F.mse_loss(scores, target)
    if gan_mode == "vanilla":
        return F.binary_cross_entropy_with_logits(scores, target)
    raise ValueError(f"gan_mode must be one of {', '.join(GAN_MODES)}, not {gan_mode!r}")


def cycle_loss(reconstructed, real):
    """Mean |rec − real| (the paper, equation 2): a round trip should change nothing."""
    return F.l1_loss(widen(reconstructed), widen(real))


def identity_loss(identity, real):
    """Mean |idt − real| (the paper, section 5.2): a generator should leave its target domain as it is."""
    return F.l1_loss(widen(identity), widen(real))


class FakeImageBuffer:
    """Past fakes for the discriminator, so that it does not forget them (Shrivastava et al., 2017).

    Until it is full, every new picture is stored and returned. After that, each new picture is
    returned with probability ½; otherwise it replaces a random stored one, which is returned.
    Source: `util/image_pool.py` of the official code.

    Args:
        size: pictures kept; 50 in the paper, 0 for no buffer.
        seed: of its own random numbers.
    """

    def __init__(self, size=50, seed=0):
        self.size = size
        self.pictures = []
        self.rng = random.Random(seed)

    def __call__(self, fakes):
        """Fakes (N, C, H, W) → as many pictures, old and new, detached."""
        return torch.stack([self._swap(fake) for fake in fakes.detach()])

    def _swap(self, fake):
        if len(self.pictures) < self.size:
            self.pictures.append(fake.clone())  # a view would keep its whole batch in memory
            return fake
        if self.size == 0 or self.rng.random() < 0.5:
            return fake
        i = self.rng.randrange(self.size)
        old, self.pictures[i] = self.pictures[i], fake.clone()
        return old

    def state_dict(self):
        """The stored pictures, stacked, and the random state, as a JSON-able list."""
        version, numbers, gauss = self.rng.getstate()
        pictures = torch.stack(self.pictures) if self.pictures else torch.empty(0)
        return {"pictures": pictures, "rng": [version, list(numbers), gauss]}

    def load_state_dict(self, state):
        """Continue exactly where `state_dict` was taken."""
        self.pictures = [picture.clone() for picture in state["pictures"]]
        version, numbers, gauss = state["rng"]
        self.rng.setstate((version, tuple(numbers), gauss))
