"""Scores on water2wine, whose right answers are known. Pictures are (N, C, H, W) in [-1, 1]: 2 is the whole range."""

import json

import torch
import torch.nn.functional as F

import cyclegan_lib.torchvision_shim  # noqa: F401  (before torchvision, see there)
from cyclegan_lib.datasets import load_split, to_signed
from cyclegan_lib.files import write_atomic
from cyclegan_lib.trainer import Hook
from cyclegan_lib.water2wine.dataset import read_scenes
from cyclegan_lib.water2wine.scenes import counterfactual, render
from torchvision.transforms.v2 import functional as TF

SCORES = ("liquid_error", "background_error", "glass_error", "success_rate")


class Water2WineTest:
    """The test pictures of a drawn data set at `size` (H, W), by domain: `real`, `target` (their counterfactuals: that
    of A is in domain B), and the masks `liquid` and `glass` in [0, 1]. Raises as `read_scenes`.
    """

    def __init__(self, root, size=(64, 64), channels=3):
        self.root, self.size, self.channels = root, tuple(size), channels
        scenes = read_scenes(root)
        self.real, self.target, self.liquid, self.glass = {}, {}, {}, {}
        for domain in "AB":
            names = sorted(name for name in scenes if name.startswith(f"test{domain}/"))
            self.real[domain] = load_split(root, f"test{domain}", size, channels)
            answers = [render(counterfactual(scenes[name]), max(size)) for name in names]
            target, self.liquid[domain], self.glass[domain] = map(self._resized, zip(*answers, strict=True))
            self.target[domain] = to_signed(((target + 1) * 127.5).round())  # in 8 bits, as the files are

    def _resized(self, layers):
        """Drawings, or their masks, with the size and channels of the test."""
        layer = torch.stack(layers)
        if layer.shape[1] == 3 and self.channels == 1:
            layer = TF.rgb_to_grayscale(layer)
        return F.interpolate(layer, self.size, mode="bilinear", antialias=True)

    def scores(self, fake_B, fake_A):
        """Scores of translations of all `real["A"]` and `real["B"]`, by name: means over both directions.

        Errors are mean |differences| to the counterfactual inside the liquid, outside the glass, and along its outline;
        `success_rate` is how often the liquid is nearer to the counterfactual's than to the original's.
        """
        fake, parts = torch.cat([fake_B, fake_A]), (self.real, self.target, self.liquid, self.glass)
        real, target, liquid, glass = (torch.cat([part["A"], part["B"]]) for part in parts)
        to_target = weighted_l1(fake, target, liquid)
        per_picture = {
            "liquid_error": to_target,
            "background_error": weighted_l1(fake, target, (glass == 0).float()),
            "glass_error": weighted_l1(fake, target, outline(glass) * (1 - liquid)),
            "success_rate": (to_target < weighted_l1(fake, real, liquid)).float(),
        }
        return {name: values.mean().item() for name, values in per_picture.items()}

    def score_model(self, model):
        """The scores of a `CycleGAN` on all test pictures."""
        return self.scores(model.translate(self.real["A"], "AtoB")[0], model.translate(self.real["B"], "BtoA")[0])

    def baselines(self):
        """Those of doing nothing (`identity_…`), and of adding trainB's mean colour less trainA's (`mean_match_…`)."""
        train = [load_split(self.root, f"train{domain}", self.size, self.channels) for domain in "AB"]
        mean_A, mean_B = (pictures.mean((0, 2, 3))[:, None, None] for pictures in train)
        A, B, shift = self.real["A"], self.real["B"], mean_B - mean_A
        fakes = {"identity": (A, B), "mean_match": ((A + shift).clamp(-1, 1), (B - shift).clamp(-1, 1))}
        return {f"{kind}_{name}": score for kind, fake in fakes.items() for name, score in self.scores(*fake).items()}


def weighted_l1(a, b, weight):
    """Mean over pixels of |a − b|, weighted by (N, 1, H, W): one number a picture, (N,)."""
    difference = (a - b).abs().mean(1, keepdim=True)
    return (difference * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp(min=1e-6)


def outline(mask):
    """The edge of a mask (N, 1, H, W), two pixels wide: its dilation less its erosion."""
    return F.max_pool2d(mask, 3, 1, 1) + F.max_pool2d(-mask, 3, 1, 1)


def score_table(scores):
    """`scores.json` as a table: the translation beside doing nothing and matching the means."""
    lines = [f"{'on the test pictures':22}{'CycleGAN':>10}{'do nothing':>12}{'match means':>13}"]
    for name in SCORES:
        nothing, means = scores[f"identity_{name}"], scores[f"mean_match_{name}"]
        lines.append(f"{name:22}{scores[name]:10.3f}{nothing:12.3f}{means:13.3f}")
    return "\n".join(lines)


class Scores(Hook):
    """Observer: scores a finished training on water2wine once, and writes `scores.json`. `.scores` are these, or {}."""

    def __init__(self, config):
        self.path, self.scores = config.images_folder / "scores.json", {}

    def end(self, trainer):
        if trainer.stopped or not (trainer.data.root / "scenes.json").is_file():
            return
        if trainer.losses is None and self.path.is_file():  # it was finished before this start
            self.scores = json.loads(self.path.read_text())
            return
        test = Water2WineTest(trainer.data.root, trainer.config.size, trainer.config.channels)
        scores = test.score_model(trainer.shown) | test.baselines()
        self.scores = scores | {"seconds_training": round(trainer.seconds, 1)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path, json.dumps(self.scores, indent=1) + "\n")
