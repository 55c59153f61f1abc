"""Judging translations without the right answers: against closed forms, scipy and torchmetrics."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import wasserstein_distance
from torch import nn

from cyclegan_lib.cli import main
from cyclegan_lib.cyclegan import CycleGAN
from cyclegan_lib.datasets import load_split
from cyclegan_lib.errors import UserError
from cyclegan_lib.models import Generator, init_weights
from cyclegan_lib.pictures import judge
from cyclegan_lib.runs.checkpoint import write_checkpoint


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_the_distance_of_two_samples_is_scipys():
    x, y = noise(3000), noise(1700, seed=1) ** 3 + 0.2
    assert judge.wasserstein(x, y) == pytest.approx(wasserstein_distance(x.numpy(), y.numpy()), abs=2e-3)
    few, fewer = torch.tensor([0.0, 1, 2]), torch.tensor([0.5])
    assert judge.wasserstein(few, fewer) == pytest.approx(wasserstein_distance(few, fewer), abs=1e-3)


def test_a_sample_moved_by_a_step_is_that_step_away():
    x = noise(200)
    assert judge.wasserstein(x, x[torch.randperm(200)]) == 0
    assert judge.wasserstein(x, x + 0.25) == pytest.approx(0.25, abs=1e-6)
    assert judge.wasserstein(x, 3 * x) == pytest.approx(2 * x.abs().mean().item(), abs=5e-3)


def test_more_numbers_than_are_looked_at_change_little(monkeypatch):
    x, y = noise(50_000), noise(50_000, seed=1) + 0.1
    all_of_them = judge.wasserstein(x, y)
    monkeypatch.setattr(judge, "POOLED", 20_000)
    assert judge.wasserstein(x, y) == pytest.approx(all_of_them, abs=0.02)


def test_each_change_shows_in_its_own_statistics():
    real = (noise(40, 3, 16, 16) + noise(40, 3, 1, 1, seed=1)).mul(0.4)
    same = judge.distances(real, real)
    assert set(same.values()) == {0}
    brighter = judge.distances(real + 0.2, real)
    assert brighter["brightness"] == pytest.approx(0.2, abs=1e-5)
    assert brighter["pixel values"] == pytest.approx(0.2, abs=1e-3)
    assert brighter["contrast"] < 1e-5 and brighter["edges (neighbours' difference)"] < 1e-5
    warmer = judge.distances(real + torch.tensor([0.1, 0, -0.1])[:, None, None], real)
    assert warmer["warmth (red over blue)"] == pytest.approx(0.2, abs=1e-5) and warmer["brightness"] < 1e-5
    blurred = judge.distances(nn.functional.avg_pool2d(real, 3, 1, 1), real)
    assert blurred["edges (neighbours' difference)"] > 0.1 > blurred["brightness"]
    assert blurred["sharpness"] > 0.1


def test_grey_pictures_have_those_that_need_no_colours():
    assert set(judge.distances(noise(4, 1, 8, 8), noise(4, 1, 8, 8))) == {
        "pixel values", "edges (neighbours' difference)",
    }  # fmt: skip


def test_gradients_are_the_differences_one_can_count():
    picture = torch.tensor([[[[0.0, 0.5], [1.0, 0.25]]]])
    assert sorted(judge.gradients(picture).tolist()) == [0.25, 0.5, 0.75, 1.0]


def test_the_nearest_is_found_by_a_slow_search_too():
    pictures, train = noise(5, 3, 32, 32), noise(20, 3, 32, 32, seed=1)
    found, distance = judge.nearest(pictures, train)
    for i, picture in enumerate(pictures):
        slow = []
        for other in train:
            shrink = lambda p: p.reshape(3, 16, 2, 16, 2).mean((2, 4))  # noqa: E731
            slow.append(min((shrink(p) - shrink(other)).abs().mean().item() for p in (picture, picture.flip(2))))
        assert found[i] == int(np.argmin(slow)) and distance[i] == pytest.approx(min(slow), rel=1e-4)


def test_copies_are_told_from_new_pictures_even_mirrored():
    train, test = noise(60, 3, 32, 32), noise(40, 3, 32, 32, seed=1)
    assert judge.copied(noise(200, 3, 32, 32, seed=2), test, train) < 0.15
    assert judge.copied(train[:10] + 0.01 * noise(10, 3, 32, 32, seed=3), test, train) == 1
    assert judge.copied(train[:10].flip(3), test, train) == 1


class Features(nn.Module):
    """(N, 3, H, W) uint8 → (N, 12): a stand-in for Inception."""

    num_features = 12

    def forward(self, pictures):
        return nn.functional.adaptive_avg_pool2d(pictures.float() / 255, 2).flatten(1)


def test_kid_and_fid_are_what_their_papers_say():
    pytest.importorskip("torchmetrics")
    fake, real = noise(60, 3, 8, 8), noise(60, 3, 8, 8, seed=1) * 0.7 + 0.2
    found = judge.inception_scores(fake, real, Features())
    x, y = (Features()(((p + 1) * 127.5).round().to(torch.uint8)).double() for p in (fake, real))
    kernel = lambda a, b: (a @ b.T / 12 + 1) ** 3  # noqa: E731
    n, off_diagonal = 60, ~torch.eye(60, dtype=torch.bool)
    within = sum(kernel(p, p)[off_diagonal].sum() / (n * (n - 1)) for p in (x, y))
    # All 60 of each are in every subset, so every draw is the whole.
    assert found["KID"] == pytest.approx((within - 2 * kernel(x, y).mean()).item(), rel=1e-4)
    covariances = [p.T.cov() for p in (x, y)]
    root = torch.linalg.eigvals(covariances[0] @ covariances[1]).real.clamp(min=0).sqrt().sum()
    fid = (x.mean(0) - y.mean(0)).square().sum() + sum(c.trace() for c in covariances) - 2 * root
    assert found["FID"] == pytest.approx(fid.item(), rel=1e-3)


def test_the_same_pictures_get_the_same_scores_twice():
    pytest.importorskip("torchmetrics")
    fake, real = noise(130, 3, 8, 8), noise(130, 3, 8, 8, seed=1)
    state = torch.get_rng_state()
    first = judge.inception_scores(fake, real, Features())
    assert judge.inception_scores(fake, real, Features()) == first and first["KID_std"] > 0
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_that_cannot_be_had_are_said_in_a_line(monkeypatch):
    fid = pytest.importorskip("torchmetrics.image.fid")
    monkeypatch.setattr(fid, "NoTrainInceptionV3", lambda **kwargs: (_ for _ in ()).throw(OSError("no network")))
    monkeypatch.setattr("torchmetrics.image.kid.NoTrainInceptionV3", fid.NoTrainInceptionV3)
    with pytest.raises(UserError, match=r"weights for KID and FID cannot be downloaded \(no network\)"):
        judge.inception_scores(noise(4, 3, 8, 8), noise(4, 3, 8, 8))


def test_without_torchmetrics_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", None)
    with pytest.raises(UserError, match=r'pip install "torchmetrics\[image\]"'):
        judge.inception_scores(noise(4, 3, 8, 8), noise(4, 3, 8, 8))


# A run


@pytest.fixture
def checkpoint(tmp_path, tiny_root):
    """A run's folder with untrained generators, trained "on" the tiny water2wine."""
    facts = {
        "channels": 3, "base_channels": 4, "num_residual": 1, "output_norm": "none",
        "dataset_name": tiny_root.name, "img_height": 32, "img_width": 32, "step": 1,
    }  # fmt: skip
    (tmp_path / "saved").mkdir()
    write_checkpoint(tmp_path / "saved" / "epoch_1.safetensors", CycleGAN(base_channels=4, num_residual=1), facts)
    return tmp_path / "saved"


def run(*arguments):
    """The exit code of the command, in this process."""
    try:
        main(["judge", *map(str, arguments)])
    except SystemExit as end:
        return end.code
    return 0


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_a_run_is_judged_on_its_own_test_pictures(checkpoint, tiny_root, direction):
    found = judge.judge_checkpoint(checkpoint, direction, data_root=tiny_root.parent)
    source, target = direction[0], direction[-1]
    assert torch.equal(found.pictures["real"], load_split(tiny_root, f"test{source}", (32, 32)))
    assert torch.equal(found.pictures["train"], load_split(tiny_root, f"train{target}", (32, 32)))
    means = {name: pictures.mean((1, 2, 3)) for name, pictures in found.pictures.items()}
    from_real, from_fake, from_train = found.table["brightness"]
    assert from_real == judge.wasserstein(means["real"], means["target"])
    assert from_train == judge.wasserstein(means["train"], means["target"])
    # An untrained generator returns grey: as far off as the pictures are from it.
    assert from_fake == pytest.approx(means["target"].abs().mean().item(), abs=0.05)


def test_the_command_prints_a_table_and_draws_the_nearest(checkpoint, tiny_root, tmp_path, capsys):
    picture = tmp_path / "nearest.png"
    assert run(checkpoint, "--data_root", tiny_root.parent, "--nearest", picture) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["distance", "to", "4", "testB", "4", "real", "A", "4", "fake", "B", "6", "trainB"]
    assert len(lines) == 12 and lines[1].startswith("brightness") and "close to a training picture" in lines[-3]
    assert "JPEG at quality 90: it changes what comes back by" in lines[-2]
    assert lines[-1].startswith("no verdict: with 4 test pictures") and "20 are needed" in lines[-1]
    with Image.open(picture) as image:
        assert image.width > 300


@pytest.mark.parametrize(
    ("count", "change", "said"),
    [
        (19, "grey", "no verdict: with 19 test pictures"),
        (20, "grey", "contrast in 100%, saturation in 100%, sharpness in 100%"),
        (20, "untranslated", "not like real B yet: one number alone tells fake from real, brightness in"),
        (20, "another draw of B", "verdict: no number here, alone, tells fakes from real B"),
    ],
)
def test_the_verdict_is_one_sentence_that_follows_from_the_table(count, change, said):
    """B is A, but lighter."""
    dark = lambda seed: (noise(count, 3, 1, 1, seed=seed) + noise(count, 3, 16, 16, seed=seed + 10)) / 4 - 0.4  # noqa: E731
    fake = {"untranslated": dark(0), "another draw of B": dark(2) + 0.4}.get(change, torch.zeros(count, 3, 16, 16))
    verdict = judge.Judgement(dark(0), fake, dark(1) + 0.4, dark(3) + 0.4, "AtoB").verdict()
    assert said in verdict and "." not in verdict and "\n" not in verdict


class FaintCode(torch.nn.Module):
    """A way back that reads what a fake hides: it multiplies the difference of neighbouring pixels by a hundred."""

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(100.0))

    def forward(self, pictures):
        return (self.gain * (pictures - pictures.roll(1, 3))).clamp(-1, 1)


def test_a_faint_code_in_the_fakes_does_not_survive_jpeg():
    flat = torch.linspace(-0.5, 0.5, 8)[:, None, None, None].expand(8, 3, 32, 32)
    kept = flat + torch.where((torch.arange(32)[:, None] + torch.arange(32)) % 2 == 0, 1.0, -1.0) / 127.5
    assert (judge.jpeg(flat) - flat).abs().max() <= 1.01 / 127.5, "one colour stays as it is, but for its rounding"
    back = FaintCode()
    with torch.inference_mode():
        found = judge.Judgement(flat, kept, flat, flat, "AtoB", back)
        assert found.by_jpeg[1] < 0.01 < 0.5 < found.by_jpeg[0]
        assert found.hidden()[0].startswith("the reconstruction does not survive JPEG at quality 90")
        same = judge.Judgement(flat, flat.flip(0), flat, flat, "AtoB", back)
    assert same.hidden()[0].startswith("the reconstruction survives") and judge.jpeg(flat[:, :1]).shape == (
        8,
        1,
        32,
        32,
    )


def test_a_single_generator_has_no_way_back_to_judge():
    assert judge.Judgement(*(noise(4, 3, 8, 8) for _ in range(4)), "AtoB").hidden() == []


def test_a_file_that_says_nothing_of_its_data_needs_to_be_told(checkpoint, tiny_root, tmp_path, capsys):
    torch.save(init_weights(Generator(3, 4, 1)).state_dict(), tmp_path / "G.pth")
    assert run(tmp_path / "G.pth") == 2
    assert "give --dataset and --size" in capsys.readouterr().err
    assert run(tmp_path / "G.pth", "--dataset", tiny_root, "--size", 32, "--direction", "AtoB") == 0
    for option, value, said in [("--size", 30, "multiple of 4"), ("--limit", 1, "--limit: must be"),
                                ("--dataset", tmp_path / "no", "no")]:  # fmt: skip
        assert run(checkpoint, "--data_root", tiny_root.parent, option, value) == 2
        assert said in capsys.readouterr().err


def test_the_rows_show_the_fakes_that_are_most_like_a_training_picture_first():
    train, fake = noise(9, 3, 16, 16, seed=1), noise(5, 3, 16, 16, seed=2)
    fake[3] = train[7]
    fake[1] = 0.9 * train[2] + 0.1 * fake[1]
    found = judge.Judgement(noise(5, 3, 16, 16), fake, noise(4, 3, 16, 16, seed=3), train, "AtoB")
    real_A, fake_B, near = found.nearest_rows(2).values()
    assert torch.equal(fake_B, fake[[3, 1]]) and torch.equal(near, train[[7, 2]])
    assert torch.equal(real_A, found.pictures["real"][[3, 1]])
