"""Two folders, or zips, of pictures → a data set."""

import hashlib
import random
import shutil
from pathlib import Path

from cyclegan_lib.datasets import find_pictures, map_pictures
from cyclegan_lib.errors import UserError
from cyclegan_lib.pictures.check import dataset_folder, new_folder, print_report
from cyclegan_lib.pictures.download import unpack
from cyclegan_lib.pictures.reading import read_picture


def from_folders(source_A, source_B, root, test_share=0.1, seed=0):
    """Copy the pictures of two folders, or zips, into the new data set `root`, some of each for testing.

    Names, and folders below a folder, are kept. Of several files with the same bytes one is taken, so
    that no picture is in both training and test.

    Args:
        test_share: of each side's pictures, at least one, that no training will see; chosen by `seed`.

    Raises:
        UserError: for a source that is not there, holds less than two pictures, or any that cannot be
            read; if a picture is in both; or if `root` exists already. Then nothing is made.
    """
    with new_folder(root) as new:
        folders = [_folder_of(Path(source), new.with_name(side)) for side, source in (("A", source_A), ("B", source_B))]
        A, B = (_distinct(*source) for source in zip((source_A, source_B), folders, strict=True))
        both = A.keys() & B.keys()
        if both:
            raise UserError(
                f"{A[min(both)]} is in {source_A} and in {source_B} (as {len(both)} are); a picture is A or B"
            )
        for domain, folder, pictures in zip("AB", folders, (A, B), strict=True):
            paths = [pictures[content] for content in sorted(pictures)]  # so the draw does not depend on names
            random.Random(seed).shuffle(paths)
            num_test = min(max(1, round(test_share * len(paths))), len(paths) - 1)
            for number, path in enumerate(paths):
                target = new / f"{'test' if number < num_test else 'train'}{domain}" / path.relative_to(folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)


def _folder_of(source, target):
    """`source`, if it is a folder; a zip is unpacked into `target`."""
    if source.is_dir():
        return source
    if not source.exists():
        raise UserError(f"{source}: no such folder or zip")
    if source.suffix.lower() != ".zip":
        raise UserError(f"{source}: neither a folder nor a zip; for two single pictures: cyclegan crops A B")
    unpack(source, target, source)
    return target


def _distinct(source, folder):
    """{hash: path} of the pictures of a folder, which must be readable; one of those with the same bytes."""
    paths = find_pictures(folder)
    map_pictures(read_picture, paths, f"reading {source}")
    pictures = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in reversed(paths)}
    if len(pictures) < 2:
        raise UserError(f"{source}: {len(pictures)} pictures; at least one to train on and one to test are needed")
    return pictures


def command(args):
    root = dataset_folder(args.data_root, args.dataset_name)
    from_folders(args.source_A, args.source_B, root, args.test_share, args.seed)
    print_report(root)
