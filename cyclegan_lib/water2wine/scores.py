"""Scores on water2wine, whose right answers are known: each translation beside what it should have been.

Pictures are (N, C, H, W) in [-1, 1], so an error of 2 is the whole range.
"""

import torch
import torch.nn.functional as F

import cyclegan_lib.torchvision_shim  # noqa: F401  (before torchvision, see there)
from cyclegan_lib.datasets import load_split, to_signed
from cyclegan_lib.water2wine.dataset import read_scenes
from cyclegan_lib.water2wine.scenes import counterfactual, render
from torchvision.transforms.v2 import functional as TF

SCORES = ("liquid_error", "background_error", "glass_error", "success_rate")


class Water2WineTest:
    """Test pictures of water2wine with the answers: what each translation should have been.

    Args:
        root: a folder that `scenes.write_dataset` wrote.
        size: (H, W) of the pictures.
    """

    def __init__(self, root, size=(64, 64), channels=3):
        self.root, self.size, self.channels = root, tuple(size), channels
        scenes = read_scenes(root)
        self.real, self.target, self.liquid, self.glass = {}, {}, {}, {}
        for domain in "AB":
            names = sorted(name for name in scenes if name.startswith(f"test{domain}/"))
            self.real[domain] = load_split(root, f"test{domain}", size, channels)
            answers = [render(counterfactual(scenes[name]), max(size)) for name in names]
            target, liquid, glass = (self._fit(torch.stack(layer)) for layer in zip(*answers, strict=True))
            target = to_signed(((target + 1) * 127.5).round())  # in 8 bits, as the files are
            self.target[domain], self.liquid[domain], self.glass[domain] = target, liquid, glass

    def _fit(self, layer):
        """Scenes are drawn square and in colour; other sizes and grey come from those."""
        if layer.shape[1] == 3 and self.channels == 1:
            layer = TF.rgb_to_grayscale(layer)
        return F.interpolate(layer, self.size, mode="bilinear", antialias=True)

    def scores(self, fake_B, fake_A):
        """Scores of translations of all `real["A"]` and `real["B"]`: a dict by name, of floats.

        `liquid_error`, `background_error` and `glass_error` are the mean absolute difference to
        the counterfactual inside the liquid, outside the glass, and along the glass's outline.
        `success_rate` is the share of pictures whose liquid is nearer to the counterfactual's
        than to the original's. All are means over the pictures of both directions.
        """
        per_picture = [self._per_picture("A", fake_B), self._per_picture("B", fake_A)]
        return {name: torch.cat([scores[name] for scores in per_picture]).mean().item() for name in SCORES}

    def _per_picture(self, domain, fake):
        real, target = self.real[domain], self.target[domain]
        liquid, glass = self.liquid[domain], self.glass[domain]
        to_target = weighted_l1(fake, target, liquid)
        return {
            "liquid_error": to_target,
            "background_error": weighted_l1(fake, target, (glass == 0).float()),
            "glass_error": weighted_l1(fake, target, outline(glass) * (1 - liquid)),
            "success_rate": (to_target < weighted_l1(fake, real, liquid)).float(),
        }

    def baselines(self):
        """The same scores of doing nothing (`identity_…`) and of matching means (`mean_match_…`).

        Matching means adds to every pixel the difference between the mean colours of the
        training pictures of both sides.
        """
        mean = {
            domain: load_split(self.root, f"train{domain}", self.size, self.channels).mean((0, 2, 3))[:, None, None]
            for domain in "AB"
        }
        shift = mean["B"] - mean["A"]
        fakes = {
            "identity": (self.real["A"], self.real["B"]),
            "mean_match": ((self.real["A"] + shift).clamp(-1, 1), (self.real["B"] - shift).clamp(-1, 1)),
        }
        return {
            f"{baseline}_{name}": score
            for baseline, fake in fakes.items()
            for name, score in self.scores(*fake).items()
        }


def weighted_l1(a, b, weight):
    """Mean over pixels of |a − b|, weighted by (N, 1, H, W): one number a picture, (N,)."""
    difference = (a - b).abs().mean(1, keepdim=True)
    return (difference * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp(min=1e-6)


def outline(mask):
    """The edge of a mask (N, 1, H, W), two pixels wide: its dilation less its erosion."""
    return F.max_pool2d(mask, 3, 1, 1) + F.max_pool2d(-mask, 3, 1, 1)
