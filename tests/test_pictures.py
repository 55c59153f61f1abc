"""Picture files of any kind, the check of a data set, crops of two pictures, and what tells A from B."""

import json
import shutil

import numpy as np
import pytest
import torch
from helpers import gradient
from PIL import Image

from cyclegan_lib import datasets
from cyclegan_lib.cli import main
from cyclegan_lib.datasets import find_pictures
from cyclegan_lib.errors import UserError
from cyclegan_lib.pictures import check
from cyclegan_lib.pictures.check import check_dataset, dataset_folder
from cyclegan_lib.pictures.crops import write_crops
from cyclegan_lib.pictures.reading import read_picture
from cyclegan_lib.water2wine.dataset import write_dataset

# The core's reader, for common files, and that of this room, for all of them.
both_readers = pytest.mark.parametrize("read", [datasets.read_picture, read_picture], ids=["core", "pictures"])


# What comes out of a file


@both_readers
def test_the_kinds_of_png(tmp_path, read):
    rgb = Image.fromarray(gradient())
    for mode in ("L", "P", "RGB", "1"):
        rgb.convert(mode).save(tmp_path / "a.png")
        expected = np.array(rgb.convert(mode).convert("RGB"))
        assert np.array_equal(np.array(read(tmp_path / "a.png")), expected), mode


def test_transparency_goes_onto_white(tmp_path):
    pixels = np.dstack([gradient(), np.zeros((40, 40), np.uint8)])
    pixels[:20, :, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    read = np.array(read_picture(tmp_path / "a.png"))
    assert np.array_equal(read[:20], gradient()[:20]) and (read[20:] == 255).all()
    grey = Image.fromarray(np.dstack([np.zeros((8, 8), np.uint8), np.full((8, 8), 128, np.uint8)]), "LA")
    grey.save(tmp_path / "b.png")
    assert np.abs(np.array(read_picture(tmp_path / "b.png")).astype(int) - 127).max() <= 1
    palette = Image.fromarray(np.zeros((8, 8), np.uint8)).convert("P")
    palette.save(tmp_path / "c.png", transparency=0)
    assert (np.array(read_picture(tmp_path / "c.png")) == 255).all()


@pytest.mark.parametrize("ending", ["png", "tiff"])
def test_16_bits_are_scaled_not_clipped(tmp_path, ending):
    values = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{ending}")
    read = np.array(read_picture(tmp_path / f"a.{ending}", channels=1))
    assert np.abs(read.astype(float) - values / 257).max() <= 0.5


def test_float_and_32_bit_tiff(tmp_path):
    Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)).save(tmp_path / "a.tiff")
    read = np.array(read_picture(tmp_path / "a.tiff", channels=1))
    assert read.min() == 0 and read.max() == 255 and abs(read.mean() - 127.5) < 1
    Image.fromarray((np.arange(64, dtype=np.int32) * 1040).reshape(8, 8)).save(tmp_path / "b.tiff")
    assert np.array(read_picture(tmp_path / "b.tiff", channels=1)).max() == round(63 * 1040 / 257)


@both_readers
def test_cmyk(tmp_path, read):
    colours = {(0, 255, 255, 0): (255, 0, 0), (0, 0, 0, 255): (0, 0, 0), (0, 0, 0, 0): (255, 255, 255)}
    for cmyk, rgb in colours.items():
        Image.new("CMYK", (16, 16), cmyk).save(tmp_path / "a.tiff")
        assert read(tmp_path / "a.tiff").getpixel((8, 8)) == rgb


@both_readers
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path, read, orientation):
    upright = Image.fromarray(gradient(40, 24))
    undo = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT], 3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM], 5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90], 7: [Image.Transpose.TRANSVERSE], 8: [Image.Transpose.ROTATE_270],
    }.get(orientation, [])  # fmt: skip
    stored = upright
    for operation in undo:
        stored = stored.transpose(operation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(np.array(read(tmp_path / "a.png")), np.array(upright))


@both_readers
@pytest.mark.parametrize("damage", ["truncated.jpg", "truncated.png", "text.png", "empty.jpg", "bomb.png"])
def test_a_bad_file_is_named(tmp_path, read, damage, monkeypatch):
    path = tmp_path / damage
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    if damage == "bomb.png":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    else:
        contents = {"truncated": path.read_bytes()[:-900], "text": b"hello", "empty": b""}
        path.write_bytes(contents[path.stem])
    with pytest.raises(UserError, match=damage):
        read(path)


# The check


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ".", "", "/etc", "a\\b", "C:x", ".hidden"])
def test_a_name_cannot_climb_out(name):
    with pytest.raises(UserError, match="dataset_name"):
        dataset_folder("data", name)


def test_check_names_every_culprit(folders):
    root = folders(3, 3, 2, 2)
    (root / "trainA" / "001.png").write_bytes(b"no picture")
    (root / "testB" / "000.png").write_bytes((root / "testB" / "000.png").read_bytes()[:60])
    with pytest.raises(UserError) as caught:
        check_dataset(root)
    lines = str(caught.value).splitlines()
    assert len(lines) == 2 and "trainA/001.png" in lines[0] and "testB/000.png" in lines[1]


def test_check_of_folders(folders, tmp_path):
    with pytest.raises(UserError, match="nowhere/trainA.* collect or crops, .* cyclegan download"):
        check_dataset(tmp_path / "nowhere")
    root = folders(1, 0, 1, 1)
    with pytest.raises(UserError, match="no pictures in .*trainB; "):
        check_dataset(root)
    shutil.rmtree(root / "testA")
    with pytest.raises(UserError, match="testA"):
        check_dataset(root)


def test_check_of_a_good_one(folders):
    root = folders(3, 2, 1, 1)
    shutil.copy(root / "trainB" / "000.png", root / "testB" / "same.png")
    report = check_dataset(root)
    assert report["splits"] == {"trainA": 3, "trainB": 2, "testA": 1, "testB": 2}
    assert report["sizes"] == {(40, 40): 8} and report["modes"] == {"RGB": 8}
    assert len([w for w in report["warnings"] if "same.png" in w]) == 1


@pytest.mark.parametrize(
    ("command", "culprits"), [("check {}/nowhere", 1), ("crops {}/a.jpg {}/b.jpg", 2), ("crops {}/a {}/b --size 1", 1)]
)
def test_the_command_fails_in_a_line_for_each_culprit(tmp_path, capsys, command, culprits):
    with pytest.raises(SystemExit) as stop:
        main(command.format(*[tmp_path] * 2).split())
    assert stop.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == culprits


# Two pictures are enough


@pytest.mark.parametrize("shape", [(300, 600), (600, 300)])
def test_crops_for_training_and_testing_share_no_pixel(tmp_path, shape):
    for name in "ab":
        Image.fromarray(gradient(*shape)).save(tmp_path / f"{name}.png")
    root = write_crops(tmp_path / "a.png", tmp_path / "b.png", tmp_path / "mine", num_train=60, num_test=30, size=32)
    boxes = json.loads((root / "crops.json").read_text())["boxes"]
    along = 0 if shape[1] > shape[0] else 1
    for domain in "AB":
        train = [box for name, box in boxes.items() if name.startswith(f"train{domain}")]
        test = [box for name, box in boxes.items() if name.startswith(f"test{domain}")]
        assert len(train) == 60 and len(test) == 30
        start, end = min(box[along] for box in test), max(box[along + 2] for box in test)
        assert all(box[along + 2] <= start or box[along] >= end for box in train)
        assert any(box[along] < start for box in train) and any(box[along] > end for box in train)
        assert all(0 <= b[0] < b[2] <= shape[1] and 0 <= b[1] < b[3] <= shape[0] for b in test + train)
        assert all(b[2] - b[0] == b[3] - b[1] for b in test + train)
        assert len({box[2] - box[0] for box in train}) > 10, "one scale only"
        # The pictures themselves say where they were cut, in red or green.
        for split, is_test in (("train", False), ("test", True)):
            for path in find_pictures(root / f"{split}{domain}"):
                middle = np.array(Image.open(path))[..., along].mean() / 255 * max(shape)
                assert (start <= middle <= end) == is_test


def test_crops_are_decided_by_the_seed(tmp_path):
    Image.fromarray(gradient(200, 220)).save(tmp_path / "a.png")
    roots = [
        write_crops(tmp_path / "a.png", tmp_path / "a.png", tmp_path / str(i), 4, 2, 32, seed)
        for i, seed in enumerate((0, 0, 1))
    ]
    same, again, other = (json.loads((root / "crops.json").read_text())["boxes"] for root in roots)
    assert same == again != other
    assert check_dataset(roots[0])["splits"] == {"trainA": 4, "trainB": 4, "testA": 2, "testB": 2}


def test_crops_refuse_what_cannot_be(tmp_path):
    Image.fromarray(gradient(100, 100)).save(tmp_path / "small.png")
    with pytest.raises(UserError, match="small.png"):
        write_crops(tmp_path / "small.png", tmp_path / "small.png", tmp_path / "x")
    assert not (tmp_path / "x").exists()
    with pytest.raises(UserError, match="no.png"):
        write_crops(tmp_path / "no.png", tmp_path / "small.png", tmp_path / "x")
    (tmp_path / "x").mkdir()
    with pytest.raises(UserError, match="exists already"):
        write_crops(tmp_path / "small.png", tmp_path / "small.png", tmp_path / "x")


# What tells A from B


def slow_best(number_A, number_B):
    """The share of the most that any threshold, in either direction, gets right."""
    best = 0
    for threshold in [*number_A.tolist(), *number_B.tolist()]:
        for sign in (1, -1):
            right_A = sum(sign * a < sign * threshold for a in number_A.tolist()) / len(number_A)
            right_B = sum(sign * b >= sign * threshold for b in number_B.tolist()) / len(number_B)
            best = max(best, (right_A + right_B) / 2)
    return best


def test_a_threshold_is_the_best_there_is():
    generator = torch.Generator().manual_seed(0)
    for shift in (-1, 0, 0.5, 3):
        a, b = torch.randn(12, generator=generator), torch.randn(9, generator=generator) + shift
        threshold, sign = check._best_threshold(a, b)
        right = (sign * a < sign * threshold).double().mean() + (sign * b >= sign * threshold).double().mean()
        assert right / 2 == pytest.approx(slow_best(a, b))


def test_a_separation_is_tried_on_numbers_that_it_was_not_chosen_on():
    generator = torch.Generator().manual_seed(0)
    same = [torch.randn(40, generator=generator) for _ in range(2)]
    chance = [check.separation(*torch.randn(2, 40, generator=generator))[0] for _ in range(100)]
    assert sum(chance) / 100 == pytest.approx(0.5, abs=0.03), "not above a guess, though the best threshold fits each"
    assert slow_best(*same) > 0.5
    for above in (100, -100):
        assert check.separation(same[0], same[1] + above) == (1, 0)


def test_the_standard_error_of_a_separation_is_that_of_repetitions():
    generator = torch.Generator().manual_seed(0)
    found = [check.separation(*torch.randn(2, 200, generator=generator).add(torch.tensor([[0.0], [1.5]])))
             for _ in range(200)]  # fmt: skip
    accuracy, error = (torch.tensor(column) for column in zip(*found, strict=True))
    assert accuracy.mean() == pytest.approx(0.773, abs=0.01)  # Φ(0.75)
    assert error.mean() == pytest.approx(accuracy.std().item(), rel=0.25)


def test_check_warns_of_walls_that_follow_the_liquid(tmp_path, capsys):
    for name, share in [("independent", 0.5), ("following", 1.0)]:
        write_dataset(tmp_path / name, num_train=60, num_test=1, size=32, confounding=share, glass_confounding=0.5)
        main(["check", str(tmp_path / name)])
    independent, following = capsys.readouterr().out.split(f"{tmp_path / 'following'}: ")
    assert "warning" not in independent and "no global statistic tells A from B well" in independent
    assert "warning: brightness alone tells A from B in 100% of the pictures; expect it to change" in following
    assert following.count("; fine if you want that\n") == following.count("warning: ") > 0


def test_check_says_nothing_of_a_handful(folders, capsys):
    main(["check", str(folders(4, 4, 1, 1))])
    assert "too few training pictures to say" in capsys.readouterr().out
