"""Folders of pictures → unpaired batches; the check of a folder, and what tells A from B in it;
two pictures → a data set.

    data/<dataset_name>/trainA   trainB   testA   testB

Pictures are float tensors (channels, H, W) in [-1, 1] once they leave this module.
"""

import functools
import hashlib
import json
import os
import shutil
import sys
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

import cyclegan_lib.torchvision_shim  # noqa: F401  (before torchvision, see there)
from cyclegan_lib.cli import Parser, UserError, plain_name
from cyclegan_lib.download import NAMES, download
from cyclegan_lib.processes import share
from cyclegan_lib.scenes import RANGES, SPLITS, drawn_size, read_scenes, write_dataset
from torchvision.transforms.v2 import functional as TF

LOAD_SCALE = 1.12  # training pictures are resized to this much more than the crop (256 → 286)
MEMORY_BUDGET = 2 * 1024**3  # bytes of decoded training pictures kept; more are read from disk
# `read_picture` refuses such pictures by name; Pillow's warning would only come on top of it.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
TELLING = 0.65  # of the pictures: a global statistic that is right about more is worth a warning
GENERATED = "water2wine"  # the data set that needs no download: scenes.py draws it


def read_picture(path, channels=3):
    """A picture file → Pillow image, "RGB" or (channels=1) "L", upright.

    EXIF rotation is applied, transparency laid onto white, 16-bit values scaled to 8.

    Raises:
        UserError: naming the file, if it cannot be read to its end.
    """
    image = open_upright(path)
    if is_transparent(image):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB" if channels == 3 else "L")


def is_transparent(image):
    """Whether a Pillow image has, or stands for, an alpha channel."""
    return "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La")


def open_upright(path):
    """A picture file → Pillow image of 8 bits, in its own mode, upright. Raises as `read_picture`."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError
            image.load()
            image = ImageOps.exif_transpose(image)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise UserError(f"{path}: not a picture that Pillow can read") from None
    except Image.DecompressionBombError:
        raise UserError(f"{path}: more than {Image.MAX_IMAGE_PIXELS:,} pixels; scale it down") from None
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, …
        raise UserError(f"{path}: cannot be read ({error})") from None
    return _to_8_bits(image)


def _to_8_bits(image):
    """16-bit, 32-bit and float greys → "L"; Pillow's own conversion would clip them at 255."""
    if not (image.mode == "F" or image.mode.startswith("I")):
        return image
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    if image.mode == "F" and values.max(initial=0) <= 1:
        values = values * 255
    elif image.mode.startswith("I;16") or values.max(initial=0) > 255:
        values = values / 257
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))


def load_picture(path, size, channels=3):
    """A picture file → uint8 tensor (channels, H, W), resized to `size` (H, W)."""
    height, width = size
    image = read_picture(path, channels)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return TF.pil_to_tensor(image)


def to_signed(pixels):
    """uint8, 0 to 255 → float32, -1 to 1."""
    return pixels.float() / 127.5 - 1


def find_pictures(folder):
    """All files under `folder` with an ending that Pillow knows, nested ones too, sorted.

    Hidden files are left out (`.DS_Store`, `._photo.jpg`), and a loop of links ends.
    """
    endings = set(Image.registered_extensions())
    found, seen = [], set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(parent, name) for name in files if not name.startswith("."))
        # Broken links are kept, to be named as unreadable; pipes and devices would never end.
        found += [path for path in paths if path.suffix.lower() in endings and (path.is_file() or path.is_symlink())]
    return sorted(found, key=lambda path: path.as_posix())


def map_pictures(function, paths, description):
    """[function(path) for path in paths], in threads, with a bar if it takes a while.

    Raises:
        UserError: after all of them, a line for each path that failed.
    """

    def attempt(path):
        try:
            return function(path)
        except UserError as error:
            return error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        bar = tqdm(pool.map(attempt, paths), description, len(paths), delay=2, leave=False)
        results = list(bar)
    errors = [str(result) for result in results if isinstance(result, UserError)]
    if errors:
        raise UserError("\n".join(errors))
    return results


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


class UnpairedDataset(Dataset):
    """Training pictures of A and B, in an order and with crops that `seed` decides.

    Sample number n is the same whenever and wherever it is asked for: nothing is drawn from a
    shared stream, so workers and a resumed run need no random state. Number n stands for place
    n mod len in epoch n // len. An epoch is as long as the longer side; both sides are shuffled
    anew each epoch, so no pair lasts.

    Pictures are resized to 1.12 × `size`, cropped at random and flipped half of the time, or
    without `augment` resized to `size` and left alone.
    They are decoded once and kept as uint8 as long as they fit into `memory_budget` bytes.

    Args:
        root: the data set's folder.
        size: (H, W) of the crops.
    """

    def __init__(self, root, size, channels=3, seed=0, augment=True, memory_budget=MEMORY_BUDGET):
        self.size, self.channels, self.seed, self.augment = tuple(size), channels, seed, augment
        self.load_size = tuple(round(LOAD_SCALE * side) if augment else side for side in size)
        self.paths = {domain: find_pictures(Path(root) / f"train{domain}") for domain in "AB"}
        self.order = functools.lru_cache(maxsize=4)(self._order)
        needed = sum(map(len, self.paths.values())) * channels * self.load_size[0] * self.load_size[1]
        self.pictures = None
        if needed <= memory_budget:
            self.pictures = {domain: self._load_all(paths) for domain, paths in self.paths.items()}

    def __len__(self):
        return max(len(paths) for paths in self.paths.values())

    def __getitem__(self, n):
        """Sample number n (any n ≥ 0) → (real_A, real_B), float (channels, H, W) in [-1, 1]."""
        rng = np.random.default_rng([self.seed, 1, n])
        return self._crop("A", n, rng), self._crop("B", n, rng)

    def path(self, domain, n):
        """The file that sample number n takes from "A" or "B"."""
        return self.paths[domain][self._index(domain, n)]

    def _index(self, domain, n):
        epoch, place = divmod(n, len(self))
        return self.order(domain, epoch)[place]

    def _order(self, domain, epoch):
        """Indices of one side for one epoch; the shorter side starts over, shuffled again."""
        rng = np.random.default_rng([self.seed, 0, "AB".index(domain), epoch])
        count = len(self.paths[domain])
        rounds = -(-len(self) // count)
        return np.concatenate([rng.permutation(count) for _ in range(rounds)])[: len(self)]

    def _crop(self, domain, n, rng):
        index = self._index(domain, n)
        if self.pictures is None:
            picture = load_picture(self.paths[domain][index], self.load_size, self.channels)
        else:
            picture = self.pictures[domain][index]
        if not self.augment:
            return to_signed(picture)
        height, width = self.size
        top = int(rng.integers(self.load_size[0] - height + 1))
        left = int(rng.integers(self.load_size[1] - width + 1))
        picture = TF.crop(picture, top, left, height, width)
        if rng.random() < 0.5:
            picture = TF.horizontal_flip(picture)
        return to_signed(picture)

    def _load_all(self, paths):
        pictures = torch.empty(len(paths), self.channels, *self.load_size, dtype=torch.uint8)

        def load(i):  # into its place: a list of pictures to be stacked would take their memory twice
            pictures[i] = load_picture(paths[i], self.load_size, self.channels)

        map_pictures(load, range(len(paths)), "reading training pictures")
        return pictures

    def __getstate__(self):  # a cache cannot be sent to worker processes that are not forked
        return {**self.__dict__, "order": None}

    def __setstate__(self, state):
        self.__dict__.update(state, order=functools.lru_cache(maxsize=4)(self._order))


class BatchNumbers:
    """The sample numbers of every batch of a run, from batch `first` to before batch `last`.

    No batch spans two epochs, so an epoch's last one may be smaller. Of several processes each
    gets its share, see `processes.share`.
    """

    def __init__(self, dataset, batch_size, first, last, rank=0, count=1):
        self.length, self.batch_size, self.first, self.last = len(dataset), batch_size, first, last
        self.rank, self.count = rank, count
        self.per_epoch = -(-self.length // batch_size)

    def __len__(self):
        return self.last - self.first

    def __iter__(self):
        for step in range(self.first, self.last):
            yield self.share(step)[0]

    def share(self, step):
        """(the sample numbers of this process in a step's batch, their part of the batch)."""
        epoch, batch = divmod(step, self.per_epoch)
        start, end = batch * self.batch_size, min((batch + 1) * self.batch_size, self.length)
        return share(range(epoch * self.length + start, epoch * self.length + end), self.rank, self.count)


def training_batches(dataset, batch_size, first=0, last=1, num_workers=0, pin_memory=False, rank=0, count=1):
    """A `DataLoader` over batches `first` … `last` - 1: (real_A, real_B), each (N, C, H, W).

    `batch_size` counts the pictures of all `count` processes; this is number `rank`.
    """
    numbers = BatchNumbers(dataset, batch_size, first, last, rank, count)
    return DataLoader(
        dataset, batch_sampler=numbers, num_workers=num_workers, pin_memory=pin_memory,
        generator=torch.Generator(),  # its own: it would take a number from the global one
    )  # fmt: skip


def workers_for(dataset, device):
    """How many processes should load pictures so that a training does not wait for them.

    None where pictures lie in memory, nor beside a CPU's steps, which are long and need its cores;
    nor outside of Linux, where each process would first import torch, from a notebook in vain.
    """
    if dataset.pictures is not None or device != "cuda" or sys.platform != "linux":
        return 0
    return min(8, os.cpu_count())


def load_split(root, split, size, channels=3, limit=None):
    """The pictures of "testA", say, resized and nothing else: (N, channels, H, W) in [-1, 1]."""
    paths = find_pictures(Path(root) / split)[:limit]
    load = functools.partial(load_picture, size=size, channels=channels)
    return to_signed(torch.stack(map_pictures(load, paths, f"reading {split}")))


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


TEST_BAND = (0.375, 0.625)  # of a picture's longer side: the middle, for test crops
CROP_SIDES = (0.15, 0.45)  # of a picture's shorter side


def write_crops(picture_A, picture_B, root, num_train=400, num_test=100, size=128, seed=0):
    """Cut two large pictures into an unpaired data set in `root`.

    Crops are square, at random places and of random scale, resized to `size` pixels. Test crops
    come from the middle quarter of the picture's longer side, and training crops from the two
    parts beside it: no pixel is in both. `crops.json` says where each was cut.

    Raises:
        UserError: for a picture that cannot be read or is too small, or if `root` is there already.
    """
    root = Path(root)
    if root.exists():
        raise UserError(f"{root} is there already; choose another --dataset_name or remove it")
    images = dict(zip("AB", map_pictures(read_picture, [picture_A, picture_B], "reading"), strict=True))
    for path, image in zip((picture_A, picture_B), images.values(), strict=True):
        if min(image.size) < 128:
            raise UserError(f"{path}: {image.width}×{image.height} pixels is too small to cut up; 128 at least")
    partial = root.with_name(f".{root.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    boxes = {}
    for number, split in enumerate(SPLITS):
        (partial / split).mkdir(parents=True)
        image, is_test = images[split[-1]], split.startswith("test")
        for i in range(num_test if is_test else num_train):
            box = _random_box(image.size, is_test, np.random.default_rng([seed, number, i]))
            name = f"{split}/{i:04d}.png"
            image.resize((size, size), Image.Resampling.LANCZOS, box=box).save(partial / name)
            boxes[name] = box
    (partial / "crops.json").write_text(json.dumps({"seed": seed, "size": size, "boxes": boxes}) + "\n")
    os.replace(partial, root)
    return root


def _random_box(picture_size, is_test, rng):
    """(left, top, right, bottom) of a square inside the part for testing or one of those for training."""
    longer, shorter = max(picture_size), min(picture_size)
    first, last = (round(share * longer) for share in TEST_BAND)
    parts = [(first, last)] if is_test else [(0, first), (last, longer)]
    start, end = parts[rng.integers(len(parts))]
    low, high = (share * shorter for share in CROP_SIDES)
    side = round(float(np.exp(rng.uniform(np.log(low), np.log(min(high, end - start))))))
    along, across = int(rng.integers(start, end - side + 1)), int(rng.integers(shorter - side + 1))
    left, top = (along, across) if picture_size[0] == longer else (across, along)
    return left, top, left + side, top + side


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


if __name__ == "__main__":
    main()
