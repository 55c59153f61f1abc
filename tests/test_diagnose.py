"""`diagnose` on made-up histories and pictures, the probe on small trainings, and the committed table."""

import csv
import json
import sys

import numpy as np
import pytest
import torch
from notebook_cells import ROOT, definitions, numbered

from cyclegan_lib.cli import main
from cyclegan_lib.datasets import UnpairedDataset
from cyclegan_lib.files import read_tensors
from cyclegan_lib.study.diagnose import (
    MINIMUM_STEPS,
    REPAIRS,
    Adapter,
    Finding,
    diagnose,
    hidden,
    norm_at_the_output,
    probe,
    report,
    variance_explained,
    weights,
)
from cyclegan_lib.trainer import Hook, Trainer

sys.path.insert(0, str(ROOT / ".ci"))
from zoo import FAULTS, INVERTED, Record, counts, file_name, make_trainer, plan  # noqa: E402

ZOO = ROOT / "data" / "debugging" / "zoo"


def made(steps=300, lambdas=(1.0, 10.0, 5.0), **changes):
    """A healthy history, with noise; `changes` replace a loss by a number or by a function of the step."""
    rng = np.random.default_rng(0)
    rows = []
    for step in range(1, steps + 1):
        row = {"step": step, "epoch": 1, "lr": 1e-3 * min(1, 2 - 2 * step / steps), "loss_D": 0.2, "adversarial": 0.33,
               "cycle_A": 0.15 + 0.3 / step, "cycle_B": 0.15, "identity": 0.15}  # fmt: skip
        row |= {name: change(step) if callable(change) else change for name, change in changes.items()}
        for name in ("loss_D", "adversarial", "cycle_A", "cycle_B", "identity"):
            if row[name] is not None:
                row[name] *= 1 + 0.1 * rng.random()
        a, c, i = lambdas
        row["loss_G"] = (
            a * 2 * row["adversarial"] + c * (row["cycle_A"] + row["cycle_B"]) + i * 2 * (row["identity"] or 0)
        )
        rows.append(row)
    return rows


def pictures(seed=0, count=16):
    """Walls from dark to light with some structure, as a healthy training gives them there and back."""
    generator = torch.Generator().manual_seed(seed)
    walls = torch.linspace(-0.8, 0.8, count)[:, None, None, None]
    real = (walls + 0.3 * torch.randn(count, 3, 16, 16, generator=generator)).clamp(-0.99, 0.99)
    fake = (real * 0.9 + 0.05).clamp(-0.99, 0.99)
    return {"real_A": real, "fake_B": fake, "rec_A": real * 0.95, "real_B": real.flip(0), "fake_A": fake.flip(0),
            "rec_B": real.flip(0) * 0.95}  # fmt: skip


def names(*args, **kwargs):
    return [finding.fault for finding in diagnose(*args, **kwargs)]


def test_a_healthy_training_is_called_healthy():
    assert names(made(), pictures(), total_steps=300) == []
    assert names(made(identity=None, lambdas=(1, 10, 0)), pictures()) == []
    assert names(made(loss_D=0.6, adversarial=0.8), pictures(), gan_mode="vanilla") == []
    assert "healthy" in report([], 300)


@pytest.mark.parametrize(("fault", "changes"), [
    ("learning rate below zero", dict(lr=lambda step: 1e-3 * (1 - step / 200))),
    ("losses swapped", dict(lambdas=(10.0, 1.0, 5.0))),
    ("losses swapped", dict(lambdas=(10.0, 1.0, 0.0), identity=None)),
    ("batch norm", dict(loss_D=0.06, adversarial=0.25)),
    ("discriminator never learns", dict(loss_D=0.5, adversarial=0.2)),
    ("discriminators won", dict(loss_D=0.02, adversarial=0.9)),
    ("decay never came", dict(lr=1e-3)),
])  # fmt: skip
def test_what_a_history_shows(fault, changes):
    assert names(made(**changes), total_steps=300) == [fault]
    assert names(made(**changes), pictures(), total_steps=300) == [fault]


def test_a_report_says_what_to_do_about_the_surest_finding_only():
    found = [Finding("norm at the output", "seen"), Finding("discriminators won", "seen too")]
    said = report(found, 300).splitlines()
    assert said[0] == "diagnosis: norm at the output? seen." and said[1].endswith(REPAIRS["norm at the output"])
    assert said[2:] == ["  Also, perhaps because of it: discriminators won? seen too."]


def test_of_a_run_that_has_not_come_to_its_end_nothing_is_said_about_its_decay():
    assert names(made(lr=1e-3), total_steps=400) == names(made(lr=1e-3)) == []


def test_a_young_training_is_left_alone_but_for_what_is_wrong_from_the_first_step():
    young = made(steps=MINIMUM_STEPS - 1, loss_D=0.02, adversarial=0.9)
    assert names(young, pictures()) == [] and "too early" in report([], len(young))
    assert names([], pictures()) == []
    assert names(made(steps=5, lr=-1e-3)) == ["learning rate below zero"]


def test_rows_that_are_not_finite_are_passed_over():
    assert names(made() + [{**made()[-1], "loss_G": float("nan")}]) == []


@pytest.mark.parametrize("wanted", [(1.0, 10.0), (10.0, 1.0), (0.0, 10.0)])
def test_the_weights_are_found(wanted):
    assert weights(made(lambdas=(*wanted, 5.0))) == pytest.approx(wanted, abs=1e-9)


def test_no_scores_break_the_bound_that_batch_norm_is_told_by():
    rng = np.random.default_rng(0)
    for _ in range(2000):
        real, fake = rng.normal(rng.uniform(-1, 2), rng.uniform(0, 1), (2, 20))
        loss_D, adversarial = ((real - 1) ** 2).mean() / 2 + (fake**2).mean() / 2, ((fake - 1) ** 2).mean()
        assert adversarial >= max(0, 1 - np.sqrt(2 * loss_D)) ** 2 - 1e-12


def test_the_norm_at_the_output_is_seen_before_the_tanh():
    samples = pictures()
    normed = {name: samples[name].atanh() for name in ("fake_A", "fake_B")}
    normed = {name: torch.nn.InstanceNorm2d(3)(z).tanh() for name, z in normed.items()}
    [finding] = diagnose([], samples | normed)
    assert (
        finding.fault == "norm at the output"
        and "100%" in finding.evidence
        and REPAIRS[finding.fault] in report([finding])
    )


def test_pixels_that_saturate_the_tanh_do_not_hide_the_norm():
    """Much of the deviation may sit in a few pixels of ±1: what those were cannot be told from the picture."""
    z = 0.3 * torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    z[:12, :, :2, 0] += torch.tensor([40.0, -40.0])  # in half of the pictures
    z[12:] *= 2
    z = (z - z.mean((2, 3), keepdim=True)) / z.std((2, 3), keepdim=True, correction=0)
    fakes = z.tanh()
    assert (fakes[:12].abs() == 1).any() and torch.atanh(fakes[:12].double().clamp(-1 + 1e-6, 1 - 1e-6)).std() < 0.8
    samples = {"real_A": fakes, "real_B": fakes, "fake_A": fakes, "fake_B": fakes}
    assert [finding.fault for finding in norm_at_the_output(samples, [])] == ["norm at the output"]
    only_saturated = samples | {"fake_A": fakes[:12], "fake_B": fakes[:12]}
    assert not list(norm_at_the_output(only_saturated, [])), "nothing to go by"
    assert not list(norm_at_the_output(samples | {"fake_B": (z + 1).tanh()}, []))


def test_pictures_from_zero_to_one_collapsed_and_inverted_ones_are_named():
    samples = pictures()
    assert names(made(), {name: (p + 1) / 2 for name, p in samples.items()}) == ["pictures in [0, 1]"]
    assert names(made(), samples | {"fake_B": samples["fake_B"] * 0.01 + 0.3}) == ["mode collapse"]
    assert names(made(), samples | {"fake_B": -samples["fake_B"]}) == ["inverted colours"]


def test_more_comes_back_than_the_fakes_show():
    """Colours of A that are moved to another place in fake_B, and come back from there."""
    samples, generator = pictures(), torch.Generator().manual_seed(1)
    colours = torch.rand(16, 3, 1, 1, generator=generator) - 0.5
    upper = torch.zeros(16, 3, 16, 16)
    upper[:, :, :8] = 1
    real_A = 0.05 * samples["real_A"] + colours * upper
    moved = 0.05 * samples["real_A"] + colours * (1 - upper)
    shown = {"real_A": real_A, "real_B": samples["real_B"], "fake_A": samples["fake_A"], "fake_B": moved}
    assert names(made(), shown | {"rec_A": 0.9 * real_A}) == ["hides information"]
    assert names(made(), shown | {"rec_A": 0.9 * real_A.flip(0)}) == [], "it does not come back"
    assert "hides information" not in names(made(), shown | {"fake_B": 0.3 - 0.5 * real_A, "rec_A": real_A}), "seen"
    [evidence] = [finding.evidence for finding in hidden(shown | {"rec_A": real_A})]
    assert evidence.startswith("of how pictures of real_A differ, place by place, fake_B shows ")
    assert evidence.endswith("and rec_A 100%")


def test_variance_explained_is_r_squared_by_a_slow_obvious_version():
    generator = torch.Generator().manual_seed(0)
    real, other = (torch.rand(9, 3, 8, 8, generator=generator) for _ in range(2))
    other = other + real
    explained = total = 0.0
    for channel in range(3):
        for i in range(0, 8, 2):
            for j in range(0, 8, 2):
                x, y = (some[:, channel, i : i + 2, j : j + 2].mean((1, 2)).double().numpy() for some in (real, other))
                explained += np.corrcoef(x, y)[0, 1] ** 2 * x.var()
                total += x.var()
    assert variance_explained(real, other) == pytest.approx(explained / total, abs=1e-6)


def test_fakes_as_alike_as_their_sources_are_no_collapse():
    """A faithful translator of one room into a varied pile, and back."""
    samples = pictures()
    room = 0.2 + 0.1 * samples["real_A"]
    assert names(made(), samples | {"real_A": room, "fake_B": 0.9 * room}) == []
    assert names(made(), samples | {"real_A": room, "fake_B": 0.9 * room, "fake_A": 0.01 * samples["real_B"]}) == [
        "mode collapse"
    ]


@pytest.mark.filterwarnings("error")
def test_a_few_pictures_or_pictures_all_alike_are_no_reason_for_a_warning():
    samples = pictures()
    assert names(made(), {name: p[:1] for name, p in samples.items()}) == []
    alike = {name: torch.full_like(p, -0.5) for name, p in samples.items()}
    assert names(made(), alike) == []
    grey = {name: p[:, :1] for name, p in samples.items()}
    assert names(made(), grey) == []


# The probe


@pytest.mark.parametrize(("fault", "found"), [
    ("healthy", {}), ("fakes not detached", {"reached": ["G_AB", "G_BA"]}),
    ("batch norm", {"mixed": ["G_AB", "G_BA", "D_A", "D_B"]}),
    ("discriminator never learns", {"unmoved": ["D_B"]}), ("cached crops", {"same_crops": 1.0}),
    ("fixed pairs", {"same_pairs": 1.0}),
])  # fmt: skip
def test_the_probe_finds_what_leaves_no_trace(tiny_root, fault, found):
    small = dict(base_channels=4, num_residual=1, data_root=tiny_root.parent, dataset_name=tiny_root.name)
    trainer = make_trainer(FAULTS[fault], **small)
    seen = probe(trainer.model, trainer.data, batch_size=2)
    for name in ("reached", "mixed", "unmoved"):
        assert seen[name] == found.get(name, [])
    for name in ("same_crops", "same_pairs"):  # of six pictures: some may meet again by chance
        assert seen[name] == 1 if name in found else seen[name] < 0.5
    assert len(names(made(), probe=seen)) == len(found)


class Probing(Hook):
    def after_step(self, trainer):
        probe(trainer.model, trainer.data, 2)


def test_the_probe_leaves_the_training_as_it_was(tiny_config):
    straight, probed = (Trainer(tiny_config(), [Record(), *hooks]).run() for hooks in ((), [Probing()]))
    assert straight.hook(Record).rows == probed.hook(Record).rows
    for name, network in straight.model.networks.items():
        assert all(map(torch.equal, network.parameters(), probed.model.networks[name].parameters()))


def test_a_training_ends_with_its_diagnosis(capsys, tmp_path, tiny_root):
    small = "--img_height 32 --img_width 32 --batch_size 2 --num_epochs 1 --base_channels 4 --num_residual 1"
    folders = f"--dataset_name {tiny_root.name} --data_root {tiny_root.parent} --output_root {tmp_path}"
    main(["train", *f"{small} {folders} --output_norm instance".split()])
    assert "diagnosis: norm at the output? before the tanh 100%" in capsys.readouterr().out


# The zoo, and what is committed of it


def test_every_name_has_a_repair():
    assert {fault.named for fault in FAULTS.values()} - {None} <= set(REPAIRS)
    with pytest.raises(KeyError):
        report([Finding("no such fault", "")])


def table():
    with open(ZOO / "diagnosis.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_committed_table_holds_what_it_says():
    """At least 9 of 10 of what a history or pictures show, all of what the probe shows, no false alarm."""
    rows = table()
    assert [(row["fault"], row["where"], int(row["seed"]), row["set"]) for row in rows] == [
        (run.fault, run.where, run.seed, run.set) for run in plan()
    ]
    found = counts(rows)
    for (fault, group), (right, total) in found.items():
        if group == "held out":
            every_time = fault in ("fakes not detached", "cached crops", "fixed pairs", "batch norm")
            assert total >= 10 and right >= (total if every_time else 0.9 * total), fault
    assert found["healthy", "held out"] == found["healthy", "elsewhere"] == (10, 10)
    readme = (ROOT / "README.md").read_text()  # says "in every run"
    assert all(right == total for right, total in found.values())
    assert len(REPAIRS) == 15 and "names fourteen of the sixteen faults" in readme
    assert len({row["expected"] for row in rows} - {""}) == 14 and found[INVERTED, "held out"][1] >= 10


@pytest.mark.parametrize("path", sorted(ZOO.glob("*.json")), ids=lambda path: path.stem)
def test_what_is_kept_of_a_run_gets_the_diagnosis_of_the_table(path):
    run = json.loads(path.read_text())
    samples = {name: p / 32767 for name, p in read_tensors(path.with_suffix(".safetensors"))[0].items()}
    said = diagnose(run["history"], samples, run["probe"], total_steps=300)
    name = path.stem.removesuffix("_100")  # the second of the healthy runs
    row = next(row for row in table() if name in (file_name(row["fault"]), file_name(row["expected"])))
    assert (said[0].fault if said else "") == row["expected"]


def test_the_probe_looks_at_a_cyclegan_that_was_written_without_the_package(tiny_root):
    """The small CycleGAN of notebook 07, as it is there, and with its two faults mended."""
    found = definitions(numbered(7), torch=torch)
    data = UnpairedDataset(tiny_root, (32, 32))

    def faults(mine, *updates):
        before = [value.clone() for G in found["by_our_names"](mine).values() for value in G.parameters()]
        seen = probe(Adapter(mine, found["by_our_names"], *updates, found["set_lr"]), data, batch_size=2)
        after = [value for G in found["by_our_names"](mine).values() for value in G.parameters()]
        assert all(map(torch.equal, before, after)), "the probe changes nothing"
        return seen["reached"], seen["mixed"], seen["unmoved"]

    wrong, (first, second) = found["Networks"](), (found["update_generators"], found["update_discriminators"])
    assert faults(wrong, first, second) == (["G_AB", "G_BA"], [], ["D_A"])
    right = found["Networks"]()
    right.optimizer_D = torch.optim.Adam([*right.D_X.parameters(), *right.D_Y.parameters()], lr=2e-4)

    def detached(mine, x, y, fake_x, fake_y):
        pairs = ((mine.D_X, x, fake_x), (mine.D_Y, y, fake_y))
        loss = sum((D(real) - 1).square().mean() + D(fake).square().mean() for D, real, fake in pairs)
        mine.optimizer_D.zero_grad()
        loss.backward()
        mine.optimizer_D.step()

    assert faults(right, first, detached) == ([], [], [])
