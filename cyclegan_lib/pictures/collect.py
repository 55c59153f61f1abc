"""Two folders, or zips, of pictures → a data set."""

import hashlib
import random
import shutil
from pathlib import Path

from PIL import Image, ImageOps

from cyclegan_lib.datasets import find_pictures, map_pictures
from cyclegan_lib.errors import UserError
from cyclegan_lib.pictures.check import print_report
from cyclegan_lib.pictures.download import unpack
from cyclegan_lib.pictures.reading import counted, is_deep, on_white, open_upright, passed_over
from cyclegan_lib.water2wine.dataset import dataset_folder, new_folder


def from_folders(source_A, source_B, root, test_share=0.1, seed=0, value_range=None, size=0):
    """Copy the pictures of two folders, or zips, into the new data set `root`, `test_share` of each for testing.

    With a `size` they become squares of at most so many pixels a side. Names, and folders below a folder, are kept.
    Of files with the same bytes one is taken, so no picture is in both training and test. With a `value_range`
    (`read_picture`) those of more than 8 bits become PNGs of 8 bits.
    Raises `UserError` for a bad source, an unreadable picture, or one that is in both.
    """
    with new_folder(root) as new:
        pictures, folders, targets = {}, {}, {}
        for domain, source in (("A", Path(source_A)), ("B", Path(source_B))):
            pictures[domain], folders[domain] = _pictures_of(source, new.with_name(domain))
        if both := pictures["A"].keys() & pictures["B"].keys():
            raise UserError(f"{pictures['A'][min(both)]} is in {source_B} too, as {len(both)} are; a picture is A or B")
        for domain, of_domain in pictures.items():
            paths = [of_domain[content] for content in sorted(of_domain)]  # so the draw does not depend on names
            random.Random(seed).shuffle(paths)
            num_test = min(max(1, round(test_share * len(paths))), len(paths) - 1)
            for number, path in enumerate(paths):
                split = f"{'test' if number < num_test else 'train'}{domain}"
                targets[path] = new / split / path.relative_to(folders[domain])
        write = lambda path: _write(path, targets[path], value_range, size)  # noqa: E731
        if cropped := sum(map_pictures(write, list(targets), "reading pictures")):
            print(f"{cropped} of {len(targets)} pictures were not square and are cropped to the square in their middle")


def _write(path, target, value_range, size):
    """Write a picture, decoded once, as `from_folders` says → whether it is cropped."""
    image = open_upright(path, value_range, size or 2**31)
    side = min(size, *image.size)
    with Image.open(path) as header:
        changes = (value_range and is_deep(header)) or (size and header.size != (side, side))
    target.parent.mkdir(parents=True, exist_ok=True)
    if not changes:
        shutil.copyfile(path, target)
        return False
    if target.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        target = target.with_name(f"{target.name}.png")
    square = ImageOps.fit(on_white(image).convert("L" if image.mode == "L" else "RGB"), (side, side)) if size else image
    square.save(target, quality=95)
    return bool(size) and image.width != image.height


def _pictures_of(source, unpacked):
    """({hash: path} of the pictures of a folder or zip, one of those with the same bytes; the folder they are in)."""
    if not source.exists():
        raise UserError(f"{source}: no such folder or zip")
    folder = source if source.is_dir() else unpack(source, unpacked, source)
    pictures = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in reversed(find_pictures(folder))}
    others = f"; {counted(found)}" if (found := passed_over(folder)) else ""
    if len(pictures) < 2:
        needed = "at least one to train on and one to test are needed"
        raise UserError(f"{source}: {len(pictures)} pictures; {needed}{others}")
    print(f"{source}: {len(pictures)} pictures{others}")
    return pictures, folder


def command(args):
    root = dataset_folder(args.data_root, args.dataset_name)
    from_folders(args.source_A, args.source_B, root, args.test_share, args.seed, args.range, args.size)
    print_report(root)
