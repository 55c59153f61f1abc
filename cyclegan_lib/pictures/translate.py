"""Pictures in, pictures out: one picture or a folder, of any size."""

import contextlib
import struct
import time
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image
from tqdm.auto import tqdm

import cyclegan_lib.torchvision_shim  # noqa: F401  (before torchvision, see there)
from cyclegan_lib.cyclegan import resolve_device
from cyclegan_lib.datasets import find_pictures, to_signed
from cyclegan_lib.errors import UserError
from cyclegan_lib.files import atomic
from cyclegan_lib.pictures.reading import counted, on_white, open_upright, passed_over
from cyclegan_lib.pictures.strips import kept_bytes, translate_strips
from cyclegan_lib.pictures.weights import load_generators
from torchvision.transforms.v2 import functional as TF

WHOLE_PIXELS = 2**20  # larger pictures go through the networks strip by strip
BESIDES = 1.5 * 1024**3  # bytes that Python, the networks, the picture and one strip take, about
FORMATS = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "webp": "WEBP", "tif": "TIFF", "tiff": "TIFF", "bmp": "BMP"}
DATE_AND_CAMERA = [ExifTags.Base[name] for name in ("Make", "Model", "DateTime", "DateTimeOriginal", "LensModel")]


def translate_image(G, image):
    """What `G` makes of a Pillow image: an image of the same size, "RGB" or "L" as `G` was trained."""
    return TF.to_pil_image(translate_pixels(G, image_to_pixels(G, image)[None])[0])


def image_to_pixels(G, image):
    """A Pillow image → uint8 (channels, H, W), with as many channels as `G` has."""
    return TF.pil_to_tensor(image.convert("RGB" if G.model[1].in_channels == 3 else "L"))


@torch.inference_mode()
def translate_pixels(G, pixels):
    """(1, channels, H, W) uint8 of any size, padded to multiples of 4 from 8 on → the same, translated, on the CPU."""
    device, (height, width) = next(G.parameters()).device, pixels.shape[2:]
    high, wide = (max(8, -(-side // 4) * 4) for side in (height, width))
    padding = ((0, 0), (0, 0), (0, high - height), (0, wide - width))
    padded = torch.from_numpy(np.pad(pixels.numpy(), padding, mode="reflect"))  # to and fro, where torch refuses
    if high * wide <= WHOLE_PIXELS:
        return to_uint8(G(to_signed(padded.to(device))))[:, :, :height, :width]
    fake = torch.empty_like(padded)
    takes = f"{high * wide / 1e6:.0f} megapixels, about {estimated_seconds(G, padded, device):.0f} s"
    with tqdm(total=1, desc=takes, bar_format="{l_bar}{bar}| {elapsed}<{remaining}", smoothing=0, leave=False) as bar:
        for first, last, found in translate_strips(G, padded, device, bar.update):
            fake[:, :, first:last] = to_uint8(found)
    return fake[:, :, :height, :width]


def estimated_seconds(G, pixels, device):
    """How long `translate_strips` will take, by a corner of the picture; a first try warms up."""
    corner = pixels[:, :, :256, :256]
    for _ in range(2):
        began = time.perf_counter()
        list(translate_strips(G, corner, device))
    return (time.perf_counter() - began) * pixels.numel() / corner.numel()


def to_uint8(pictures):
    """[-1, 1] → 0 to 255, on the CPU. Raises `UserError` where a number is not finite: it would be black."""
    if not pictures.isfinite().all():
        raise UserError("the network gives numbers that are not finite; take an earlier checkpoint")
    return ((pictures + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu()


def plan(sources, output):
    """({where in `output` a translation goes: its picture's file}, [file that is passed over]).

    Raises `UserError` where a source is missing, two pictures have one target, or a target is one of the originals.
    """
    jobs, others, output = {}, [], Path(output)
    for source in map(Path, sources):
        if not source.exists():
            raise UserError(f"{source}: no such file or folder")
        folder, pictures = (source, find_pictures(source)) if source.is_dir() else (source.parent, [source])
        for path in pictures:
            target = output / path.relative_to(folder)
            if target.suffix.lower()[1:] not in FORMATS:
                target = target.with_name(f"{target.name}.png")
            if jobs.setdefault(target, path) != path:
                raise UserError(f"{jobs[target]} and {path} would both become {target}; translate one at a time")
        others += passed_over(source)
    if not jobs:
        raise UserError(f"no pictures in {', '.join(map(str, sources))}; {counted(others)}")
    originals = {path.resolve() for path in jobs.values()}
    for target, path in jobs.items():
        if target.resolve() in originals:
            raise UserError(f"the translation of {path} would replace {target}, an original; choose another --output")
    return jobs, others


def load(source, G, memory, value_range=None):
    """A picture's file → (uint8 pixels (channels, H, W), alpha (1, H, W) or None, colour profile or None, Exif data).

    Raises `UserError`, naming the file, if it cannot be read or would need more than `memory` bytes.
    """
    original = open_upright(source, value_range)
    width, height = original.size
    needed = BESIDES + kept_bytes(G, height, width)[0]
    if width * height > WHOLE_PIXELS and needed > memory:
        what = f"{width}×{height} pixels need about {needed / 1024**3:.1f} GB"
        raise UserError(f"{source}: {what}; give a larger --memory or scale it down")
    alpha = TF.pil_to_tensor(original.convert("RGBA").getchannel("A")) if original.has_transparency_data else None
    # A profile of colours that were converted is wrong; one of RGB still says what the numbers mean.
    profile = original.info.get("icc_profile") if original.mode in ("RGB", "RGBA") else None
    return image_to_pixels(G, on_white(original)), alpha, profile, date_and_camera(original)


def date_and_camera(image):
    """The Exif data of a Pillow image that are kept: not its place, nor the orientation, which was applied."""
    kept = Image.Exif()
    with contextlib.suppress(Exception):  # damaged ones raise SyntaxError, struct.error, …; the picture is whole
        found = image.getexif()
        for old, new in ((found, kept), (found.get_ifd(ExifTags.IFD.Exif), kept.get_ifd(ExifTags.IFD.Exif))):
            new.update({tag: old[tag] for tag in DATE_AND_CAMERA if isinstance(old.get(tag), str)})
    return kept


def write(target, pixels, alpha, profile, exif):
    """Save uint8 pixels (channels, H, W or a multiple of it), with what `load` gives besides, atomically."""
    kind = FORMATS[target.suffix.lower()[1:]]
    if alpha is not None and kind not in ("JPEG", "BMP"):
        pixels = torch.cat([pixels, alpha.repeat(1, 1, pixels.shape[2] // alpha.shape[2])])
    quality = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic(target) as partial:
        TF.to_pil_image(pixels).save(partial, kind, icc_profile=profile, exif=exif, **quality)


def translate_files(G, jobs, G_back, side_by_side, memory, value_range=None):
    """Translate a `plan`'s jobs. Returns {file: why it was not translated}."""
    failed = {}
    for target, source in tqdm(jobs.items(), unit="picture", dynamic_ncols=True):
        try:
            pixels, *extras = load(source, G, memory, value_range)
            real = pixels[None]
            fake = translate_pixels(G, real)
            columns = [real, fake] if side_by_side or G_back else [fake]
            columns += [translate_pixels(G_back, fake)] if G_back else []
            write(target, torch.cat(columns, 3)[0], *extras)
        except (OSError, ValueError, struct.error) as error:  # a name too long, or a picture too large for its format
            failed[source] = str(error).removeprefix(f"{source}: ")
    return failed


def command(args):
    """Exit code 1 if a picture was left out."""
    device = resolve_device(args.device)
    jobs, others = plan(args.pictures, args.output)
    if not args.overwrite and (existing := next(filter(Path.exists, jobs), None)):
        raise UserError(f"{existing} exists already; choose another --output, or --overwrite")
    G, G_back = load_generators(args.checkpoint, args.direction)
    if args.cycle and not G_back:
        raise UserError(f"--cycle: {args.checkpoint} has one direction only; give a run's folder")
    G_back = G_back.to(device) if args.cycle else None
    failed = translate_files(G.to(device), jobs, G_back, args.side_by_side, args.memory * 1024**3, args.range)
    for path, why in failed.items():
        print(f"left out {path}: {why}")
    if others:
        print(counted(others))
    print(f"{len(jobs) - len(failed)} pictures in {args.output}")
    return 1 if failed else 0
