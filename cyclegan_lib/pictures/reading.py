"""Picture files of any kind → Pillow images: 16 bits, transparency, EXIF rotation; too large ones are named."""

import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cyclegan_lib.errors import UserError

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # `open_upright` refuses them by name


def read_picture(path, channels=3):
    """A picture file → Pillow image, "RGB" or (channels=1) "L", upright, on white. Raises `UserError`, naming it."""
    image = open_upright(path)
    if is_transparent(image):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB" if channels == 3 else "L")


def is_transparent(image):
    """Whether a Pillow image has an alpha channel, or a colour that stands for one."""
    return "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La")


def open_upright(path):
    """A picture file → Pillow image of 8 bits, in its own mode, upright. Raises as `read_picture`."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError
            return _to_8_bits(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        what = "no such file"
    except UnidentifiedImageError:
        what = "not a picture that Pillow can read"
    except Image.DecompressionBombError:
        what = f"more than {Image.MAX_IMAGE_PIXELS:,} pixels; scale it down"
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, …
        what = f"cannot be read ({error})"
    raise UserError(f"{path}: {what}")


def _to_8_bits(image):
    """16-bit, 32-bit and float greys → "L"; Pillow's own conversion would clip them at 255."""
    if image.mode != "F" and not image.mode.startswith("I"):
        return image
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    if image.mode == "F" and values.max(initial=0) <= 1:
        values = values * 255
    elif image.mode.startswith("I;16") or values.max(initial=0) > 255:
        values = values / 257
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
