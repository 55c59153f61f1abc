"""How good is a translation? Scores on water2wine, and the floor under the losses.

Pictures are (N, C, H, W) in [-1, 1], so an error of 2 is the whole range.
"""

import functools
import math
from pathlib import Path

import torch

import cyclegan_lib.torchvision_shim  # noqa: F401  (before torchvision, see there)
from cyclegan_lib.datasets import find_pictures, load_split
from cyclegan_lib.errors import Parser, UserError

LARGEST_MEAN = 0.1921  # that tanh(z) can have if z has mean 0 and variance 1 (notebook 05)
LEVELS = torch.arange(256, dtype=torch.float64) / 127.5 - 1  # what 8 bits can say, -1 to 1


def output_norm_floor(pictures, reduction="mean", scale=1.0, shift=0.0):
    """The lowest mean |fake − picture| that any generator ending in tanh(InstanceNorm(·)) can reach.

    Such a generator chooses z for every pixel, but mean(z) = 0 and mean(z²) ≤ 1 over each
    channel of each picture, and shows tanh(z). Minimising mean |tanh(z) − x| under these two
    is a linear programme over the histogram of x, whose dual has two variables:

        max over α, β ≥ 0 of   Σₖ hₖ · min_z [ |tanh(z) − xₖ| + α z + β z² ]  −  β

    Any α and β > 0 give a lower bound. The inner minimum is bounded from below over every
    interval of a grid of z, the two unbounded ones included, so what is returned is certified:
    it is never above the true floor. `closest_reachable` bounds the floor from above.

    With a learned scale and shift (`instance_affine`), mean(z) = shift and the variance of z is
    at most scale²: the floor falls to zero as the scale grows. BatchNorm has no floor: used
    with its running statistics it is a scale and a shift that the picture has no say in.

    Args:
        pictures: (N, C, H, W) in [-1, 1]. Values between two 8-bit levels are rounded to them,
            and the bound is lowered by the mean distance that this moved them.
        reduction: "mean" for one float over all pictures and channels, "none" for (N, C).
        scale, shift: what comes behind the norm; the scale above 0.
    """
    n, c = pictures.shape[:2]
    if not 0 < scale < math.inf:
        raise ValueError(f"scale must be a number above 0, not {scale}")
    level, histogram = _histograms(pictures)
    moved = (pictures.detach().double().cpu().reshape(n * c, -1) - LEVELS[level]).abs().mean(1)
    dual = torch.cat([_maximise_dual(rows, scale, shift)[0] for rows in histogram.split(64)])
    floor = (dual - moved).clamp(min=0).reshape(n, c)
    return floor.mean().item() if reduction == "mean" else floor


def closest_reachable(pictures, scale=1.0, shift=0.0):
    """Pictures (N, C, H, W) that a generator ending in tanh(InstanceNorm(·)) could return, near to these.

    They bound the floor from above: `(closest_reachable(x) - x).abs().mean((2, 3))` is at least
    `output_norm_floor(x, "none")`, and the floor lies in between. For a few (α, β) around the
    dual's optimum every level has its best z; the cheapest mixture of those that has the right
    mean and variance is found exactly, dealt out to the pixels, and corrected to the last digit.
    """
    n, c = pictures.shape[:2]
    level, histogram = _histograms(pictures)
    plans, shares = _cheapest_mixture(histogram, scale, shift)
    z = _deal(LEVELS[level], level, plans, shares, scale, shift)
    return z.tanh().reshape(n, c, *pictures.shape[2:])


def _histograms(pictures):
    """Every channel's 8-bit levels, (N·C, pixels), and the share of each level, (N·C, 256)."""
    flat = pictures.detach().double().cpu().flatten(2).flatten(0, 1)
    level = ((flat + 1) * 127.5).round().clamp(0, 255).long()
    histogram = torch.zeros(len(flat), 256, dtype=torch.float64)
    return level, histogram.scatter_add_(1, level, torch.full_like(flat, 1 / flat.shape[1]))


def _maximise_dual(histogram, scale, shift, rounds=5):
    """For each histogram (M, 256) the largest dual value found, and its α and log β.

    By narrowing down a grid of (α, β): the dual is concave, so the best point of a grid shows
    where to look closer.
    """
    line = functools.partial(torch.linspace, dtype=torch.float64)
    unit = max(1.0, scale)  # z grows with the scale, and α z must not
    alpha, log_beta = torch.meshgrid(line(-1.2, 1.2, 25) / unit, line(-8, 0, 17) - 2 * math.log(scale), indexing="ij")
    alpha, log_beta = alpha.reshape(1, -1), log_beta.reshape(1, -1)  # one grid for all to begin with
    near_alpha, near_log_beta = torch.meshgrid(line(-0.1, 0.1, 5) / unit, line(-0.5, 0.5, 5), indexing="ij")
    best = torch.zeros(3, len(histogram), 1, dtype=torch.float64)
    for shrink in 0.5 ** torch.arange(rounds + 1):
        limits = shift * alpha + (scale**2 + shift**2) * log_beta.exp()
        value = (_inner_minimum(alpha, log_beta.exp()) * histogram[:, None]).sum(2) - limits
        highest, where = value.max(1, keepdim=True)
        centre = [of.expand_as(value).gather(1, where) for of in (alpha, log_beta)]
        best = torch.where(highest > best[0], torch.stack([highest, *centre]), best)
        alpha = centre[0] + shrink * near_alpha.reshape(1, -1)
        log_beta = centre[1] + shrink * near_log_beta.reshape(1, -1)
    return best[..., 0]


def _cheapest_mixture(histogram, scale, shift, pivots=100):
    """Three plans and their shares that together have the right mean and variance and cost least.

    A plan says for every level which z its pixels get; a mixture gives each plan a share of
    the pixels. The cheapest is found by the simplex method with generated columns: the prices
    (α, β) of the mean and of the variance in the mixture so far tell the best plan to take in.

    Returns:
        plans (M, 3, 256) and shares (M, 3).
    """
    m = len(histogram)
    budget = scale**2 + shift**2

    def column(plan):  # (M, 256) → what it costs, and (share, mean too much, variance to spare)
        weighed = functools.partial(torch.einsum, "mk,mk->m", histogram)
        cost = weighed((plan.tanh() - LEVELS).abs())
        return cost, torch.stack([torch.ones(m).double(), weighed(plan) - shift, budget - weighed(plan**2)], 1)

    # To begin with: all pixels alike, all of them higher, and (no plan) variance that nobody uses.
    plans = torch.full((m, 3, 256), float(shift), dtype=torch.float64)
    plans[:, 1] += 1
    costs, columns = torch.zeros(m, 3).double(), torch.zeros(m, 3, 3).double()
    for i in (0, 1):
        costs[:, i], columns[:, :, i] = column(plans[:, i])
    unused = columns[:, 2, 2] = torch.full((m,), -1.0).double()
    wanted = torch.tensor([1.0, 0, 0]).double().expand(m, 3)
    rows = torch.arange(m)
    for _ in range(pivots):
        price = torch.linalg.solve(columns.mT, costs)
        alpha, beta = -price[:, 1:2], price[:, 2:]
        plan = _best_z(alpha, beta.clamp(min=1e-7 / budget))[:, 0]
        cost, entering = column(plan)
        rest = (beta < 0)[:, 0]  # then it is better to leave variance unused
        cost[rest], entering[rest] = 0, torch.stack([0 * unused, 0 * unused, unused], 1)[rest]
        gain = (price * entering).sum(1) - cost
        shares = torch.linalg.solve(columns, wanted).clamp(min=0)
        change = torch.linalg.solve(columns, entering)
        room = torch.where(change > 1e-12, shares / change.clamp(min=1e-12), torch.inf)
        leaving = room.argmin(1)
        better = (gain > 1e-7) & room.isfinite().any(1)
        if not better.any():
            break
        at = rows[better], leaving[better]
        plans[at], costs[at] = plan[better], cost[better]
        columns[at[0], :, at[1]] = entering[better]
    shares = torch.linalg.solve(columns, wanted).clamp(min=0)
    return plans, torch.where(columns[:, 0] > 0, shares, 0)


def _deal(x, level, plans, shares, scale, shift, tries=16):
    """Give each pixel of `level` (M, pixels) the z of a plan: (M, pixels), with that mean and variance.

    Pixels in the order of their levels are dealt out in the shares, as evenly as can be. A few
    pixels more or less may matter, so it is tried from several starting points.
    """
    place = level.argsort(dim=1, stable=True).argsort(dim=1) * ((5**0.5 - 1) / 2)
    limits = shares.cumsum(1)[:, :-1].contiguous()
    best, lowest = torch.zeros_like(x), torch.full((len(x), 1), torch.inf, dtype=torch.float64)
    for start in torch.arange(tries) / tries:
        z = plans.flatten(1).gather(1, torch.searchsorted(limits, (place + start) % 1) * 256 + level) - shift
        # The mean is set right where it shows least: on pixels that are black or white anyway.
        extreme = (z + shift).abs() > 6
        extreme |= ~extreme.any(1, keepdim=True)
        z = z - extreme * z.sum(1, keepdim=True) / extreme.sum(1, keepdim=True)
        z = shift + z * (scale / (z**2).mean(1, keepdim=True).sqrt().clamp(min=1e-9)).clamp(max=1)
        cost = (z.tanh() - x).abs().mean(1, keepdim=True)
        best, lowest = torch.where(cost < lowest, z, best), torch.minimum(cost, lowest)
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


def _best_z(alpha, beta):
    """The z of that minimum for all 256 levels, (M, T) → (M, T, 256), to the grid's precision."""
    z, kink = _z_grid()
    vertex = (-alpha / (2 * beta))[..., None]
    z = torch.cat([vertex.clamp(max=z[0]), z.expand(*vertex.shape[:-1], -1), vertex.clamp(min=z[-1])], -1)
    parabola = alpha[..., None] * z + beta[..., None] * z**2
    left, left_at = (parabola - z.tanh()).cummin(-1)
    right, right_at = (parabola + z.tanh()).flip(-1).cummin(-1)
    right, right_at = right.flip(-1), z.shape[-1] - 1 - right_at.flip(-1)
    is_left = LEVELS + left[..., kink] < right[..., kink] - LEVELS
    return z.gather(-1, torch.where(is_left, left_at[..., kink], right_at[..., kink]))


def main(argv=None):
    """`python -m cyclegan_lib.metrics floor FOLDER`: the floor under the cycle losses of any pictures."""
    parser = Parser(prog="python -m cyclegan_lib.metrics", description="What can be known before training.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    floor = commands.add_parser("floor", help="what no generator with an InstanceNorm at its output can do")
    floor.add_argument("folder", type=Path, help="a data set with trainA and trainB, or any folder of pictures")
    floor.add_argument("--size", type=int, default=64, help="pictures are resized to so many pixels a side")
    floor.add_argument("--limit", type=int, default=200, help="look at no more than so many pictures of a side")
    args = parser.parse_args(argv)
    with parser.one_line_errors():
        parser.check_ranges(args, {"size": (1, 4096), "limit": (1, 10**6)})
        splits = [side for side in ("trainA", "trainB") if (args.folder / side).is_dir()] or [""]
        reports = [floor_report(args.folder / side, args.size, args.limit) for side in splits]
        print("\n".join(reports))


def floor_report(folder, size, limit):
    """The floor of a folder's pictures, from below and from above, and what it means, in two lines."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    count = len(find_pictures(folder))
    if not count:
        raise UserError(f"{folder}: no pictures there")
    pictures = load_split(folder, ".", (size, size), limit=limit)
    floor = output_norm_floor(pictures)
    above = (closest_reachable(pictures) - pictures).abs().mean().item()
    brightness = (pictures.mean((2, 3)).abs() - LARGEST_MEAN).clamp(min=0).mean().item()
    return (
        f"{folder}: {len(pictures)} of {count} pictures at {size}×{size}: floor {floor:.4f} (at most {above:.4f}), "
        f"{min(brightness, floor):.4f} of it from brightness alone\n"
        f"  with InstanceNorm at the generator's output their cycle loss cannot go below "
        f"{math.floor(1000 * floor) / 1000}, nor can their identity loss"
    )


if __name__ == "__main__":
    main()
