"""Pictures of one's own → a data set: folders, zips, Hugging Face data sets."""

import io
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from cyclegan_lib.errors import UserError
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
        collect.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code
    return 0


def test_every_picture_of_two_folders_is_in_one_split_under_its_own_name(tmp_path, capsys):
    A, B = make_folder(tmp_path / "A", range(20)), make_folder(tmp_path / "B", range(100, 110))
    (A / "twin.png").write_bytes(picture(3))  # the same bytes under another name
    assert run("folders", A, B, "--dataset_name", "mine", "--data_root", tmp_path, "--test_share", 0.2) == 0
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


def zip_of(folder, path, **more):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**files(folder), **more}.items():
            archive.writestr(name, content)
    return path


def test_a_zip_gives_what_its_folder_gives(tmp_path):
    A, B = make_folder(tmp_path / "A", range(9)), make_folder(tmp_path / "B", range(20, 26))
    zipped = zip_of(A, tmp_path / "A.zip", **{"__MACOSX/._0.png": b"not a picture"})
    collect.from_folders(A, B, tmp_path / "from_folder")
    collect.from_folders(zipped, B, tmp_path / "from_zip")
    assert files(tmp_path / "from_zip") == files(tmp_path / "from_folder")


def broken(tmp_path):
    A = make_folder(tmp_path / "A", range(4))
    for name in ("torn.png", "empty.jpg"):
        (A / name).write_bytes(picture(7)[:60] if name == "torn.png" else b"")
    return A


BAD = {
    "not there": (lambda tmp: tmp / "nowhere", ["nowhere: no such folder or zip"]),
    "a single picture": (lambda tmp: make_folder(tmp / "A", [1]), ["A: 1 pictures; at least one to train on"]),
    "a file": (lambda tmp: make_folder(tmp / "A", [1]) / "0.png", ["0.png: neither a folder nor a zip"]),
    "nothing in it": (lambda tmp: make_folder(tmp / "A", []), ["A: 0 pictures"]),
    "broken pictures": (broken, ["torn.png: cannot be read", "empty.jpg: not a picture"]),
    "a way out": (lambda tmp: zip_of(make_folder(tmp / "A", [1, 2]), tmp / "A.zip", **{"../out.png": b"x"}),
                  ["'../out.png' in the archive leads out of the folder"]),
    "no zip": (lambda tmp: (tmp / "no.zip").write_bytes(b"<html>") and tmp / "no.zip", ["no.zip", "not a zip"]),
    "the same picture": (lambda tmp: make_folder(tmp / "A", [1, 2, 30]), ["1.png is in", "a picture is A or B"]),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_sources_are_named_and_nothing_is_made(tmp_path, capsys, name):
    make, said = BAD[name]
    (tmp_path / "here").mkdir()
    A, B = make(tmp_path / "here"), make_folder(tmp_path / "B", range(30, 34))
    before = files(tmp_path)
    assert run("folders", A, B, "--dataset_name", "mine", "--data_root", tmp_path / "data") == 2
    error = capsys.readouterr().err
    assert all(text in error for text in said) and "Traceback" not in error
    assert files(tmp_path) == before and list((tmp_path / "data").iterdir()) == []


def test_what_is_there_is_not_touched_and_names_do_not_climb(tmp_path, capsys):
    A, B = make_folder(tmp_path / "A", range(3)), make_folder(tmp_path / "B", range(20, 23))
    (tmp_path / "mine").mkdir()
    assert run("folders", A, B, "--dataset_name", "mine", "--data_root", tmp_path) == 2
    assert "mine is there already" in capsys.readouterr().err
    assert run("folders", A, B, "--dataset_name", "../out", "--data_root", tmp_path) == 2
    assert "not a path" in capsys.readouterr().err


# Hugging Face


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Makes a local Hugging Face data set: {split: {column: values}} → its folder."""
    hugging_face = pytest.importorskip("datasets")
    monkeypatch.setattr(hugging_face.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    hugging_face.disable_progress_bars()

    def make(splits, pictures=("imageA", "imageB")):
        folder = tmp_path / "hub"
        folder.mkdir()
        for split, columns in splits.items():
            kinds = {name: hugging_face.Image() if name in pictures else hugging_face.Value("string")
                     for name in columns}  # fmt: skip
            rows = hugging_face.Dataset.from_dict(columns, features=hugging_face.Features(kinds))
            rows.to_parquet(folder / f"{split}-00000.parquet")
        return folder

    return make


def column(seeds, kind="png"):
    return [None if seed is None else {"bytes": picture(seed, kind), "path": None} for seed in seeds]


def test_a_hugging_face_data_set_is_written_byte_for_byte_and_no_picture_twice(tmp_path, hub):
    source = hub({
        "train": {"label": ["x"] * 4, "imageA": column([0, 1, 2, 1]), "imageB": column([10, None, 12, 12], "jpeg")},
        "test": {"label": ["y"] * 2, "imageA": column([20, 21]), "imageB": column([30, 31])},
    })  # fmt: skip
    collect.from_hugging_face(source, tmp_path / "mine")
    expected = {
        "trainA": {f"train_{i:06d}.png": picture(i) for i in range(3)},
        "trainB": {f"train_{i:06d}.jpeg": picture(10 + i, "jpeg") for i in (0, 2)},
        "testA": {f"test_{i:06d}.png": picture(20 + i) for i in range(2)},
        "testB": {f"test_{i:06d}.png": picture(30 + i) for i in range(2)},
    }
    assert {split: files(tmp_path / "mine" / split) for split in expected} == expected


def test_without_a_test_split_some_are_kept_for_it(tmp_path, hub):
    source = hub({"train": {"imageA": column(range(10)), "imageB": column(range(50, 60))}})
    collect.from_hugging_face(source, tmp_path / "mine", ["imageB", "imageA"], test_share=0.3)
    counts = check_dataset(tmp_path / "mine")["splits"]
    assert counts == {"trainA": 7, "trainB": 7, "testA": 3, "testB": 3}
    assert all(content in [picture(seed) for seed in range(50, 60)]
               for content in files(tmp_path / "mine" / "trainA").values())  # fmt: skip


@pytest.mark.parametrize("columns", [None, ["imageA", "label"], ["imageA", "none"]])
def test_columns_that_are_no_pictures_are_refused_by_name(tmp_path, hub, columns):
    rows = {"imageA": column([1, 2]), "label": ["x", "y"]}
    with pytest.raises(UserError, match=r"name the two columns .* it has imageA \(Image\), label \(Value\)"):
        collect.from_hugging_face(hub({"train": rows}, ("imageA",)), tmp_path / "mine", columns)
    assert not (tmp_path / "mine").exists() and not (tmp_path / ".mine.partial").exists()


def test_a_damaged_picture_in_a_column_is_named(tmp_path, hub):
    rows = {"imageA": column([1, 2]), "imageB": [{"bytes": b"torn", "path": None}, *column([3])]}
    with pytest.raises(UserError, match="row 0 of train: its imageB is no picture"):
        collect.from_hugging_face(hub({"train": rows}), tmp_path / "mine")


def test_a_data_set_that_is_not_there_and_a_missing_package_are_said(tmp_path, hub, monkeypatch):
    with pytest.raises(UserError, match="nowhere: not a data set that can be loaded"):
        collect.from_hugging_face(tmp_path / "nowhere", tmp_path / "mine")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="pip install datasets"):
        collect.from_hugging_face("any/thing", tmp_path / "mine")
