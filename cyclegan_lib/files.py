"""Files that are whole or not there at all, whenever the machine stops."""

import errno
import hashlib
import json
import os
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from cyclegan_lib.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CANNOT_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


@contextmanager
def write_errors(path):
    """Turn a full disk, say, into a `UserError` that names `path`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        full = getattr(error, "errno", None) in FULL or "No space" in str(error)
        what_to_do = "; make room, nothing that was saved before is lost" if full else ""
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be written ({reason}){what_to_do}") from None


@contextmanager
def atomic(path):
    """A hidden path to write; at the end it is synced and renamed to `path`: readers see the old content or the new."""
    path = Path(path)
    name = path.name if len(path.name) < 60 else hashlib.sha256(os.fsencode(path.name)).hexdigest()[:40]
    partial = path.with_name(f".{name}.partial")  # never too long where `path` is not
    try:
        with write_errors(path):
            yield partial
            sync(partial)
            os.replace(partial, path)
            sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_atomic(path, content):
    """Write text or bytes, atomically."""
    with atomic(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def sync(path):
    """Have the system write a file, or a folder's list of names, to the disk: a power cut then spares it.

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


def write_tensors(path, tensors, facts):
    """A safetensors file with `facts`, a JSON-able dict, in its header; atomically."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    with atomic(path) as partial:
        # One metadata entry: the order of several is not fixed, and would change the bytes.
        save_file(tensors, partial, metadata={"facts": json.dumps(facts, sort_keys=True)})


def read_header(path):
    """The facts of a safetensors file; no tensor is read. Raises as `read_tensors`."""
    return read_tensors(path, "no tensor begins like this")[1]


def read_tensors(path, prefix=""):
    """(the tensors whose key begins with `prefix`, which is removed; the facts), on the CPU.

    The tensors are copies: nothing keeps the file open.

    Raises:
        UserError: naming the file, if it is missing or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with safe_open(path, "pt") as file:
            keys = [key for key in file.keys() if key.startswith(prefix)]  # noqa: SIM118
            facts = json.loads((file.metadata() or {}).get("facts", "{}"))
            if not isinstance(facts, dict):
                raise ValueError("its facts are none")
            return {key.removeprefix(prefix): file.get_tensor(key).clone() for key in keys}, facts
    except (SafetensorError, ValueError, OSError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: damaged, or not a safetensors file ({reason})") from None
