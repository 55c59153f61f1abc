"""The data sets of the paper, fetched and unpacked."""

import http.client
import shutil
import zipfile
import zlib

import torch

from cyclegan_lib.errors import UserError
from cyclegan_lib.pictures.check import PAPER, check_dataset, summary
from cyclegan_lib.water2wine.dataset import dataset_folder, new_folder

ADDRESS = "http://efrosgans.eecs.berkeley.edu/cyclegan/datasets/{name}.zip"


def download(root, url=None):
    """Fetch a zip, by default of the paper's data set of that name, and unpack it into the new folder `root`."""
    if url is None and root.name not in PAPER:
        raise UserError(f"{root.name}: no data set of the paper; there are {', '.join(PAPER)}, or give a --url")
    url = url or ADDRESS.format(name=root.name)
    with new_folder(root) as new:
        archive, unpacked = new.with_name("archive.zip"), new.with_name("unpacked")
        fetch(url, archive)
        unpack(archive, unpacked, url)
        for folder in (unpacked, *sorted(unpacked.glob("*"))):
            if (folder / "trainA").is_dir() and (folder / "trainB").is_dir():
                folder.rename(new)
                return root
        raise UserError(f"{url}: no folders trainA and trainB in the archive")


def fetch(url, path):
    """Download a file to `path`, with a bar. It may have been cut off unnoticed: check it before it is used."""
    try:
        torch.hub.download_url_to_file(url, path)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise UserError(f"{url}: cannot be downloaded ({str(error) or type(error).__name__})") from None


def unpack(archive, target, url):
    """Unpack a zip, which came from `url`, into the new folder `target`, and return that. Nothing leads out of it."""
    try:
        with zipfile.ZipFile(archive) as contents:
            needed, free = sum(entry.file_size for entry in contents.infolist()), shutil.disk_usage(target.parent).free
            if needed > free:
                raise UserError(f"{url}: {needed:,} bytes are in the archive, and {free:,} are free on the disk")
            contents.extractall(target)  # zipfile never writes more of an entry than it was said to hold
            return target
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise UserError(f"{url}: not a zip, or a damaged, shortened or encrypted one ({error}); try again") from None


def command(args):
    root = download(dataset_folder(args.data_root, args.dataset_name), args.url)
    print(summary(root, check_dataset(root)))
