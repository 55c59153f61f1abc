"""Weights in and out: generators of runs, official ones by name, and networks for use elsewhere."""

import importlib.util
import os
import sys
import tempfile
import warnings
from pathlib import Path

import torch

from cyclegan_lib.errors import Parser, UserError
from cyclegan_lib.files import read_tensors
from cyclegan_lib.models import OUTPUT_NORMS, Discriminator, Generator
from cyclegan_lib.pictures.download import fetch
from cyclegan_lib.runs.checkpoint import check_shapes, fit
from cyclegan_lib.runs.folder import is_count, newest_whole

OFFICIAL = "http://efrosgans.eecs.berkeley.edu/cyclegan/pretrained_models/{name}.pth"
OFFICIAL_NAMES = (
    "apple2orange", "orange2apple", "summer2winter_yosemite", "winter2summer_yosemite", "horse2zebra", "zebra2horse",
    "monet2photo", "style_monet", "style_cezanne", "style_ukiyoe", "style_vangogh", "sat2map", "map2sat",
    "cityscapes_photo2label", "cityscapes_label2photo", "facades_photo2label", "facades_label2photo",
    "iphone2dslr_flower",
)  # fmt: skip
# Statistics that instance norms once kept and never used: in some official files.
UNUSED = ("running_mean", "running_var", "num_batches_tracked")
# The official code counts domains differently: its G_A makes B of A, and its D_A judges what G_A made.
OFFICIAL_FILES = {"G_AB": "latest_net_G_A", "G_BA": "latest_net_G_B", "D_A": "latest_net_D_B", "D_B": "latest_net_D_A"}
EXPORTED_SIZES = ((64, 64), (128, 256), (100, 60))  # at which an export has to agree with PyTorch
LARGEST = 4096  # channels, width and depth of a network that is taken for one
AGREEMENT = 1e-4  # of pictures in [-1, 1]


def load_generator(path_or_name):
    """A generator, ready to translate, on the CPU.

    Args:
        path_or_name: one of our files, `…/epoch_20/G_AB.safetensors`; a `.pth` of the official code,
            trained with instance norm and without dropout; or a name in `OFFICIAL_NAMES`, whose
            weights are downloaded once and kept beside those of `torch.hub`.

    Raises:
        UserError: naming the file, if it is missing, damaged, holds more than tensors, or is of
            another architecture; then the first key that differs is named.
    """
    path = Path(path_or_name)
    if not path.exists() and str(path_or_name) in OFFICIAL_NAMES:
        path = official_file(str(path_or_name))
    tensors, facts = read_weights(path)
    return build(path, tensors, Generator, architecture(path, facts) or architecture_of_tensors(path, tensors))


def load_generators(path_or_name, direction="AtoB"):
    """(the generator of a direction, the one that goes back) of a run or of one checkpoint of it.

    Args:
        path_or_name: `saved_models/<run_name>`, whose newest epoch is taken; `…/epoch_20`; or what
            `load_generator` takes, which has one direction only: None goes back.
    """
    path = Path(path_or_name)
    if not path.is_dir():
        return load_generator(path_or_name), None
    folder = newest(path)
    there, back = ("G_AB", "G_BA") if direction == "AtoB" else ("G_BA", "G_AB")
    way_back = folder / f"{back}.safetensors"
    return (
        load_generator(folder / f"{there}.safetensors"),
        load_generator(way_back) if way_back.exists() else None,
    )


def newest(folder):
    """A checkpoint's folder: `folder` itself, or the newest whole checkpoint of a run."""
    if any(folder.glob("G_*.safetensors")):
        return folder
    found, damaged = newest_whole(folder)
    for reason in damaged.values():
        print(f"warning: {reason}; passed over", file=sys.stderr)
    if not found:
        raise UserError(f"{folder}: no checkpoint in it; give saved_models/<run_name>, an epoch of it, or a file")
    return found.folder


def official_file(name, url=None):
    """The file of official weights by their name: downloaded once, and kept only if it can be read."""
    kept = Path(torch.hub.get_dir()) / "checkpoints" / f"cyclegan_{name}.pth"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            address = url or OFFICIAL.format(name=name)
            partial = fetch(address, Path(folder), "weights.pth")
            try:
                read_weights(partial)
            except UserError:
                raise UserError(f"{address}: sent no weights, or only a part of them; try again") from None
            os.replace(partial, kept)
    return kept


def read_weights(path):
    """(tensors, facts) of one network's file: safetensors, or a `.pth` or `.pt` that holds nothing but tensors."""
    if Path(path).suffix == ".safetensors":
        return read_tensors(path)
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; nor is it official weights: {', '.join(OFFICIAL_NAMES)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # by what is wrong with it: UnpicklingError, RuntimeError, EOFError, KeyError, …
        raise UserError(f"{path}: damaged, or holds more than tensors; nothing else is read, for safety") from None
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise UserError(f"{path}: not the weights of one network by their names, as torch.save(G.state_dict()) writes")
    tensors = {str(key).removeprefix("module."): value for key, value in found.items()}
    return {key: value for key, value in tensors.items() if key.split(".")[-1] not in UNUSED}, {}


def architecture(path, facts):
    """The generator's arguments that a training run here saved; None if there are none."""
    names = ("channels", "base_channels", "num_residual", "output_norm")
    if any(name not in facts for name in names):
        return None
    for name in names[:-1]:
        if not is_count(facts[name]) or facts[name] > LARGEST:
            raise UserError(f"{path}: damaged, {name} is no number from 1 to {LARGEST}")
    if facts["output_norm"] not in OUTPUT_NORMS:
        raise UserError(f"{path}: another architecture: output_norm is none of {', '.join(OUTPUT_NORMS)}")
    return {name: facts[name] for name in names}


def architecture_of_tensors(path, tensors):
    """The generator's arguments that the shapes in the official layout tell."""
    first = tensors.get("model.1.weight")
    if first is None or first.ndim != 4:
        has = f"begins with {next(iter(tensors))}" if tensors else "is empty"
        raise UserError(f"{path}: another architecture: it has no convolution model.1.weight ({has})")
    blocks = {key.split(".")[1] for key in tensors if ".conv_block." in key}
    return {"channels": first.shape[1], "base_channels": first.shape[0], "num_residual": len(blocks) or 9}


def build(path, tensors, kind, arguments):
    """A network of `kind`, ready for use, with the `tensors` that were read from `path`."""
    with torch.device("meta"):  # no memory yet: a damaged file may ask for any size
        network = kind(**arguments)
    check_shapes(path, tensors, network)
    fit(path, tensors, network.to_empty(device="cpu"))
    return network.eval()


def export(source, to, folder):
    """Write the networks of a run, a checkpoint or one file for use elsewhere.

    Args:
        source: as `load_generators` takes it.
        to: "official": `.pth` files under the official code's names, discriminators too;
            "onnx" or "pt2" (`torch.export`): generators that take (N, channels, H, W) in [-1, 1],
            H and W multiples of 4 from 8 to 8192. These are compared with PyTorch once they are written.
        folder: where to.

    Returns:
        the paths that were written.

    Raises:
        UserError: as `load_generator`; if a file is there already, a package is missing, or a
            network that was written gives other pictures.
    """
    write = WRITERS[to]
    if to == "onnx":
        missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if not importlib.util.find_spec(name)]
        if missing:
            raise UserError(f"--to onnx needs packages: pip install {' '.join(missing)}")
    networks = read_networks(source, with_discriminators=to == "official")
    paths = {name: Path(folder) / write.file_name(name) for name in networks}
    for path in paths.values():
        if path.exists():
            raise UserError(f"{path} is there already; remove it or choose another --output")
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, network in networks.items():
        with tempfile.TemporaryDirectory(dir=folder) as partial:
            path = Path(partial) / paths[name].name
            write(network, path)
            os.replace(path, paths[name])
    return list(paths.values())


def read_networks(source, with_discriminators=False):
    """{name: network} of a run, a checkpoint or one file."""
    path = Path(source)
    if not path.is_dir():
        return {path.stem: load_generator(source)}
    folder = newest(path)
    networks = {}
    for file in sorted(folder.glob("G_*.safetensors")):
        networks[file.stem] = load_generator(file)
    for file in sorted(folder.glob("D_*.safetensors")) if with_discriminators else ():
        tensors, facts = read_tensors(file)
        arguments = architecture(file, facts) or {"channels": 3, "base_channels": 64}
        sizes = {name: arguments[name] for name in ("channels", "base_channels")}
        instance = bool(facts.get("discriminator_instance", False))
        networks[file.stem] = build(file, tensors, Discriminator, {**sizes, "first_norm": instance})
    return networks


def write_official(network, path):
    """A state dict with the official keys, which are ours; read again, and compared bit by bit."""
    torch.save(network.state_dict(), path)
    tensors, _ = read_weights(path)
    if any(not torch.equal(tensors[key], value) for key, value in network.state_dict().items()):
        raise UserError(f"{path.name}: what was written is not what was read")


def write_onnx(network, path):
    """ONNX for any number of pictures of any size, compared with PyTorch by onnxruntime."""
    import onnxruntime

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (example(network),), path, dynamo=True, dynamic_shapes=any_size(), verbose=False,
            input_names=["real"], output_names=["fake"], external_data=False,
        )  # fmt: skip
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    compare(path, network, lambda real: torch.from_numpy(session.run(None, {"real": real.numpy()})[0]))


def write_pt2(network, path):
    """`torch.export` for any number of pictures of any size, compared with the network."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(network, (example(network),), dynamic_shapes=any_size()), path)
        compare(path, network, torch.export.load(path).module())


write_official.file_name = lambda name: f"{OFFICIAL_FILES.get(name, name)}.pth"
write_onnx.file_name = lambda name: f"{name}.onnx"
write_pt2.file_name = lambda name: f"{name}.pt2"
WRITERS = {"official": write_official, "onnx": write_onnx, "pt2": write_pt2}


def example(G):
    """Two pictures to trace a generator with."""
    return torch.zeros(2, G.model[1].in_channels, 64, 64)


def any_size():
    """What `torch.export` may not take for constants: the number of pictures, and their sizes in fours."""
    count, high, wide = (torch.export.Dim(name, min=least, max=2048) for name, least in (("n", 1), ("h", 2), ("w", 2)))
    return {"x": {0: count, 2: 4 * high, 3: 4 * wide}}


@torch.inference_mode()
def compare(path, G, exported):
    """Refuse an export that gives other pictures than the network at one of `EXPORTED_SIZES`."""
    for number, (height, width) in enumerate(EXPORTED_SIZES):
        generator = torch.Generator().manual_seed(number)
        real = torch.rand(1 + number, G.model[1].in_channels, height, width, generator=generator) * 2 - 1
        difference = (exported(real) - G(real)).abs().max().item()
        if not difference <= AGREEMENT:
            raise UserError(f"{path.name}: differs from PyTorch by {difference:.1e} at {width}×{height} pixels")


def main(argv=None):
    """`python -m cyclegan_lib.checkpoints export`: networks for use elsewhere."""
    parser = Parser(prog="python -m cyclegan_lib.checkpoints", description="Write networks for use elsewhere.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    out = commands.add_parser("export", help="write networks for the official code, ONNX or torch.export")
    out.add_argument("source", help="saved_models/<run_name>, an epoch of it, a file, or a name of official weights")
    out.add_argument("--to", choices=sorted(WRITERS), required=True, help="the format")
    out.add_argument("--output", type=Path, default=Path("exported"), help="the folder that they are written to")
    args = parser.parse_args(argv)
    with parser.one_line_errors():
        for path in export(args.source, args.to, args.output):
            print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
