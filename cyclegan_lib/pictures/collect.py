"""Pictures of your own → a data set: from two folders or zips, or from a Hugging Face data set.

    python -m cyclegan_lib.collect folders photographs/ paintings.zip --dataset_name mine
    python -m cyclegan_lib.collect hugging_face huggan/horse2zebra --dataset_name horse2zebra

For two single pictures there is `python -m cyclegan_lib.datasets crops`.
"""

import contextlib
import hashlib
import io
import os
import random
import shutil
from pathlib import Path

from PIL import Image

from cyclegan_lib.datasets import find_pictures, map_pictures, read_picture
from cyclegan_lib.errors import Parser, UserError
from cyclegan_lib.pictures.check import check_dataset, dataset_folder, describe_separations, separations, summary
from cyclegan_lib.pictures.download import unpack


def from_folders(source_A, source_B, root, test_share=0.1, seed=0):
    """Copy the pictures of two folders, or zips, into the new data set `root`, some of each for testing.

    Names, and folders below a folder, are kept. Of several files with the same bytes one is taken, so
    that no picture is in both training and test.

    Args:
        test_share: of each side's pictures, at least one, that no training will see; chosen by `seed`.

    Raises:
        UserError: for a source that is not there, holds less than two pictures, or any that cannot be
            read; if a picture is in both; or if `root` is there already. Then nothing is made.
    """
    with _new_folder(root) as partial:
        sides = {}
        for domain, source in zip("AB", map(Path, (source_A, source_B)), strict=True):
            folder = _folder_of(source, partial / f"unpacked{domain}")
            sides[domain] = folder, _distinct(source, find_pictures(folder))
        both = sides["A"][1].keys() & sides["B"][1].keys()
        if both:
            named = sides["A"][1][min(both)]
            raise UserError(f"{named} is in {source_A} and in {source_B} ({len(both)} such); a picture is A or B")
        for domain, (folder, pictures) in sides.items():
            _share_out(folder, list(pictures.values()), domain, partial, test_share, seed)
            shutil.rmtree(partial / f"unpacked{domain}", ignore_errors=True)


def from_hugging_face(source, root, columns=None, test_share=0.1, seed=0):
    """Write a Hugging Face data set with two columns of pictures into the new data set `root`.

    Args:
        source: its name there, "huggan/horse2zebra" say, or a local folder that `datasets` can read.
        columns: the names of the two, A first; None: the only two there are.
        test_share: as for `from_folders`; where the data set has a test split, that is taken instead.

    Raises:
        UserError: if the package `datasets` is missing, there is no such data set, or it does not have
            two such columns; and as `from_folders`.
    """
    try:
        import datasets as hugging_face
    except ImportError:
        raise UserError("Hugging Face data sets need a package: pip install datasets") from None
    with _new_folder(root) as partial:
        try:
            found = hugging_face.load_dataset(str(source))
        except Exception as error:  # by what is wrong: DatasetNotFoundError, ConnectionError, ValueError, …
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"{source}: not a data set that can be loaded from Hugging Face ({reason})") from None
        features = next(iter(found.values())).features
        columns = columns or [name for name, kind in features.items() if isinstance(kind, hugging_face.Image)]
        if len(columns) != 2 or not all(isinstance(features.get(c), hugging_face.Image) for c in columns):
            has = ", ".join(f"{name} ({type(kind).__name__})" for name, kind in features.items())
            raise UserError(f"{source}: name the two columns of pictures with --columns; it has {has}")
        test = next((split for split in ("test", "validation") if split in found), None)
        for domain, column in zip("AB", columns, strict=True):
            for split, rows in found.items():
                rows = rows.cast_column(column, hugging_face.Image(decode=False))
                _write_column(rows, column, partial / f"{'test' if split == test else 'train'}{domain}", split)
            if test is None:
                everything = (partial / f"train{domain}").rename(partial / f"all{domain}")
                pictures = list(_distinct(source, find_pictures(everything)).values())
                _share_out(everything, pictures, domain, partial, test_share, seed)
                shutil.rmtree(everything)


@contextlib.contextmanager
def _new_folder(root):
    """A hidden folder beside `root`, which becomes it at the end; on an error it is removed."""
    root = Path(root)
    if root.exists():
        raise UserError(f"{root} is there already; choose another --dataset_name or remove it")
    partial = root.with_name(f".{root.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        os.replace(partial, root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _folder_of(source, target):
    """`source`, if it is a folder; a zip is looked at and unpacked into `target`."""
    if source.is_dir():
        return source
    if not source.exists():
        raise UserError(f"{source}: no such folder or zip")
    if source.suffix.lower() != ".zip":
        raise UserError(
            f"{source}: neither a folder nor a zip; for single pictures: python -m cyclegan_lib.datasets crops"
        )
    unpack(source, target, source)
    return target


def _distinct(source, paths):
    """{hash: path} of pictures that can be read, one of those with the same bytes."""
    map_pictures(read_picture, paths, f"reading {source}")
    pictures = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in reversed(paths)}
    if len(pictures) < 2:
        raise UserError(f"{source}: {len(pictures)} pictures; at least one to train on and one to test are needed")
    return dict(sorted(pictures.items()))


def _share_out(folder, paths, domain, root, test_share, seed):
    """Copy pictures into `root`/train… and test…, by a draw that depends on their bytes and not on their names."""
    random.Random(seed).shuffle(paths)
    num_test = min(max(1, round(test_share * len(paths))), len(paths) - 1)
    for number, path in enumerate(paths):
        target = root / f"{'test' if number < num_test else 'train'}{domain}" / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _write_column(rows, column, folder, split):
    """The pictures of a column as files, byte for byte, with the ending that is right for what they are.

    Rows are pairs, and the shorter pile is often filled up with pictures that were there already: those are left out.
    """
    folder.mkdir(exist_ok=True)
    seen = set()
    for number, row in enumerate(rows.select_columns([column])):
        picture = row[column]
        if picture is None:
            continue
        content = picture["bytes"] or Path(picture["path"]).read_bytes()
        fingerprint = hashlib.sha256(content).digest()
        if fingerprint in seen:
            continue
        seen.add(fingerprint)
        try:
            with Image.open(io.BytesIO(content)) as image:
                ending = image.format.lower()
        except OSError:
            raise UserError(f"row {number} of {split}: its {column} is no picture that Pillow can read") from None
        (folder / f"{split}_{number:06d}.{ending}").write_bytes(content)


def main(argv=None):
    """`python -m cyclegan_lib.collect`: make a data set of pictures of one's own."""
    parser = Parser(prog="python -m cyclegan_lib.collect", description="Make a data set of pictures of your own.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    folders = commands.add_parser("folders", help="from two folders, or zips, of pictures")
    folders.add_argument("source_A", type=Path, help="a folder or zip with the pictures of one kind")
    folders.add_argument("source_B", type=Path, help="and with those of the other kind")
    hub = commands.add_parser("hugging_face", help="from a Hugging Face data set with two columns of pictures")
    hub.add_argument("source", help="its name there: huggan/horse2zebra, say")
    hub.add_argument("--columns", nargs=2, default=None, metavar=("A", "B"), help="which two (default: the only two)")
    for command in (folders, hub):
        command.add_argument("--dataset_name", required=True, help="the new folder's name")
        command.add_argument("--data_root", type=Path, default=Path("data"), help="the folder of data sets")
        command.add_argument("--test_share", type=float, default=0.1, help="of each side, kept for testing")
        command.add_argument("--seed", type=int, default=0, help="decides which are kept for testing")
    args = parser.parse_args(argv)
    with parser.one_line_errors():
        parser.check_ranges(args, {"test_share": (0, 1), "seed": (0, 2**31)})
        root = dataset_folder(args.data_root, args.dataset_name)
        if args.command == "folders":
            from_folders(args.source_A, args.source_B, root, args.test_share, args.seed)
        else:
            from_hugging_face(args.source, root, args.columns, args.test_share, args.seed)
        print(summary(root, check_dataset(root)))
        print(describe_separations(separations(root)))


if __name__ == "__main__":
    main()
