"""Weights in and out: generators of runs, official ones by name, and generators for use elsewhere."""

import sys
import warnings
from pathlib import Path

import torch

from cyclegan_lib.config import OUTPUT_NORMS
from cyclegan_lib.errors import UserError
from cyclegan_lib.files import atomic, read_tensors
from cyclegan_lib.models import Generator
from cyclegan_lib.pictures.download import fetch
from cyclegan_lib.runs.checkpoint import fit_network, read_network
from cyclegan_lib.runs.folder import newest_whole

OFFICIAL = "http://efrosgans.eecs.berkeley.edu/cyclegan/pretrained_models/{name}.pth"
OFFICIAL_NAMES = (
    "apple2orange", "orange2apple", "summer2winter_yosemite", "winter2summer_yosemite", "horse2zebra", "zebra2horse",
    "monet2photo", "style_monet", "style_cezanne", "style_ukiyoe", "style_vangogh", "sat2map", "map2sat",
    "cityscapes_photo2label", "cityscapes_label2photo", "facades_photo2label", "facades_label2photo",
    "iphone2dslr_flower",
)  # fmt: skip
UNUSED = ("running_mean", "running_var", "num_batches_tracked")  # of instance norms, in some official files
OFFICIAL_FILES = {"G_AB": "latest_net_G_A", "G_BA": "latest_net_G_B"}  # the official code's G_A makes B of A
AGREEMENT = 1e-4  # of pictures in [-1, 1]: an export has to agree with PyTorch


def load_generator(path_or_name, direction="AtoB"):
    """A generator, ready to translate, on the CPU; a file with a single one has but one direction, called "AtoB".

    It is read from `saved_models/<run_name>`, a checkpoint, a file of ours with a single generator, a `.pth` of the
    official code (instance norm, no dropout), or by a name in `OFFICIAL_NAMES`, downloaded once. Raises `UserError`,
    naming the file, if it is missing, damaged, holds more than tensors, or is of another architecture.
    """
    path = weights_file(path_or_name)
    if direction != "AtoB" and not holds(path, "G_BA"):
        raise UserError(f"--direction {direction}: {path} holds one generator, for one direction; leave the option out")
    return load_network(path, "G_AB" if direction == "AtoB" else "G_BA")


def load_generators(path_or_name, direction="AtoB"):
    """(the generator of a direction, the one that goes back or None). Arguments and errors as `load_generator`."""
    path = weights_file(path_or_name)
    back = "G_BA" if direction == "AtoB" else "G_AB"
    return load_generator(path, direction), load_network(path, back) if holds(path, back) else None


def weights_file(path_or_name):
    """The file that `load_generator` reads; official weights are downloaded, and kept if they can be read."""
    path = Path(path_or_name)
    if path.is_dir():
        return newest(path)
    if str(path) not in OFFICIAL_NAMES or path.exists():
        return path
    kept = Path(torch.hub.get_dir()) / "checkpoints" / f"cyclegan_{path}.pth"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        address = OFFICIAL.format(name=path)
        with atomic(kept) as partial:
            fetch(address, partial)
            try:
                read_pth(partial)
            except UserError:
                raise UserError(f"{address}: sent no weights, or only a part of them; try again") from None
    return kept


def newest(folder):
    """The newest whole checkpoint in a run's folder: its path. Damaged ones are named and skipped."""
    saved, damaged = newest_whole(folder)
    for reason in damaged.values():
        print(f"warning: {reason}; skipped", file=sys.stderr)
    if not saved:
        raise UserError(f"{folder}: no checkpoint in it; give saved_models/<run_name>, a checkpoint of it, or a file")
    return saved.path


def holds(path, name):
    """Whether a file of ours holds a network of this name, "G_AB" say, beside others."""
    return path.suffix == ".safetensors" and bool(read_tensors(path, f"{name}.")[0])


def load_network(path, name="G_AB"):
    """A generator of a checkpoint, or the only one in a file; ready for use, on the CPU. Raises as `load_generator`."""
    tensors, facts = read_network(path, name) if path.suffix == ".safetensors" else (read_pth(path), {})
    first, output_norm = tensors.get("model.1.weight"), facts.get("output_norm", "none")
    if first is None or first.ndim != 4:
        raise UserError(f"{path}: another architecture: it has no convolution model.1.weight")
    if output_norm not in OUTPUT_NORMS:
        raise UserError(f"{path}: another architecture: output_norm is none of {', '.join(OUTPUT_NORMS)}")
    blocks = {key.split(".")[1] for key in tensors if ".conv_block." in key}
    with torch.device("meta"):  # without random weights, which would be replaced at once
        G = Generator(first.shape[1], first.shape[0], len(blocks), output_norm)
    fit_network(path, tensors, G.to_empty(device="cpu"))
    return G.eval()


def read_pth(path):
    """{key: tensor} of a `.pth` or `.pt`, by `torch.save`, that holds one network's tensors and nothing else."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; nor is it official weights: {', '.join(OFFICIAL_NAMES)}")
    try:
        with warnings.catch_warnings(action="ignore"):
            found = torch.load(path, map_location="cpu", weights_only=True)
        tensors = {key.removeprefix("module."): value.detach() for key, value in found.items()}
    except Exception:  # UnpicklingError, EOFError, KeyError, …; AttributeError where it's no dict of tensors by names
        raise UserError(f"{path}: damaged, or holds more than one network's tensors, which is unsafe to read") from None
    return {key: value for key, value in tensors.items() if key.split(".")[-1] not in UNUSED}


def export(source, to, folder):
    """Write the generators of a run, a checkpoint or one file (`load_generator`) into `folder`, and return their paths.

    `to`: "official", `.pth` files under the official code's names; or "onnx", for pictures (N, channels, H, W) in
    [-1, 1], H and W multiples of 4 from 8 to 8192, and compared with PyTorch.
    """
    if to == "onnx" and torch.__version__ < "2.5":
        raise UserError(f"--to onnx needs torch 2.5 or newer, and this is {torch.__version__}: pip install -U torch")
    path, ending = weights_file(source), "pth" if to == "official" else "onnx"
    networks = {name: load_network(path, name) for name in OFFICIAL_FILES if holds(path, name)}
    targets = {}
    for name, G in (networks or {Path(source).stem: load_network(path)}).items():
        if to == "official" and not isinstance(G.model[-2], torch.nn.Conv2d):
            raise UserError(f"{path}: {name} has a norm at its output, and the official code has none; use --to onnx")
        target = Path(folder) / f"{OFFICIAL_FILES.get(name, name) if to == 'official' else name}.{ending}"
        if target.exists():
            raise UserError(f"{target} exists already; remove it or choose another --output")
        targets[target] = G
    Path(folder).mkdir(parents=True, exist_ok=True)
    for target, G in targets.items():
        with atomic(target) as partial:
            torch.save(G.state_dict(), partial) if to == "official" else write_onnx(G, partial)
    return list(targets)


def write_onnx(G, path):
    """ONNX for any number of pictures of any size; refused if onnxruntime makes other pictures of it than PyTorch."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError:
        raise UserError("--to onnx needs packages: pip install onnx onnxruntime onnxscript") from None
    channels = G.model[1].in_channels
    count, high, wide = (torch.export.Dim(name, min=least, max=2048) for name, least in (("n", 1), ("h", 2), ("w", 2)))
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(
            G, (torch.zeros(2, channels, 64, 64),), path, dynamo=True, verbose=False, external_data=False,
            dynamic_shapes={"x": {0: count, 2: 4 * high, 3: 4 * wide}}, input_names=["real"], output_names=["fake"],
        )  # fmt: skip
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    real = torch.rand(3, channels, 100, 60, generator=torch.Generator().manual_seed(0)) * 2 - 1
    difference = (torch.from_numpy(session.run(None, {"real": real.numpy()})[0]) - G(real)).abs().max().item()
    if not difference <= AGREEMENT:
        raise UserError(f"--to onnx: differs from PyTorch by {difference:.1e}")


def command(args):
    for path in export(args.source, args.to, args.output):
        print(f"{path}: {path.stat().st_size:,} bytes")
