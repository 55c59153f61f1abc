"""The floor: the lowest error that a generator with an InstanceNorm before its tanh can reach (notebook 05)."""

import math

import torch

from cyclegan_lib.datasets import find_pictures, load_split
from cyclegan_lib.errors import UserError

LARGEST_MEAN = 0.1921  # that tanh(z) can have if z has mean 0 and variance 1 (notebook 05)
LEVELS = torch.arange(256, dtype=torch.float64) / 127.5 - 1  # the values of 8 bits, from -1 to 1
UNUSED = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64)  # the column of variance that no plan uses
KINKS = torch.atanh(LEVELS[1:-1])  # where |tanh(z) − xₖ| has its kink
NODES = torch.cat([KINKS, torch.linspace(-6, 6, 601, dtype=torch.float64)]).unique()  # the grid of z
# Each level's kink as an index into (left of all nodes, intervals between them, right of all).
KINK_AT = torch.cat([torch.tensor([0]), torch.searchsorted(NODES, KINKS) + 1, torch.tensor([len(NODES) + 1])])


def output_norm_floor(pictures, reduction="mean", scale=1.0, shift=0.0):
    """The lowest mean |fake − picture| that any generator ending in tanh(InstanceNorm(·)) can reach.

    It chooses z for every pixel and returns tanh(z), but the norm gives each channel of each picture mean(z) = 0
    and mean(z²) ≤ 1. To minimise mean |tanh(z) − x| is then a linear programme over the histogram h of x, with the dual

        max over α, β ≥ 0 of   Σₖ hₖ · min_z [ |tanh(z) − xₖ| + α z + β z² ]  −  β

    Any α and β > 0 give a lower bound, and `inner_minimum` bounds the inner minimum from below: the result is
    never above the true floor. `closest_reachable` bounds it from above. With a learned `scale` and `shift`
    (`instance_affine`), mean(z) = shift and the variance of z is at most scale²: the floor falls to zero as the
    scale grows. BatchNorm has none: in eval mode, its scale and shift do not depend on the picture.

    `pictures` are (N, C, H, W) in [-1, 1], rounded here to 8 bits; the mean distance of that lowers the bound. Returns
    a float, or with the `reduction` "none" (N, C). Raises a ValueError if the scale is not above 0.
    """
    if not 0 < scale < math.inf:
        raise ValueError(f"scale must be a number above 0, not {scale}")
    level, histogram = _histograms(pictures)
    _, _, alpha, beta = _cheapest_mixture(histogram, scale, shift)
    dual = (inner_minimum(alpha, beta)[:, 0] * histogram).sum(1)
    dual -= (shift * alpha + (scale**2 + shift**2) * beta)[:, 0]
    moved = (pictures.detach().double().cpu().reshape(level.shape) - LEVELS[level]).abs().mean(1)
    floor = (dual - moved).clamp(min=0).reshape(pictures.shape[:2])
    return floor.mean().item() if reduction == "mean" else floor


def closest_reachable(pictures, scale=1.0, shift=0.0):
    """Pictures (N, C, H, W) close to these that end in tanh(InstanceNorm(·)): they bound the floor from above."""
    level, histogram = _histograms(pictures)
    plans, shares, _, _ = _cheapest_mixture(histogram, scale, shift)
    return _deal(LEVELS[level], level, plans, shares, scale, shift).tanh().reshape(pictures.shape)


def _histograms(pictures):
    """Every channel's 8-bit levels, (N·C, pixels), and the share of each level, (N·C, 256)."""
    flat = pictures.detach().double().cpu().flatten(2).flatten(0, 1)
    level = ((flat + 1) * 127.5).round().clamp(0, 255).long()
    histogram = torch.zeros(len(flat), 256, dtype=torch.float64)
    return level, histogram.scatter_add_(1, level, torch.full_like(flat, 1 / flat.shape[1]))


def _cheapest_mixture(histogram, scale, shift):
    """Plans (M, 3, 256) and their shares (M, 3) that together have the right mean and variance at the lowest cost,
    and the dual prices α and β, (M, 1) each, of that mean and variance.

    A plan gives each level a z, a mixture gives each plan a share of the pixels. It is the simplex method with column
    generation: α and β of the current mixture determine which plan enters next.
    """
    m, budget = len(histogram), scale**2 + shift**2
    wanted = torch.tensor([1.0, 0, 0]).double().expand(m, 3)  # the shares sum to 1 and meet both constraints

    def column(plan):  # (M, 256) → its cost, and (share, excess of the mean, variance left over)
        each = (plan.tanh() - LEVELS).abs(), plan, plan**2
        cost, mean, square = (torch.einsum("mk,mk->m", histogram, values) for values in each)
        return cost, torch.stack([torch.ones_like(mean), mean - shift, budget - square], 1)

    # Two plans to begin with, z = shift and z = shift + 1; the third column takes the variance left over.
    plans = torch.full((m, 3, 256), float(shift), dtype=torch.float64)
    plans[:, 1] += 1
    costs, columns = torch.zeros(m, 3).double(), UNUSED[:, None].repeat(m, 1, 3)
    for i in (0, 1):
        costs[:, i], columns[:, :, i] = column(plans[:, i])
    for _ in range(100):
        price = torch.linalg.solve(columns.mT, costs)
        alpha, beta = -price[:, 1:2], price[:, 2:].clamp(min=1e-7 / budget)
        plan = _best_z(alpha, beta)[:, 0]
        cost, entering = column(plan)
        leave_unused = price[:, 2] < 0  # more variance would raise the cost
        cost[leave_unused], entering[leave_unused] = 0, UNUSED
        gain = (price * entering).sum(1) - cost
        change, shares = torch.linalg.solve(columns, entering), torch.linalg.solve(columns, wanted).clamp(min=0)
        room = torch.where(change > 1e-12, shares / change.clamp(min=1e-12), torch.inf)
        better = (gain > 1e-7) & room.isfinite().any(1)
        if not better.any():
            break
        row, leaving = torch.arange(m)[better], room.argmin(1)[better]
        plans[row, leaving], costs[row, leaving] = plan[better], cost[better]
        columns[row, :, leaving] = entering[better]
    shares = torch.linalg.solve(columns, wanted).clamp(min=0)
    return plans, torch.where(columns[:, 0] > 0, shares, 0), alpha, beta


def _deal(x, level, plans, shares, scale, shift):
    """Give each pixel of `level` (M, pixels) the z of a plan: (M, pixels), with that mean and variance."""
    # A low-discrepancy sequence divides each level in about these shares. In small pictures the rest matters.
    place = level.argsort(dim=1, stable=True).argsort(dim=1) * ((5**0.5 - 1) / 2)
    limits = shares.cumsum(1)[:, :-1].contiguous()
    best, lowest = torch.zeros_like(x), torch.full((len(x), 1), torch.inf, dtype=torch.float64)
    for start in torch.arange(16) / 16:
        z = plans.flatten(1).gather(1, torch.searchsorted(limits, (place + start) % 1) * 256 + level) - shift
        # The mean is corrected on pixels that are black or white anyway: there tanh changes least.
        extreme = (z + shift).abs() > 6
        extreme |= ~extreme.any(1, keepdim=True)
        z = z - extreme * z.sum(1, keepdim=True) / extreme.sum(1, keepdim=True)
        z = shift + z * (scale / (z**2).mean(1, keepdim=True).sqrt().clamp(min=1e-9)).clamp(max=1)
        cost = (z.tanh() - x).abs().mean(1, keepdim=True)
        best, lowest = torch.where(cost < lowest, z, best), torch.minimum(cost, lowest)
    return best


def inner_minimum(alpha, beta):
    """A lower bound of min_z [ |tanh(z) − xₖ| + α z + β z² ] for all 256 levels: (M, T) → (M, T, 256).

    Left of the kink the function is x + [−tanh(z) + α z + β z²], right of it −x + [tanh(z) + α z + β z²]. The brackets
    do not depend on x: a level needs the minimum of the first over intervals to its left, of the second to its right.
    """
    alpha, beta = alpha[..., None], beta[..., None]
    vertex, width, tanh = -alpha / (2 * beta), NODES.diff(), NODES.tanh()
    # Between two nodes a function is at least the lower of both less width²/8 · max|second derivative|.
    curvature = (2 * (1 - torch.minimum(tanh[1:].abs(), tanh[:-1].abs()) ** 2)).clamp(max=0.77)
    slack = width**2 / 8 * (curvature + 2 * beta)
    # The parabola left of all nodes, at each of them, and right of all; at both ends tanh is bounded by ±1.
    places = vertex.clamp(max=NODES[0]), NODES, vertex.clamp(min=NODES[-1])
    below, parabola, above = (alpha * z + beta * z**2 for z in places)
    left, right, infinity = parabola - tanh, parabola + tanh, torch.full_like(vertex, torch.inf)
    left = torch.minimum(left[..., 1:], left[..., :-1]) - slack
    right = torch.minimum(right[..., 1:], right[..., :-1]) - slack
    left = torch.cat([infinity, below - tanh[0], left, above - 1], -1).cummin(-1).values
    right = torch.cat([below - 1, right, above + tanh[-1], infinity], -1).flip(-1).cummin(-1).values.flip(-1)
    return torch.minimum(LEVELS + left[..., KINK_AT], right[..., KINK_AT] - LEVELS)


def _best_z(alpha, beta):
    """The z of that minimum for all 256 levels, (M, T) → (M, T, 256), to the grid's precision."""
    alpha, beta = alpha[..., None], beta[..., None]
    vertex = -alpha / (2 * beta)
    nodes = NODES.expand(*vertex.shape[:-1], -1)
    z = torch.cat([vertex.clamp(max=NODES[0]), nodes, vertex.clamp(min=NODES[-1])], -1)
    parabola = alpha * z + beta * z**2
    left, left_at = (parabola - z.tanh()).cummin(-1)
    right, right_at = (parabola + z.tanh()).flip(-1).cummin(-1)
    right, right_at = right.flip(-1), z.shape[-1] - 1 - right_at.flip(-1)
    is_left = LEVELS + left[..., KINK_AT] < right[..., KINK_AT] - LEVELS
    return z.gather(-1, torch.where(is_left, left_at[..., KINK_AT], right_at[..., KINK_AT]))


def command(args):
    """`cyclegan floor FOLDER`: the floor of any pictures, from below and from above, and what it means."""
    if not args.folder.is_dir():
        raise UserError(f"{args.folder}: no such folder")
    for side in [side for side in ("trainA", "trainB") if (args.folder / side).is_dir()] or ["."]:
        pictures = load_split(args.folder, side, (args.size, args.size), limit=args.limit)
        floor = output_norm_floor(pictures)
        above = (closest_reachable(pictures) - pictures).abs().mean().item()
        brightness = (pictures.mean((2, 3)).abs() - LARGEST_MEAN).clamp(min=0).mean().item()
        print(
            f"{args.folder / side}: {len(pictures)} of {len(find_pictures(args.folder / side))} pictures "
            f"at {args.size}×{args.size}: floor {floor:.4f} (at most {above:.4f}), "
            f"{min(brightness, floor):.4f} of it from brightness alone\n"
            f"  with InstanceNorm at the generator's output their cycle loss cannot go below "
            f"{math.floor(1000 * floor) / 1000}, nor can their identity loss"
        )
