"""A training run on disk: four networks and all that is needed to go on.

    saved_models/<run_name>/epoch_<N>/{G_AB,G_BA,D_A,D_B,state}.safetensors

Safetensors hold numbers and text and run no code when read. There is no time of day in them:
the same training writes the same bytes.
"""

import json
import os
import re
import shutil
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from cyclegan_lib.cli import UserError
from cyclegan_lib.models import Generator


def save_checkpoint(folder, model, facts):
    """Write `model` (a `CycleGAN`) to `folder`, whole or not at all, over what was there.

    Args:
        facts: what else to remember, as a JSON-able dict: settings, the step, …
    """
    folder = Path(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    tensors, rest = {}, {"scaler": model.scaler.state_dict()}
    for name in ("optimizer_G", "optimizer_D"):
        for i, state in getattr(model, name).state_dict()["state"].items():
            tensors |= {f"{name}.{i}.{key}": value for key, value in state.items()}
    for name in ("fake_A_buffer", "fake_B_buffer"):
        state = getattr(model, name).state_dict()
        tensors[name], rest[name] = state["pictures"], state["rng"]
    partial.mkdir(parents=True)
    try:
        for name, network in model.networks.items():
            write_tensors(partial / f"{name}.safetensors", network.state_dict(), facts)
        write_tensors(partial / "state.safetensors", tensors, {**facts, **rest})
    except SafetensorError as error:  # how it reports a full disk, for one
        shutil.rmtree(partial, ignore_errors=True)
        raise UserError(f"{folder}: the checkpoint cannot be written ({error})") from None
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


def load_checkpoint(folder, model):
    """Put `model` (a `CycleGAN` of the same architecture) where `save_checkpoint` left it.

    Returns the facts that were saved.

    Raises:
        UserError: naming the file that is missing, damaged, or of another architecture.
    """
    folder = Path(folder)
    for name, network in model.networks.items():
        load_network(folder / f"{name}.safetensors", network)
    tensors, facts = read_tensors(folder / "state.safetensors")
    if "fake_A_buffer" not in tensors or "step" not in facts:
        raise UserError(f"{folder / 'state.safetensors'}: not the state of a training run")
    for name in ("optimizer_G", "optimizer_D"):
        optimizer = getattr(model, name)
        state = {}
        for key, value in tensors.items():
            if key.startswith(f"{name}."):
                _, i, field = key.split(".")
                state.setdefault(int(i), {})[field] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for name in ("fake_A_buffer", "fake_B_buffer"):
        pictures = tensors[name].to(model.device)
        getattr(model, name).load_state_dict({"pictures": pictures, "rng": facts.pop(name)})
    scaler = facts.pop("scaler")
    if scaler:  # empty where the run was not in fp16 when it was saved; then it begins anew
        model.scaler.load_state_dict(scaler)
    return facts


def load_generator(path):
    """A generator from one of our files, `…/epoch_20/G_AB.safetensors`, ready to translate.

    Raises:
        UserError: as `load_checkpoint`.
    """
    _, facts = read_tensors(path)
    if "base_channels" not in facts:
        raise UserError(f"{path}: does not say its architecture, so it was not saved by a training run here")
    G = Generator(facts["channels"], facts["base_channels"], facts["num_residual"], facts["output_norm"])
    load_network(path, G)
    return G.eval()


def load_network(path, network):
    """Load a state dict, and name the first key that does not fit."""
    tensors, _ = read_tensors(path)
    wanted = network.state_dict()
    for key in sorted(tensors.keys() | wanted.keys()):
        there = tuple(tensors[key].shape) if key in tensors else "nothing"
        here = tuple(wanted[key].shape) if key in wanted else "nothing"
        if there != here:
            raise UserError(f"{path}: another architecture: at {key} the file has {there}, the network {here}")
    network.load_state_dict(tensors)


def write_tensors(path, tensors, facts):
    """A safetensors file with `facts`, JSON-able, in its header."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    # One metadata entry: the order of several is not fixed, and would change the bytes.
    save_file(tensors, path, metadata={"facts": json.dumps(facts, sort_keys=True)})


def read_tensors(path):
    """(tensors, facts) as `write_tensors` wrote them, on the CPU."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file")
    try:
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return tensors, json.loads((file.metadata() or {}).get("facts", "{}"))
    except (SafetensorError, ValueError, OSError) as error:
        raise UserError(f"{path}: damaged, or not a safetensors file ({error})") from None


def saved_epochs(run_folder):
    """The epochs that `--start_from` can go on from, sorted."""
    folders = [folder for folder in Path(run_folder).glob("epoch_*") if (folder / "state.safetensors").is_file()]
    return sorted(int(found[1]) for folder in folders if (found := re.fullmatch("epoch_([0-9]+)", folder.name)))
