"""Files with bytes changed, cut out and put in: what reads them reads them right, or says which is damaged.

A little in the suite; for minutes with `--hypothesis-profile=torture`, as `make torture` does.
"""

import io
import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cyclegan_lib.cyclegan import CycleGAN
from cyclegan_lib.datasets import load_picture, read_picture
from cyclegan_lib.errors import UserError
from cyclegan_lib.files import read_tensors
from cyclegan_lib.models import Generator
from cyclegan_lib.pictures.weights import load_generator
from cyclegan_lib.runs import folder as runs
from cyclegan_lib.runs.checkpoint import load_checkpoint, save_checkpoint


@st.composite
def mutations(draw):
    """A function that changes some bytes: at places that are shares of the file, half of them in its beginning."""
    edits = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["set", "flip", "cut", "insert", "double", "end"]),
                st.floats(0, 1), st.booleans(), st.integers(0, 255), st.integers(1, 40),
                st.binary(min_size=1, max_size=8),
            ),
            min_size=1, max_size=4,
        )
    )  # fmt: skip

    def mutate(content):
        content = bytearray(content)
        for kind, share, early, value, length, bytes_ in edits:
            at = int(share * min(len(content), 200 if early else len(content)))
            if kind == "set":
                content[at : at + 1] = bytes([value])
            elif kind == "flip" and at < len(content):
                content[at] ^= 1 << value % 8
            elif kind == "cut":
                del content[at : at + length]
            elif kind == "insert":
                content[at:at] = bytes_
            elif kind == "double":
                content[at:at] = content[at : at + length]
            elif kind == "end":
                del content[at:]
        return bytes(content)

    return mutate


def pictures():
    """{name: a small picture's file}, a kind each."""
    pixels = np.random.default_rng(0).integers(0, 255, (24, 20, 4), np.uint8)
    rgb, rgba = Image.fromarray(pixels[..., :3]), Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = {
        "rgb.png": (rgb, {}), "rgba.png": (rgba, {}), "16.png": (Image.fromarray(pixels[..., 0] * np.uint16(257)), {}),
        "palette.png": (rgb.convert("P"), {"transparency": 3}), "exif.jpg": (rgb, {"exif": exif}),
        "cmyk.jpg": (rgb.convert("CMYK"), {}), "progressive.jpg": (rgb, {"progressive": True}),
        "plain.tiff": (rgb, {}), "lzw.tiff": (rgb, {"compression": "tiff_lzw"}), "two.gif": (rgb.convert("P"), {}),
        "float.tiff": (Image.fromarray(pixels[..., 0].astype(np.float32)), {}), "a.bmp": (rgb, {}),
        "a.webp": (rgb, {"lossless": True}), "a.ppm": (rgb, {}), "a.tga": (rgba, {"compression": "tga_rle"}),
        "a.ico": (rgba, {}), "a.pcx": (rgb, {}), "a.jp2": (rgb, {}), "a.sgi": (rgb, {}),
    }  # fmt: skip
    found = {}
    for name, (image, options) in kinds.items():
        buffer = io.BytesIO()
        image.save(buffer, Image.registered_extensions()[f".{name.split('.')[1]}"], **options)
        found[name] = buffer.getvalue()
    return found


PICTURES = pictures()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture
def small_pictures_only(monkeypatch):
    """So that none that says it is large takes seconds."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200_000)


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    model = CycleGAN(base_channels=2, num_residual=1)
    model.step(torch.zeros(1, 3, 24, 24), torch.ones(1, 3, 24, 24))
    return model


@pytest.fixture(scope="module")
def saved(folder, model):
    """A run's folder with two checkpoints."""
    facts = {"channels": 3, "base_channels": 2, "num_residual": 1, "output_norm": "none"}
    for step in (1, 2):
        save_checkpoint(folder / "run" / f"epoch_{step}", model, {**facts, "step": step}, {"seed": 0})
    return folder / "run"


# Fixtures are made once for all examples: each puts back what it changed.
fixtures_stay = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@fixtures_stay
@given(name=st.sampled_from(sorted(PICTURES)), mutate=mutations())
def test_a_picture_is_read_or_named(folder, small_pictures_only, name, mutate):
    path = folder / name
    path.write_bytes(mutate(PICTURES[name]))
    for channels, mode in ((3, "RGB"), (1, "L")):
        try:
            image = read_picture(path, channels)
        except UserError as error:
            assert str(path) in str(error)
        else:
            assert image.mode == mode
            assert load_picture(path, (8, 12), channels).shape == (channels, 8, 12)


@fixtures_stay
@given(name=st.sampled_from([*runs.FILES, "manifest.json"]), mutate=mutations())
def test_no_changed_byte_of_a_checkpoint_is_missed(saved, model, name, mutate):
    """But for those in the manifest that change nothing that it says."""
    path = saved / "epoch_2" / name
    before, manifest = path.read_bytes(), runs.read_checkpoint(path.parent)
    try:
        path.write_bytes(mutate(before))
        found, damaged = runs.newest_whole(saved)
        if found.step == 2:
            assert path.read_bytes() == before or (name == "manifest.json" and found == manifest)
        else:
            [(where, reason)] = damaged.items()
            assert where == path.parent and str(path) in reason and "\n" not in reason
    finally:
        path.write_bytes(before)


@fixtures_stay
@given(name=st.sampled_from(runs.FILES), mutate=mutations())
def test_a_checkpoint_without_a_manifest_is_loaded_or_named(folder, saved, model, name, mutate):
    older = folder / "older"
    if not older.exists():
        shutil.copytree(saved / "epoch_1", older, ignore=lambda *_: ["manifest.json"])
    path = older / name
    before = path.read_bytes()
    try:
        path.write_bytes(mutate(before))
        load_checkpoint(older, model)
        runs.read_checkpoint(older).verify()
    except UserError as error:
        assert str(path) in str(error)
    finally:
        path.write_bytes(before)


@fixtures_stay
@given(ending=st.sampled_from(["safetensors", "pth"]), mutate=mutations())
def test_a_generator_is_loaded_or_named(folder, saved, ending, mutate):
    whole = folder / "whole.pth"
    if not whole.exists():
        torch.save(Generator(3, 2, 1).state_dict(), whole)
    content = whole if ending == "pth" else saved / "epoch_1" / "G_AB.safetensors"
    path = folder / f"changed.{ending}"
    path.write_bytes(mutate(content.read_bytes()))
    try:
        assert isinstance(load_generator(path), Generator)
        if ending == "safetensors":
            read_tensors(path)
    except UserError as error:
        assert str(path) in str(error)


@fixtures_stay
@given(mutate=mutations())
def test_a_history_is_read_or_named(folder, mutate):
    path = folder / "history.jsonl"
    rows = [{"step": step, "epoch": 1, "loss_G": 0.5, "identity": None} for step in range(1, 9)]
    path.write_bytes(mutate("".join(json.dumps(row) + "\n" for row in rows).encode()))
    try:
        assert all(runs.is_count(row["step"]) for row in runs.read_history(path))
    except UserError as error:
        assert str(path) in str(error)
