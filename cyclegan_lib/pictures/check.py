"""Checks a data set before anything is trained on it: every picture is read, and what tells A from B is named."""

import hashlib
import itertools
import sys
from collections import Counter
from pathlib import Path

import torch

from cyclegan_lib.datasets import find_pictures, load_split, map_pictures
from cyclegan_lib.errors import UserError
from cyclegan_lib.pictures.reading import counted, open_upright, passed_over, read_picture
from cyclegan_lib.water2wine.dataset import SPLITS, dataset_folder, read_scenes, write_dataset

TELLING = 0.65  # of the pictures: a global statistic that is right about more is worth a warning
GENERATED = "water2wine"  # the data set that needs no download: it is drawn
PAPER = (
    "apple2orange", "summer2winter_yosemite", "horse2zebra", "monet2photo", "cezanne2photo", "ukiyoe2photo",
    "vangogh2photo", "maps", "facades", "iphone2dslr_flower", "ae_photos", "mini",
)  # fmt: skip


def prepare_dataset(data_root, name, pixels=64):
    """The folder of a data set, checked (`check_dataset`); water2wine is drawn, `pixels` a side, if it is missing."""
    root = dataset_folder(data_root, name)
    if name == GENERATED and not root.exists():
        print(f"drawing {root} …", flush=True)
        write_dataset(root, size=pixels)
    if (root / "scenes.json").is_file():
        read_scenes(root)  # the scores at the end need them: better to know now
    for warning in check_dataset(root)["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    return root


def check_dataset(root):
    """Read every picture of a data set to its end.

    Returns {"splits": {split: number of pictures}, "sizes": Counter of (width, height), "modes": Counter of Pillow's,
    "warnings": [str]}. Raises `UserError` for missing and empty folders, and a line for each unreadable file.
    """
    root = Path(root)
    paths = {split: find_pictures(root / split) for split in SPLITS}
    if empty := [str(root / split) for split in SPLITS if not paths[split]]:
        how = "make the data set with cyclegan collect or crops, or fetch one of the paper's with cyclegan download"
        raise UserError(f"no pictures in {', '.join(empty)}; {how}")
    everything = sum(paths.values(), [])
    sizes, modes, hashes = zip(*map_pictures(_describe, everything, f"checking {root}"), strict=True)
    hash_of = dict(zip(everything, hashes, strict=True))
    warnings = [f"{root / split}: {counted(others)}" for split in SPLITS if (others := passed_over(root / split))]
    for first, second in itertools.combinations(SPLITS, 2):
        in_first = {hash_of[path]: path for path in paths[first]}
        if copies := [path for path in paths[second] if hash_of[path] in in_first]:
            same = f"{copies[0]} is the same file as {in_first[hash_of[copies[0]]]}"
            warnings.append(f"{same}; {len(copies)} of {len(paths[second])} in {second} are in {first} too")
    counts = {split: len(of_split) for split, of_split in paths.items()}
    return {"splits": counts, "sizes": Counter(sizes), "modes": Counter(modes), "warnings": warnings}


def _describe(path):
    image = open_upright(path)
    return image.size, image.mode, hashlib.sha256(path.read_bytes()).digest()


def summary(root, report):
    """What `check_dataset` found, in a few lines."""
    splits = ", ".join(f"{count} in {split}" for split, count in report["splits"].items())
    sizes = ", ".join(f"{w}×{h} ({count})" for (w, h), count in report["sizes"].most_common(4))
    more = f" and {len(report['sizes']) - 4} more" if len(report["sizes"]) > 4 else ""
    modes = ", ".join(f"{mode} ({count})" for mode, count in report["modes"].most_common())
    warnings = [f"warning: {warning}" for warning in report["warnings"]]
    return "\n".join([f"{root}: {splits}", f"sizes: {sizes}{more}", f"modes: {modes}", *warnings])


# Numbers that every picture has: (N, 3, H, W) in [-1, 1] → (N,). What tells A from B, a translation changes.
STATISTICS = {
    "brightness": lambda p: p.mean((1, 2, 3)),
    "contrast": lambda p: p.std((1, 2, 3)),
    "warmth (red over blue)": lambda p: (p[:, 0] - p[:, 2]).mean((1, 2)),
    "green over red and blue": lambda p: (p[:, 1] - (p[:, 0] + p[:, 2]) / 2).mean((1, 2)),
    "saturation": lambda p: (p.amax(1) - p.amin(1)).mean((1, 2)),
    "sharpness": lambda p: p.diff(dim=2).abs().mean((1, 2, 3)) + p.diff(dim=3).abs().mean((1, 2, 3)),
}


def separations(root, size=64, limit=400):
    """How well each of `STATISTICS` alone tells trainA from trainB: {name: as `separation`}; {} for a handful."""
    A, B = (load_split(root, f"train{domain}", (size, size), limit=limit, read=read_picture) for domain in "AB")
    if min(len(A), len(B)) < 10:
        return {}
    return {name: separation(number(A), number(B)) for name, number in STATISTICS.items()}


def separation(number_A, number_B):
    """How often a threshold is right about numbers that it was not chosen on (0.5: a guess): (accuracy, its error)."""
    halves = [(number_A[start::2], number_B[start::2]) for start in (0, 1)]
    right = [_right(*tried, *_best_threshold(*chosen)) for chosen, tried in (halves, halves[::-1])]
    sides = [torch.cat(side).double() for side in zip(*right, strict=True)]
    variance = sum(side.var(correction=0).item() / len(side) for side in sides)
    return sum(side.mean().item() for side in sides) / 2, variance**0.5 / 2


def _right(number_A, number_B, threshold, sign):
    """For each number whether it is on its side of the threshold; B is above it if `sign` is 1."""
    return sign * number_A < sign * threshold, sign * number_B >= sign * threshold


def _best_threshold(number_A, number_B):
    """(threshold, sign) that are right most often; half way between two of the numbers."""
    found, numbers = [], torch.cat([number_A, number_B]).sort().values
    candidates = (numbers[1:] + numbers[:-1]) / 2
    for sign in (1, -1):
        accuracy = sum(right.double().mean(1) for right in _right(number_A, number_B, candidates[:, None], sign))
        found.append((accuracy.max().item(), candidates[accuracy.argmax()].item(), sign))
    return max(found)[1:]


def describe_separations(found):
    """The statistics that tell A from B, in a warning each; or the best of them, if none does."""
    if not found:
        return "too few training pictures to say whether a global statistic tells A from B"
    ranked = sorted(found.items(), key=lambda item: -item[1][0])
    warning = "warning: {} alone tells A from B in {:.0%} of the pictures; expect it to change; fine if you want that"
    telling = [warning.format(name, share) for name, (share, error) in ranked if share - 2 * error > TELLING]
    name, (share, _) = ranked[0]
    best = f"no global statistic tells A from B well (the best: {name}, right about {share:.0%}; a guess: 50%)"
    return "\n".join(telling or [best])


def print_report(root):
    """Print what is in a data set, and what tells A from B."""
    print(summary(root, check_dataset(root)))
    print(describe_separations(separations(root)))


def command(args):
    print_report(args.folder)
