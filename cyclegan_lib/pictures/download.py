"""The data sets of the paper: fetched, checked, and only then unpacked."""

import http.client
import shutil
import socket
import stat
import zipfile
import zlib
from pathlib import PurePosixPath

import torch

from cyclegan_lib.errors import UserError
from cyclegan_lib.pictures.check import PAPER, check_dataset, summary
from cyclegan_lib.water2wine.dataset import dataset_folder, new_folder

ADDRESS = "http://efrosgans.eecs.berkeley.edu/cyclegan/datasets/{name}.zip"
MOST_FILES, MOST_BYTES = 100_000, 20 * 1024**3  # of an archive, unpacked; the paper's are far smaller
STALLED = 60  # seconds without a byte


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
    if not url.startswith(("http://", "https://")):
        raise UserError(f"{url}: cannot be downloaded (it begins with neither http:// nor https://)")
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALLED)
    try:
        torch.hub.download_url_to_file(url, path)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise UserError(f"{url}: cannot be downloaded ({str(error) or type(error).__name__})") from None
    finally:
        socket.setdefaulttimeout(before)


def unpack(archive, target, url):
    """Unpack a zip, which came from `url`, into the new folder `target`, after a look at every entry of it."""
    try:
        with zipfile.ZipFile(archive) as contents:
            entries = contents.infolist()
            for entry in entries:
                if what := forbidden(entry):
                    raise UserError(f"{url}: {entry.filename!r} in the archive {what}; nothing was unpacked")
            total, free = sum(entry.file_size for entry in entries), shutil.disk_usage(target.parent).free
            if len(entries) > MOST_FILES or total > min(MOST_BYTES, free):
                limits = f"at most {MOST_FILES:,} of {MOST_BYTES:,} are unpacked, and {free:,} bytes are free"
                raise UserError(f"{url}: holds {len(entries):,} files of {total:,} bytes; {limits}")
            contents.extractall(target)  # zipfile never writes more of an entry than it was said to hold
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        with open(archive, "rb") as file:
            beginning = file.read(100).lstrip()
        what = "a web page, not a zip" if beginning.startswith(b"<") else "not a zip"
        if beginning.startswith(b"PK"):
            what = f"the archive is damaged or was cut short ({error}); try again"
        raise UserError(f"{url}: {what}") from None


def forbidden(entry):
    """Why an entry of a zip may not be unpacked; None if it may."""
    path = PurePosixPath(entry.filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in entry.filename:
        return "leads out of the folder"
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link" if kind == stat.S_IFLNK else "is neither a file nor a folder"
    return "is encrypted" if entry.flag_bits & 1 else None


def command(args):
    root = download(dataset_folder(args.data_root, args.dataset_name), args.url)
    print(summary(root, check_dataset(root)))
