"""data/ablation/training.gif, the README's first picture: both arms training side by side. `make explorer`."""

from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from cyclegan_lib.pictures.weights import load_generator
from cyclegan_lib.show import plots
from cyclegan_lib.study.experiments import MAIN_ARMS
from cyclegan_lib.water2wine.scenes import counterfactual, render, sample_scene, to_image

ABLATION = Path(__file__).resolve().parents[1] / "data" / "ablation"
SIZE = 64
TEST_PICTURES = (17, 20, 9, 3, 27, 33)  # testA/<number>.png, chosen for their walls, which differ
SHOWN = ("water", "instance", "none", "answer")  # from top to bottom
CAPTIONS = {"water": "the water", "answer": "the answer", **{arm: plots.NORM_NAMES[arm] for arm in MAIN_ARMS}}


@torch.inference_mode()
def training_moments(folder):
    """The kept networks of the two main arms → {step: {name in SHOWN: pictures (N, 3, 64, 64) in [-1, 1]}}."""
    kept = [{int(path.stem.split("_")[-1]) for path in folder.glob(f"{arm}_step_*.safetensors")} for arm in MAIN_ARMS]
    scenes = [sample_scene(np.random.default_rng([0, 2, i]), "water") for i in TEST_PICTURES]
    water = torch.stack([render(scene, SIZE)[0] for scene in scenes])
    answer = torch.stack([render(counterfactual(scene), SIZE)[0] for scene in scenes])
    moments = {}
    for step in sorted(set.intersection(*kept)):
        fakes = {arm: load_generator(folder / f"{arm}_step_{step}.safetensors")(water) for arm in MAIN_ARMS}
        moments[step] = {"water": water, **fakes, "answer": answer}
    return moments


def frame(shown, step, steps, side=2 * SIZE, gap=6, line=26, head=52):
    """One moment of training as a Pillow image: a row for each of SHOWN under its name, the step above."""
    width = gap + len(TEST_PICTURES) * (side + gap)
    image = Image.new("RGB", (width, head + len(SHOWN) * (line + side) + gap), "white")
    draw = ImageDraw.Draw(image)
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"  # the same on every machine
    bold = ImageFont.truetype(fonts / "DejaVuSans-Bold.ttf", 22)
    normal = ImageFont.truetype(fonts / "DejaVuSans.ttf", 17)
    draw.text((gap, 6), f"training step {step} of {steps}", "black", bold)
    draw.rectangle((gap, head - 14, width - gap - 1, head - 8), "#dddddd")
    draw.rectangle((gap, head - 14, gap + (width - 2 * gap - 1) * step // steps, head - 8), "#555555")
    for row, name in enumerate(SHOWN):
        top = head + row * (line + side)
        draw.rectangle((gap, top + 5, gap + 13, top + 18), plots.COLOURS.get(name, "#777777"))
        draw.text((gap + 21, top + 2), CAPTIONS[name], "black", normal)
        for i, picture in enumerate(shown[name]):
            enlarged = to_image(picture).resize((side, side), Image.Resampling.NEAREST)
            image.paste(enlarged, (gap + i * (side + gap), top + line))
    return image


def write_gif(frames, path):
    """An animation that loops, its last frame held. One palette for all frames, so that nothing flickers."""
    film = Image.fromarray(np.concatenate(frames))
    palette = film.quantize(256, kmeans=3)  # without k-means the weave loses its colours
    first, *rest = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in frames]
    milliseconds = [700] * len(rest) + [3000]
    first.save(path, save_all=True, append_images=rest, duration=milliseconds, loop=0, optimize=False)


def main(ablation=ABLATION):
    moments = training_moments(ablation)
    write_gif([frame(shown, step, max(moments)) for step, shown in moments.items()], ablation / "training.gif")


if __name__ == "__main__":
    main()
