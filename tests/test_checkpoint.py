"""A checkpoint is one file: it proves that it is what was saved, or it is named as damaged."""

import json
import os
import random
import re
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cyclegan_lib import files
from cyclegan_lib.cyclegan import CycleGAN
from cyclegan_lib.errors import UserError
from cyclegan_lib.runs.checkpoint import (
    buffers_of,
    load_checkpoint,
    read_checkpoint,
    read_facts,
    read_network,
    write_checkpoint,
)

FACTS = {"step": 7, "epoch": 2, "lr": 0.0003, "base_channels": 2, "dataset_name": "tiny", "precision": None}


def small(seed=0, steps=0, **options):
    torch.set_num_threads(1)
    model = CycleGAN(base_channels=2, num_residual=1, seed=seed, **options)
    for step in range(steps):
        model.step(*torch.rand(2, 1, 3, 24, 24, generator=torch.Generator().manual_seed(step)))
    return model


@pytest.fixture(scope="module")
def model():
    return small(steps=2)


@pytest.fixture(scope="module")
def content(model, tmp_path_factory):
    """A whole checkpoint's bytes."""
    path = tmp_path_factory.mktemp("whole") / "step_7.safetensors"
    write_checkpoint(path, model, FACTS)
    return path.read_bytes()


@pytest.fixture
def path(content, tmp_path):
    path = tmp_path / "step_7.safetensors"
    path.write_bytes(content)
    return path


def flat(states):
    return {f"{part}.{key}": value for part, state in states.items() for key, value in state.items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# What is in it


def test_it_holds_all_and_the_same_state_is_the_same_bytes(model, content, path, tmp_path):
    other = small(seed=5, steps=1)
    assert load_checkpoint(path, other)["step"] == 7
    write_checkpoint(tmp_path / "again.safetensors", other, FACTS)
    assert (tmp_path / "again.safetensors").read_bytes() == content
    batch = torch.rand(2, 1, 3, 24, 24)
    after = [
        {name: loss for name, loss in one.step(*batch).items() if loss is not None} for one in (small(steps=2), other)
    ]
    assert same(*after), "a step later, too"
    assert {key.split(".")[0] for key in load_file(path)} == {
        "G_AB", "G_BA", "D_A", "D_B", "optimizer_G", "optimizer_D", "fake_A_buffer", "fake_B_buffer",
    }  # fmt: skip
    assert {name: read_facts(path)[name] for name in FACTS} == FACTS


def test_a_file_of_one_network_is_read_without_a_hash(model, tmp_path):
    save_file(model.G_AB.state_dict(), tmp_path / "G.safetensors")
    tensors, facts = read_network(tmp_path / "G.safetensors")
    assert same(tensors, model.G_AB.state_dict()) and facts == {}
    with pytest.raises(UserError, match=r"G\.safetensors: damaged, or not a checkpoint"):
        read_checkpoint(tmp_path / "G.safetensors")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc to see what is mapped")
def test_what_was_read_are_copies(path, model):
    """The file can be overwritten, cut and deleted: Windows deletes no mapped file, and Drive may be unmounted."""
    other = small(seed=5)
    load_checkpoint(path, other)
    tensors = read_network(path, "D_A")[0]
    assert path.name not in Path("/proc/self/maps").read_text()
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.write(bytes(size))
    os.truncate(path, 0)
    path.unlink()
    assert same(tensors, model.D_A.state_dict()) and same(other.D_A.state_dict(), model.D_A.state_dict())
    for name in ("optimizer_G", "optimizer_D"):
        moments, expected = (getattr(one, name).state_dict()["state"] for one in (other, model))
        assert all(same(moments[i], expected[i]) for i in expected)
    other.step(torch.zeros(1, 3, 24, 24), torch.zeros(1, 3, 24, 24))


# Damaged


def places(content):
    """[(what lies there, offset)]: all of the header's length, some of the header, and a byte of every tensor."""
    rng, length = random.Random(0), int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__")
    offsets = [("header", offset) for offset in range(8)]
    offsets += [("header", 8 + rng.randrange(length)) for _ in range(120)]
    for key, tensor in header.items():
        begin, end = tensor["data_offsets"]
        offsets += [(key.split(".")[0], 8 + length + rng.randrange(begin, end))] * (end > begin)
    return offsets


def test_one_flipped_bit_anywhere_is_damage(content, path, model):
    """In whatever is read. And no bit of what is not read hinders who reads a network."""
    networks = {name: model.networks[name].state_dict() for name in ("G_AB", "D_B")}
    for what, offset in places(content):
        changed = bytearray(content)
        changed[offset] ^= 1 << random.Random(offset).randrange(8)
        path.write_bytes(changed)
        with pytest.raises(UserError, match=r"step_7\.safetensors: damaged") as caught:
            read_checkpoint(path)
        assert "\n" not in str(caught.value), (what, offset)
        for name, tensors in networks.items():
            try:
                found, _ = read_network(path, name)
            except UserError as error:
                assert what in (name, "header") and "step_7.safetensors: damaged" in str(error), (what, offset)
            else:  # a change in what the header says of other networks' tensors may stay unseen
                assert what != name and same(found, tensors), (what, offset)


def test_a_file_that_was_cut_or_has_grown_is_damaged(content, path):
    length, rng = 8 + int.from_bytes(content[:8], "little"), random.Random(0)
    sizes = [*range(10), length - 1, length, length + 1, len(content) - 1]
    for size in sizes + [rng.randrange(len(content)) for _ in range(50)]:
        path.write_bytes(content[:size])
        for read in (read_facts, read_checkpoint, read_network):
            with pytest.raises(UserError, match=r"step_7\.safetensors: damaged"):
                read(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(UserError, match="damaged"):
        read_checkpoint(path)
    path.unlink()
    with pytest.raises(UserError, match=r"step_7\.safetensors: no such file"):
        read_network(path)


def test_another_architecture_is_named_by_its_first_key(path):
    with pytest.raises(UserError, match=r"at model\.1\.weight the file has \(2, 3, 7, 7\), the network \(3, 3, 7, 7\)"):
        load_checkpoint(path, CycleGAN(base_channels=3, num_residual=1))
    with pytest.raises(UserError, match=r"at model\.11\.conv_block.* the file has nothing"):
        load_checkpoint(path, CycleGAN(base_channels=2, num_residual=2))


# Several processes, and another precision


def test_each_process_gets_its_own_buffers_and_one_that_was_not_there_empty_ones(model, tmp_path):
    second = small(seed=9, steps=1)
    write_checkpoint(tmp_path / "two.safetensors", model, FACTS, [buffers_of(model), buffers_of(second)])
    for rank, expected in ((0, model), (1, second), (2, None)):
        other = small(seed=5)
        load_checkpoint(tmp_path / "two.safetensors", other, rank)
        pictures = expected.fake_A_buffer.pictures if expected else []
        assert len(other.fake_A_buffer.pictures) == len(pictures)
        assert all(torch.equal(a, b) for a, b in zip(other.fake_A_buffer.pictures, pictures, strict=True))
        if expected:
            assert other.fake_B_buffer.rng.getstate() == expected.fake_B_buffer.rng.getstate()


def test_a_scaler_begins_anew_where_there_was_none(path):
    """As if a machine with a GPU goes on in fp16 where one without ended."""
    other = small(seed=5)
    other.scaler = torch.amp.GradScaler("cpu", enabled=True)
    scale = other.scaler.get_scale()
    load_checkpoint(path, other)
    assert other.scaler.is_enabled() and other.scaler.get_scale() == scale


# Written


@pytest.mark.parametrize(
    "error", [SafetensorError("No space left on device"), OSError(28, "No space left on device"), KeyboardInterrupt()]
)
def test_one_that_cannot_be_written_leaves_what_was_there(path, model, content, monkeypatch, error):
    def fail(tensors, partial, metadata):
        partial.write_bytes(b"half")
        raise error

    monkeypatch.setattr(files, "save_file", fail)
    with pytest.raises((UserError, KeyboardInterrupt)) as caught:
        write_checkpoint(path, model, FACTS)
    said = r"step_7\.safetensors: cannot be written \(No space left on device\); make room, [^\n]*$"
    assert caught.type is KeyboardInterrupt or re.search(said, str(caught.value))
    assert path.read_bytes() == content and list(path.parent.iterdir()) == [path]


def test_a_file_is_on_the_disk_before_it_has_its_name_and_the_name_before_all_goes_on(tmp_path, monkeypatch):
    """The order that a power cut asks for."""
    done, path = [], tmp_path / "file"
    sync, replace = files.sync, os.replace
    monkeypatch.setattr(files, "sync", lambda path: done.append(("sync", path.name)) or sync(path))
    monkeypatch.setattr(os, "replace", lambda a, b: done.append(("rename", a.read_text())) or replace(a, b))
    files.write_atomic(path, "content")
    assert done == [("sync", ".file.partial"), ("rename", "content"), ("sync", tmp_path.name)]
