"""A run's history, its pictures and a look at one step → which known fault it shows (notebook 07).

Every threshold was chosen on some runs and tried on others: `make zoo`, and the table in `data/debugging/zoo/`.
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from cyclegan_lib.study.floor import output_norm_floor

MINIMUM_STEPS = 200  # a younger training looks like several faults
DIAGNOSED_PICTURES = 16  # of each side; enough for what is measured here
FEWEST_PICTURES = 4  # of each side; fewer say nothing about how they differ
DRAW = {"lsgan": 0.25, "vanilla": np.log(2)}  # loss_D of a constant guess (notebook 03)
REPAIRS = {
    "learning rate below zero": "Adam then climbs the losses: let the decay end with the run (`learning_rate`)",
    "pictures in [0, 1]": "scale them to [-1, 1], the range of tanh; show them as (picture + 1) / 2",
    "norm at the output": "remove the normalisation before the tanh: notebook 05",
    "losses swapped": "look where the losses are unpacked and weighted; return them by name",
    "batch norm": "it mixes the pictures of a batch, and real with fake ones: use instance norm, as the paper does",
    "discriminator never learns": "a network stays frozen, or is not in the optimiser: the probe says which",
    "mode collapse": "see that there is a cycle loss, and that its gradient reaches both generators",
    "discriminators won": "give the discriminators a lower learning rate or fewer channels, or the generators more",
    "inverted colours": "add an identity loss (λ 5), or use another seed; no other loss prevents it: notebook 03",
    "hides information": "part of a picture has no place in the other domain, and the cycle asks for it: notebook 09",
    "decay never came": "let the learning rate fall to 0 over the second half, so that steps become small",
    "fakes not detached": "hand the discriminators fake.detach(), or their loss trains the generators too",
    "frozen network": "call requires_grad_(True) again, and give the optimiser the parameters that are in use",
    "cached crops": "draw crop and flip anew each time a picture is asked for; cache the decoded picture only",
    "fixed pairs": "shuffle both sides, each with its own order in each epoch",
}


@dataclass(frozen=True)
class Finding:
    """A fault by the name it has in `REPAIRS`, and the evidence for it, with figures."""

    fault: str
    evidence: str


def diagnose(history, samples=None, probe=None, gan_mode="lsgan", total_steps=None):
    """Which of the known faults a training shows: a list of `Finding`, the most certain first; [] if it looks healthy.

    `history` are rows of `history.jsonl`; fewer than `MINIMUM_STEPS` show only what is wrong from the first step on.
    `samples` are as `Trainer.sheet` gives them, `probe` is what `probe` returns, and `total_steps` is the length of the
    whole run, without which "decay never came" is not looked for.
    """
    findings = {}
    for finding in _all_findings(history, samples, probe, gan_mode, total_steps):
        findings.setdefault(finding.fault, finding)
    return list(findings.values())


def _all_findings(history, samples, probe, gan_mode, total_steps):
    rows = [row for row in history if np.isfinite([row["loss_G"], row["loss_D"]]).all()]
    if negative := {row["step"]: row["lr"] for row in rows if row["lr"] < 0}:
        evidence = f"from step {min(negative)} on the learning rate is negative, down to {min(negative.values()):g}"
        yield Finding("learning rate below zero", evidence)
    if samples:
        low = min(samples[name].min().item() for name in ("real_A", "real_B"))
        if low >= -0.05:
            evidence = f"no pixel of the real pictures is below {low:.2f}; a tanh goes down to -1"
            yield Finding("pictures in [0, 1]", evidence)
        yield from norm_at_the_output(samples, rows)
    old_enough = len(rows) >= MINIMUM_STEPS
    if old_enough:
        gan, cycle = weights(rows)
        if gan > 1.5 * cycle > 0.15:
            yield Finding("losses swapped", f"loss_G is {gan:.1f} × the adversarial and {cycle:.1f} × the cycle losses")
        yield from discriminators(rows, gan_mode)
    if probe:  # before what its faults can cause
        yield from probed(probe)
    if old_enough:
        if samples and min(len(samples["real_A"]), len(samples["real_B"])) >= FEWEST_PICTURES:
            yield from collapsed(samples)
            yield from hidden(samples)  # where fakes do not show what comes back, their brightness says little
            yield from inverted(samples)
        first, last = rows[0]["lr"], rows[-1]["lr"]
        if total_steps and rows[-1]["step"] >= total_steps and last >= 0.5 * first:
            yield Finding("decay never came", f"the last step has a learning rate of {last:g}, the first had {first:g}")


def report(findings, steps=None):
    """The findings after so many steps, a line each. Only the first has a repair: one fault often shows as several."""
    if not findings and steps is not None and steps < MINIMUM_STEPS:
        return f"diagnosis: too early to say anything (from {MINIMUM_STEPS} steps on)"
    if not findings:
        return "diagnosis: it looks healthy; none of the known faults shows"
    first, *others = findings
    lines = [f"diagnosis: {first.fault}? {first.evidence}.", f"  What to do: {REPAIRS[first.fault]}"]
    lines += [f"  Also, perhaps because of it: {finding.fault}? {finding.evidence}." for finding in others]
    return "\n".join(lines)


def recent(rows, name):
    """The mean of a loss over the last third of the history."""
    return float(np.mean([row[name] for row in rows[-max(1, len(rows) // 3) :]]))


def norm_at_the_output(samples, rows):
    """A norm gives each channel of each picture mean 0 and deviation 1; inverting the tanh shows it."""
    fakes = torch.cat([samples["fake_A"], samples["fake_B"]]).double().flatten(2).flatten(0, 1)
    unsaturated = fakes[fakes.abs().amax(1) < 1 - 1e-6]  # a ±1, which a long training makes, cannot be inverted
    if len(unsaturated) < 10:
        return
    before_tanh = torch.atanh(unsaturated)
    normed = (before_tanh.mean(1).abs() < 0.1) & ((before_tanh.std(1) - 1).abs() < 0.1)
    share = normed.double().mean().item()
    if share < 0.9:
        return
    floors = [output_norm_floor(samples[f"real_{domain}"]) for domain in "AB"]
    evidence = f"before the tanh {share:.0%} of the fakes' channels have mean 0 and standard deviation 1"
    evidence += f"; so no cycle loss here can get below {floors[0]:.3f} (A) and {floors[1]:.3f} (B)"
    if rows:
        cycle_A, cycle_B, loss_D = (recent(rows, name) for name in ("cycle_A", "cycle_B", "loss_D"))
        evidence += f", and they are {cycle_A:.3f} and {cycle_B:.3f} while the discriminators' loss is {loss_D:.3f}"
    yield Finding("norm at the output", evidence)


def weights(rows):
    """(λ_adversarial, λ_cycle) by least squares: loss_G is a weighted sum of the other losses."""
    losses = [(2 * row["adversarial"], row["cycle_A"] + row["cycle_B"], 2 * (row["identity"] or 0)) for row in rows]
    return np.linalg.lstsq(np.array(losses), np.array([row["loss_G"] for row in rows]), rcond=None)[0][:2]


def discriminators(rows, gan_mode):
    """What loss_D and the adversarial loss say together: both are made of the fakes' scores s.

    As loss_D ≥ ½ mean s² and adversarial = mean (s - 1)², adversarial ≥ (1 - √(2 loss_D))²: no s is near both 0 and 1.
    """
    loss_D, adversarial, draw = recent(rows, "loss_D"), recent(rows, "adversarial"), DRAW[gan_mode]
    bound = (1 - np.sqrt(2 * loss_D)) ** 2
    if gan_mode == "lsgan" and loss_D < 0.5 and adversarial < bound:
        evidence = f"a discriminators' loss of {loss_D:.3f} allows no adversarial loss below {bound:.3f}, and it is "
        yield Finding("batch norm", f"{evidence}{adversarial:.3f}: the two updates do not see the same scores")
    if loss_D >= 1.5 * draw:
        evidence = f"the discriminators' loss is {loss_D:.2f}; with the same score for every picture it is {draw:.2f}"
        yield Finding("discriminator never learns", evidence)
    if loss_D <= 0.3 * draw and adversarial >= 2.6 * draw:
        evidence = f"their loss is {loss_D:.3f}, the generators' adversarial loss {adversarial:.2f}"
        yield Finding("discriminators won", f"{evidence}; if they cannot tell real from fake, both are {draw:.2f}")


def collapsed(samples):
    """Do all fakes look alike? Compared at 4 × 4 pixels, with real pictures of their domain, and with their sources."""
    for domain, other in ("BA", "AB"):
        names = f"fake_{domain}", f"real_{domain}", f"real_{other}"
        fake, real, source = (F.adaptive_avg_pool2d(samples[name], 4).std(0).mean() for name in names)
        if fake < 0.65 * min(real, source):
            evidence = f"the fakes of {domain} differ from each other by {fake:.2f}, real ones by {real:.2f}"
            yield Finding("mode collapse", evidence)


def inverted(samples):
    """Are fakes of dark pictures light?"""
    for fake, real in (("fake_B", "real_A"), ("fake_A", "real_B")):
        brightness = [samples[name].mean((1, 2, 3)).numpy() for name in (fake, real)]
        varies = min(values.std() for values in brightness) > 1e-6  # if not, there is no correlation
        if varies and (r := np.corrcoef(brightness)[0, 1]) < -0.3:
            yield Finding("inverted colours", f"the lighter {real}, the darker {fake}: a correlation of {r:.2f}")


def hidden(samples):
    """Does more come back than the fakes show in the same places and channels? (Also if they exchange colours.)"""
    for domain, other in ("AB", "BA"):
        real, rows = samples[f"real_{domain}"], (samples[f"fake_{other}"], samples.get(f"rec_{domain}"))
        if rows[1] is None:
            continue
        chance = (len(real) - 1) / (len(real) - 2)  # few pictures: a part is explained by chance
        shown, returned = (1 - (1 - variance_explained(real, row)) * chance for row in rows)
        if shown < 0.5 * returned > 0.3:
            evidence = (
                f"of how pictures of real_{domain} differ, place by place, fake_{other} shows {max(shown, 0):.0%}"
            )
            yield Finding("hides information", f"{evidence}, and rec_{domain} {returned:.0%}")


def variance_explained(real, other):
    """The share of the variance of `real` over pictures that `other`, place by place at 4 × 4 pixels, explains."""
    x, y = (F.adaptive_avg_pool2d(pictures.double(), 4).flatten(1) for pictures in (real, other))
    x, y = x - x.mean(0), y - y.mean(0)
    left = (x * y).sum(0).square() / y.square().sum(0).clamp(min=1e-9)  # r² × the variance, in each place
    return (left.sum() / x.square().sum().clamp(min=1e-9)).item()


def probed(probe):
    """The faults that leave no trace in a history, from the result of `probe`."""
    reached, mixed, unmoved = (", ".join(probe[name]) for name in ("reached", "mixed", "unmoved"))
    if reached:
        yield Finding("fakes not detached", f"the discriminators' loss leaves gradients in {reached}")
    if mixed:
        yield Finding("batch norm", f"the output of {mixed} for a picture depends on the others in its batch")
    if unmoved:
        yield Finding("frozen network", f"a step changes no weight of {unmoved}")
    if (crops := probe["same_crops"]) > 0.5:
        yield Finding("cached crops", f"{crops:.0%} of the pictures have the same crop and flip in the next epoch")
    if (pairs := probe["same_pairs"]) > 0.5:
        yield Finding("fixed pairs", f"{pairs:.0%} of the A have the same B beside them in the next epoch")


class Adapter:
    """A CycleGAN that was written without this package, in the form that `probe` takes: an object and four functions.

    Args:
        model: an object with all networks and optimisers in it, which `copy.deepcopy` can copy.
        networks: (model) → {"G_AB", "G_BA", "D_A", "D_B"}, the networks by our names.
        generator_step: (model, real_A, real_B) → (fake_A, fake_B). The update of the generators.
        discriminator_step: (model, real_A, real_B, fake_A, fake_B). The update of the discriminators.
        set_lr: (model, lr). Sets the learning rate of all optimisers.
    """

    def __init__(self, model, networks, generator_step, discriminator_step, set_lr):
        self.model, self.functions = model, (networks, generator_step, discriminator_step, set_lr)
        self.device = next(self.networks["G_AB"].parameters()).device

    @property
    def networks(self):
        return self.functions[0](self.model)

    def generator_step(self, real_A, real_B):
        return None, *self.functions[1](self.model, real_A, real_B)

    def discriminator_step(self, *pictures):
        self.functions[2](self.model, *pictures)

    def set_lr(self, lr):
        self.functions[3](self.model, lr)


def probe(model, dataset, batch_size=4):
    """Look at one step, of copies of a `CycleGAN`, and at 24 pictures of two epochs of an `UnpairedDataset`.

    `model` may be an `Adapter`. `dataset` may be any with its length, `dataset[n]` and `dataset.path(domain, n)`.

    Returns {"reached": generators in which the discriminators' step leaves gradients, "mixed": networks whose output
    for a picture depends on the others in its batch, "unmoved": networks that a step does not change (all by name),
    "same_crops": share of pictures that are the same in both epochs, "same_pairs": of A with the same B}.
    """
    batch = [torch.stack(side).to(model.device) for side in zip(*(dataset[n] for n in range(batch_size)), strict=True)]
    reached, mixed, unmoved = [], [], []
    for name, network in copy.deepcopy(model).networks.items():
        with torch.no_grad():
            in_batch, alone = network(batch[0])[:1], network(batch[0][:1])
        if not torch.allclose(in_batch, alone, atol=1e-3):
            mixed.append(name)
    tried = copy.deepcopy(model)
    tried.set_lr(1e-3)  # at the end of a training it may be too small to be seen
    _, fake_A, fake_B = tried.generator_step(*batch)
    for network in tried.networks.values():
        network.zero_grad()
    tried.discriminator_step(*batch, fake_A, fake_B)
    for name, network in tried.networks.items():
        if name.startswith("G") and any(weight.grad is not None for weight in network.parameters()):
            reached.append(name)
        if all(map(torch.equal, network.parameters(), model.networks[name].parameters())):
            unmoved.append(name)
    length, path = len(dataset), dataset.path
    again = {path("A", n): n for n in range(length, 2 * length)}
    pairs = [(n, again[path("A", n)]) for n in range(min(24, length))]  # where a picture of A is in the two epochs
    same_crops = sum(torch.equal(dataset[n][0], dataset[m][0]) for n, m in pairs) / len(pairs)
    same_pairs = sum(path("B", n) == path("B", m) for n, m in pairs) / len(pairs)
    return dict(reached=reached, mixed=mixed, unmoved=unmoved, same_crops=same_crops, same_pairs=same_pairs)
