"""water2wine as a data set: a folder of drawn pictures, and scenes.json, which describes each of them."""

import contextlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from cyclegan_lib.errors import UserError, plain_name
from cyclegan_lib.water2wine.scenes import Scene, render, sample_scene, to_image

SPLITS = {"trainA": "water", "trainB": "wine", "testA": "water", "testB": "wine"}


def dataset_folder(data_root, name):
    """`data_root`/`name`; the name cannot lead out of `data_root`."""
    return Path(data_root) / plain_name("dataset_name", name)


@contextlib.contextmanager
def new_folder(root, overwrite=False):
    """A path, in a folder for what is needed until then, that becomes `root` at the end; an error leaves nothing."""
    root = Path(root)
    if root.exists() and not overwrite:
        raise UserError(f"{root} exists already; remove it or choose another name")
    workshop = root.with_name(f".{root.name}.partial")
    shutil.rmtree(workshop, ignore_errors=True)
    workshop.mkdir(parents=True)
    try:
        yield workshop / "new"
        if overwrite:
            shutil.rmtree(root, ignore_errors=True)
        (workshop / "new").replace(root)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def write_dataset(
    root, num_train=400, num_test=100, size=64, confounding=0.5, glass_confounding=None, lemon=(0.0, 0.0), hide="",
    seed=0, overwrite=False,
):  # fmt: skip
    """Draw a data set: `root`/{trainA,trainB,testA,testB}/0000.png… and `root`/scenes.json; A is water, B is wine.

    The same arguments give the same bytes, picture i whatever their number, in a folder that appears once complete.
    Raises `UserError` for an impossible probability, or if `root` exists (`overwrite`: and was not drawn).
    """
    root = Path(root)
    if root.exists() and not (overwrite and (root / "scenes.json").is_file()):
        raise UserError(f"{root} exists already; choose another --dataset_name, or --overwrite if it was drawn")
    drawn = dict(confounding=confounding, glass_confounding=glass_confounding, lemon=tuple(lemon), hide=hide)
    sample_scene(np.random.default_rng(0), "water", **drawn)  # raises for a wrong probability
    record = dict(seed=seed, size=size, **drawn, scenes={})
    with new_folder(root, overwrite) as new:
        for number, (split, liquid) in enumerate(SPLITS.items()):
            (new / split).mkdir(parents=True)
            for i in tqdm(range(num_train if split.startswith("train") else num_test), split, delay=2, leave=False):
                rng, name = np.random.default_rng([seed, number, i]), f"{split}/{i:04d}.png"
                scene = sample_scene(rng, liquid, **drawn)
                to_image(render(scene, size)[0]).save(new / name)
                record["scenes"][name] = asdict(scene)
        (new / "scenes.json").write_text(json.dumps(record, indent=1) + "\n")
    return root


def read_scenes(root):
    """`root`/scenes.json → {"testA/0000.png": Scene, …}; a `UserError` if it does not describe the test pictures."""
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
    root = dataset_folder(args.data_root, args.dataset_name)
    options = {name: value for name, value in vars(args).items() if name not in ("data_root", "dataset_name")}
    write_dataset(root, **options)
    print(f"{root}: 2 × {args.num_train} training and 2 × {args.num_test} test pictures, {args.size} pixels")
