"""Files with bytes changed, cut out and put in: what reads them reads them right, or says which is damaged.

A little in the suite; for minutes with `--hypothesis-profile=torture`, as `make torture` does.
"""

import io
import json

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cyclegan_lib.cyclegan import CycleGAN
from cyclegan_lib.datasets import load_picture
from cyclegan_lib.errors import UserError
from cyclegan_lib.files import write_tensors
from cyclegan_lib.models import Generator
from cyclegan_lib.pictures.reading import read_picture
from cyclegan_lib.pictures.weights import load_generator
from cyclegan_lib.runs.checkpoint import read_checkpoint, write_checkpoint
from cyclegan_lib.runs.folder import newest_whole
from cyclegan_lib.runs.log import read_history


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


FACTS = {"channels": 3, "base_channels": 2, "num_residual": 1, "output_norm": "none"}


@pytest.fixture(scope="module")
def saved(folder, model):
    """A run's folder with two checkpoints."""
    (folder / "run").mkdir()
    for step in (1, 2):
        write_checkpoint(folder / "run" / f"epoch_{step}.safetensors", model, {**FACTS, "step": step})
    return folder / "run"


@pytest.fixture(scope="module")
def generators(folder, saved, model):
    """{ending: the bytes of a file with the model's G_AB}."""
    write_tensors(folder / "one.safetensors", model.G_AB.state_dict(), FACTS)
    torch.save(model.G_AB.state_dict(), folder / "one.pth")
    files = {"pth": "one.pth", "safetensors": "one.safetensors", "checkpoint.safetensors": "run/epoch_1.safetensors"}
    return {ending: (folder / name).read_bytes() for ending, name in files.items()}


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
            assert load_picture(path, (8, 12), channels, read_picture).shape == (channels, 8, 12)


def same(tensors, others):
    return tensors.keys() == others.keys() and all(torch.equal(value, others[key]) for key, value in tensors.items())


@fixtures_stay
@given(mutate=mutations())
def test_no_changed_byte_of_a_checkpoint_is_missed(saved, mutate):
    """But for those in the header that change nothing that it says."""
    path = saved / "epoch_2.safetensors"
    before, (states, facts) = path.read_bytes(), read_checkpoint(path)
    try:
        path.write_bytes(mutate(before))
        newest, damaged = newest_whole(saved)
        if newest.step == 2:
            states_now, facts_now = read_checkpoint(path)
            assert facts_now == facts and states_now.keys() == states.keys()
            assert all(same(states_now[part], state) for part, state in states.items())
        else:
            [(where, reason)] = damaged.items()
            assert where == path and str(path) in reason and "\n" not in reason
    finally:
        path.write_bytes(before)


@fixtures_stay
@given(ending=st.sampled_from(["safetensors", "pth", "checkpoint.safetensors"]), mutate=mutations())
def test_a_generator_is_loaded_or_named(folder, generators, model, ending, mutate):
    path = folder / f"changed.{ending}"
    path.write_bytes(mutate(generators[ending]))
    try:
        G = load_generator(path)
    except UserError as error:
        assert str(path) in str(error)
    else:
        assert isinstance(G, Generator)
        assert ending != "checkpoint.safetensors" or same(G.state_dict(), model.G_AB.state_dict())


@fixtures_stay
@given(mutate=mutations())
def test_a_history_is_read_or_named(folder, mutate):
    path = folder / "history.jsonl"
    rows = [{"step": step, "epoch": 1, "loss_G": 0.5, "identity": None} for step in range(1, 9)]
    path.write_bytes(mutate("".join(json.dumps(row) + "\n" for row in rows).encode()))
    try:
        assert all("step" in row for row in read_history(path))
    except UserError as error:
        assert str(path) in str(error)
