"""Whatever is wrong ends in one line that names it, and in exit code 2, with nothing changed on disk."""

import collections
import hashlib
import os
import pickle
import re
import shutil
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from cyclegan_lib.cli import main
from cyclegan_lib.files import read_tensors, write_tensors
from cyclegan_lib.show.training import TrainingControls
from cyclegan_lib.show.widgets import OwnPictures

TINY = "--dataset_name tiny --data_root {0}/data --output_root {0} --img_height 32 --img_width 32 --batch_size 2"
TINY += " --num_epochs 2 --base_channels 4 --num_residual 1 --device cpu --precision fp32 --sample_interval 0"
TRAIN = f"train {TINY} --run_name new"
GO_ON = f"train {TINY} --run_name done --num_epochs 3"
DOWNLOAD = "download new --data_root {0}/data --url {1}"
TRANSLATE = "translate {0}/photo.png --output {0}/translated --checkpoint"


@pytest.fixture(scope="module")
def place(tiny_root, tmp_path_factory):
    """A folder with the data set "tiny", the finished run "done", a photograph, and bad weights."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(tiny_root, folder / "data" / "tiny")
    main(f"train {TINY} --run_name done".format(folder).split())
    noise(folder / "photo.png")
    noise(folder / "small.png", 40)
    return folder


def noise(path, side=160):
    pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def cut(path):
    path.write_bytes(path.read_bytes()[:-900])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def rewrite(path, without=None, **changes):
    """The same checkpoint without a tensor, or with other facts."""
    tensors, facts = read_tensors(path)
    write_tensors(path, {key: value for key, value in tensors.items() if key != without}, facts | changes)


def pickled(path):
    path.write_bytes(pickle.dumps(collections.OrderedDict(a=os.getcwd)))


def bomb(path):
    """A PNG of a few bytes that says it has 400 million pixels."""
    noise(path, 16)
    content = bytearray(path.read_bytes())
    content[16:24] = (20_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)


def climbing_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("trainA/../../out.png", b"x")


def loop(folder):
    """A folder that holds nothing but a link to itself."""
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "again").symlink_to(folder, target_is_directory=True)


EPOCH = "saved_models/done/epoch_2.safetensors"
# {what is wrong: (what is done to the folder, the command, what its line has to say)}
BAD = {
    # options
    "batch size of 0": (None, f"{TRAIN} --batch_size 0", "--batch_size must be 1 to"),
    "a batch size in words": (None, f"{TRAIN} --batch_size two", "--batch_size: invalid int value: 'two'"),
    "an unknown option": (None, f"{TRAIN} --batchsize 2", "unrecognized arguments: --batchsize"),
    "62 pixels": (None, f"{TRAIN} --img_height 62", "--img_height must be a multiple of 4"),
    "a weight that is no number": (None, f"{TRAIN} --lambda_cycle nan", "--lambda_cycle must be 0 to .*, not nan"),
    "an infinite learning rate": (None, f"{TRAIN} --lr inf", "--lr must be a number above 0"),
    "a decay after the end": (None, f"{TRAIN} --decay_epoch 9", r"--decay_epoch must be 0 to --num_epochs \(2\)"),
    "minutes before now": (None, f"{TRAIN} --checkpoint_minutes -1", "--checkpoint_minutes must be 0 to"),
    "minutes without end": (None, f"{TRAIN} --checkpoint_minutes inf", "--checkpoint_minutes must be 0 to"),
    "resume sometimes": (None, f"{TRAIN} --resume sometimes", "--resume: invalid choice: 'sometimes'"),
    "two channels": (None, f"{TRAIN} --channels 2", "--channels: invalid choice: 2"),
    "a precision without its device": (None, f"{TRAIN} --precision fp16", "--precision fp16 needs a CUDA device"),
    "a run's name that climbs": (None, f"{TRAIN} --run_name ../x", r"--run_name '../x': .* not a path"),
    "a data set's name that climbs": (None, f"{TRAIN} --dataset_name ..", r"--dataset_name '..': .* not a path"),
    "a hidden name": (None, "download .x --data_root {0}", r"--dataset_name '.x': .* not a path"),
    "a name with a line's end in it": (None, ["scenes", "--dataset_name", "a\nb"], r"--dataset_name 'a\\nb'"),
    "no seeds": (None, "ablation --seeds 0 --output {0}/a", "--seeds: must be"),
    "an option that is no more": (None, f"{TRAIN} --compile", "--compile is gone: .*"),
    "a size of 0": (None, "floor {0}/data/tiny --size 0", "--size: must be"),
    # folders
    "a data set that is not there": (None, f"{TRAIN} --dataset_name nowhere", "no pictures in .*nowhere/trainA"),
    "a side with nothing in it": (
        lambda p: [path.unlink() for path in (p / "data/tiny/trainB").iterdir()], TRAIN, "no pictures in .*trainB; ",
    ),
    "a loop of links": (lambda p: loop(p / "data/tiny/trainA"), TRAIN, "no pictures in .*tiny/trainA; "),
    "data_root is a file": (None, f"{TRAIN} --data_root {{0}}/photo.png", "photo.png"),
    "output_root is a file": (None, f"{TRAIN} --output_root {{0}}/photo.png", "photo.png: no folder that can be"),
    "the models' folder is a file": (
        lambda p: (p / "saved_models/new").write_text(""), TRAIN, "saved_models/new: no folder that can be",
    ),
    "the pictures' folder is a file": (
        lambda p: (p / "generated_images/new").write_text(""), TRAIN, "generated_images/new: no folder that can be",
    ),
    "an earlier run": (None, f"train {TINY} --run_name done", "done holds an earlier run; give --resume auto to"),
    "results that are there": (
        lambda p: (p / "translated").mkdir() or noise(p / "translated/photo.png"),
        f"{TRANSLATE} {{0}}/{EPOCH}", "translated/photo.png exists already",
    ),
    "a folder of crops that is there": (
        None, "crops {0}/photo.png {0}/photo.png --dataset_name tiny --data_root {0}/data",
        "tiny exists already",
    ),
    "a drawn data set that is there": (
        None, "scenes --data_root {0}/data --dataset_name tiny", "tiny exists already",
    ),
    # pictures
    "a picture cut short": (lambda p: cut(p / "data/tiny/testA/0000.png"), TRAIN, "testA/0000.png: cannot be read"),
    "text for a picture": (
        lambda p: (p / "data/tiny/trainA/x.jpg").write_text("hello"), TRAIN, "trainA/x.jpg: cannot be read",
    ),
    "a decompression bomb": (lambda p: bomb(p / "data/tiny/trainA/b.png"), TRAIN, "b.png: cannot be read .* pixels"),
    "a link to nothing": (
        lambda p: (p / "data/tiny/trainA/l.png").symlink_to(p / "gone.png"), TRAIN, "trainA/l.png: .*No such file",
    ),
    "a picture too small to cut up": (
        None, "crops {0}/photo.png {0}/small.png --data_root {0}/data", "small.png: 40×40 pixels is too small",
    ),
    "scenes that are no JSON": (lambda p: cut(p / "data/tiny/scenes.json"), TRAIN, "scenes.json"),
    # checkpoints
    "an epoch that is not there": (None, f"{GO_ON} --start_from 7", "epoch_7.safetensors: no such"),
    "an epoch that is damaged": (
        lambda p: flip(p / EPOCH), f"{GO_ON} --start_from 2", "epoch_2.safetensors: damaged",
    ),
    "nothing whole": (
        lambda p: cut(p / EPOCH), f"{GO_ON} --resume auto", "done holds an earlier run; give another",
    ),
    "facts that were changed": (
        lambda p: rewrite(p / EPOCH, step=5), f"{GO_ON} --start_from 2", "epoch_2.safetensors: damaged",
    ),
    "a tensor that is gone": (
        lambda p: rewrite(p / EPOCH, without="D_A.model.0.bias"), f"{GO_ON} --start_from 2", "damaged, D_A is not",
    ),
    "a generator that was changed": (
        lambda p: rewrite(p / EPOCH, without="G_AB.model.1.bias"), f"{TRANSLATE} {{0}}/{EPOCH}", "damaged, G_AB is not",
    ),
    "another architecture": (
        None, f"{GO_ON} --start_from 2 --base_channels 8", "--base_channels 8: the run in .* had 4",
    ),
    "another size": (None, f"{GO_ON} --resume auto --img_width 64", "--img_width 64: the run in .* had 32"),
    "fewer pictures": (
        lambda p: (p / "data/tiny/trainA/0000.png").unlink(), f"{GO_ON} --resume auto", r"pictures \[5, 6\]: the",
    ),
    "a history with a hole": (
        lambda p: (p / "saved_models/done/history.jsonl").write_text('{"step": 1}\n{\n'), f"{GO_ON} --start_from 2",
        "history.jsonl: line 2 is damaged",
    ),
    # weights
    "weights that are not there": (None, f"{TRANSLATE} {{0}}/none.pth", "none.pth: no such file"),
    "weights with code in them": (
        lambda p: pickled(p / "trap.pth"), f"{TRANSLATE} {{0}}/trap.pth", "trap.pth: damaged, or holds more",
    ),
    "code under another name": (
        lambda p: pickled(p / "trap.safetensors"), f"{TRANSLATE} {{0}}/trap.safetensors", "trap.safetensors: damaged",
    ),
    "weights that are a page": (
        lambda p: (p / "page.pth").write_text("<html>"), f"{TRANSLATE} {{0}}/page.pth", "page.pth: damaged",
    ),
    "a run without checkpoints": (None, f"{TRANSLATE} {{0}}/data", "data: no checkpoint in it"),
    "nothing to export": (None, "export {0}/none --to official --output {0}/x", "none: no such file"),
    # archives
    "an archive that climbs": (
        lambda p: climbing_zip(p.parent / "site/bad.zip"), f"{DOWNLOAD}/bad.zip", "bad.zip: no folders trainA and",
    ),
    "an archive that is a picture": (
        lambda p: noise(p.parent / "site/bad.png"), f"{DOWNLOAD}/bad.png", "bad.png: not a zip",
    ),
    "an archive that is not there": (None, f"{DOWNLOAD}/no.zip", "no.zip: cannot be downloaded .*404"),
    "an address that is none": (None, "download new --data_root {0}/data --url x", "x: cannot be downloaded"),
}  # fmt: skip


def listing(folder):
    """{path: hash, or where a link leads}, folders too; but for a run's lock, an empty file that stays."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".lock":
            assert path.stat().st_size == 0
        elif path.is_symlink():
            found[path] = os.readlink(path)
        else:
            found[path] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "a folder"
    return found


@pytest.mark.parametrize("wrong", BAD)
def test_one_line_names_it_and_nothing_changes(place, request, tmp_path, capsys, wrong):
    prepare, command, said = BAD[wrong]
    folder = tmp_path / "place"
    shutil.copytree(place, folder)
    address = request.getfixturevalue("site")[1] if "{1}" in command else None
    if prepare:
        prepare(folder)
    before = listing(folder)
    words = [word.format(folder, address) for word in (command.split() if isinstance(command, str) else command)]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(lines) == 1 and re.search(said, lines[0]), lines
    assert listing(folder) == before


@pytest.mark.parametrize(("name", "path", "said"), [
    ("mine", "", "picture A is missing"), ("../x", "", "not a path"), ("mine", "{0}/none.jpg", "none.jpg: cannot be"),
    ("mine", "{0}/small.png", "small.png: 40×40 pixels is too small"), ("tiny", "{0}/photo.png", "tiny exists"),
    ("mine", "{0}/bad.png", "bad.png: cannot be read"), ("mine", "{0}/data", "a picture is A or B"),
])  # fmt: skip
def test_a_notebook_says_it_beside_the_button(place, tmp_path, name, path, said):
    folder = tmp_path / "place"
    shutil.copytree(place, folder)
    noise(folder / "bad.png")
    cut(folder / "bad.png")
    before = listing(folder)
    own = OwnPictures(TrainingControls(folder / "data", folder))
    own.name.value = name
    own.paths["A"].value = own.paths["B"].value = path.format(folder)
    own.button.click()
    assert own.message.value.startswith("<b>Not done.</b> ") and said in own.message.value
    assert listing(folder) == before
