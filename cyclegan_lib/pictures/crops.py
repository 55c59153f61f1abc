"""Two large pictures → an unpaired data set of crops."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from cyclegan_lib.datasets import map_pictures
from cyclegan_lib.errors import UserError
from cyclegan_lib.pictures.check import check_dataset, summary
from cyclegan_lib.pictures.reading import read_picture
from cyclegan_lib.water2wine.dataset import SPLITS, dataset_folder, new_folder

TEST_BAND = (0.375, 0.625)  # of a picture's longer side: the middle, for test crops
CROP_SIDES = (0.15, 0.45)  # of a picture's shorter side


def write_crops(picture_A, picture_B, root, num_train=400, num_test=100, size=128, seed=0):
    """Cut two large pictures into an unpaired data set in the new folder `root`, and return its path.

    Crops are square, of random places and scales, resized to `size` pixels; `crops.json` says where each was cut. Test
    crops come from `TEST_BAND`, training crops from beside it. Raises `UserError` for an unreadable or small picture.
    """
    with new_folder(root) as new:
        images = map_pictures(read_picture, [picture_A, picture_B], "reading")
        for path, image in zip((picture_A, picture_B), images, strict=True):
            if min(image.size) < 128:
                raise UserError(f"{path}: {image.width}×{image.height} pixels is too small to cut up; 128 at least")
        boxes = {}
        for number, split in enumerate(SPLITS):
            (new / split).mkdir(parents=True)
            image, is_test = images["AB".index(split[-1])], split.startswith("test")
            for i in range(num_test if is_test else num_train):
                name, rng = f"{split}/{i:04d}.png", np.random.default_rng([seed, number, i])
                boxes[name] = box = _random_box(image.size, is_test, rng)
                image.resize((size, size), Image.Resampling.LANCZOS, box=box).save(new / name)
        (new / "crops.json").write_text(json.dumps({"seed": seed, "size": size, "boxes": boxes}) + "\n")
    return Path(root)


def _random_box(picture_size, is_test, rng):
    """(left, top, right, bottom) of a square inside the part for testing or one of those for training."""
    longer, shorter = max(picture_size), min(picture_size)
    first, last = (round(share * longer) for share in TEST_BAND)
    start, end = (first, last) if is_test else [(0, first), (last, longer)][rng.integers(2)]
    low, high = (share * shorter for share in CROP_SIDES)
    side = round(float(np.exp(rng.uniform(np.log(low), np.log(min(high, end - start))))))
    along, across = int(rng.integers(start, end - side + 1)), int(rng.integers(shorter - side + 1))
    left, top = (along, across) if picture_size[0] == longer else (across, along)
    return left, top, left + side, top + side


def command(args):
    root = dataset_folder(args.data_root, args.dataset_name)
    write_crops(args.picture_A, args.picture_B, root, args.num_train, args.num_test, args.size, args.seed)
    print(summary(root, check_dataset(root)))
