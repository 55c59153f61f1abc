"""A training run on disk: four networks and all that is needed to go on; official weights, in and out.

    saved_models/<run_name>/epoch_<N>/{G_AB,G_BA,D_A,D_B,state}.safetensors   manifest.json

`runs.py` says how they come onto the disk, and which of a run's is the newest that is whole.
Safetensors hold numbers and text and run no code when read. There is no time of day in them:
the same training writes the same bytes. A `.pth` is read with nothing unpickled but tensors.

`python -m cyclegan_lib.checkpoints export saved_models/<run_name> --to official` (or onnx, pt2)
writes the networks for use elsewhere.
"""

import shutil
from pathlib import Path

from cyclegan_lib.errors import UserError
from cyclegan_lib.files import named, read_tensors, write_tensors
from cyclegan_lib.runs.folder import install, write_manifest
from cyclegan_lib.runs.folder import saved_epochs as saved_epochs

BUFFERS = ("fake_A_buffer", "fake_B_buffer")


def save_checkpoint(folder, model, facts, settings=None, changes=(), buffers=None):
    """Write `model` (a `CycleGAN`) to `folder`, whole or not at all. What was there is kept until it is.

    Args:
        facts: what else to remember, as a JSON-able dict: the architecture, the step, …
        settings, changes: for the manifest, see `runs.Checkpoint`.
        buffers: what `buffers_of` gives in each process of a training; only `model`'s by default.

    Raises:
        UserError: if it cannot be written, on a full disk, say.
    """
    folder = Path(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    tensors, rest = {}, {"scaler": model.scaler.state_dict()}
    for name in ("optimizer_G", "optimizer_D"):
        for i, state in getattr(model, name).state_dict()["state"].items():
            tensors |= {f"{name}.{i}.{key}": value for key, value in state.items()}
    for rank, states in enumerate(buffers or [buffers_of(model)]):
        for name, state in states.items():
            key = buffer_key(name, rank)
            tensors[key], rest[key] = state["pictures"], state["rng"]
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with named(folder):
            partial.mkdir(parents=True)
            for name, network in model.networks.items():
                write_tensors(partial / f"{name}.safetensors", network.state_dict(), facts)
            write_tensors(partial / "state.safetensors", tensors, {**facts, **rest})
            write_manifest(partial, facts["step"], settings or {}, list(changes))
            install(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def buffers_of(model):
    """{name: the state} of a model's two buffers of fakes, on the CPU."""
    states = {name: getattr(model, name).state_dict() for name in BUFFERS}
    return {name: state | {"pictures": state["pictures"].cpu()} for name, state in states.items()}


def buffer_key(name, rank):
    """What the buffer of a training's process is called in a checkpoint; the first one's by its name alone."""
    return f"{name}.{rank}" if rank else name


def load_checkpoint(folder, model, rank=0):
    """Put `model` (a `CycleGAN` of the same architecture) where `save_checkpoint` left it.

    Each process of a training, by its `rank`, gets its own buffers; one that was not there when the
    checkpoint was saved begins with empty ones. Returns the facts that were saved.

    Raises:
        UserError: naming the file that is missing, damaged, or of another architecture.
    """
    folder = Path(folder)
    for name, network in model.networks.items():
        load_network(folder / f"{name}.safetensors", network)
    path = folder / "state.safetensors"
    tensors, facts = read_tensors(path)
    try:
        _load_state(model, tensors, facts, rank)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError):
        raise UserError(f"{path}: not the state of a training run") from None
    return facts


def _load_state(model, tensors, facts, rank):
    """Put what is not networks into `model`, and take it out of the facts."""
    for name in ("optimizer_G", "optimizer_D"):
        optimizer = getattr(model, name)
        state = {}
        for key, value in tensors.items():
            if key.startswith(f"{name}."):
                _, i, field = key.split(".")
                state.setdefault(int(i), {})[field] = value
        for i, values in state.items():
            shape = optimizer.param_groups[0]["params"][i].shape
            if {key: value.shape for key, value in values.items()} != {
                "step": (),
                "exp_avg": shape,
                "exp_avg_sq": shape,
            }:
                raise ValueError
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for name in BUFFERS:
        key = buffer_key(name, rank)
        if rank == 0 or key in tensors:
            pictures = tensors[key].to(model.device)
            getattr(model, name).load_state_dict({"pictures": pictures, "rng": facts[key]})
    for key in [key for key in facts if key.startswith(BUFFERS)]:
        del facts[key]
    scaler = facts.pop("scaler")
    if scaler:  # empty where the run was not in fp16 when it was saved; then it begins anew
        model.scaler.load_state_dict(scaler)


def load_network(path, network):
    """Load one of our files into `network`; names the first key that does not fit."""
    fit(path, read_tensors(path)[0], network)


def fit(path, tensors, network):
    """Put `tensors`, read from `path`, into `network`, and name the first key that does not fit."""
    check_shapes(path, tensors, network)
    try:
        network.load_state_dict(tensors)
    except RuntimeError:
        raise UserError(f"{path}: damaged, or holds other things than numbers") from None


def check_shapes(path, tensors, network):
    """Name the first key whose shape is not the network's."""
    wanted = network.state_dict()
    for key in [*wanted, *sorted(tensors.keys() - wanted.keys())]:
        there = tuple(tensors[key].shape) if key in tensors else "nothing"
        here = tuple(wanted[key].shape) if key in wanted else "nothing"
        if there != here:
            raise UserError(f"{path}: another architecture: at {key} the file has {there}, the network {here}")
