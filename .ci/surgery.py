"""From the states that `cyclegan ablation` leaves in runs/ablation after 500 steps of the surgery's runs.

stuck_step_500.safetensors   the run of seed 0 with the norm, in 16 bits, buffers empty: notebook 05 continues it
surgery.png                  what its generators make of seven waters, steps after the norm was taken out
discriminators.csv           what discriminators of such runs and of healthy ones say of fakes and real pictures with
                             one thing changed, 3 seeds each
"""

from pathlib import Path

import torch

from cyclegan_lib.cyclegan import CycleGAN
from cyclegan_lib.files import write_atomic, write_tensors
from cyclegan_lib.pictures.weights import load_generator
from cyclegan_lib.runs.checkpoint import BUFFERS, OPTIMIZERS, hash_of, hash_of_facts, load_checkpoint, read_checkpoint
from cyclegan_lib.show import plots
from cyclegan_lib.study.experiments import base_config
from cyclegan_lib.study.tables import csv_of
from cyclegan_lib.study.variants import trunk_file
from cyclegan_lib.water2wine.scores import Water2WineTest
from torchvision.transforms.v2 import functional as TF

ROOT = Path(__file__).resolve().parents[1]
RUNS, OUT = ROOT / "runs" / "ablation" / "saved_models", ROOT / "data" / "ablation"
ARMS = {"instance": "surgery_it_stays", "none": "surgery_controls_never_there"}  # at the output, and its runs' name
COLUMNS = ("arm", "seed", "domain", "pictures", "change", "score")


def with_means_of(pictures, others):
    """Pictures (N, C, H, W) whose channel means are those of others: a constant is added, and [-1, 1] kept to."""
    shift = (others - pictures).mean((2, 3), keepdim=True)
    return (pictures + shift).clamp(-1, 1)


def blurred(pictures):
    return TF.gaussian_blur(pictures, [9, 9], [2.0, 2.0])


def changes(pictures, others):
    """{what is changed: pictures}."""
    moved = with_means_of(pictures, others)
    return {"none": pictures, "means": moved, "blur": blurred(pictures), "means and blur": blurred(moved)}


@torch.inference_mode()
def rows_of(arm, seed, test):
    """What the discriminators of a run say after 500 steps, on average: 1 is real, 0 is fake."""
    model = CycleGAN.from_config(base_config(device="cpu", precision="fp32", output_norm=arm))
    load_checkpoint(trunk_file(RUNS / f"{ARMS[arm]}_{seed}"), model)
    sheet, rows = model.sheet(test.real["A"], test.real["B"]), []
    for domain, D in (("A", model.D_A), ("B", model.D_B)):
        real, fake = sheet[f"real_{domain}"], sheet[f"fake_{domain}"]
        for name, pictures, others in (("real", real, fake), ("fake", fake, real)):
            for change, changed in changes(pictures, others.roll(1, 0)).items():
                score = torch.cat([D(batch) for batch in changed.split(16)]).mean().item()
                rows.append(dict(zip(COLUMNS, (arm, seed, domain, name, change, score), strict=True)))
    return rows


def in_16_bits(part, tensors):
    """Weights as halves; Adam's moments, some of which are too small for these, as bfloat16; no past fakes."""
    if part in BUFFERS:
        return {"0": torch.empty(0)}
    kind = torch.bfloat16 if part in OPTIMIZERS else torch.float16
    return {key: value if key.endswith(".step") else value.to(kind) for key, value in tensors.items()}


def write_stuck():
    states, facts = read_checkpoint(trunk_file(RUNS / "surgery_it_stays_0"))
    states = {part: in_16_bits(part, tensors) for part, tensors in states.items()}
    facts |= {"hashes": {part: hash_of(tensors) for part, tensors in states.items()}}
    tensors = {f"{part}.{key}": value for part, tensors in states.items() for key, value in tensors.items()}
    write_tensors(OUT / "stuck_step_500.safetensors", tensors, facts | {"sha256": hash_of_facts(facts)})


@torch.inference_mode()
def draw_surgery(waters):
    rows = {"water": waters, "the norm stays": generator("it_stays", 500)(waters)}
    for steps in (0, 10, 50, 100, 500):
        rows[f"taken out,\n{steps} steps later"] = generator("taken_out", 500 + steps)(waters)
    rows["it stays,\n500 steps later"] = generator("it_stays", 1000)(waters)
    figure = plots.picture_rows(rows, "A stuck training, before and after its last norm is taken out")
    write_atomic(OUT / "surgery.png", plots.to_png(figure, colours=256))


def generator(arm, step):
    return load_generator(OUT / f"{arm}_step_{step}.safetensors")


def main():
    write_stuck()
    test = Water2WineTest(ROOT / "data" / "water2wine")
    draw_surgery(test.real["A"][:7])
    rows = [row for arm in ARMS for seed in range(3) for row in rows_of(arm, seed, test)]
    path = OUT / "discriminators.csv"
    write_atomic(path, csv_of(rows, COLUMNS))
    print(f"{path}: {len(rows)} rows")


if __name__ == "__main__":
    main()
