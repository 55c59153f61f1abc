"""Files that are whole or not there at all, whenever the machine stops."""

import errno
import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from cyclegan_lib.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CANNOT_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


@contextmanager
def named(path):
    """Turn a full disk, say, into a `UserError` that names `path`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        full = getattr(error, "errno", None) in FULL or "No space" in str(error)
        what_to_do = "; make room, nothing that was saved before is lost" if full else ""
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be written ({reason}){what_to_do}") from None


def write_whole(path, content):
    """Write text or bytes to `path`. Whoever reads it finds what was there before, or all of the new."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with named(path):
            partial.write_bytes(content.encode() if isinstance(content, str) else content)
            sync(partial)
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def sync(path):
    """Have the system put a file, or a folder's list of names, onto the disk itself: a power cut then spares it.

    Where a file system cannot do that (Google Drive's, or Windows with a folder) nothing is done.
    """
    is_folder = os.path.isdir(path)
    if is_folder and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise
    finally:
        os.close(handle)


def remove(folder):
    """Delete a folder and all that is in it. Under its name it is whole until it is gone."""
    folder = Path(folder)
    removed = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(removed, ignore_errors=True)
    if folder.exists():
        os.rename(folder, removed)
        shutil.rmtree(removed, ignore_errors=True)


def write_tensors(path, tensors, facts):
    """A safetensors file with `facts`, JSON-able, in its header."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    # One metadata entry: the order of several is not fixed, and would change the bytes.
    save_file(tensors, path, metadata={"facts": json.dumps(facts, sort_keys=True)})


def read_tensors(path):
    """(tensors, facts) as `write_tensors` wrote them, on the CPU.

    Raises:
        UserError: naming the file, if it is missing or damaged.
    """
    with _opened(path) as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return tensors, _facts(file)


def read_facts(path):
    """The facts alone, without the tensors. Raises as `read_tensors`."""
    with _opened(path) as file:
        return _facts(file)


@contextmanager
def _opened(path):
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file")
    try:
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, ValueError, OSError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: damaged, or not a safetensors file ({reason})") from None


def _facts(file):
    facts = json.loads((file.metadata() or {}).get("facts", "{}"))
    if not isinstance(facts, dict):
        raise ValueError("its facts are none")
    return facts
