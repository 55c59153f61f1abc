"""data/demo/schematic.png, the picture of CycleGAN, with pictures of the demo's run in it. `make schematic`."""

from pathlib import Path

import torch

from cyclegan_lib.datasets import load_split
from cyclegan_lib.pictures.weights import load_generators
from cyclegan_lib.show.plots import to_png
from cyclegan_lib.show.schematic import schematic

ROOT = Path(__file__).resolve().parents[1]
WATER, WINE = 34, 4  # of testA and testB: a light wall and a dark one


@torch.inference_mode()
def main():
    G_AB, G_BA = load_generators(ROOT / "saved_models" / "demo_none_0")
    numbers = {"A": WATER, "B": WINE}
    real_A, real_B = (load_split(ROOT / "data" / "water2wine", f"test{d}", (64, 64))[[n]] for d, n in numbers.items())
    fake_B, fake_A = G_AB(real_A), G_BA(real_B)
    rows = dict(real_A=real_A, fake_B=fake_B, rec_A=G_BA(fake_B), real_B=real_B, fake_A=fake_A, rec_B=G_AB(fake_A),
                idt_A=G_BA(real_A), idt_B=G_AB(real_B))  # fmt: skip
    figure = schematic("losses", {name: pictures[0] for name, pictures in rows.items()})
    # 192 dots an inch: every pixel of the pictures, which are one inch high, is three of them.
    (ROOT / "data" / "demo" / "schematic.png").write_bytes(to_png(figure, dpi=192, colours=256))


if __name__ == "__main__":
    main()
