"""A mistake that the user can correct: it is said in one line."""


class UserError(ValueError):
    """Its text, a line for each mistake, names the file, the option or the value, and says what to do."""


def is_out_of_memory(error):
    """Whether an error says that the device, or the machine, has too little memory."""
    signs = ("out of memory", "allocate", "alloc_failed")
    return isinstance(error, RuntimeError | MemoryError) and any(sign in str(error).lower() for sign in signs)


def plain_name(option, name):
    """`name`, if it is the plain name of a folder.

    Raises:
        UserError: if it could be a path, and so lead out of the folder that it belongs in.
    """
    if not name.isprintable() or not name or name.startswith(".") or any(mark in name for mark in "/\\:"):
        raise UserError(f"--{option} {name!r}: give the plain name of a folder, not a path")
    return name
