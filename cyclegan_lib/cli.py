"""The command `cyclegan`: every command by name, and a mistake in one line with exit code 2.

Options stand here and what the commands do stands in the rooms: so `--help` needs no torch.
"""

import argparse
import dataclasses
import functools
import importlib
import os
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from cyclegan_lib.config import DEVICES, PRECISIONS, TrainConfig
from cyclegan_lib.errors import UserError, is_out_of_memory

ONLY_IN_PYTHON = [o.name for o in dataclasses.fields(TrainConfig) if not o.metadata.get("command_line", True)]
GONE = {f"--{name}": f"pass TrainConfig({name}=…) to the Trainer in Python" for name in ONLY_IN_PYTHON}
GONE["--compile"] = "it gained 8 % at 64 pixels and nothing above; train without it"


class Output:
    """A text stream that ends no command: it writes what its encoding lacks as \\x…, and where its reader has gone
    (`| head`, a closed terminal) it writes nowhere.
    """

    def __init__(self, stream):
        self.stream = stream

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def write(self, text):
        encoding = self.stream.encoding or "utf-8"
        self._attempt(self.stream.write, text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self):
        self._attempt(self.stream.flush)

    def _attempt(self, function, *arguments):
        try:
            function(*arguments)
        except OSError:
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), self.stream.fileno())


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that shows defaults in its help and leaves the usage out of errors."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False, **kwargs)

    def error(self, message):
        self.exit(2, "".join(f"error: {line}\n" for line in message.splitlines()))

    @contextmanager
    def one_line_errors(self):
        """Turn a `UserError`, or a file that cannot be read or written, into that one line."""
        try:
            yield
        except UserError as error:
            self.error(str(error))
        except OSError as error:
            self.error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self.error("out of memory; lower --batch_size or --size, or give --device cpu")
        except KeyboardInterrupt:
            self.exit(130, "stopped\n")


def within(kind, least, most, multiple_of=None):
    """An argument type: a number of a `kind`, from `least` to `most`."""

    def convert(text):
        value = kind(text)
        if not least <= value <= most or (multiple_of and value % multiple_of):
            multiple = f"a multiple of {multiple_of} from " if multiple_of else ""
            raise argparse.ArgumentTypeError(f"must be {multiple}{least:g} to {most:g}, not {text}")
        return value

    convert.__name__ = kind.__name__  # argparse names it, where the text is no number
    return convert


def path(text):
    """A path, "~" being the home folder also where no shell expands it: after a "=", or in a notebook."""
    return Path(text).expanduser()


argument = dict  # what `add_argument` takes, by its names
whole, real = functools.partial(within, int), functools.partial(within, float)
size = functools.partial(argument, help="pixels of a picture's side")
CHECKPOINT = argument(help="saved_models/<run_name>, a checkpoint, a generator's file, or official weights by name")
NEW = argument(default="mine", help="the new folder's name")
DATA_ROOT = argument(type=path, default=Path("data"), help="the folder of data sets")
SEED = argument(type=whole(0, 2**31), default=0, help="decides everything that is random")
DEVICE = argument(choices=DEVICES, default="auto", help="where to compute")
DIRECTION = argument(choices=("AtoB", "BtoA"), default="AtoB", help="a single generator has but one")
TRAIN = argument(type=whole(1, 10**6), default=400, help="training pictures of each side")
TEST = argument(type=whole(1, 10**6), default=100, help="test pictures of each side")
RANGE = argument(nargs=2, type=float, metavar=("BLACK", "WHITE"), help="of pictures with more than 8 bits")
OVERWRITE = argument(action="store_true", help="replace what is there already")
SHARE = real(0, 1)


def train_options():
    """What `add_argument` takes for each option of `TrainConfig`."""
    options = {}
    for option in dataclasses.fields(TrainConfig):
        facts, kind = option.metadata, option.metadata.get("type", type(option.default))
        how = dict(type=path if kind is Path else kind, choices=facts.get("choices"))
        how = dict(action="store_true") if kind is bool else how
        options[f"--{option.name}"] = argument(default=option.default, help=facts["help"], **how)
    return {name: how for name, how in options.items() if name not in GONE}


# {command: (the module whose `command(args)` does it, what it does, its options)}
COMMANDS = {
    "train": ("train", "train a CycleGAN", train_options()),
    "translate": ("pictures.translate", "translate pictures of any size", {
        "pictures": argument(nargs="+", type=path, help="pictures, or folders of pictures"),
        "--checkpoint": CHECKPOINT | {"required": True}, "--direction": DIRECTION,
        "--output": argument(type=path, required=True, help="the folder for the results; names are kept"),
        "--side_by_side": argument(action="store_true", help="the original and its translation in one picture"),
        "--cycle": argument(action="store_true", help="the original, its translation, and that translated back"),
        "--overwrite": OVERWRITE, "--range": RANGE,
        "--memory": argument(type=real(1, 10**4), default=4.0, help="GB that a large picture may take"),
        "--device": DEVICE,
    }),
    "check": ("pictures.check", "read every picture of a data set, and warn of what tells A from B", {
        "folder": argument(type=path, help="data/mine, say"),
    }),
    "collect": ("pictures.collect", "make a data set of two folders, or zips, of pictures", {
        "source_A": argument(type=path, help="a folder or zip with the pictures of one kind"),
        "source_B": argument(type=path, help="and with those of the other kind"),
        "--dataset_name": argument(required=True, help="the new folder's name"),
        "--data_root": DATA_ROOT, "--seed": SEED, "--range": RANGE,
        "--size": argument(type=whole(0, 4096), default=512, help="pixels a side of the squares; 0: copy the files"),
        "--test_share": argument(type=SHARE, default=0.1, help="of each side, kept for testing"),
    }),
    "crops": ("pictures.crops", "cut two large pictures into a data set", {
        "picture_A": argument(type=path, help="a photograph, say"),
        "picture_B": argument(type=path, help="a painting, say"),
        "--size": size(type=whole(8, 4096), default=128), "--num_train": TRAIN, "--num_test": TEST,
        "--dataset_name": NEW, "--data_root": DATA_ROOT, "--seed": SEED,
    }),
    "download": ("pictures.download", "fetch a data set of the paper", {
        "dataset_name": argument(help="horse2zebra or another data set of the paper; or any name, with a --url"),
        "--url": argument(help="the address of a zip with trainA, trainB, testA and testB in it"),
        "--data_root": DATA_ROOT,
    }),
    "scenes": ("water2wine.dataset", "draw the data set water2wine", {
        "--size": size(type=whole(8, 4096), default=64), "--num_train": TRAIN, "--num_test": TEST,
        "--confounding": argument(type=SHARE, default=0.5, help="probability that glass and wall follow the liquid"),
        "--glass_confounding": argument(type=SHARE, help="the same for the glass alone (default: as --confounding)"),
        "--lemon": argument(nargs=2, type=SHARE, default=(0.0, 0.0), metavar=("WATER", "WINE"),
                            help="probabilities of a slice of lemon on the rim"),
        "--hide": argument(choices=("wall", "table"), default="", help="any colour with water, always grey with wine"),
        "--dataset_name": NEW | {"default": "water2wine"}, "--data_root": DATA_ROOT, "--seed": SEED,
        "--overwrite": OVERWRITE,
    }),
    "openmoji": ("pictures.openmoji", "draw a data set of line drawings and coloured ones", {
        "--size": size(type=whole(8, 512), default=64), "--dataset_name": NEW | {"default": "openmoji"},
        "--data_root": DATA_ROOT, "--seed": SEED,
    }),
    "floor": ("study.floor", "what no generator with an InstanceNorm at its output can do", {
        "folder": argument(type=path, help="a data set with trainA and trainB, or any folder of pictures"),
        "--size": size(type=whole(1, 4096), default=64),
        "--limit": argument(type=whole(1, 10**6), default=200, help="pictures of a side, at most"),
    }),
    "ablation": ("study.ablation", "the experiment: with a norm at the output, and without", {
        "--experiments": argument(nargs="+", help="which of them (default: those of notebook 05)"),
        "--arms": argument(nargs="+", help="only these arms (default: all)"),
        "--seeds": argument(type=whole(1, 100), help="seeds an arm (default: the experiment's)"),
        "--steps": argument(type=whole(1, 10**7), default=500, help="training steps of a run"),
        "--size": size(type=whole(24, 4096, 4), default=64),
        "--batch_size": argument(type=whole(1, 10**4), default=4, help="pictures of each side in a step"),
        "--dataset_name": argument(default="water2wine", help="other data get the two main arms alone"),
        "--data_root": DATA_ROOT,
        "--output": argument(type=path, help="the folder of the tables (default: by experiment)"),
        "--work": argument(type=path, help="where runs are kept (default: runs/<output>)"),
        "--device": DEVICE | {"default": "cpu"},
        "--precision": argument(default="fp32", choices=PRECISIONS, help="fp32, which every machine has"),
        "--jobs": argument(type=whole(1, 256), default=os.cpu_count(), help="runs side by side, a CPU thread each"),
    }),
    "judge": ("show.judge", "judge translations of photographs, which have no right answer", {
        "checkpoint": CHECKPOINT, "--direction": DIRECTION,
        "--dataset": argument(type=path, help="the data set's folder (default: the run's own)"),
        "--size": size(type=whole(8, 4096, 4)), "--data_root": DATA_ROOT,
        "--limit": argument(type=whole(2, 10**6), default=500, help="pictures of a side, at most"),
        "--kid": argument(action="store_true", help="KID and FID too (needs torchmetrics; downloads 90 MB once)"),
        "--nearest": argument(type=path, help="a .png of fakes and the training pictures nearest to them"),
        "--device": DEVICE,
    }),
    "export": ("pictures.weights", "write networks for the official code or ONNX", {
        "source": CHECKPOINT,
        "--to": argument(choices=("official", "onnx"), required=True, help="the format"),
        "--output": argument(type=path, default=Path("exported"), help="the folder that they are written to"),
    }),
    "page": ("show.page", "write one HTML page that runs networks: the experiment's, or those of a run of your own", {
        "run": argument(nargs="?", help="saved_models/<run_name> (default: the experiment)"),
        "--output": argument(type=path, help="the page to write (default: data/explorer.html, or <run_name>.html)"),
        "--data_root": DATA_ROOT, "--ablation": argument(type=path, help="its folder (default: <data_root>/ablation)"),
    }),
}  # fmt: skip


def parse(argv=None):
    """Command line → (the command's name, its arguments, its parser)."""
    parser = Parser(prog="cyclegan", description="CycleGAN to learn from. COMMAND --help lists a command's options.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for name, (_, what, options) in COMMANDS.items():
        added = commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
        for option, arguments in options.items():
            added.add_argument(option, **arguments)
    argv = sys.argv[1:] if argv is None else argv
    for option in GONE.keys() & set(argv):
        parser.error(f"{option} is gone: {GONE[option]}")
    args = parser.parse_args(argv)
    name = vars(args).pop("command")
    return name, args, commands.choices[name]


def parse_config(argv):
    """The options of `cyclegan train` → `TrainConfig`."""
    return TrainConfig(**vars(parse(["train", *argv])[1]))


def main(argv=None):
    """The command. A room's `command(args)` returns its exit code, or None."""
    name, args, parser = parse(argv)
    with redirect_stdout(Output(sys.stdout)) as out, redirect_stderr(Output(sys.stderr)):
        with parser.one_line_errors():
            code = importlib.import_module(f"cyclegan_lib.{COMMANDS[name][0]}").command(args)
        out.flush()
    if code:
        raise SystemExit(code)
