import json
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan_lib import datasets
from cyclegan_lib.datasets import (
    UnpairedDataset,
    find_pictures,
    load_picture,
    load_split,
    read_picture,
    to_signed,
    training_batches,
)
from cyclegan_lib.errors import UserError
from cyclegan_lib.pictures.check import check_dataset, dataset_folder
from cyclegan_lib.pictures.crops import write_crops
from cyclegan_lib.water2wine.dataset import write_dataset


def gradient(height=40, width=40):
    """A colour picture (H, W, 3) whose every pixel says where it is."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // (width - 1), y * 255 // (height - 1), np.full_like(x, 90)], -1).astype(np.uint8)


@pytest.fixture
def folders(tmp_path):
    """Makes a data set with so many pictures in trainA, trainB, testA and testB."""

    def make(*counts, root=tmp_path / "set", size=40):
        for split, count in zip(("trainA", "trainB", "testA", "testB"), counts, strict=True):
            (root / split).mkdir(parents=True)
            for i in range(count):
                pixels = gradient(size, size)
                pixels[..., 2] = (i * 7 + len(split) * 3 + (split[-1] == "B") * 100) % 256
                Image.fromarray(pixels).save(root / split / f"{i:03d}.png")
        return root

    return make


# What comes out of a file


def test_the_kinds_of_png(tmp_path):
    rgb = Image.fromarray(gradient())
    for mode in ("L", "P", "RGB", "1"):
        rgb.convert(mode).save(tmp_path / "a.png")
        expected = np.array(rgb.convert(mode).convert("RGB"))
        assert np.array_equal(np.array(read_picture(tmp_path / "a.png")), expected), mode


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


def test_cmyk(tmp_path):
    colours = {(0, 255, 255, 0): (255, 0, 0), (0, 0, 0, 255): (0, 0, 0), (0, 0, 0, 0): (255, 255, 255)}
    for cmyk, rgb in colours.items():
        Image.new("CMYK", (16, 16), cmyk).save(tmp_path / "a.tiff")
        assert read_picture(tmp_path / "a.tiff").getpixel((8, 8)) == rgb


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path, orientation):
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
    assert np.array_equal(np.array(read_picture(tmp_path / "a.png")), np.array(upright))


def test_grey_and_colour(tmp_path):
    Image.fromarray(gradient()).save(tmp_path / "a.png")
    assert load_picture(tmp_path / "a.png", (20, 12), channels=1).shape == (1, 20, 12)
    assert load_picture(tmp_path / "a.png", (20, 12)).shape == (3, 20, 12)


def test_range():
    assert to_signed(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]


@pytest.mark.parametrize("damage", ["truncated.jpg", "truncated.png", "text.png", "empty.jpg", "bomb.png"])
def test_a_bad_file_is_named(tmp_path, damage, monkeypatch):
    path = tmp_path / damage
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    if damage == "bomb.png":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    else:
        contents = {"truncated": path.read_bytes()[:-900], "text": b"hello", "empty": b""}
        path.write_bytes(contents[path.stem])
    with pytest.raises(UserError, match=damage):
        read_picture(path)


# Folders


def test_find_pictures(tmp_path):
    for name in ("b.PNG", "a.jpg", "deep/er/c.Jpeg", "d.webp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(gradient()).save(tmp_path / name, format="PNG")
    for name in ("notes.txt", ".DS_Store", "._a.jpg", ".hidden/e.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    os.symlink(tmp_path, tmp_path / "deep" / "loop")
    os.mkfifo(tmp_path / "pipe.png")
    found = [path.relative_to(tmp_path).as_posix() for path in find_pictures(tmp_path)]
    assert found == ["a.jpg", "b.PNG", "d.webp", "deep/er/c.Jpeg"]


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
    with pytest.raises(UserError, match="nowhere/trainA.*crops"):
        check_dataset(tmp_path / "nowhere")
    root = folders(1, 0, 1, 1)
    with pytest.raises(UserError, match="trainB: no pictures"):
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
        datasets.main(command.format(*[tmp_path] * 2).split())
    assert stop.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == culprits


# Unpaired


def test_an_epoch_is_as_long_as_the_longer_side_and_uses_every_picture(folders):
    data = UnpairedDataset(folders(7, 3, 1, 1), (32, 32))
    assert len(data) == 7
    for epoch in range(3):
        numbers = range(epoch * 7, (epoch + 1) * 7)
        assert len({data.path("A", n) for n in numbers}) == 7
        uses = [sum(data.path("B", n) == path for n in numbers) for path in data.paths["B"]]
        assert sum(uses) == 7 and max(uses) - min(uses) <= 1


def test_no_pair_lasts(folders):
    data = UnpairedDataset(folders(20, 20, 1, 1), (32, 32))
    pairs = [{(data.path("A", n), data.path("B", n)) for n in range(e * 20, e * 20 + 20)} for e in range(2)]
    assert len(pairs[0] & pairs[1]) < 6
    orders = [[data.path("A", n) for n in range(e * 20, e * 20 + 20)] for e in range(2)]
    assert orders[0] != orders[1]


def test_a_seed_decides_everything(folders):
    root = folders(5, 5, 1, 1)
    one, same, other = (UnpairedDataset(root, (32, 32), seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(one[n][side], same[n][side]) for n in range(12) for side in (0, 1))
    assert not all(torch.equal(one[n][0], other[n][0]) for n in range(12))


def test_training_pictures_are_crops_of_the_resized_one_half_of_them_flipped(folders):
    root = folders(1, 1, 1, 1)
    data = UnpairedDataset(root, (32, 32))
    whole = to_signed(load_picture(root / "trainA" / "000.png", (36, 36)))
    seen, flips = set(), 0
    for n in range(300):
        crop, _ = data[n]
        found = [
            (top, left, flip)
            for top in range(5) for left in range(5) for flip in (False, True)
            if torch.equal(crop.flip(2) if flip else crop, whole[:, top : top + 32, left : left + 32])
        ]  # fmt: skip
        assert len(found) == 1
        seen.add(found[0][:2])
        flips += found[0][2]
    assert len(seen) == 25
    assert 110 < flips < 190


def test_beyond_the_budget_pictures_come_from_disk_and_are_the_same(folders):
    root = folders(3, 2, 1, 1)
    kept, read = UnpairedDataset(root, (32, 32)), UnpairedDataset(root, (32, 32), memory_budget=1000)
    assert kept.pictures is not None and read.pictures is None
    assert kept.pictures["A"].dtype == torch.uint8
    assert all(torch.equal(kept[n][0], read[n][0]) for n in range(6))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_with_workers_and_from_the_middle(folders, workers):
    data = UnpairedDataset(folders(5, 4, 1, 1), (32, 32))
    straight = list(training_batches(data, 2, 0, 6))
    assert [len(batch[0]) for batch in straight] == [2, 2, 1, 2, 2, 1]
    again = list(training_batches(data, 2, 2, 6, num_workers=workers))
    assert len(again) == 4
    for (a, b), (c, d) in zip(straight[2:], again, strict=True):
        assert torch.equal(a, c) and torch.equal(b, d)


def test_batches_leave_the_global_random_state_alone(folders):
    data = UnpairedDataset(folders(4, 4, 1, 1), (32, 32))
    before = torch.get_rng_state()
    list(training_batches(data, 2, 0, 2))
    assert torch.equal(before, torch.get_rng_state())


def test_a_dataset_can_be_sent_to_another_process(folders):
    data = UnpairedDataset(folders(3, 3, 1, 1), (32, 32))
    assert torch.equal(pickle.loads(pickle.dumps(data))[4][1], data[4][1])


def test_test_pictures_are_resized_and_nothing_else(folders):
    root = folders(1, 1, 2, 1)
    pictures = load_split(root, "testA", (40, 40))
    assert pictures.shape == (2, 3, 40, 40)
    with Image.open(root / "testA" / "001.png") as image:
        assert torch.equal(pictures[1], to_signed(torch.from_numpy(np.array(image)).permute(2, 0, 1)))
    assert load_split(root, "testA", (24, 28), limit=1).shape == (1, 3, 24, 28)


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
    with pytest.raises(UserError, match="there already"):
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
        threshold, sign = datasets._best_threshold(a, b)
        right = (sign * a < sign * threshold).double().mean() + (sign * b >= sign * threshold).double().mean()
        assert right / 2 == pytest.approx(slow_best(a, b))


def test_a_separation_is_tried_on_numbers_that_it_was_not_chosen_on():
    generator = torch.Generator().manual_seed(0)
    same = [torch.randn(40, generator=generator) for _ in range(2)]
    chance = [datasets.separation(*torch.randn(2, 40, generator=generator))[0] for _ in range(100)]
    assert sum(chance) / 100 == pytest.approx(0.5, abs=0.03), "not above a guess, though the best threshold fits each"
    assert slow_best(*same) > 0.5
    for above in (100, -100):
        assert datasets.separation(same[0], same[1] + above) == (1, 0)


def test_the_standard_error_of_a_separation_is_that_of_repetitions():
    generator = torch.Generator().manual_seed(0)
    found = [datasets.separation(*torch.randn(2, 200, generator=generator).add(torch.tensor([[0.0], [1.5]])))
             for _ in range(200)]  # fmt: skip
    accuracy, error = (torch.tensor(column) for column in zip(*found, strict=True))
    assert accuracy.mean() == pytest.approx(0.773, abs=0.01)  # Φ(0.75)
    assert error.mean() == pytest.approx(accuracy.std().item(), rel=0.25)


def test_check_warns_of_walls_that_follow_the_liquid(tmp_path, capsys):
    for name, share in [("independent", 0.5), ("following", 1.0)]:
        write_dataset(tmp_path / name, num_train=60, num_test=1, size=32, confounding=share, glass_confounding=0.5)
        datasets.main(["check", str(tmp_path / name)])
    independent, following = capsys.readouterr().out.split(f"{tmp_path / 'following'}: ")
    assert "warning" not in independent and "no global statistic tells A from B well" in independent
    assert "warning: brightness alone tells A from B in 100% of the pictures; expect the translation" in following


def test_check_says_nothing_of_a_handful(folders, capsys):
    datasets.main(["check", str(folders(4, 4, 1, 1))])
    assert "too few training pictures to say" in capsys.readouterr().out


def test_without_augmentation_pictures_are_shown_as_they_are(folders):
    root = folders(5, 3, 1, 1)
    data = UnpairedDataset(root, (32, 32), augment=False)
    shown = [data[n] for n in range(10)]
    for d, domain in enumerate("AB"):
        there = load_split(root, f"train{domain}", (32, 32))
        for n, pair in enumerate(shown):
            assert torch.equal(pair[d], there[data.paths[domain].index(data.path(domain, n))])
