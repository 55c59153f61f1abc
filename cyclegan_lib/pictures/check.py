"""A data set is checked before anything is trained on it: every picture is read, and what tells A from B is named."""

import hashlib
import sys
from collections import Counter
from pathlib import Path

import torch
from PIL import Image

from cyclegan_lib.datasets import find_pictures, load_split, map_pictures, read_picture
from cyclegan_lib.errors import Parser, UserError, plain_name
from cyclegan_lib.pictures.crops import write_crops
from cyclegan_lib.pictures.download import NAMES, download
from cyclegan_lib.water2wine.dataset import RANGES, SPLITS, drawn_size, read_scenes, write_dataset

TELLING = 0.65  # of the pictures: a global statistic that is right about more is worth a warning
GENERATED = "water2wine"  # the data set that needs no download: scenes.py draws it


def dataset_folder(data_root, name):
    """`data_root`/`name`; the name cannot climb out of `data_root`."""
    return Path(data_root) / plain_name("dataset_name", name)


def prepare_dataset(data_root, name, pixels=64):
    """The folder of a data set, checked; water2wine is drawn if it isn't there yet.

    Raises:
        UserError: a line for each thing that is wrong with it.
    """
    root = dataset_folder(data_root, name)
    if Path(data_root).exists() and not Path(data_root).is_dir():
        raise UserError(f"--data_root {data_root} is a file, not a folder of data sets")
    if name == GENERATED and not root.exists():
        print(f"drawing {root} …", flush=True)
        write_dataset(root, size=pixels)
    if (root / "scenes.json").is_file():
        read_scenes(root)  # the scores at the end need them: better to know now
    drawn = drawn_size(root)
    if drawn and drawn < pixels:
        print(
            f"warning: {root} was drawn at {drawn} pixels and is scaled up to {pixels}; for sharp pictures: "
            f"python -m cyclegan_lib.scenes --data_root {data_root} --dataset_name {name} --size {pixels} --overwrite",
            file=sys.stderr,
        )
    for warning in check_dataset(root)["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    return root


def check_dataset(root):
    """Read every picture of a data set to its end.

    Returns:
        {"splits": {split: number of pictures}, "sizes": Counter of (width, height),
        "modes": Counter of Pillow modes, "warnings": [str]}

    Raises:
        UserError: a line for each missing or empty folder and each unreadable file.
    """
    root = Path(root)
    missing = [split for split in SPLITS if not (root / split).is_dir()]
    if missing:
        looked_for = ", ".join(str(root / split) for split in missing)
        if not root.exists() and root.name in NAMES:
            there = "" if root.parent == Path("data") else f" --data_root {root.parent}"
            raise UserError(f"no folder {root}; python -m cyclegan_lib.datasets download {root.name}{there} fetches it")
        raise UserError(
            f"no folder {looked_for}. Put pictures there (data/README.md says how and names data sets "
            "to download), or make a data set of two pictures: "
            f"python -m cyclegan_lib.datasets crops A.jpg B.jpg --dataset_name {root.name}"
        )
    paths = {split: find_pictures(root / split) for split in SPLITS}
    nothing = "no pictures in it that Pillow can read (JPEG, PNG, WebP, TIFF, …)"
    empty = [f"{root / split}: {nothing}" for split in SPLITS if not paths[split]]
    if empty:
        raise UserError("\n".join(empty))

    everything = [path for split in SPLITS for path in paths[split]]
    read = dict(zip(everything, map_pictures(_describe, everything, f"checking {root}"), strict=True))
    found = []
    for train, test in (("trainA", "testA"), ("trainB", "testB")):
        in_train = {read[path]["hash"]: path for path in paths[train]}
        for path in paths[test]:
            if read[path]["hash"] in in_train:
                found.append(f"{path} is the same file as {in_train[read[path]['hash']]}")
    return {
        "splits": {split: len(paths[split]) for split in SPLITS},
        "sizes": Counter(info["size"] for info in read.values()),
        "modes": Counter(info["mode"] for info in read.values()),
        "warnings": found,
    }


def _describe(path):
    image = read_picture(path)
    with Image.open(path) as original:
        mode = original.mode
    return {"size": image.size, "mode": mode, "hash": hashlib.sha256(path.read_bytes()).digest()}


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
    """How well each of `STATISTICS` alone tells trainA from trainB: {name: (accuracy, its standard error)}.

    Pictures are resized to `size` × `size`, at most `limit` of a side. Of less than ten nothing
    can be said: {}.
    """
    A, B = (load_split(root, f"train{domain}", (size, size), limit=limit) for domain in "AB")
    if min(len(A), len(B)) < 10:
        return {}
    return {name: separation(number(A), number(B)) for name, number in STATISTICS.items()}


def separation(number_A, number_B):
    """How often a threshold is right about pictures that it was not chosen on: (accuracy, standard error).

    The threshold is chosen on every other number (N,), (M,) and tried on the rest, and the other
    way round. Both sides count alike: 0.5 is a guess.
    """
    halves = [(number_A[start::2], number_B[start::2]) for start in (0, 1)]
    right = [_right(*tried, *_best_threshold(*chosen)) for chosen, tried in (halves, halves[::-1])]
    shares = [torch.cat(side).double().mean().item() for side in zip(*right, strict=True)]
    variance = sum(share * (1 - share) / len(n) for share, n in zip(shares, (number_A, number_B), strict=True))
    return sum(shares) / 2, variance**0.5 / 2


def _right(number_A, number_B, threshold, sign):
    """For each number whether it is on its side of the threshold; B is above it if `sign` is 1."""
    return sign * number_A < sign * threshold, sign * number_B >= sign * threshold


def _best_threshold(number_A, number_B):
    """(threshold, sign) that are right most often; half way between two of the numbers."""
    found, numbers = [], torch.cat([number_A, number_B]).sort().values
    candidates = ((numbers[1:] + numbers[:-1]) / 2)[:, None]
    for sign in (1, -1):
        right = [side.double().mean(1) for side in _right(number_A, number_B, candidates, sign)]
        best = (right[0] + right[1]).argmax()
        found.append(((right[0] + right[1])[best].item(), candidates[best].item(), sign))
    return max(found)[1:]


def describe_separations(found):
    """The statistics that tell A from B, in a warning each; or the best of them, if none does."""
    if not found:
        return "too few training pictures to say whether a global statistic tells A from B"
    telling = {name: accuracy for name, (accuracy, error) in found.items() if accuracy - 2 * error > TELLING}
    if not telling:
        name, (accuracy, _) = max(found.items(), key=lambda item: item[1][0])
        return f"no global statistic tells A from B well (the best: {name}, right about {accuracy:.0%}; a guess: 50%)"
    return "\n".join(
        f"warning: {name} alone tells A from B in {accuracy:.0%} of the pictures; expect the translation to change it"
        for name, accuracy in sorted(telling.items(), key=lambda item: -item[1])
    )


def main(argv=None):
    """`python -m cyclegan_lib.datasets`: check or fetch a data set, or cut two pictures into one."""
    parser = Parser(prog="python -m cyclegan_lib.datasets", description="Check, fetch or make a data set.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    check = commands.add_parser("check", help="read every picture of a data set, and warn of what tells A from B")
    check.add_argument("folder", type=Path, help="data/mine, say")
    crops = commands.add_parser("crops", help="cut two large pictures into an unpaired data set")
    crops.add_argument("picture_A", type=Path, help="a photograph, say")
    crops.add_argument("picture_B", type=Path, help="a painting, say")
    crops.add_argument("--dataset_name", default="mine", help="the new folder's name")
    crops.add_argument("--data_root", type=Path, default=Path("data"), help="the folder of data sets")
    crops.add_argument("--num_train", type=int, default=400, help="training crops of each picture")
    crops.add_argument("--num_test", type=int, default=100, help="test crops of each picture")
    crops.add_argument("--size", type=int, default=128, help="side of a crop in pixels")
    crops.add_argument("--seed", type=int, default=0, help="decides every crop")
    fetch = commands.add_parser("download", help="fetch a data set of the paper")
    fetch.add_argument("dataset_name", help=f"{', '.join(NAMES)}; or any name, with a --url")
    fetch.add_argument("--url", default=None, help="the address of a zip with trainA, trainB, testA and testB in it")
    fetch.add_argument("--data_root", type=Path, default=Path("data"), help="the folder of data sets")
    args = parser.parse_args(argv)
    with parser.one_line_errors():
        if args.command == "download":
            root = download(dataset_folder(args.data_root, args.dataset_name), args.url)
            print(summary(root, check_dataset(root)))
            return
        if args.command == "check":
            print(summary(args.folder, check_dataset(args.folder)))
            print(describe_separations(separations(args.folder)))
            return
        parser.check_ranges(args, RANGES)
        root = dataset_folder(args.data_root, args.dataset_name)
        write_crops(args.picture_A, args.picture_B, root, args.num_train, args.num_test, args.size, args.seed)
        print(summary(root, check_dataset(root)))


def summary(root, report):
    """What `check_dataset` found, in a few lines."""
    splits = ", ".join(f"{count} in {split}" for split, count in report["splits"].items())
    sizes = ", ".join(f"{w}×{h} ({count})" for (w, h), count in report["sizes"].most_common(4))
    rest = len(report["sizes"]) - 4
    modes = ", ".join(f"{mode} ({count})" for mode, count in report["modes"].most_common())
    lines = [f"{root}: {splits}", f"sizes: {sizes}" + (f" and {rest} more" if rest > 0 else ""), f"modes: {modes}"]
    lines += [f"warning: {warning}" for warning in report["warnings"]]
    return "\n".join(lines)
