"""Two large pictures → an unpaired data set of crops."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from cyclegan_lib.datasets import map_pictures, read_picture
from cyclegan_lib.errors import UserError
from cyclegan_lib.water2wine.dataset import SPLITS

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
