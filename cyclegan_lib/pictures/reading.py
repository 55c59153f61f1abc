"""Picture files of any kind → Pillow images: 16 bits, transparency, EXIF rotation, HEIC; what is unclear is refused."""

import contextlib
import math
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin

from cyclegan_lib.datasets import find_pictures
from cyclegan_lib.errors import UserError

with contextlib.suppress(ImportError):  # it is optional
    import pillow_heif

    pillow_heif.register_heif_opener()
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # `open_upright` refuses them by name
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 2**26  # bytes of text, or of a colour profile
ANIMATED = ("GIF", "PNG", "TIFF", "WEBP")  # a phone's JPEG or HEIC may hold a preview or a depth map besides
HEIC = "; pip install pillow-heif, and HEIC pictures are read"
CLEAR = 2**14  # 16-bit values that reach it are no 12 or 14 bits in a wider file


def read_picture(path, channels=3, value_range=None):
    """A picture file → Pillow image, "RGB" or (channels=1) "L", upright, on white.

    `value_range` is the (black, white) of a grey file of more than 8 bits. Raises `UserError`, naming the file, if it
    cannot be read to its end, holds several pictures, or its range is not clear and not given.
    """
    return on_white(open_upright(path, value_range)).convert("RGB" if channels == 3 else "L")


def on_white(image):
    """A Pillow image; where it is transparent, white."""
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def is_deep(image):
    """Whether a Pillow image is grey with more than 8 bits: 16, 32, or floats."""
    return image.mode == "F" or image.mode.startswith("I")


def open_upright(path, value_range=None, size=2**31):
    """A picture file → Pillow image of 8 bits, in its own mode, upright. Arguments and errors as `read_picture`.

    A large JPEG is decoded at a half, a quarter or an eighth where no side gets shorter than `size`.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
                raise ValueError(f"more than {Image.MAX_IMAGE_PIXELS:,} pixels; scale it down")
            has_16_bits = not is_deep(image) and any(";16" in str(tile[3]) for tile in image.tile)
            frames = getattr(image, "n_frames", 1) if image.format in ANIMATED else 1
            image.draft(None, (size, size))
            upright = ImageOps.exif_transpose(image)
            if upright.mode == "LAB":  # Pillow makes neither grey nor transparency of it
                upright = upright.convert("RGB")
    except MemoryError:
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, …
        hint = HEIC if Path(path).suffix.lower() in (".heic", ".heif") else ""
        raise UserError(f"{path}: cannot be read ({error}){hint}") from None
    if frames > 1:
        raise UserError(f"{path}: holds {frames} pictures; save each as a file of its own")
    if has_16_bits and np.max(upright.convert("RGB")) < CLEAR // 256:  # Pillow has read the upper 8 only
        raise UserError(f"{path}: colours of 16 bits, all dark, perhaps of 12 bits; save it with 8 bits a channel")
    return _to_8_bits(path, upright, value_range) if is_deep(upright) else upright


def _to_8_bits(path, image, value_range):
    """Grey of more than 8 bits → "L"; Pillow's own conversion would clip it at 255."""
    values = np.asarray(image).astype(np.float64)
    least, most = (np.nanmin(values), np.nanmax(values)) if np.isfinite(values).any() else (math.nan, math.nan)
    lowest, highest = (0, 1) if image.mode == "F" else (CLEAR, 65535)  # between these `most` is clear: 0 is black
    if value_range is None and least >= 0 and lowest <= most <= highest:
        value_range = (0, highest)
    if value_range is None:
        how = "give --range BLACK WHITE to cyclegan collect or translate"
        raise UserError(f"{path}: holds values from {least:g} to {most:g}, and not what is black or white; {how}")
    low, high = value_range
    if not 0 < abs(high - low) < math.inf:
        raise UserError(f"--range {low:g} {high:g}: give two different numbers, what is black and what is white")
    values = np.nan_to_num((values - low) / (high - low) * 255)
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))


def passed_over(folder):
    """The files under `folder` that `find_pictures` leaves out, sorted; hidden ones are not counted."""
    folder = Path(folder)
    others = {path for path in folder.rglob("*") if path.is_file()} - set(find_pictures(folder))
    return sorted(path for path in others if not any(part[0] == "." for part in path.relative_to(folder).parts))


def counted(paths):
    """How many files were passed over, by their endings, in a line."""
    endings = Counter(path.suffix.lower() or "no ending" for path in paths)
    kinds = ", ".join(f"{count} with {ending}" for ending, count in sorted(endings.items())) or "none"
    hint = HEIC if {".heic", ".heif"} & endings.keys() else ""
    return f"passed over {len(paths)} files that Pillow does not read: {kinds}{hint}"
