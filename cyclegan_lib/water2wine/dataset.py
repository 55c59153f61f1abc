"""water2wine as a data set: drawn into a folder, with what is in every picture beside it."""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from cyclegan_lib.errors import Parser, UserError, plain_name
from cyclegan_lib.water2wine.scenes import Scene, render, sample_scene, to_image

SPLITS = {"trainA": "water", "trainB": "wine", "testA": "water", "testB": "wine"}
RANGES = {"num_train": (1, 10**6), "num_test": (1, 10**6), "size": (8, 4096), "seed": (0, 2**31)}


def write_dataset(
    root, num_train=400, num_test=100, size=64, confounding=0.5, glass_confounding=None, seed=0, overwrite=False
):
    """Draw a data set: `root`/{trainA,trainB,testA,testB}/0000.png… and `root`/scenes.json.

    A is water and B is wine. The same arguments give the same bytes, and picture number i
    does not depend on how many there are. The folder appears only when it is whole.

    Raises:
        UserError: for a probability outside [0, 1], or if `root` is there already (with
            `overwrite`: if it is anything but a data set that was drawn).
    """
    root = Path(root)
    if root.exists() and not overwrite:
        raise UserError(f"{root} is there already; remove it, or pass --overwrite")
    if root.exists() and not (root / "scenes.json").is_file():
        raise UserError(f"{root} was not drawn by this command, so it is not overwritten; choose another name")
    sample_scene(np.random.default_rng(0), "water", confounding, glass_confounding)  # refuses what cannot be
    partial = root.with_name(f".{root.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    record = {
        "seed": seed, "size": size, "confounding": confounding,
        "glass_confounding": glass_confounding, "scenes": {},
    }  # fmt: skip
    for number, (split, liquid) in enumerate(SPLITS.items()):
        (partial / split).mkdir(parents=True)
        count = num_train if split.startswith("train") else num_test
        for i in tqdm(range(count), split, delay=2, leave=False):
            rng = np.random.default_rng([seed, number, i])
            scene = sample_scene(rng, liquid, confounding, glass_confounding)
            name = f"{split}/{i:04d}.png"
            to_image(render(scene, size)[0]).save(partial / name)
            record["scenes"][name] = asdict(scene)
    (partial / "scenes.json").write_text(json.dumps(record, indent=1) + "\n")
    shutil.rmtree(root, ignore_errors=True)
    os.replace(partial, root)
    return root


def read_scenes(root):
    """`root`/scenes.json → {"testA/0000.png": Scene, …}, to render masks and counterfactuals from.

    Raises:
        UserError: if it is damaged, or tells of other test pictures than there are.
    """
    root = Path(root)
    try:
        scenes = json.loads((root / "scenes.json").read_text())["scenes"]
        scenes = {name: Scene(**fields) for name, fields in scenes.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{root / 'scenes.json'}: damaged; draw the data set again") from None
    there = {path.relative_to(root).as_posix() for path in root.glob("test[AB]/**/*.png")}
    if there != {name for name in scenes if name.startswith("test")}:
        raise UserError(f"{root / 'scenes.json'} does not fit the test pictures beside it; draw the data set again")
    return scenes


def drawn_size(root):
    """The side in pixels that a data set was drawn at; None for one that wasn't drawn."""
    path = Path(root) / "scenes.json"
    return json.loads(path.read_text())["size"] if path.is_file() else None


def main(argv=None):
    """`python -m cyclegan_lib.scenes`: draw water2wine."""
    parser = Parser(prog="python -m cyclegan_lib.scenes", description="Draw the data set water2wine.")
    parser.add_argument("--data_root", type=Path, default=Path("data"), help="the folder of data sets")
    parser.add_argument("--dataset_name", default="water2wine", help="the new folder's name in it")
    parser.add_argument("--num_train", type=int, default=400, help="training pictures of each liquid")
    parser.add_argument("--num_test", type=int, default=100, help="test pictures of each liquid")
    parser.add_argument("--size", type=int, default=64, help="side of a picture in pixels")
    parser.add_argument("--confounding", type=float, default=0.5,
                        help="probability that glass and background follow the liquid")  # fmt: skip
    parser.add_argument("--glass_confounding", type=float, default=None,
                        help="the same for the glass alone (default: as --confounding)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="decides every scene")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder if it is there")
    args = parser.parse_args(argv)
    with parser.one_line_errors():
        parser.check_ranges(args, RANGES)
        root = args.data_root / plain_name("dataset_name", args.dataset_name)
        write_dataset(root, args.num_train, args.num_test, args.size, args.confounding,
                      args.glass_confounding, args.seed, args.overwrite)  # fmt: skip
    print(f"{root}: 2 × {args.num_train} training and 2 × {args.num_test} test pictures, {args.size} pixels")


if __name__ == "__main__":
    main()
