"""What every command here does with a mistake: one line that says what to do, exit code 2."""

import argparse
from contextlib import contextmanager


class UserError(ValueError):
    """Something that the user can mend; its text names the culprit and says how.

    Several culprits stand on a line each.
    """


def plain_name(option, name):
    """`name`, if it can only be a folder's name.

    Raises:
        UserError: if it could be a path, and so lead out of the folder that it belongs in.
    """
    if not name.isprintable() or not name or name.startswith(".") or any(mark in name for mark in "/\\:"):
        raise UserError(f"--{option} {name!r}: give the plain name of a folder, not a path")
    return name


def out_of_range(options, ranges):
    """A line for each option that is not within its range, {name: (least, most)}."""
    return [
        f"--{name} must be {least} to {most}, not {getattr(options, name)}"
        for name, (least, most) in ranges.items()
        if not least <= getattr(options, name) <= most
    ]


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that shows defaults in its help and leaves the usage out of errors."""

    def __init__(self, *args, **kwargs):
        formatter = argparse.ArgumentDefaultsHelpFormatter
        super().__init__(*args, formatter_class=formatter, allow_abbrev=False, **kwargs)

    def error(self, message):
        self.exit(2, "".join(f"error: {line}\n" for line in message.splitlines()))

    def check_ranges(self, options, ranges):
        """End with a line for each option that is not within its range."""
        wrong = out_of_range(options, ranges)
        if wrong:
            self.error("\n".join(wrong))

    @contextmanager
    def one_line_errors(self):
        """Turn a `UserError`, or a file that cannot be read or written, into that one line."""
        try:
            yield
        except UserError as error:
            self.error(str(error))
        except OSError as error:
            self.error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        except KeyboardInterrupt:
            self.exit(130, "stopped\n")
