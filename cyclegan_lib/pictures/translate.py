"""Pictures in, pictures out: `python -m cyclegan_lib.translate`, for one picture or a folder, of any size."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from cyclegan_lib.cyclegan import DEVICES, DIRECTIONS, resolve_device
from cyclegan_lib.datasets import find_pictures, is_transparent, open_upright, read_picture, to_signed
from cyclegan_lib.errors import Parser, UserError
from cyclegan_lib.pictures.strips import kept_bytes, translate_strips
from cyclegan_lib.pictures.weights import load_generators

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
    return to_image(translate_pixels(G, to_pixels(G, image)[None])[0])


def to_pixels(G, image):
    """A Pillow image → uint8 (channels, H, W), with as many channels as `G` has."""
    pixels = np.array(image.convert("RGB" if channels_of(G) == 3 else "L"))
    return torch.from_numpy(np.atleast_3d(pixels).transpose(2, 0, 1).copy())


def to_image(pixels):
    """uint8 (channels, H, W) → Pillow image."""
    return Image.fromarray(pixels.permute(1, 2, 0).numpy().squeeze(2) if len(pixels) == 1 else
                           pixels.permute(1, 2, 0).contiguous().numpy())  # fmt: skip


def channels_of(G):
    return G.model[1].in_channels


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


@dataclass
class Job:
    """A picture's file and where its translation goes."""

    source: Path
    target: Path


def plan(sources, output):
    """What there is to do: (jobs, {file: why it is left out}).

    Args:
        sources: files, and folders whose pictures are found however deep.
        output: the folder of the results. Names are kept, and the folders below a folder.

    Raises:
        UserError: for a source that is not there, nothing to do, two results of one name, or an
            output folder inside of a source, where the next run would take results for pictures.
    """
    jobs, left_out = [], {}
    output = Path(output)
    for source in map(Path, sources):
        if not source.exists():
            raise UserError(f"{source}: no such file or folder")
        if not source.is_dir():
            jobs.append(Job(source, output / target_name(Path(source.name))))
            continue
        if source.resolve() in (output.resolve(), *output.resolve().parents):
            raise UserError(f"--output {output} lies in {source}, whose pictures are translated; choose another")
        found = find_pictures(source)
        jobs += [Job(path, output / target_name(path.relative_to(source))) for path in found]
        others = {path for path in source.rglob("*") if path.is_file() and not is_hidden(path.relative_to(source))}
        for path in sorted(others - set(found)):
            left_out[path] = f"not a picture that Pillow can read ({path.suffix or 'no ending'})"
    if not jobs:
        raise UserError(f"no pictures in {', '.join(map(str, sources))}")
    sources_of = {}
    for job in jobs:
        earlier = sources_of.setdefault(job.target, job.source)
        if earlier != job.source:
            raise UserError(f"{earlier} and {job.source} would both become {job.target}; translate one at a time")
    return jobs, left_out


def is_hidden(path):
    return any(part.startswith(".") for part in path.parts)


def target_name(path):
    """The same name, or one of a kind that holds all colours."""
    return path if path.suffix.lower() in WRITTEN else path.with_name(f"{path.name}.png")


@dataclass
class Read:
    """A picture that was read: what a generator is given, and what its result gets back."""

    job: Job
    pixels: torch.Tensor
    alpha: Image.Image | None
    profile: bytes | None


def read(job, G, memory):
    """Raises: UserError: naming the file, if it cannot be read, or would need more than `memory` bytes."""
    original = open_upright(job.source)
    width, height = original.size
    needed = BESIDES + kept_bytes(G, height, width)[0]
    if width * height > WHOLE_PIXELS and needed > memory:
        raise UserError(
            f"{job.source}: {width}×{height} pixels need about {needed / 1024**3:.1f} GB; "
            "give a larger --memory, or scale it down"
        )
    alpha = original.convert("RGBA").getchannel("A") if is_transparent(original) else None
    # A profile of colours that were converted is wrong; one of RGB still says what the numbers mean.
    profile = original.info.get("icc_profile") if original.mode in ("RGB", "RGBA") else None
    return Read(job, to_pixels(G, read_picture(job.source)), alpha, profile)


def write(job, image, profile=None):
    """Save whole or not at all."""
    job.target.parent.mkdir(parents=True, exist_ok=True)
    partial = job.target.with_name(f".{job.target.stem}.partial{job.target.suffix}")
    quality = {"quality": 95} if job.target.suffix.lower() in (".jpg", ".jpeg", ".webp") else {}
    try:
        image.save(partial, icc_profile=profile, **quality)
        os.replace(partial, job.target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()


def beside(images):
    """Images of one size in a row."""
    width, height = images[0].size
    row = Image.new("RGBA" if any(image.mode == "RGBA" for image in images) else images[0].mode,
                    (width * len(images), height))  # fmt: skip
    for number, image in enumerate(images):
        row.paste(image.convert(row.mode), (number * width, 0))
    return row


def translate_files(G, jobs, G_back=None, side_by_side=False, batch_size=8, memory=4 * 1024**3, show_bar=True):
    """Translate every job's picture; those that follow one another in one size go as a batch.

    Args:
        G_back: if given, what it makes of each result is shown beside it, and the original too.
        side_by_side: the original and its translation in one picture.

    Returns:
        {file: why it could not be translated}; all others are written.
    """
    failed, batch = {}, []

    def flush():
        if batch:
            fakes = translate_pixels(G, torch.stack([one.pixels for one in batch]))
            recs = translate_pixels(G_back, fakes) if G_back else [None] * len(fakes)
            for one, fake, rec in zip(batch, fakes, recs, strict=True):
                pictures = [fake] if not (side_by_side or G_back) else [one.pixels, fake]
                images = [to_image(pixels) for pixels in pictures + ([rec] if G_back else [])]
                if one.alpha and one.job.target.suffix.lower() not in NO_ALPHA:
                    for image in images:
                        image.putalpha(one.alpha)
                write(one.job, beside(images), one.profile)
                bar.update()
            batch.clear()

    with tqdm(total=len(jobs), unit="picture", dynamic_ncols=True, disable=not show_bar) as bar:
        for job in jobs:
            try:
                one = read(job, G, memory)
            except UserError as error:
                failed[job.source] = str(error).removeprefix(f"{job.source}: ")
                bar.update()
                continue
            if batch and (one.pixels.shape != batch[0].pixels.shape or len(batch) == batch_size):
                flush()
            batch.append(one)
            if one.pixels[0].numel() > WHOLE_PIXELS:
                flush()
        flush()
    return failed


def main(argv=None):
    """`python -m cyclegan_lib.translate`; exit code 1 if a file could not be translated."""
    parser = Parser(prog="python -m cyclegan_lib.translate", description="Translate pictures of any size.")
    parser.add_argument("pictures", nargs="+", type=Path, help="pictures, or folders of pictures")
    parser.add_argument(
        "--checkpoint", required=True,
        help="saved_models/<run_name>, an epoch of it, a generator's file, or official weights: horse2zebra, say",
    )  # fmt: skip
    parser.add_argument("--direction", choices=DIRECTIONS, default="AtoB", help="a single file has but one")
    parser.add_argument("--output", type=Path, required=True, help="the folder for the results; names are kept")
    parser.add_argument("--side_by_side", action="store_true", help="the original and its translation in one picture")
    parser.add_argument("--cycle", action="store_true", help="the original, its translation, and that translated back")
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there already")
    parser.add_argument("--batch_size", type=int, default=8, help="pictures of one size that go together")
    parser.add_argument("--memory", type=float, default=4.0, help="GB that a large picture may take, about")
    parser.add_argument("--device", choices=DEVICES, default="auto", help="where to compute")
    args = parser.parse_args(argv)
    with parser.one_line_errors():
        parser.check_ranges(args, {"batch_size": (1, 10**4), "memory": (1, 10**4)})
        device = resolve_device(args.device)
        jobs, left_out = plan(args.pictures, args.output)
        there = [job.target for job in jobs if job.target.exists()]
        if there and not args.overwrite:
            more = f" and {len(there) - 1} more" if len(there) > 1 else ""
            raise UserError(f"{there[0]}{more} is there already; choose another --output, or --overwrite")
        G, G_back = load_generators(args.checkpoint, args.direction)
        if args.cycle and not G_back:
            raise UserError(f"--cycle: {args.checkpoint} has one direction only; give a run's folder")
        G_back = G_back.to(device) if args.cycle else None
        memory = args.memory * 1024**3
        failed = translate_files(G.to(device), jobs, G_back, args.side_by_side, args.batch_size, memory)
    for path, why in (failed | left_out).items():
        print(f"left out {path}: {why}")
    print(f"{len(jobs) - len(failed)} pictures in {args.output}")
    if failed or left_out:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
