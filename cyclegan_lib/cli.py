"""The command `cyclegan`: every command by name, and a mistake in one line with exit code 2.

Options stand here and what the commands do stands in the rooms: so `--help` needs no torch.
"""

import argparse
import dataclasses
import importlib
import os
from contextlib import contextmanager
from pathlib import Path

from cyclegan_lib.config import DEVICES, PRECISIONS, TrainConfig
from cyclegan_lib.errors import UserError

GONE = {
    "--compile": "it gained 8 % at 64 pixels and nothing above; train without it",
    "--no_init": "pass TrainConfig(no_init=True) to the Trainer in Python",
    "--discriminator_instance": "pass TrainConfig(discriminator_instance=True) to the Trainer in Python",
    "--lambda_adversarial": "pass TrainConfig(lambda_adversarial=…) to the Trainer in Python",
}


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that shows defaults in its help and leaves the usage out of errors."""

    def __init__(self, *args, **kwargs):
        formatter = argparse.ArgumentDefaultsHelpFormatter
        super().__init__(*args, formatter_class=formatter, allow_abbrev=False, **kwargs)

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


def data_root(parser):
    parser.add_argument("--data_root", type=Path, default=Path("data"), help="the folder of data sets")


def new_dataset(parser, default):
    name = dict(default=default, help="the new folder's name") if default else dict(required=True, help="its name")
    parser.add_argument("--dataset_name", **name)
    data_root(parser)


def seed(parser, what):
    parser.add_argument("--seed", type=within(int, 0, 2**31), default=0, help=f"decides {what}")


def device(parser, default="auto"):
    parser.add_argument("--device", choices=DEVICES, default=default, help="where to compute")


def direction(parser):
    parser.add_argument("--direction", choices=("AtoB", "BtoA"), default="AtoB", help="a single file has but one")


def train(parser):
    for option in dataclasses.fields(TrainConfig):
        if option.metadata.get("command_line", True):
            names = ("help", "choices", "type")
            arguments = {key: option.metadata[key] for key in names if key in option.metadata}
            if option.default is False:
                arguments["action"] = "store_true"
            else:
                arguments.setdefault("type", type(option.default))
            parser.add_argument(f"--{option.name}", default=option.default, **arguments)
    for name, instead in GONE.items():
        parser.add_argument(name, nargs="?", action=Gone, instead=instead, help=argparse.SUPPRESS)


class Gone(argparse.Action):
    """An option that is no more: an error that says what to do instead."""

    def __init__(self, *args, instead, **kwargs):
        super().__init__(*args, default=argparse.SUPPRESS, **kwargs)
        self.instead = instead

    def __call__(self, parser, namespace, values, option_string=None):
        parser.error(f"{option_string} is gone: {self.instead}")


def translate(parser):
    parser.add_argument("pictures", nargs="+", type=Path, help="pictures, or folders of pictures")
    parser.add_argument(
        "--checkpoint", required=True, help="saved_models/<run_name>, a checkpoint of it, a generator's file, or the "
        "name of official weights: horse2zebra, say",
    )  # fmt: skip
    direction(parser)
    parser.add_argument("--output", type=Path, required=True, help="the folder for the results; names are kept")
    parser.add_argument("--side_by_side", action="store_true", help="the original and its translation in one picture")
    parser.add_argument("--cycle", action="store_true", help="the original, its translation, and that translated back")
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there already")
    parser.add_argument("--batch_size", type=within(int, 1, 10**4), default=8, help="pictures of one size together")
    parser.add_argument("--memory", type=within(float, 1, 10**4), default=4.0, help="GB that a large picture may take")
    device(parser)


def check(parser):
    parser.add_argument("folder", type=Path, help="data/mine, say")


def collect(parser):
    parser.add_argument("source_A", type=Path, help="a folder or zip with the pictures of one kind")
    parser.add_argument("source_B", type=Path, help="and with those of the other kind")
    new_dataset(parser, None)
    share = within(float, 0, 1)
    parser.add_argument("--test_share", type=share, default=0.1, help="of each side, kept for testing")
    seed(parser, "which are kept for testing")


def crops(parser):
    parser.add_argument("picture_A", type=Path, help="a photograph, say")
    parser.add_argument("picture_B", type=Path, help="a painting, say")
    new_dataset(parser, "mine")
    numbers(parser, "crops of each picture")
    parser.add_argument("--size", type=within(int, 8, 4096), default=128, help="side of a crop in pixels")
    seed(parser, "every crop")


def numbers(parser, what):
    parser.add_argument("--num_train", type=within(int, 1, 10**6), default=400, help=f"training {what}")
    parser.add_argument("--num_test", type=within(int, 1, 10**6), default=100, help=f"test {what}")


def download(parser):
    parser.add_argument("dataset_name", help="horse2zebra or another data set of the paper; or any name, with a --url")
    parser.add_argument("--url", default=None, help="the address of a zip with trainA, trainB, testA and testB in it")
    data_root(parser)


def scenes(parser):
    new_dataset(parser, "water2wine")
    numbers(parser, "pictures of each liquid")
    parser.add_argument("--size", type=within(int, 8, 4096), default=64, help="side of a picture in pixels")
    share = within(float, 0, 1)
    parser.add_argument(
        "--confounding", type=share, default=0.5, help="probability that glass and background follow the liquid"
    )
    parser.add_argument("--glass_confounding", type=share, default=None, help="of the glass (default: the same)")
    seed(parser, "every scene")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder if it is there")


def floor(parser):
    parser.add_argument("folder", type=Path, help="a data set with trainA and trainB, or any folder of pictures")
    parser.add_argument("--size", type=within(int, 1, 4096), default=64, help="pictures are resized to this side")
    parser.add_argument("--limit", type=within(int, 1, 10**6), default=200, help="pictures of a side, at most")


def ablation(parser):
    parser.add_argument("--experiments", nargs="+", default=None, help="which of them (default: those of notebook 05)")
    parser.add_argument("--arms", nargs="+", default=None, help="only these arms (default: all)")
    parser.add_argument("--seeds", type=within(int, 1, 100), default=None, help="seeds an arm (default: its own)")
    parser.add_argument("--steps", type=within(int, 1, 10**7), default=500, help="training steps of a run")
    parser.add_argument("--size", type=within(int, 24, 4096, 4), default=64, help="side of the pictures in pixels")
    parser.add_argument("--batch_size", type=within(int, 1, 10**4), default=4, help="pictures of each side in a step")
    parser.add_argument("--dataset_name", default="water2wine", help="other data get the two main arms alone")
    data_root(parser)
    parser.add_argument("--output", type=Path, default=None, help="the folder of the tables (default: by experiment)")
    parser.add_argument("--work", type=Path, default=None, help="where runs are kept (default: runs/<output>)")
    device(parser, "cpu")
    parser.add_argument("--precision", default="fp32", choices=PRECISIONS, help="fp32, which every machine has")
    jobs = within(int, 1, 256)
    parser.add_argument("--jobs", type=jobs, default=os.cpu_count(), help="runs side by side, on CPUs a thread each")


def judge(parser):
    parser.add_argument("checkpoint", help="saved_models/<run_name>, a checkpoint of it, a file, or official weights")
    direction(parser)
    parser.add_argument("--dataset", type=Path, default=None, help="the data set's folder (default: the run's own)")
    parser.add_argument(
        "--size", type=within(int, 8, 4096, 4), default=None, help="pixels a side (default: those of the training)"
    )
    data_root(parser)
    parser.add_argument("--limit", type=within(int, 2, 10**6), default=500, help="pictures at most of each pile")
    parser.add_argument("--kid", action="store_true", help="KID and FID too (needs torchmetrics; downloads 90 MB once)")
    parser.add_argument("--nearest", type=Path, default=None, help="a .png of fakes and the training pictures nearest")
    device(parser)


def export(parser):
    parser.add_argument("source", help="saved_models/<run_name>, a checkpoint, a file, or a name of official weights")
    parser.add_argument("--to", choices=("official", "onnx"), required=True, help="the format")
    parser.add_argument("--output", type=Path, default=Path("exported"), help="the folder that they are written to")


def page(parser):
    parser.add_argument(
        "--ablation", type=Path, default=Path("data/ablation"),
        help="the experiment's folder; training.gif is written there, too",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, default=Path("data/explorer.html"), help="the page to write")


# {command: (its options, the module whose `command(args)` does it, what it is)}
COMMANDS = {
    "train": (train, "train", "train a CycleGAN"),
    "translate": (translate, "pictures.translate", "translate pictures of any size"),
    "check": (check, "pictures.check", "read every picture of a data set, and warn of what tells A from B"),
    "collect": (collect, "pictures.collect", "make a data set of two folders, or zips, of pictures"),
    "crops": (crops, "pictures.crops", "cut two large pictures into a data set"),
    "download": (download, "pictures.download", "fetch a data set of the paper"),
    "scenes": (scenes, "water2wine.dataset", "draw the data set water2wine"),
    "floor": (floor, "study.floor", "what no generator with an InstanceNorm at its output can do"),
    "ablation": (ablation, "study.ablation", "the experiment: with a norm at the output, and without"),
    "judge": (judge, "show.judge", "judge translations of photographs, which have no right answer"),
    "export": (export, "pictures.weights", "write networks for the official code or ONNX"),
    "page": (page, "show.page", "write the explorer as one HTML page"),
}


def parse(argv=None):
    """Command line → (the command's name, its arguments, its parser)."""
    parser = Parser(prog="cyclegan", description="CycleGAN to learn from. COMMAND --help lists a command's options.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    parsers = {}
    for name, (add_options, _, what) in COMMANDS.items():
        parsers[name] = commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
        add_options(parsers[name])
    args = parser.parse_args(argv)
    name = vars(args).pop("command")
    return name, args, parsers[name]


def parse_config(argv):
    """The options of `cyclegan train` → `TrainConfig`."""
    return TrainConfig(**vars(parse(["train", *argv])[1]))


def main(argv=None):
    """The command. A room's `command(args)` returns its exit code, or None."""
    name, args, parser = parse(argv)
    with parser.one_line_errors():
        code = importlib.import_module(f"cyclegan_lib.{COMMANDS[name][1]}").command(args)
    if code:
        raise SystemExit(code)
