import os
import pickle

import numpy as np
import pytest
import torch
from helpers import gradient
from PIL import Image

from cyclegan_lib.datasets import (
    UnpairedDataset,
    find_pictures,
    load_picture,
    load_split,
    to_signed,
    training_batches,
)
from cyclegan_lib.errors import UserError

# What comes out of a file


def test_grey_and_colour(tmp_path):
    Image.fromarray(gradient()).save(tmp_path / "a.png")
    assert load_picture(tmp_path / "a.png", (20, 12), channels=1).shape == (1, 20, 12)
    assert load_picture(tmp_path / "a.png", (20, 12)).shape == (3, 20, 12)


def test_range():
    assert to_signed(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]


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


def test_every_culprit_is_named(folders):
    root = folders(3, 0, 1, 1)
    with pytest.raises(UserError, match="no pictures in .*trainB"):
        UnpairedDataset(root, (32, 32))
    for name in ("trainA/001.png", "trainB/x.png"):
        (root / name).write_bytes(b"no picture")
    (root / "trainA" / "002.png").write_bytes((root / "trainA" / "002.png").read_bytes()[:60])
    with pytest.raises(UserError) as caught:
        UnpairedDataset(root, (32, 32))
    lines = str(caught.value).splitlines()
    assert len(lines) == 2 and "trainA/001.png" in lines[0] and "trainA/002.png" in lines[1]


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


def test_pictures_are_read_by_the_reader_that_is_passed_in(folders):
    def read(path, channels):
        return Image.new("L" if channels == 1 else "RGB", (50, 50), 255 if path.parent.name == "trainA" else 0)

    root = folders(2, 2, 2, 2)
    for budget in (0, 10**9):
        data = UnpairedDataset(root, (32, 32), 1, memory_budget=budget, read=read)
        assert (data[0][0] == 1).all() and (data[0][1] == -1).all() and data[0][0].shape == (1, 32, 32)
        assert (data.test("A", 1) == -1).all() and len(data.test("B")) == 2


def test_test_pictures_are_resized_and_nothing_else(folders):
    root = folders(1, 1, 2, 1)
    pictures = load_split(root, "testA", (40, 40))
    assert pictures.shape == (2, 3, 40, 40)
    with Image.open(root / "testA" / "001.png") as image:
        assert torch.equal(pictures[1], to_signed(torch.from_numpy(np.array(image)).permute(2, 0, 1)))
    assert load_split(root, "testA", (24, 28), limit=1).shape == (1, 3, 24, 28)


def test_without_augmentation_pictures_are_shown_as_they_are(folders):
    root = folders(5, 3, 1, 1)
    data = UnpairedDataset(root, (32, 32), augment=False)
    shown = [data[n] for n in range(10)]
    for d, domain in enumerate("AB"):
        there = load_split(root, f"train{domain}", (32, 32))
        for n, pair in enumerate(shown):
            assert torch.equal(pair[d], there[data.paths[domain].index(data.path(domain, n))])
