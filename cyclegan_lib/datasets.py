"""Folders of pictures → unpaired batches.

    data/<dataset_name>/trainA   trainB   testA   testB

Pictures are float tensors (channels, H, W) in [-1, 1] once they leave this module.
"""

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

import cyclegan_lib.torchvision_shim  # noqa: F401  (before torchvision, see there)
from cyclegan_lib.errors import UserError
from torchvision.transforms.v2 import functional as TF

LOAD_SCALE = 1.12  # training pictures are resized to this much more than the crop (256 → 287)
MEMORY_BUDGET = 2 * 1024**3  # bytes of decoded training pictures kept; more are read from disk


def read_picture(path, channels=3):
    """A picture file → Pillow image, "RGB" or (channels=1) "L", turned upright by its EXIF data.

    Raises:
        UserError: naming the file, if it cannot be read to its end.
    """
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB" if channels == 3 else "L")
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, …
        raise UserError(f"{path}: cannot be read ({error})") from None


def load_picture(path, size, channels=3, read=read_picture):
    """A picture file → uint8 tensor (channels, H, W), resized to `size` (H, W)."""
    height, width = size
    image = read(path, channels)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return TF.pil_to_tensor(image)


def to_signed(pixels):
    """uint8, 0 to 255 → float32, -1 to 1."""
    return pixels.float() / 127.5 - 1


def find_pictures(folder):
    """All files under `folder` with an ending that Pillow knows, in nested folders too, sorted.

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
        results = list(tqdm(pool.map(attempt, paths), description, len(paths), delay=2, leave=False))
    errors = [str(result) for result in results if isinstance(result, UserError)]
    if errors:
        raise UserError("\n".join(errors))
    return results


def load_split(root, split, size, channels=3, limit=None, read=read_picture):
    """The pictures of "testA", say, resized and nothing else: (N, channels, H, W) in [-1, 1]."""
    paths = find_pictures(Path(root) / split)[:limit]
    if not paths:
        raise UserError(f"no pictures in {Path(root) / split}: put some there")
    load = functools.partial(load_picture, size=size, channels=channels, read=read)
    return to_signed(torch.stack(map_pictures(load, paths, f"reading {split}")))


@functools.lru_cache(maxsize=8)
def epoch_order(seed, domain, epoch, count, length):
    """Indices of `count` pictures for an epoch of `length`; a smaller side starts again, shuffled again."""
    rng = np.random.default_rng([seed, 0, "AB".index(domain), epoch])
    rounds = -(-length // count)
    return np.concatenate([rng.permutation(count) for _ in range(rounds)])[:length]


class UnpairedDataset(Dataset):
    """Training pictures of A and B, in an order and with crops that `seed` decides.

    Sample number n is the same whenever and wherever it is asked for: nothing is drawn from a
    shared random state, so neither workers nor a resumed run need one. Number n is place
    n mod len in epoch n // len. An epoch is as long as the larger side; both sides are shuffled
    again in each epoch, so no pair lasts. There is no last sample: n may be any number from 0 on.

    Pictures are resized to 1.12 × `size`, cropped at random and flipped half of the time, or
    without `augment` resized to `size` and left alone.
    They are decoded once and kept as uint8, as long as they fit into `memory_budget` bytes.

    Args:
        root: the data set's folder.
        size: (H, W) of the crops.
        read: a function like `read_picture`, for files that it does not know.

    Raises:
        UserError: if trainA or trainB has no pictures, or a line for each that cannot be read.
    """

    def __init__(self, root, size, channels=3, seed=0, augment=True, memory_budget=MEMORY_BUDGET, read=read_picture):
        self.root, self.size, self.channels, self.seed = Path(root), tuple(size), channels, seed
        self.augment, self.read = augment, read
        self.load_size = tuple(round(LOAD_SCALE * side) if augment else side for side in size)
        self.paths = {domain: find_pictures(self.root / f"train{domain}") for domain in "AB"}
        empty = [str(self.root / f"train{domain}") for domain, paths in self.paths.items() if not paths]
        if empty:
            raise UserError(f"no pictures in {', '.join(empty)}: put some there")
        needed = sum(map(len, self.paths.values())) * channels * self.load_size[0] * self.load_size[1]
        self.pictures = None
        if needed <= memory_budget:
            self.pictures = {domain: self._load_all(paths) for domain, paths in self.paths.items()}

    @classmethod
    def from_config(cls, config, read=read_picture):
        """The training pictures that a `TrainConfig` names."""
        augment = not config.no_augment
        return cls(config.dataset_folder, config.size, config.channels, config.seed, augment, read=read)

    def __len__(self):
        return max(len(paths) for paths in self.paths.values())

    def __getitem__(self, n):
        """Sample number n (any n ≥ 0) → (real_A, real_B), float (channels, H, W) in [-1, 1]."""
        rng = np.random.default_rng([self.seed, 1, n])
        return self.crop("A", n, rng), self.crop("B", n, rng)

    def path(self, domain, n):
        """The file that sample number n takes from "A" or "B"."""
        return self.paths[domain][self.index(domain, n)]

    def index(self, domain, n):
        """The place of that file among the sorted ones."""
        epoch, place = divmod(n, len(self))
        return epoch_order(self.seed, domain, epoch, len(self.paths[domain]), len(self))[place]

    def crop(self, domain, n, rng):
        """One side of sample number n: cropped and flipped by `rng`, (channels, H, W) in [-1, 1]."""
        index = self.index(domain, n)
        if self.pictures is None:
            picture = load_picture(self.paths[domain][index], self.load_size, self.channels, self.read)
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

    def test(self, domain, limit=100):
        """The first test pictures of "A" or "B": (N, channels, H, W) in [-1, 1]."""
        return load_split(self.root, f"test{domain}", self.size, self.channels, limit, self.read)

    def _load_all(self, paths):
        pictures = torch.empty(len(paths), self.channels, *self.load_size, dtype=torch.uint8)

        def load(i):  # into its place: a list of pictures to be stacked would take their memory twice
            pictures[i] = load_picture(paths[i], self.load_size, self.channels, self.read)

        map_pictures(load, range(len(paths)), "reading training pictures")
        return pictures


class BatchNumbers:
    """The sample numbers of every batch of a run, from batch `first` to before batch `last`.

    No batch spans two epochs, so an epoch's last one may be smaller.

    Args:
        share: a function of a batch's numbers: those that this process loads, of several.
    """

    def __init__(self, length, batch_size, first, last, share=None):
        self.length, self.batch_size, self.first, self.last = length, batch_size, first, last
        self.share = share
        self.per_epoch = -(-length // batch_size)

    def __len__(self):
        return self.last - self.first

    def __iter__(self):
        for step in range(self.first, self.last):
            yield self.share(self[step]) if self.share else self[step]

    def __getitem__(self, step):
        """All sample numbers of a step's batch."""
        epoch, batch = divmod(step, self.per_epoch)
        start, end = batch * self.batch_size, min((batch + 1) * self.batch_size, self.length)
        return range(epoch * self.length + start, epoch * self.length + end)


def training_batches(dataset, batch_size, first=0, last=1, num_workers=0, pin_memory=False, share=None):
    """A `DataLoader` over batches `first` … `last` - 1: (real_A, real_B), each (N, C, H, W)."""
    return DataLoader(
        dataset, batch_sampler=BatchNumbers(len(dataset), batch_size, first, last, share), num_workers=num_workers,
        pin_memory=pin_memory, generator=torch.Generator(),  # its own: it would take a number from the global one
    )  # fmt: skip
