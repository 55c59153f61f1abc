"""Folders of pictures → unpaired batches; the check of a folder, and what tells A from B in it;
two pictures → a data set.

    data/<dataset_name>/trainA   trainB   testA   testB

Pictures are float tensors (channels, H, W) in [-1, 1] once they leave this module.
"""

import functools
import os
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

import cyclegan_lib.torchvision_shim  # noqa: F401  (before torchvision, see there)
from cyclegan_lib.errors import UserError
from cyclegan_lib.runs.processes import share
from torchvision.transforms.v2 import functional as TF

LOAD_SCALE = 1.12  # training pictures are resized to this much more than the crop (256 → 286)
MEMORY_BUDGET = 2 * 1024**3  # bytes of decoded training pictures kept; more are read from disk
# `read_picture` refuses such pictures by name; Pillow's warning would only come on top of it.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


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
