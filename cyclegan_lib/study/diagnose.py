"""A run's history, its pictures and a look at one step → which known fault it shows (notebook 07).

Every threshold here was chosen on some runs and tried on others: `tests/zoo.py`, and the table
in `data/debugging/zoo/`.
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from cyclegan_lib.losses import GAN_MODES
from cyclegan_lib.study.floor import output_norm_floor

MINIMUM_STEPS = 200  # a younger training looks like several faults
DIAGNOSED_PICTURES = 16  # of each side; enough for what is measured here
FEWEST_PICTURES = 4  # of each side: with less, nothing is said about how they differ
DRAW = dict(zip(GAN_MODES, (0.25, np.log(2)), strict=True))  # loss_D of a judge that cannot tell (notebook 03)
REPAIRS = {
    "learning rate below zero": "Adam climbs the losses then: end the decay with the run (learning_rate in train.py)",
    "pictures in [0, 1]": "scale them to [-1, 1], where the tanh ends; show them as (picture + 1) / 2",
    "norm at the output": "take the normalisation in front of the tanh out: notebook 05",
    "losses swapped": "look where the losses are unpacked and weighted; return them by name",
    "batch norm": "it mixes the pictures of a batch, and real with fake ones: use instance norm, as the paper does",
    "judge never learns": "a network is frozen and never thawed, or is not in the optimiser: the probe says which",
    "mode collapse": "is there a cycle loss, and does its gradient reach both generators? A lower learning rate helps",
    "discriminators won": "give the discriminators a lower learning rate or less width, or the generators more",
    "inverted colours": "add an identity loss (λ 5), or train with another seed; no other loss can object: notebook 03",
    "decay never came": "losses jitter to the end: let the learning rate fall to 0 over the second half",
    "fakes not detached": "hand the discriminators fake.detach(), or their loss trains the generators too",
    "frozen network": "call requires_grad_(True) again, and make the optimiser of the parameters that are in use",
    "cached crops": "draw crop and flip anew each time a picture is asked for; cache the decoded picture only",
    "fixed pairs": "shuffle both sides, each with its own order in each epoch",
}


@dataclass(frozen=True)
class Finding:
    """A fault by the name it has in `REPAIRS`, and what was seen of it, with figures."""

    fault: str
    evidence: str

    @property
    def repair(self):
        return REPAIRS[self.fault]


def diagnose(history, samples=None, probe=None, gan_mode="lsgan", total_steps=None):
    """Which of the known faults a training shows, the surest first; [] if it looks healthy.

    Args:
        history: rows of `history.jsonl`, a list of dicts.
        samples: {"real_A", "fake_B", "rec_A", "real_B", "fake_A", "rec_B"}: (N, channels, H, W),
            as `Trainer.sheet` gives them: test pictures, there and back. None: not looked at.
        probe: what `probe` found. None: not looked at.
        gan_mode: of the adversarial loss.
        total_steps: how long the run was to be, if it is known. Only of a run that has come to
            its end can be said that its decay never came.

    Returns:
        a list of `Finding`. A history of less than `MINIMUM_STEPS` is looked at for what is
        wrong from the first step on, and for nothing else.
    """
    rows = [row for row in history if np.isfinite([row["loss_G"], row["loss_D"]]).all()]
    found = [below_zero(rows)]
    if samples:
        found += [from_zero_to_one(samples), norm_at_the_output(samples, rows)]
    if len(rows) >= MINIMUM_STEPS:
        found += [swapped(rows), batch_norm(rows, gan_mode), judge_never_learns(rows, gan_mode)]
        found += [discriminators_won(rows, gan_mode)]
        if samples and min(len(samples[f"real_{domain}"]) for domain in "AB") >= FEWEST_PICTURES:
            found += [collapsed(samples), inverted(samples)]
        found += [no_decay(rows, total_steps)]
    found = [finding for finding in [*found, *(probed(probe) if probe else [])] if finding]
    names = [finding.fault for finding in found]
    return [finding for i, finding in enumerate(found) if finding.fault not in names[:i]]


def report(findings, steps=None):
    """What `diagnose` found, in a few lines; `steps` is the length of the history.

    Only the surest finding comes with what to do: one fault often shows as several.
    """
    if not findings:
        if steps is not None and steps < MINIMUM_STEPS:
            return f"diagnosis: too early to say anything (from {MINIMUM_STEPS} steps on)"
        return "diagnosis: it looks healthy; none of the known faults shows"
    first, *others = findings
    lines = [f"diagnosis: {first.fault}? {first.evidence}.", f"  What to do: {first.repair}"]
    return "\n".join(lines + [f"  Also, perhaps because of it: {f.fault}? {f.evidence}." for f in others])


def recent(rows, name):
    """The mean of a loss over the last third of the history."""
    values = [row[name] for row in rows if row[name] is not None]
    return float(np.mean(values[-max(1, len(values) // 3) :])) if values else None


def below_zero(rows):
    negative = [row for row in rows if row["lr"] < 0]
    if not negative:
        return None
    first, lowest = negative[0]["step"], min(row["lr"] for row in negative)
    return Finding(
        "learning rate below zero", f"from step {first} on the learning rate is negative, down to {lowest:g}"
    )


def from_zero_to_one(samples):
    least = min(samples[f"real_{domain}"].min().item() for domain in "AB")
    if least < -0.05:
        return None
    evidence = f"no pixel of the real pictures is below {least:.2f}; a tanh goes down to -1"
    return Finding("pictures in [0, 1]", evidence)


def norm_at_the_output(samples, rows):
    """A norm leaves each channel of each picture with mean 0 and deviation 1, and the tanh can be undone.

    Not where it is saturated: a network trained for long puts much of the deviation into a few pixels
    of ±1, which do not tell how far they were from 0. So only channels without any are looked at.
    """
    fakes = torch.cat([samples["fake_A"], samples["fake_B"]]).double().flatten(0, 1).flatten(1)
    unsaturated = fakes[fakes.abs().amax(1) < 1 - 1e-6]
    if len(unsaturated) < 10:
        return None
    before_tanh = torch.atanh(unsaturated)
    normed = (before_tanh.mean(1).abs() < 0.1) & ((before_tanh.std(1) - 1).abs() < 0.1)
    share = normed.double().mean().item()
    if share < 0.9:
        return None
    evidence = f"before the tanh {share:.0%} of the fakes' channels have mean 0 and standard deviation 1"
    floors = [output_norm_floor(samples[f"real_{domain}"]) for domain in "AB"]
    evidence += f"; so no cycle loss here can get below {floors[0]:.3f} (A) and {floors[1]:.3f} (B)"
    if rows:
        evidence += f", and they are {recent(rows, 'cycle_A'):.3f} and {recent(rows, 'cycle_B'):.3f}"
        evidence += f" while the discriminators' loss is {recent(rows, 'loss_D'):.3f}"
    return Finding("norm at the output", evidence)


def weights(rows):
    """(λ_adversarial, λ_cycle): loss_G is a weighted sum of the other losses, so least squares gives the weights."""
    columns = [[2 * row["adversarial"] for row in rows], [row["cycle_A"] + row["cycle_B"] for row in rows]]
    if rows[0]["identity"] is not None:
        columns.append([2 * row["identity"] for row in rows])
    return np.linalg.lstsq(np.array(columns).T, np.array([row["loss_G"] for row in rows]), rcond=None)[0][:2]


def swapped(rows):
    adversarial, cycle = weights(rows)
    if not adversarial > 1.5 * cycle > 0.15:
        return None
    evidence = f"loss_G is {adversarial:.1f} × the adversarial and {cycle:.1f} × the cycle losses"
    return Finding("losses swapped", evidence)


def batch_norm(rows, gan_mode):
    """Scores of fakes cannot be near 1 and near 0: adversarial ≥ (1 - √(2 loss_D))², for one and the same judge.

    By the triangle inequality, with loss_D ≥ ½ mean s² and adversarial = mean (s - 1)² of the fakes' scores s.
    """
    loss_D, adversarial = recent(rows, "loss_D"), recent(rows, "adversarial")
    if gan_mode != "lsgan" or loss_D >= 0.5:
        return None
    bound = (1 - np.sqrt(2 * loss_D)) ** 2
    if adversarial >= bound:
        return None
    evidence = f"the discriminators' loss is {loss_D:.3f}, which leaves the generators an adversarial loss of "
    evidence += f"{bound:.3f} at the least, and theirs is {adversarial:.3f}: the two steps do not see the same judge"
    return Finding("batch norm", evidence)


def judge_never_learns(rows, gan_mode):
    loss_D, draw = recent(rows, "loss_D"), DRAW[gan_mode]
    if loss_D < 1.5 * draw:
        return None
    evidence = f"the discriminators' loss is {loss_D:.2f}; one that says the same to everything has {draw:.2f}"
    return Finding("judge never learns", evidence)


def discriminators_won(rows, gan_mode):
    loss_D, adversarial, draw = recent(rows, "loss_D"), recent(rows, "adversarial"), DRAW[gan_mode]
    if loss_D > 0.3 * draw or adversarial < 2.6 * draw:
        return None
    evidence = f"their loss is {loss_D:.3f}, the generators' adversarial loss {adversarial:.2f}; "
    return Finding("discriminators won", evidence + f"in a draw both are {draw:.2f}")


def no_decay(rows, total_steps):
    first, last = rows[0]["lr"], rows[-1]["lr"]
    if not total_steps or rows[-1]["step"] < total_steps or last < 0.5 * first:
        return None
    evidence = f"the last step has a learning rate of {last:g}, the first had {first:g}"
    return Finding("decay never came", evidence)


def collapsed(samples):
    """Do all fakes look alike? Compared at 4 × 4 pixels, with the real pictures of their domain."""
    for domain in "BA":
        spread = [F.adaptive_avg_pool2d(samples[f"{kind}_{domain}"], 4).std(0).mean() for kind in ("fake", "real")]
        if spread[0] < 0.65 * spread[1]:
            evidence = f"the fakes of {domain} differ from each other by {spread[0]:.2f}, real ones by {spread[1]:.2f}"
            return Finding("mode collapse", evidence)
    return None


def inverted(samples):
    """Are fakes of dark pictures light?"""
    for fake, real in (("fake_B", "real_A"), ("fake_A", "real_B")):
        brightness = [samples[name].mean((1, 2, 3)).numpy() for name in (fake, real)]
        if min(values.std() for values in brightness) < 1e-6:  # all alike: there is no correlation
            continue
        correlation = np.corrcoef(brightness)[0, 1]
        if correlation < -0.3:
            evidence = f"the lighter {real}, the darker {fake}: a correlation of {correlation:.2f}"
            return Finding("inverted colours", evidence)
    return None


def probed(probe):
    """What the probe's figures say: the faults that leave no trace in a history."""
    if probe["reached"]:
        yield Finding(
            "fakes not detached", f"the discriminators' loss leaves gradients in {', '.join(probe['reached'])}"
        )
    if probe["mixed"]:
        evidence = f"what {', '.join(probe['mixed'])} say of a picture depends on the others in its batch"
        yield Finding("batch norm", evidence)
    if probe["unmoved"]:
        yield Finding("frozen network", f"a step leaves every weight of {', '.join(probe['unmoved'])} as it was")
    if probe["same_crops"] > 0.5:
        yield Finding("cached crops", f"{probe['same_crops']:.0%} of the pictures come back the same, crop and flip")
    if probe["same_pairs"] > 0.5:
        yield Finding(
            "fixed pairs", f"{probe['same_pairs']:.0%} of the A have the same B beside them in the next epoch"
        )


def probe(model, dataset, batch_size=4, pictures=24):
    """Look at one step, of a copy of the model, and at some pictures of two epochs.

    Args:
        model: a `CycleGAN`, or what has its `networks`, `generator_step`, `discriminator_step`,
            `step` and `set_lr`.
        dataset: an `UnpairedDataset`, or what has its length, `[n]` and `path(domain, n)`.

    Returns:
        {"reached": names of generators in which the discriminators' step leaves gradients,
        "mixed": names of networks whose answer to a picture depends on the others in its batch,
        "unmoved": names of networks that a step does not change, "same_crops": share of pictures
        that are the same in two epochs, "same_pairs": share of A with the same B in both}
    """
    batch = [torch.stack(side).to(model.device) for side in zip(*(dataset[n] for n in range(batch_size)), strict=True)]
    same_crops, same_pairs = _two_epochs(dataset, pictures)
    return {
        "reached": _reached(copy.deepcopy(model), *batch), "mixed": _mixed(copy.deepcopy(model), *batch),
        "unmoved": _unmoved(copy.deepcopy(model), *batch),
        "same_crops": same_crops, "same_pairs": same_pairs,
    }  # fmt: skip


def _reached(model, real_A, real_B):
    _, fake_A, fake_B = model.generator_step(real_A, real_B)
    for network in model.networks.values():
        network.zero_grad(set_to_none=True)
    model.discriminator_step(real_A, real_B, fake_A, fake_B)
    return [name for name in ("G_AB", "G_BA") if any(p.grad is not None for p in model.networks[name].parameters())]


def _mixed(model, real_A, real_B):
    with torch.no_grad():
        return [name for name, network in model.networks.items()
                if not torch.allclose(network(real_A)[:1], network(real_A[:1]), atol=1e-3)]  # fmt: skip


def _unmoved(model, real_A, real_B):
    model.set_lr(1e-3)  # at the end of a training it may be too small to be seen
    before = {name: [p.detach().clone() for p in network.parameters()] for name, network in model.networks.items()}
    model.step(real_A, real_B)
    return [name for name, network in model.networks.items()
            if all(torch.equal(p, q) for p, q in zip(before[name], network.parameters(), strict=True))]  # fmt: skip


def _two_epochs(dataset, pictures):
    """(share of pictures of A that come with the same crop, and with the same B) in the next epoch."""
    length = len(dataset)
    again = {dataset.path("A", n): n for n in range(length, 2 * length)}
    pairs = [(n, again[dataset.path("A", n)]) for n in range(min(pictures, length))]
    crops = [torch.equal(dataset[n][0], dataset[m][0]) for n, m in pairs]
    partners = [dataset.path("B", n) == dataset.path("B", m) for n, m in pairs]
    return sum(crops) / len(pairs), sum(partners) / len(pairs)
