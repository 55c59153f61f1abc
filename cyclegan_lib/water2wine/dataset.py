"""water2wine as a data set: a folder of drawn pictures, and scenes.json, which describes each of them."""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from cyclegan_lib.errors import UserError, plain_name
from cyclegan_lib.water2wine.scenes import Scene, render, sample_scene, to_image

SPLITS = {"trainA": "water", "trainB": "wine", "testA": "water", "testB": "wine"}


def write_dataset(
    root, num_train=400, num_test=100, size=64, confounding=0.5, glass_confounding=None, seed=0, overwrite=False
):
    """Draw a data set: `root`/{trainA,trainB,testA,testB}/0000.png… and `root`/scenes.json; A is water, B is wine.

    The same arguments give the same bytes, and picture number i does not depend on how many there are. The folder
    appears only once it is complete. Raises `UserError` for a probability outside [0, 1], or if `root` exists (with
    `overwrite`: if it is anything but a drawn data set).
    """
    root = Path(root)
    if root.exists() and not overwrite:
        raise UserError(f"{root} exists already; remove it, or pass --overwrite")
    if root.exists() and not (root / "scenes.json").is_file():
        raise UserError(f"{root} was not drawn, so it is not overwritten; choose another --dataset_name")
    sample_scene(np.random.default_rng(0), "water", confounding, glass_confounding)  # raises for a wrong probability
    partial = root.with_name(f".{root.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    record = dict(seed=seed, size=size, confounding=confounding, glass_confounding=glass_confounding, scenes={})
    for number, (split, liquid) in enumerate(SPLITS.items()):
        (partial / split).mkdir(parents=True)
        count = num_train if split.startswith("train") else num_test
        for i in tqdm(range(count), split, delay=2, leave=False):
            rng = np.random.default_rng([seed, number, i])
            scene, name = sample_scene(rng, liquid, confounding, glass_confounding), f"{split}/{i:04d}.png"
            to_image(render(scene, size)[0]).save(partial / name)
            record["scenes"][name] = asdict(scene)
    (partial / "scenes.json").write_text(json.dumps(record, indent=1) + "\n")
    shutil.rmtree(root, ignore_errors=True)
    os.replace(partial, root)
    return root


def read_scenes(root):
    """`root`/scenes.json → {"testA/0000.png": Scene, …}, to render masks and counterfactuals from.

    Raises `UserError` if it is damaged, or does not describe the test pictures beside it.
    """
    path = Path(root) / "scenes.json"
    try:
        scenes = {name: Scene(**fields) for name, fields in json.loads(path.read_text())["scenes"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: damaged; draw the data set again") from None
    pictures = {picture.relative_to(root).as_posix() for picture in Path(root).glob("test[AB]/**/*.png")}
    if pictures != {name for name in scenes if name.startswith("test")}:
        raise UserError(f"{path} does not fit the test pictures beside it; draw the data set again")
    return scenes


def command(args):
    root = args.data_root / plain_name("dataset_name", args.dataset_name)
    write_dataset(
        root, args.num_train, args.num_test, args.size, args.confounding, args.glass_confounding, args.seed,
        args.overwrite,
    )  # fmt: skip
    print(f"{root}: 2 × {args.num_train} training and 2 × {args.num_test} test pictures, {args.size} pixels")
