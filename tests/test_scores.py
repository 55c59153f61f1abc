import json
import math
import shutil

import numpy as np
import pytest
import torch
from scipy import stats

from cyclegan_lib.study.statistics import colour_accuracy, mean_and_interval
from cyclegan_lib.trainer import Hook, Trainer
from cyclegan_lib.water2wine.scores import SCORES, Scores, Water2WineTest, outline, score_table, weighted_l1


@pytest.fixture(scope="module")
def test(tiny_root):
    return Water2WineTest(tiny_root, (32, 32))


def test_the_answer_has_a_perfect_score(test):
    scores = test.scores(test.target["A"], test.target["B"])
    assert scores == {"liquid_error": 0, "background_error": 0, "glass_error": 0, "success_rate": 1}


def test_doing_nothing_keeps_the_background_and_fails(test):
    baselines = test.baselines()
    assert set(baselines) == {f"{b}_{s}" for b in ("identity", "mean_match") for s in SCORES}
    assert baselines["identity_background_error"] == 0
    assert baselines["identity_success_rate"] == 0
    assert baselines["identity_liquid_error"] > 0.3


def test_each_score_sees_its_own_part(test):
    def changed(weight):
        return {d: test.target[d] + 0.4 * weight[d] * (1 - 2 * (test.target[d] > 0).float()) for d in "AB"}

    liquid = changed({d: test.liquid[d] for d in "AB"})
    scores = test.scores(liquid["A"], liquid["B"])
    assert scores["liquid_error"] > 0.3 and scores["background_error"] == 0
    outside = changed({d: (test.glass[d] == 0).float() for d in "AB"})
    scores = test.scores(outside["A"], outside["B"])
    assert scores["background_error"] > 0.3 and scores["liquid_error"] == 0 and scores["success_rate"] == 1


def test_success_is_nearer_to_the_answer_than_to_the_original(test):
    def between(share):
        return [torch.lerp(test.real[d], test.target[d], share) for d in "AB"]

    assert test.scores(*between(0.45))["success_rate"] == 0
    assert test.scores(*between(0.55))["success_rate"] == 1
    half = [between(0.9)[0], test.real["B"]]
    assert test.scores(*half)["success_rate"] == 0.5


def test_mean_match_is_one_colour_shift(test):
    baselines = test.baselines()
    assert 0 < baselines["mean_match_background_error"] < 0.3


def test_other_sizes_and_grey(tiny_root):
    test = Water2WineTest(tiny_root, (24, 40), channels=1)
    assert test.real["A"].shape == test.target["A"].shape == (4, 1, 24, 40)
    assert test.scores(test.target["A"], test.target["B"])["liquid_error"] == 0


def test_weighted_l1_by_hand():
    a, b = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
    b[..., 0] = 3
    weight = torch.tensor([[[[1.0, 0.5], [0.0, 0.0]]]])
    assert weighted_l1(a, b, weight).item() == pytest.approx((3 * 1 + 1 * 0.5) / 1.5)


def test_outline_is_the_edge():
    mask = torch.zeros(1, 1, 9, 9)
    mask[..., 2:7, 2:7] = 1
    edge = outline(mask)[0, 0]
    assert edge[4].tolist() == [0, 1, 1, 0, 0, 0, 1, 1, 0]


# Other numbers


def test_colour_accuracy_by_a_slow_obvious_version():
    generator = torch.Generator().manual_seed(0)
    real = torch.rand(20, 3, 4, 4, generator=generator) * 0.6
    fake = torch.rand(20, 3, 4, 4, generator=generator) * 0.6 - 0.03
    means = [picture.double().mean((1, 2)) for picture in [*real, *fake]]
    right = 0
    for i, mean in enumerate(means):
        others = sorted((j for j in range(40) if j != i), key=lambda j: (means[j] - mean).norm().item())
        says_real = sum(j < 20 for j in others[:9]) > 4
        right += says_real == (i < 20)
    assert colour_accuracy(real, fake) == pytest.approx(right / 40)


def test_colour_accuracy_of_the_same_and_of_other_colours():
    generator = torch.Generator().manual_seed(0)
    real, same = torch.randn(2, 100, 3, 4, 4, generator=generator)
    assert 0.3 < colour_accuracy(real, same) < 0.7
    assert colour_accuracy(real, same + 5) == 1


@pytest.mark.parametrize("count", [2, 3, 5, 9, 11])
def test_intervals_are_students(count):
    values = np.random.default_rng(count).normal(size=count)
    mean, half = mean_and_interval(values.tolist())
    low, high = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
    assert mean == pytest.approx(values.mean()) and half == pytest.approx((high - low) / 2, rel=1e-3)


def test_one_seed_has_no_interval():
    mean, half = mean_and_interval([0.5])
    assert mean == 0.5 and math.isnan(half)


def test_colour_accuracy_of_a_handful():
    assert 0 <= colour_accuracy(torch.rand(3, 3, 2, 2), torch.rand(3, 3, 2, 2)) <= 1


# The hook


class FinishedBefore(Hook):
    """As the hook that resumes a finished run."""

    def start(self, trainer):
        trainer.step = trainer.total_steps


def test_a_finished_training_is_scored_and_its_file_is_kept(tiny_config, tiny_root, test):
    config = tiny_config(num_epochs=1)
    trainer = Trainer(config, [hook := Scores(config)]).run()
    path = config.images_folder / "scores.json"
    assert hook.scores == json.loads(path.read_text())
    wanted = test.score_model(trainer.model) | test.baselines()
    assert hook.scores == wanted | {"seconds_training": round(trainer.seconds, 1)}
    before = path.read_bytes()
    Trainer(config, [FinishedBefore(), again := Scores(config)]).run()
    assert again.scores == hook.scores and path.read_bytes() == before
    path.unlink()
    Trainer(config, [FinishedBefore(), again]).run()
    assert path.is_file(), "a missing file is written"


def test_neither_a_stopped_training_nor_other_data_is_scored(tiny_config, tiny_root, tmp_path):
    stop_at_once = Hook()
    stop_at_once.after_step = lambda trainer: trainer.stop()
    shutil.copytree(tiny_root, tmp_path / "mine", ignore=shutil.ignore_patterns("scenes.json"))
    for config, hooks in [
        (tiny_config(), [stop_at_once]),
        (tiny_config(data_root=tmp_path, dataset_name="mine", num_epochs=1), []),
    ]:
        Trainer(config, [*hooks, hook := Scores(config)]).run()
        assert hook.scores == {} and not config.images_folder.exists()


def test_the_table_puts_the_translation_beside_the_baselines():
    scores = {f"{kind}{name}": i + j / 8 for i, kind in enumerate(("", "identity_", "mean_match_"))
              for j, name in enumerate(SCORES)}  # fmt: skip
    assert score_table(scores).splitlines()[4].split() == ["success_rate", "0.375", "1.375", "2.375"]
