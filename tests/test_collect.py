"""Pictures of one's own → a data set: folders and zips."""

import io
import zipfile

import numpy as np
import pytest
from helpers import gradient
from PIL import Image, ImageFile

from cyclegan_lib.cli import main
from cyclegan_lib.pictures import collect
from cyclegan_lib.pictures.check import check_dataset


def picture(seed, kind="png"):
    """The bytes of a small picture that is like no other."""
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    Image.fromarray(pixels).save(file := io.BytesIO(), kind)
    return file.getvalue()


def make_folder(folder, seeds):
    """Pictures in two folders, some of the same name, and a file that is none."""
    for number, seed in enumerate(seeds):
        place = folder / ("deep" if number % 2 else "") / f"{number // 2}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(picture(seed))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "notes.txt").write_text("no picture")
    return folder


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(*arguments):
    """The exit code of the command, in this process."""
    try:
        main(["collect", *map(str, arguments)])
    except SystemExit as end:
        return end.code
    return 0


def test_every_picture_of_two_folders_is_in_one_split_under_its_own_name(tmp_path, capsys):
    A, B = make_folder(tmp_path / "A", range(20)), make_folder(tmp_path / "B", range(100, 110))
    (A / "twin.png").write_bytes(picture(3))  # the same bytes under another name
    assert run(A, B, "--dataset_name", "mine", "--data_root", tmp_path, "--test_share", 0.2, "--size", 0) == 0
    assert "16 in trainA, 8 in trainB, 4 in testA, 2 in testB" in capsys.readouterr().out
    made = files(tmp_path / "mine")
    for folder, domain, seeds in ((A, "A", range(20)), (B, "B", range(100, 110))):
        side = {name: content for name, content in made.items() if name.split("/")[0][-1] == domain}
        assert sorted(side.values()) == sorted(picture(seed) for seed in seeds)
        for name, content in side.items():
            assert (folder / name.split("/", 1)[1]).read_bytes() == content
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_draw_depends_on_the_seed_and_on_the_pictures_but_not_on_their_names(tmp_path):
    B = make_folder(tmp_path / "B", range(50, 54))

    def tested(name, folder, seed):
        collect.from_folders(folder, B, tmp_path / name, 0.3, seed)
        return set(files(tmp_path / name / "testA").values())

    A = make_folder(tmp_path / "A", range(12))
    renamed = make_folder(tmp_path / "renamed", reversed(range(12)))
    first = tested("first", A, 0)
    assert len(first) == 4 and tested("second", renamed, 0) == first
    assert {frozenset(tested(f"seed{seed}", A, seed)) for seed in range(1, 6)} != {frozenset(first)}


@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_there_is_always_one_to_train_on_and_one_to_test(tmp_path, share):
    A, B = make_folder(tmp_path / "A", range(2)), make_folder(tmp_path / "B", range(5, 8))
    collect.from_folders(A, B, tmp_path / "mine", share)
    counts = check_dataset(tmp_path / "mine")["splits"]
    assert counts["trainA"] == counts["testA"] == 1 and min(counts.values()) == 1


ORIENTATIONS = (1, 6, 8, 3)


def test_photographs_become_upright_squares_and_those_that_fit_are_copied(tmp_path, capsys):
    """Red is left, green is down: the middle square of each picture says where it was cut and which way is up."""
    A, B = tmp_path / "A", make_folder(tmp_path / "B", range(100, 104))
    A.mkdir()
    Image.fromarray(gradient(32, 32)).save(A / "small.jpg")
    for orientation in ORIENTATIONS:
        exif = Image.Exif()
        exif[0x0112] = orientation
        turned = Image.fromarray(gradient(480, 640)).rotate({6: 90, 8: -90, 3: 180}.get(orientation, 0), expand=True)
        turned.save(A / f"{orientation}.jpg", exif=exif, quality=98)
    assert run(A, B, "--dataset_name", "mine", "--data_root", tmp_path, "--size", 64) == 0
    assert "8 of 9 pictures were not square and are cropped" in capsys.readouterr().out
    made = {path.name: path for path in (tmp_path / "mine").glob("*A/*")}
    assert made.keys() == {"small.jpg", *(f"{orientation}.jpg" for orientation in ORIENTATIONS)}
    assert made["small.jpg"].read_bytes() == (A / "small.jpg").read_bytes()
    for orientation in ORIENTATIONS:
        with Image.open(made[f"{orientation}.jpg"]) as image:
            assert image.size == (64, 64) and not image.getexif()
            found = np.asarray(image).astype(float)
        expected = np.asarray(Image.fromarray(gradient(480, 640)[:, 80:560]).resize((64, 64))).astype(float)
        assert np.abs(found - expected).max() < 8, orientation
    assert {Image.open(path).size for path in (tmp_path / "mine").glob("*B/*/*.png")} == {(9, 9)}, "never enlarged"


def test_each_photograph_is_decoded_once_and_at_a_fraction(tmp_path, monkeypatch):
    for domain, seed in (("A", 0), ("B", 9)):
        (tmp_path / domain).mkdir()
        for i in range(2):
            pixels = np.roll(gradient(480, 640), seed + i, axis=1)
            Image.fromarray(pixels).save(tmp_path / domain / f"{i}.jpg")
    decoded, load = [], ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: self.tile and decoded.append(self.size) or load(self))
    collect.from_folders(tmp_path / "A", tmp_path / "B", tmp_path / "mine", size=64)
    assert decoded == [(160, 120)] * 4


def zip_of(folder, path, **more):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**files(folder), **more}.items():
            archive.writestr(name, content)
    return path


def test_a_zip_gives_what_its_folder_gives(tmp_path):
    A, B = make_folder(tmp_path / "A", range(9)), make_folder(tmp_path / "B", range(20, 26))
    zipped = zip_of(A, tmp_path / "A.zip", **{"__MACOSX/._0.png": b"not a picture"})
    collect.from_folders(A, B, tmp_path / "from_folder")
    for name in ("from_zip", "sets/A"):  # zips are unpacked beside the new folder, and must not meet it
        collect.from_folders(zipped, B, tmp_path / name)
        assert files(tmp_path / name) == files(tmp_path / "from_folder")


def broken(tmp_path):
    A = make_folder(tmp_path / "A", range(4))
    for name in ("torn.png", "empty.jpg"):
        (A / name).write_bytes(picture(7)[:60] if name == "torn.png" else b"")
    return A


BAD = {
    "not there": (lambda tmp: tmp / "nowhere", ["nowhere: no such folder or zip"]),
    "a single picture": (lambda tmp: make_folder(tmp / "A", [1]), ["A: 1 pictures; at least one to train on"]),
    "a file": (lambda tmp: make_folder(tmp / "A", [1]) / "0.png", ["0.png: not a zip"]),
    "nothing in it": (lambda tmp: make_folder(tmp / "A", []), ["A: 0 pictures"]),
    "broken pictures": (broken, ["torn.png: cannot be read", "empty.jpg: cannot be read"]),
    "a way out": (lambda tmp: zip_of(make_folder(tmp / "A", [1, 2]), tmp / "A.zip", **{"../out.png": b"x"}),
                  ["A/out.png: cannot be read"]),
    "no zip": (lambda tmp: (tmp / "no.zip").write_bytes(b"<html>") and tmp / "no.zip", ["no.zip", "not a zip"]),
    "the same picture": (lambda tmp: make_folder(tmp / "A", [1, 2, 30]), ["1.png is in", "a picture is A or B"]),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_sources_are_named_and_nothing_is_made(tmp_path, capsys, name):
    make, said = BAD[name]
    (tmp_path / "here").mkdir()
    A, B = make(tmp_path / "here"), make_folder(tmp_path / "B", range(30, 34))
    before = files(tmp_path)
    assert run(A, B, "--dataset_name", "mine", "--data_root", tmp_path / "data") == 2
    error = capsys.readouterr().err
    assert all(text in error for text in said) and "Traceback" not in error
    assert files(tmp_path) == before and list((tmp_path / "data").iterdir()) == []


def test_what_is_there_is_not_touched_and_names_do_not_climb(tmp_path, capsys):
    A, B = make_folder(tmp_path / "A", range(3)), make_folder(tmp_path / "B", range(20, 23))
    (tmp_path / "mine").mkdir()
    assert run(A, B, "--dataset_name", "mine", "--data_root", tmp_path) == 2
    assert "mine exists already" in capsys.readouterr().err
    assert run(A, B, "--dataset_name", "../out", "--data_root", tmp_path) == 2
    assert "not a path" in capsys.readouterr().err
