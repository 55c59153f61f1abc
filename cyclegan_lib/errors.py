"""A mistake that the user can correct: it is said in one line."""


class UserError(ValueError):
    """Something that the user can correct. Its text names the file, the option or the value, and says what to do.

    Several mistakes stand on a line each.
    """


def plain_name(option, name):
    """`name`, if it is the plain name of a folder.

    Raises:
        UserError: if it could be a path, and so lead out of the folder that it belongs in.
    """
    if not name.isprintable() or not name or name.startswith(".") or any(mark in name for mark in "/\\:"):
        raise UserError(f"--{option} {name!r}: give the plain name of a folder, not a path")
    return name
