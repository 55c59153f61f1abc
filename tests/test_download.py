"""Downloads from a server on this machine, with archives good and bad."""

import io
import stat
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from cyclegan_lib.cli import main
from cyclegan_lib.errors import UserError
from cyclegan_lib.pictures import check, download
from cyclegan_lib.water2wine.dataset import SPLITS


def picture(seed):
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 40, 3), np.uint8)
    Image.fromarray(pixels).save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


def entries(inside=""):
    """The files of a small data set: {name: bytes}."""
    return {f"{inside}{split}/{i}.png": picture(10 * n + i) for n, split in enumerate(SPLITS) for i in range(2)}


def zipped(files):
    with zipfile.ZipFile(buffer := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def with_link():
    link = zipfile.ZipInfo("trainA/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    return zipped({**entries(), link: "/etc/hostname"})


def encrypted():
    """A zip whose first entry says that it is encrypted, in both places where a zip says so."""
    content = bytearray(zipped(entries()))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


def damaged():
    """A byte of the first picture is another one."""
    content = bytearray(zipped(entries()))
    content[200] ^= 255
    return bytes(content)


@pytest.mark.parametrize("inside", ["", "horse2zebra/"])
def test_a_good_archive_becomes_a_data_set(site, tmp_path, capsys, monkeypatch, inside):
    folder, address = site
    (folder / "horse2zebra.zip").write_bytes(zipped(entries(inside)))
    monkeypatch.setattr(download, "ADDRESS", address + "/{name}.zip")
    (tmp_path / "data" / ".horse2zebra.partial" / "unpacked").mkdir(parents=True)  # an interrupted one's
    main(["download", "horse2zebra", "--data_root", str(tmp_path / "data")])
    assert "2 in trainA, 2 in trainB, 2 in testA, 2 in testB" in capsys.readouterr().out
    found = {path.relative_to(tmp_path / "data" / "horse2zebra").as_posix(): path.read_bytes()
             for path in (tmp_path / "data").rglob("*") if path.is_file()}  # fmt: skip
    assert found == entries()


HOSTILE = {
    "cut short": (lambda: zipped(entries())[:-200], "not a zip, or a damaged"),
    "damaged": (damaged, "not a zip, or a damaged"),
    "nothing": (lambda: b"", "bad.zip: not a zip"),
    "a web page": (lambda: b"<!DOCTYPE html><html>moved</html>", "bad.zip: not a zip"),
    "a gzip": (lambda: b"\x1f\x8b\x08" + bytes(600), "bad.zip: not a zip"),
    "encrypted": (encrypted, "encrypted"),
    "a bomb": (lambda: zipped({**entries(), "trainA/zeros.png": bytes(2 * 10**6)}), "and 1,000,000 are free"),
    "another thing": (lambda: zipped({"notes.txt": b"hello"}), "no folders trainA and trainB"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_bad_archive_is_named_and_leaves_nothing_behind(site, tmp_path, monkeypatch, name):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**6))
    content, said = HOSTILE[name]
    folder, address = site
    (folder / "bad.zip").write_bytes(content())
    (tmp_path / "data").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as error:
        download.download(tmp_path / "data" / "bad", f"{address}/bad.zip")
    assert said in str(error.value) and f"{address}/bad.zip" in str(error.value) and "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["trainA/../../../out.png", "/tmp/out.png", "..\\out.png", "link"])
def test_nothing_in_an_archive_leads_out_of_the_folder(site, tmp_path, name):
    folder, address = site
    (folder / "a.zip").write_bytes(with_link() if name == "link" else zipped({**entries(), name: b"x"}))
    (tmp_path / "data").mkdir()
    before = set(tmp_path.rglob("*"))
    download.download(tmp_path / "data" / "a", f"{address}/a.zip")
    made = set(tmp_path.rglob("*")) - before
    assert all(path.is_relative_to(tmp_path / "data" / "a") and not path.is_symlink() for path in made)
    assert not Path("/tmp/out.png").exists()


def test_a_folder_that_is_there_is_not_touched(site, tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="mine exists already; remove it"):
        download.download(tmp_path / "mine", f"{site[1]}/mine.zip")


def test_an_address_with_nothing_there_and_no_server_are_told_apart(site, tmp_path):
    with pytest.raises(UserError, match=r"none.zip: cannot be downloaded \(HTTP Error 404"):
        download.download(tmp_path / "none", f"{site[1]}/none.zip")
    with pytest.raises(UserError, match=r"cannot be downloaded \(.*refused"):
        download.download(tmp_path / "none", "http://127.0.0.1:9/none.zip")
    with pytest.raises(UserError, match="no_such: cannot be downloaded"):
        download.download(tmp_path / "none", "no_such")


def test_unknown_names_and_names_that_climb_are_refused(tmp_path, capsys):
    for name, said in [("horse2zebr", "no data set of the paper; there are apple2orange"), ("../out", "not a path")]:
        with pytest.raises(SystemExit) as ended:
            main(["download", name, "--data_root", str(tmp_path)])
        assert ended.value.code == 2 and said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_readme_of_data_names_every_data_set_of_the_paper():
    text = (Path(__file__).parents[1] / "data" / "README.md").read_text()
    assert all(f"`{name}`" in text for name in check.PAPER) and download.ADDRESS.format(name="<name>") in text
