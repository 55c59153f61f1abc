"""Picture files that would give a wrong result without a word, files that are passed over, and one bad file of many."""

import struct
import zlib

import numpy as np
import pytest
import torch
from helpers import gradient
from PIL import Image, ImageCms, PngImagePlugin
from test_translate import generator

from cyclegan_lib.cli import main
from cyclegan_lib.errors import UserError
from cyclegan_lib.files import atomic, write_tensors
from cyclegan_lib.pictures import reading, translate
from cyclegan_lib.pictures.check import check_dataset
from cyclegan_lib.pictures.reading import read_picture
from cyclegan_lib.pictures.weights import load_generators

FACTS = dict(channels=3, base_channels=4, num_residual=2, output_norm="none")
RAMP = np.linspace(0, 1, 20 * 30).reshape(20, 30)


def run(*arguments):
    """The exit code of a command, in this process."""
    try:
        main(list(map(str, arguments)))
    except SystemExit as end:
        return end.code
    return 0


@pytest.fixture
def weights(tmp_path):
    """The file of a single generator."""
    write_tensors(tmp_path / "G.safetensors", generator().state_dict(), FACTS)
    return tmp_path / "G.safetensors"


DEEP = {
    "10 bits in a PNG": ("a.png", (RAMP * 1023).astype(np.uint16), (0, 1023)),
    "14 bits in a TIFF": ("a.tif", (RAMP * 16383).astype(np.uint16), (0, 16383)),
    "signed integers": ("a.tif", (RAMP * 900 - 300).astype(np.int32), (-300, 600)),
    "integers of 8 bits": ("a.tif", (RAMP * 255).astype(np.int32), (0, 255)),
    "floats around 0": ("a.tif", (RAMP * 4 - 2).astype(np.float32), (-2, 2)),
    "floats to 255": ("a.tif", (RAMP * 255).astype(np.float32), (0, 255)),
}


@pytest.mark.parametrize("kind", DEEP)
def test_an_unclear_range_is_refused_and_converted_where_it_is_given(tmp_path, kind):
    name, values, value_range = DEEP[kind]
    Image.fromarray(values).save(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name}: holds values from .*--range BLACK WHITE to cyclegan collect"):
        read_picture(tmp_path / name)
    read = np.asarray(read_picture(tmp_path / name, 1, value_range)).astype(float)
    assert np.abs(read - RAMP * 255).max() <= 1
    with pytest.raises(UserError, match="--range 7 7: give two different numbers"):
        read_picture(tmp_path / name, value_range=(7, 7))


def png_of_16_bit_colours(values):
    """The bytes of a PNG with three channels of 16 bits, which Pillow does not write."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_colours_of_12_bits_in_16_are_refused_and_those_of_16_are_read(tmp_path):
    for name, most in (("twelve", 4095), ("sixteen", 65535)):
        values = np.stack([RAMP * most] * 3, axis=-1).astype(np.uint16)
        (tmp_path / f"{name}.png").write_bytes(png_of_16_bit_colours(values))
    with pytest.raises(UserError, match="twelve.png: colours of 16 bits, all dark"):
        read_picture(tmp_path / "twelve.png")
    assert np.abs(np.asarray(read_picture(tmp_path / "sixteen.png"))[..., 0] - RAMP * 255).max() <= 1


def test_collect_and_translate_convert_with_a_range(tmp_path, weights, capsys):
    for side in "AB":
        (tmp_path / side).mkdir()
        for i in range(3):
            values = np.random.default_rng([ord(side), i]).integers(0, 2000, (16, 16)).astype(np.uint16)
            Image.fromarray(values).save(tmp_path / side / f"{i}.tif")
    start = ["collect", tmp_path / "A", tmp_path / "B", "--data_root", tmp_path, "--dataset_name", "mine"]
    assert run(*start) == 2 and capsys.readouterr().err.count("--range BLACK WHITE") == 6
    assert run(*start, "--range", 0, 1999) == 0
    assert check_dataset(tmp_path / "mine")["modes"] == {"L": 6}
    made = next((tmp_path / "mine").glob("*A/1.tif.png"))
    expected = read_picture(tmp_path / "A" / "1.tif", value_range=(0, 1999))
    assert np.array_equal(np.asarray(read_picture(made)), np.asarray(expected))
    start = ["translate", tmp_path / "A" / "1.tif", "--checkpoint", weights, "--device", "cpu", "--output"]
    assert run(*start, tmp_path / "out") == 1
    assert run(*start, tmp_path / "out", "--range", 0, 1999) == 0
    fake = np.asarray(translate.translate_image(generator(), expected))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "1.tif")), fake)


@pytest.mark.parametrize("ending", ["tif", "gif", "webp", "png"])
def test_a_file_of_several_pictures_is_refused(tmp_path, ending):
    first, *others = [Image.fromarray(np.roll(gradient(), 9 * i, axis=0)) for i in range(4)]
    first.save(tmp_path / f"a.{ending}", save_all=True, append_images=others)
    with pytest.raises(UserError, match=f"a.{ending}: holds 4 pictures; save each"):
        read_picture(tmp_path / f"a.{ending}")


def test_a_preview_in_a_photograph_is_no_second_picture(tmp_path):
    photograph = Image.fromarray(gradient())
    photograph.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[photograph.resize((8, 8))])
    assert read_picture(tmp_path / "a.jpg").size == photograph.size


def test_lab_is_read_in_grey_too(tmp_path):
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    ImageCms.profileToProfile(Image.fromarray(gradient()), *profiles, outputMode="LAB").save(tmp_path / "a.tif")
    assert [read_picture(tmp_path / "a.tif", channels).mode for channels in (1, 3)] == ["L", "RGB"]


@pytest.mark.parametrize("what", ["text", "profile"])
def test_large_text_and_profiles_are_no_obstacle(tmp_path, what):
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", "a b " * 10**6, zip=True)
    options = {"pnginfo": info} if what == "text" else {"icc_profile": bytes(2 * 10**6)}
    Image.fromarray(gradient()).save(tmp_path / "a.png", **options)
    assert np.array_equal(np.asarray(read_picture(tmp_path / "a.png")), gradient())


def test_pillow_without_a_limit_reads_all(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    Image.fromarray(gradient()).save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(read_picture(tmp_path / "a.png")), gradient())


def test_a_single_generator_has_one_direction(weights):
    load_generators(weights)
    with pytest.raises(UserError, match=r"--direction BtoA: .*G.safetensors holds one generator"):
        load_generators(weights, "BtoA")


def test_results_that_are_no_numbers_are_refused():
    with pytest.raises(UserError, match="not finite"):
        translate.to_uint8(torch.tensor([0.5, float("nan")]))


# One bad file, and files that are passed over


def test_a_result_that_cannot_be_written_does_not_cost_the_others(tmp_path, weights, capsys):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "z" * 251 + ".png", "y" * 251 + ".gif"):  # the last with .png behind it is too long
        Image.fromarray(gradient(12, 12)).save(tmp_path / "in" / name)
    Image.new("RGB", (16500, 1)).save(tmp_path / "in" / "wide.webp", "PNG")
    assert (
        run("translate", tmp_path / "in", "--checkpoint", weights, "--output", tmp_path / "out", "--device", "cpu") == 1
    )
    said = capsys.readouterr().out
    assert "in/wide.webp: " in said and "y.gif: " in said and "2 pictures in" in said
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "z" * 251 + ".png"]


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "\udcfe" * 200])
def test_the_longest_names_are_written_atomically(tmp_path, name):
    with atomic(tmp_path / name) as partial:
        partial.write_bytes(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_is_passed_over_is_said_alike_in_every_command(tmp_path, folders, weights, capsys):
    root = folders(3, 3, 1, 1, root=tmp_path / "set")
    Image.new("RGB", (9, 9)).save(tmp_path / "set" / "trainA" / "last.png")
    for name in ("Thumbs.db", "desktop.ini"):
        (root / "trainA" / name).write_bytes(b"of the system")
    told = "passed over 2 files that Pillow does not read: 1 with .db, 1 with .ini"
    start = ["translate", root / "trainA", "--checkpoint", weights, "--device", "cpu", "--output"]
    assert run(*start, tmp_path / "out") == 0 and told in capsys.readouterr().out
    (root / "trainA" / "b.xcf").write_bytes(b"no picture")
    (root / "trainA" / "photo").write_bytes(b"no ending")
    told = "passed over 4 files that Pillow does not read: 1 with .db, 1 with .ini, 1 with .xcf, 1 with no ending"
    assert run(*start, tmp_path / "out2") == 0 and told in capsys.readouterr().out
    assert run("check", root) == 0 and told in capsys.readouterr().out
    assert run("collect", root / "trainA", root / "trainB", "--data_root", tmp_path, "--dataset_name", "new") == 0
    assert told in capsys.readouterr().out


def test_heic_is_named_with_what_to_install(tmp_path, folders, weights, capsys, monkeypatch):
    monkeypatch.setattr(reading.Image, "registered_extensions", lambda: {".png": "PNG"})  # as without pillow-heif
    root, phone = folders(3, 3, 1, 1), tmp_path / "phone"
    phone.mkdir()
    for i in range(2):
        (phone / f"IMG_{i}.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    start = ["collect", phone, root / "trainB", "--data_root", tmp_path, "--dataset_name", "new"]
    told = "2 files that Pillow does not read: 2 with .heic; pip install pillow-heif"
    assert run(*start) == 2 and told in capsys.readouterr().err
    for i in range(2):
        (phone / f"{i}.png").write_bytes((root / "trainA" / f"00{i}.png").read_bytes())
    assert run(*start) == 0 and told in capsys.readouterr().out
    one = ["translate", phone / "IMG_0.HEIC", "--checkpoint", weights, "--device", "cpu", "--output", tmp_path / "out"]
    assert run(*one) == 1 and "IMG_0.HEIC: cannot be read" in (out := capsys.readouterr().out)
    assert "pip install pillow-heif" in out


def test_sides_that_are_the_same_pictures_are_named(folders):
    root = folders(2, 2, 1, 1)
    for split, other in (("trainB", "trainA"), ("testA", "trainB")):
        (root / split / "copy.png").write_bytes((root / other / "001.png").read_bytes())
    warnings = check_dataset(root)["warnings"]
    assert [w.split("; ")[1] for w in warnings] == [
        "1 of 3 in trainB are in trainA too", "1 of 2 in testA are in trainB too",
    ]  # fmt: skip
