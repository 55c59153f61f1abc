"""A checkpoint is one file: networks, optimisers, buffers of past fakes, scaler, step and settings.

The file is written under another name, synced and renamed: it is whole or it is not there. Its header holds a hash of
each part's tensors, and one of the header's facts, so a damaged file is recognised. Safetensors run no code when read.
There is no time of day in them: the same training writes the same bytes.
"""

import hashlib
import json

import torch

from cyclegan_lib.errors import UserError
from cyclegan_lib.files import read_header, read_tensors, write_tensors

GENERATORS = ("G_AB", "G_BA")
OPTIMIZERS = ("optimizer_G", "optimizer_D")
BUFFERS = ("fake_A_buffer", "fake_B_buffer")


def write_checkpoint(path, model, facts, buffers=None, shown=None):
    """Write `model` (a `CycleGAN`) atomically. Raises `UserError` if it cannot be written, on a full disk, say.

    `facts` are what else to remember, a JSON-able dict with "step" in it: the architecture, settings, …; `buffers`
    what `buffers_of` gives in each process of a training, by default `model`'s alone; `shown` the model with averaged
    generators, where there is one.
    """
    states, random_states = states_of(model), {}
    for rank, of_rank in enumerate(buffers or [buffers_of(model)]):
        for name, state in of_rank.items():
            states.setdefault(name, {})[str(rank)] = state["pictures"]
            random_states[f"{name}.{rank}"] = state["rng"]
    if shown is not None:
        states |= {f"shown_{name}": shown.networks[name].state_dict() for name in GENERATORS}
    states = {part: {key: value.cpu() for key, value in state.items()} for part, state in states.items()}
    hashes = {part: hash_of(state) for part, state in states.items()}
    facts = {**facts, "scaler": model.scaler.state_dict(), "buffers": random_states, "hashes": hashes}
    tensors = {f"{part}.{key}": value for part, state in states.items() for key, value in state.items()}
    write_tensors(path, tensors, facts | {"sha256": hash_of_facts(facts)})


def states_of(model):
    """{part: {key: tensor}} of networks and optimisers."""
    states = {name: network.state_dict() for name, network in model.networks.items()}
    for name in OPTIMIZERS:
        moments = getattr(model, name).state_dict()["state"]
        states[name] = {f"{i}.{key}": value for i, state in moments.items() for key, value in state.items()}
    return states


def buffers_of(model):
    """{name: the state} of a model's two buffers of fakes, on the CPU."""
    states = {name: getattr(model, name).state_dict() for name in BUFFERS}
    return {name: state | {"pictures": state["pictures"].cpu()} for name, state in states.items()}


def hash_of(tensors):
    """A hash of tensors with their names, types and shapes."""
    digest = hashlib.sha256()
    for key, value in sorted(tensors.items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def hash_of_facts(facts):
    text = json.dumps({key: value for key, value in facts.items() if key != "sha256"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_facts(path):
    """The facts of a checkpoint, checked; no tensor is read. `UserError` if it is missing, damaged or none."""
    return _checked(path, read_header(path))


def _checked(path, facts):
    if facts.get("sha256") != hash_of_facts(facts):
        raise UserError(f"{path}: damaged, or not a checkpoint of a training")
    return facts


def read_checkpoint(path):
    """({part: {key: tensor}}, facts) of a whole checkpoint, checked. Raises as `read_facts`."""
    tensors, facts = read_tensors(path)
    states = {part: {} for part in _checked(path, facts)["hashes"]}
    for key, value in tensors.items():
        part, _, rest = key.partition(".")
        states.setdefault(part, {})[rest] = value
    for part, state in states.items():
        if hash_of(state) != facts["hashes"].get(part):
            raise UserError(f"{path}: damaged, {part} is not what was saved")
    return states, facts


def read_network(path, name="G_AB"):
    """(tensors, facts) of one network of a checkpoint, checked; or of a file without hashes, of several or of one.

    Of a generator that was averaged too, it is the average.
    """
    tensors, facts = read_tensors(path, prefix=f"{name}.")
    hashes = _checked(path, facts)["hashes"] if {"hashes", "sha256"} & facts.keys() else None
    if hashes and f"shown_{name}" in hashes:
        name = f"shown_{name}"
        tensors, facts = read_tensors(path, prefix=f"{name}.")
    if hashes is not None and hash_of(tensors) != hashes.get(name):
        raise UserError(f"{path}: damaged, {name} is not what was saved")
    return (tensors, facts) if tensors else read_tensors(path)


def load_checkpoint(path, model, rank=0, shown=None):
    """Put `model` (a `CycleGAN` of the same architecture) where `write_checkpoint` left it. Returns the facts.

    Each process, by its `rank`, gets its own buffers; empty ones if there was no such process then. `shown` gets the
    averaged generators, or the latest ones if the run was not averaged. Raises `UserError`,
    naming a file that is missing, damaged, or of other networks.
    """
    states, facts = read_checkpoint(path)
    for name, network in model.networks.items():
        fit_network(path, states[name], network)
    for name in GENERATORS if shown is not None else ():
        fit_network(path, states.get(f"shown_{name}", states[name]), shown.networks[name])
    for name in OPTIMIZERS:
        optimizer, moments = getattr(model, name), {}
        for key, value in states[name].items():
            i, _, field = key.partition(".")
            moments.setdefault(int(i), {})[field] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    for name in BUFFERS:
        if f"{name}.{rank}" in facts["buffers"]:
            pictures = states[name][str(rank)].to(model.device)
            getattr(model, name).load_state_dict({"pictures": pictures, "rng": facts["buffers"][f"{name}.{rank}"]})
    if facts["scaler"]:  # empty where the run was not in fp16 when it was saved; then it begins anew
        model.scaler.load_state_dict(facts["scaler"])
    return facts


def fit_network(path, tensors, network):
    """Load `tensors`, read from `path`, into `network`. A `UserError` names a key that does not fit, or a NaN."""
    wanted = network.state_dict()
    for key in [*wanted, *sorted(tensors.keys() - wanted.keys())]:
        there, here = (tuple(some[key].shape) if key in some else "nothing" for some in (tensors, wanted))
        if there != here:
            raise UserError(f"{path}: another architecture: at {key} the file has {there}, the network {here}")
    network.load_state_dict(tensors)
    if not all(value.isfinite().all() for value in network.state_dict().values()):
        raise UserError(f"{path}: has weights that are not finite; take an earlier checkpoint")
