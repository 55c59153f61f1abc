"""Pictures in, pictures out: one picture or a folder, of any size."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

import cyclegan_lib.torchvision_shim  # noqa: F401  (before torchvision, see there)
from cyclegan_lib.cyclegan import resolve_device
from cyclegan_lib.datasets import find_pictures, to_signed
from cyclegan_lib.errors import UserError
from cyclegan_lib.files import atomic
from cyclegan_lib.pictures.reading import is_transparent, open_upright, read_picture
from cyclegan_lib.pictures.strips import kept_bytes, translate_strips
from cyclegan_lib.pictures.weights import load_generators
from torchvision.transforms.v2 import functional as TF

WHOLE_PIXELS = 2**20  # larger pictures go through the networks strip by strip
LEAST_SIDE = 8  # of what a generator is given; smaller pictures are padded
BESIDES = 1.5 * 1024**3  # bytes that Python, the networks, the picture and one strip take, about
WRITTEN = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")  # others get .png behind their name
NO_ALPHA = (".jpg", ".jpeg", ".bmp")


def translate_image(G, image):
    """What `G` makes of a Pillow image: an image of the same size, "RGB" or "L" as `G` was trained.

    A side that is no multiple of 4, or below 8, is padded by reflection, again and again if need
    be, and what was padded is cut off the result.
    """
    return TF.to_pil_image(translate_pixels(G, image_to_pixels(G, image)[None])[0])


def image_to_pixels(G, image):
    """A Pillow image → uint8 (channels, H, W), with as many channels as `G` has."""
    return TF.pil_to_tensor(image.convert("RGB" if G.model[1].in_channels == 3 else "L"))


@torch.inference_mode()
def translate_pixels(G, pixels):
    """(N, channels, H, W) uint8 of any size → the same, translated, on the CPU.

    Up to `WHOLE_PIXELS`, pictures go through the network as one batch; larger ones alone and strip
    by strip (`strips.translate_strips`), which gives the same numbers in less memory.
    """
    device = next(G.parameters()).device
    _, _, height, width = pixels.shape
    high, wide = (max(LEAST_SIDE, -(-side // 4) * 4) for side in (height, width))
    padding = ((0, 0), (0, 0), (0, high - height), (0, wide - width))
    padded = torch.from_numpy(np.pad(pixels.numpy(), padding, mode="reflect"))
    if high * wide <= WHOLE_PIXELS:
        return to_uint8(G(to_signed(padded.to(device))))[:, :, :height, :width]
    fakes = torch.empty_like(padded)
    for number in range(len(padded)):
        for first, last, found in translate_strips(G, padded[number : number + 1], device):
            fakes[number, :, first:last] = to_uint8(found)[0]
    return fakes[:, :, :height, :width]


def to_uint8(pictures):
    """[-1, 1] → 0 to 255, on the CPU."""
    return ((pictures + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu()


def plan(sources, output):
    """What there is to do: ([(a picture's file, where its translation goes)], {file: why it is left out}).

    Args:
        sources: files, and folders whose pictures are found however deep.
        output: the folder of the results. Names are kept, and the folders below a folder.

    Raises:
        UserError: for a source that is not there, nothing to do, two results of one name, or an
            output folder inside of a source, where the next run would take results for pictures.
    """
    jobs, left_out, output = [], {}, Path(output)
    for source in map(Path, sources):
        if not source.exists():
            raise UserError(f"{source}: no such file or folder")
        if not source.is_dir():
            jobs.append((source, output / target_name(Path(source.name))))
            continue
        if source.resolve() in (output.resolve(), *output.resolve().parents):
            raise UserError(f"--output {output} lies in {source}, whose pictures are translated; choose another")
        pictures = find_pictures(source)
        jobs += [(path, output / target_name(path.relative_to(source))) for path in pictures]
        for path in sorted(set(source.rglob("*")) - set(pictures)):
            is_hidden = any(part.startswith(".") for part in path.relative_to(source).parts)
            if path.is_file() and not is_hidden:
                left_out[path] = f"not a picture that Pillow can read ({path.suffix or 'no ending'})"
    if not jobs:
        raise UserError(f"no pictures in {', '.join(map(str, sources))}")
    sources_of = {}
    for source, target in jobs:
        earlier = sources_of.setdefault(target, source)
        if earlier != source:
            raise UserError(f"{earlier} and {source} would both become {target}; translate one at a time")
    return jobs, left_out


def target_name(path):
    """The same name, or one of a kind that holds all colours."""
    return path if path.suffix.lower() in WRITTEN else path.with_name(f"{path.name}.png")


@dataclass
class Loaded:
    """A picture that was read: what a generator is given, and what its result gets back."""

    target: Path
    pixels: torch.Tensor  # uint8 (channels, H, W)
    alpha: torch.Tensor | None  # uint8 (1, H, W)
    profile: bytes | None


def load(source, target, G, memory):
    """Raises: UserError: naming the file, if it cannot be read, or would need more than `memory` bytes."""
    original = open_upright(source)
    width, height = original.size
    needed = BESIDES + kept_bytes(G, height, width)[0]
    if width * height > WHOLE_PIXELS and needed > memory:
        gigabytes = f"about {needed / 1024**3:.1f} GB; give a larger --memory, or scale it down"
        raise UserError(f"{source}: {width}×{height} pixels need {gigabytes}")
    alpha = TF.pil_to_tensor(original.convert("RGBA").getchannel("A")) if is_transparent(original) else None
    # A profile of colours that were converted is wrong; one of RGB still says what the numbers mean.
    profile = original.info.get("icc_profile") if original.mode in ("RGB", "RGBA") else None
    return Loaded(target, image_to_pixels(G, read_picture(source)), alpha, profile)


def load_batches(jobs, G, batch_size, memory, failed):
    """Yield lists of `Loaded` pictures of one size, large ones alone. Why others cannot be read goes into `failed`."""
    batch = []
    for source, target in jobs:
        try:
            picture = load(source, target, G, memory)
        except UserError as error:
            failed[source] = str(error).removeprefix(f"{source}: ")
            continue
        if batch and batch[0].pixels.shape != picture.pixels.shape:
            yield batch
            batch = []
        batch.append(picture)
        if len(batch) == (1 if picture.pixels[0].numel() > WHOLE_PIXELS else batch_size):
            yield batch
            batch = []
    if batch:
        yield batch


def write(picture, pixels):
    """Save the result of a `Loaded` picture, uint8 (channels, H, a multiple of its width), atomically."""
    ending = picture.target.suffix.lower()
    if picture.alpha is not None and ending not in NO_ALPHA:
        pixels = torch.cat([pixels, picture.alpha.repeat(1, 1, pixels.shape[2] // picture.alpha.shape[2])])
    quality = {"quality": 95} if ending in (".jpg", ".jpeg", ".webp") else {}
    picture.target.parent.mkdir(parents=True, exist_ok=True)
    with atomic(picture.target) as partial:
        kind = Image.registered_extensions()[ending]
        TF.to_pil_image(pixels).save(partial, kind, icc_profile=picture.profile, **quality)


def translate_files(G, jobs, G_back=None, side_by_side=False, batch_size=8, memory=4 * 1024**3, show_bar=True):
    """Translate every picture of a `plan`'s jobs; those that follow one another in one size go as a batch.

    Args:
        G_back: if given, what it makes of each result is shown beside it, and the original too.
        side_by_side: the original and its translation in one picture.

    Returns:
        {file: why it could not be translated}; all others are written.
    """
    failed = {}
    bar = tqdm(jobs, unit="picture", dynamic_ncols=True, disable=not show_bar)
    for batch in load_batches(bar, G, batch_size, memory, failed):
        real = torch.stack([picture.pixels for picture in batch])
        fake = translate_pixels(G, real)
        columns = [real, fake] if side_by_side or G_back else [fake]
        columns += [translate_pixels(G_back, fake)] if G_back else []
        for picture, row in zip(batch, torch.cat(columns, 3), strict=True):
            write(picture, row)
    return failed


def command(args):
    """Exit code 1 if a file was left out."""
    device = resolve_device(args.device)
    jobs, left_out = plan(args.pictures, args.output)
    existing = [target for _, target in jobs if target.exists()]
    if existing and not args.overwrite:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise UserError(f"{existing[0]}{more} is there already; choose another --output, or --overwrite")
    G, G_back = load_generators(args.checkpoint, args.direction)
    if args.cycle and not G_back:
        raise UserError(f"--cycle: {args.checkpoint} has one direction only; give a run's folder")
    G_back = G_back.to(device) if args.cycle else None
    failed = translate_files(G.to(device), jobs, G_back, args.side_by_side, args.batch_size, args.memory * 1024**3)
    for path, why in (failed | left_out).items():
        print(f"left out {path}: {why}")
    print(f"{len(jobs) - len(failed)} pictures in {args.output}")
    return 1 if failed or left_out else 0
