"""How good is a translation? Scores on water2wine, and the floor under the losses.

Pictures are (N, C, H, W) in [-1, 1], so an error of 2 is the whole range.
"""

import functools

import torch
import torch.nn.functional as F

import cyclegan_lib.torchvision_shim  # noqa: F401  (before torchvision, see there)
from cyclegan_lib.datasets import load_split, to_signed
from cyclegan_lib.scenes import counterfactual, read_scenes, render
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


def colour_accuracy(real, fake, neighbours=9):
    """How well the mean colour alone tells real pictures from fakes: a share from about ½ to 1.

    A discriminator that sees nothing but three numbers, the means of the channels, and calls a
    picture what most of its nearest neighbours are, of all the others. Nothing is trained.

    Args:
        real, fake: (N, C, H, W), as many of each.
    """
    means = torch.cat([real, fake]).double().mean((2, 3))
    is_real = torch.arange(len(means)) < len(real)
    distance = torch.cdist(means, means).fill_diagonal_(torch.inf)
    votes = is_real[distance.topk(neighbours, largest=False).indices].double().mean(1)
    return ((votes > 0.5) == is_real).double().mean().item()


LEVELS = torch.arange(256, dtype=torch.float64) / 127.5 - 1  # what 8 bits can say, -1 to 1


def output_norm_floor(pictures, reduction="mean"):
    """The lowest mean |fake − picture| that any generator ending in tanh(InstanceNorm(·)) can reach.

    Such a generator chooses z for every pixel, but mean(z) = 0 and mean(z²) ≤ 1 over each
    channel of each picture, and shows tanh(z). Minimising mean |tanh(z) − x| under these two
    is a linear programme over the histogram of x, whose dual has two variables:

        max over α, β ≥ 0 of   Σₖ hₖ · min_z [ |tanh(z) − xₖ| + α z + β z² ]  −  β

    Any α and β > 0 give a lower bound. The inner minimum is bounded from below over every
    interval of a grid of z, the two unbounded ones included, so what is returned is certified:
    it is never above the true floor (and within 0.002 of it, or 2 %, against an exact solver in the tests).

    Args:
        pictures: (N, C, H, W) in [-1, 1]. Values between two 8-bit levels are rounded to them,
            and the bound is lowered by the mean distance that this moved them.
        reduction: "mean" for one float over all pictures and channels, "none" for (N, C).
    """
    n, c = pictures.shape[:2]
    flat = pictures.detach().double().cpu().reshape(n * c, -1)
    level = ((flat + 1) * 127.5).round().clamp(0, 255).long()
    histogram = torch.zeros(n * c, 256, dtype=torch.float64)
    histogram.scatter_add_(1, level, torch.full_like(flat, 1 / flat.shape[1]))
    moved = (flat - LEVELS[level]).abs().mean(1)
    dual = torch.cat([_maximise_dual(rows) for rows in histogram.split(64)])
    floor = (dual - moved).clamp(min=0).reshape(n, c)
    return floor.mean().item() if reduction == "mean" else floor


def _maximise_dual(histogram, rounds=5):
    """The largest dual value found for each histogram (M, 256), by narrowing down a grid of (α, β).

    The dual is concave, so the best point of a grid shows where to look closer.
    """
    line = functools.partial(torch.linspace, dtype=torch.float64)
    alpha, log_beta = torch.meshgrid(line(-1.2, 1.2, 25), line(-8, 0, 17), indexing="ij")
    alpha, log_beta = alpha.reshape(1, -1), log_beta.reshape(1, -1)  # one grid for all to begin with
    near_alpha, near_log_beta = torch.meshgrid(line(-0.1, 0.1, 5), line(-0.5, 0.5, 5), indexing="ij")
    best = torch.zeros(len(histogram), dtype=torch.float64)
    for shrink in 0.5 ** torch.arange(rounds + 1):
        value = (_inner_minimum(alpha, log_beta.exp()) * histogram[:, None]).sum(2) - log_beta.exp()
        highest, where = value.max(1, keepdim=True)
        best = torch.maximum(best, highest[:, 0])
        centre_alpha = alpha.expand_as(value).gather(1, where)
        centre_log_beta = log_beta.expand_as(value).gather(1, where)
        alpha = centre_alpha + shrink * near_alpha.reshape(1, -1)
        log_beta = centre_log_beta + shrink * near_log_beta.reshape(1, -1)
    return best


@functools.cache
def _z_grid():
    """Where the inner minimum is looked for: nodes z, among them every kink atanh(xₖ).

    Also the index of every level's kink: from 0, beyond the first node, for x = -1.
    """
    kinks = torch.atanh(LEVELS[1:-1])
    even = torch.linspace(-6, 6, 601, dtype=torch.float64)
    z = torch.cat([kinks, even]).unique()
    return z, torch.cat([torch.tensor([0]), torch.searchsorted(z, kinks) + 1, torch.tensor([len(z) + 1])])


def _inner_minimum(alpha, beta):
    """A lower bound of min_z [ |tanh(z) − xₖ| + α z + β z² ] for all 256 levels: (M, T) → (M, T, 256).

    Left of the kink the function is x + [−tanh(z) + α z + β z²], right of it it is
    −x + [tanh(z) + α z + β z²]. The brackets do not depend on x, so each level only asks for
    the least of the first over all intervals to its left, and of the second to its right.
    """
    z, kink = _z_grid()
    width, tanh = z.diff(), z.tanh()
    # Between two nodes a function is above the lower one less width²/8 · max|second derivative|.
    curvature = (2 * (1 - torch.minimum(tanh[1:].abs(), tanh[:-1].abs()) ** 2)).clamp(max=0.77)
    slack = width**2 / 8 * (curvature + 2 * beta[..., None])
    parabola = alpha[..., None] * z + beta[..., None] * z**2
    vertex = -alpha / (2 * beta)
    infinity = torch.full_like(vertex, torch.inf)[..., None]

    def tail(nearest):  # of the parabola beyond one end of the grid; tanh is bounded by ±1 there
        return (alpha * nearest + beta * nearest**2)[..., None]

    below, above = tail(vertex.clamp(max=z[0])), tail(vertex.clamp(min=z[-1]))
    left, right = parabola - tanh, parabola + tanh
    left = torch.minimum(left[..., 1:], left[..., :-1]) - slack
    right = torch.minimum(right[..., 1:], right[..., :-1]) - slack
    left = torch.cat([infinity, below - tanh[0], left, above - 1], -1).cummin(-1).values
    right = torch.cat([below - 1, right, above + tanh[-1], infinity], -1).flip(-1).cummin(-1).values.flip(-1)
    return torch.minimum(LEVELS + left[..., kink], right[..., kink] - LEVELS)
