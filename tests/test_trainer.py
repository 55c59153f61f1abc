"""The loop, and the hooks around it, with nothing of the rooms."""

import pytest
import torch
from helpers import Do, contents, stop_at, tiny

from cyclegan_lib.config import TrainConfig
from cyclegan_lib.cyclegan import CycleGAN
from cyclegan_lib.datasets import UnpairedDataset
from cyclegan_lib.errors import UserError
from cyclegan_lib.trainer import Hook, Trainer, learning_rate


def weights(model):
    return {f"{name}.{key}": value.cpu() for name, network in model.networks.items()
            for key, value in network.state_dict().items()}  # fmt: skip


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_plain_loop_gives_the_same_weights(tiny_config):
    """The whole of a training, written out: 2 epochs of 5 + 1 pictures, the learning rate falling in the second."""
    config = tiny_config(batch_size=5, num_epochs=2, lambda_identity=5.0, seed=3)
    model = CycleGAN(base_channels=4, num_residual=1, lambda_identity=5.0, seed=3)
    data = UnpairedDataset(config.dataset_folder, (32, 32), seed=3)
    lr = [2e-4, 2e-4, 2e-4, 1e-4]
    for step, numbers in enumerate([range(5), range(5, 6), range(6, 11), range(11, 12)]):
        real_A, real_B = (torch.stack(pictures) for pictures in zip(*(data[n] for n in numbers), strict=True))
        for optimizer in (model.optimizer_G, model.optimizer_D):
            optimizer.param_groups[0]["lr"] = lr[step]
        model.step(real_A, real_B)
    assert same(weights(Trainer(config).run().model), weights(model))


@pytest.mark.parametrize(("decay", "start"), [(None, 50), (8, 80), (0, 0), (10, 100)])
def test_the_schedule_of_the_paper(decay, start):
    config = TrainConfig(num_epochs=10, decay_epoch=decay, lr=1.0)
    rates = [learning_rate(config, step, 100, 10) for step in range(100)]
    expected = [1.0 if step <= start else (100 - step) / (100 - start) for step in range(100)]
    assert rates == pytest.approx(expected) and min(rates) > 0


def test_it_prints_and_writes_nothing(tiny_config, tiny_root, tmp_path, capfd):
    before = contents(tiny_root)
    Trainer(tiny_config(num_epochs=1)).run().sheet(2)
    assert capfd.readouterr() == ("", "")
    assert contents(tmp_path) == {} and contents(tiny_root) == before


# Hooks


class Watch(Hook):
    """Writes down what it is told, and when."""

    def __init__(self, said, name="watch"):
        self.said, self.name = said, name

    def start(self, trainer):
        self.said.append((self.name, "start", trainer.step, trainer.losses))

    def after_step(self, trainer):
        assert set(trainer.losses) == {"loss_G", "loss_D", "adversarial", "cycle_A", "cycle_B", "identity"}
        self.said.append((self.name, "after_step", trainer.step, trainer.epoch, round(trainer.lr / 2e-4, 6)))

    def after_epoch(self, trainer):
        self.said.append((self.name, "after_epoch", trainer.step, trainer.epoch))

    def end(self, trainer):
        self.said.append((self.name, "end", trainer.step, trainer.stopped))


def test_hooks_are_called_in_order_at_their_four_moments(tiny_config):
    said = []
    trainer = Trainer(tiny_config(num_epochs=2, decay_epoch=1), [Watch(said, "first"), Watch(said, "second")])
    assert said == [] and trainer.run() is trainer and trainer.seconds > 0
    first = [
        ("start", 0, None), ("after_step", 1, 1, 1), ("after_step", 2, 1, 1), ("after_step", 3, 1, 1),
        ("after_epoch", 3, 1), ("after_step", 4, 2, 1), ("after_step", 5, 2, round(2 / 3, 6)),
        ("after_step", 6, 2, round(1 / 3, 6)), ("after_epoch", 6, 2), ("end", 6, False),
    ]  # fmt: skip
    assert said == [(name, *what) for what in first for name in ("first", "second")]
    assert trainer.hook(Watch).name == "first" and trainer.hook(Do) is None


def test_a_hook_sees_the_losses_of_its_step(tiny_config):
    seen, model = [], CycleGAN(base_channels=4, num_residual=1)
    plain, made = model.step, []
    model.step = lambda *batch: made.append(plain(*batch)) or made[-1]
    Trainer(tiny_config(num_epochs=1), [Do(lambda trainer: seen.append(trainer.losses))], model=model).run()
    assert len(seen) == 3 and all(a is b for a, b in zip(seen, made, strict=True))
    assert all(
        loss is None or (loss.ndim == 0 and not loss.requires_grad) for losses in seen for loss in losses.values()
    )


def test_stop_and_run_again_continues(tiny_config, device):
    config = tiny_config(lambda_identity=5.0, device=device)
    whole, said = Trainer(config).run(), []
    trainer = Trainer(config, [stop_at(4), Watch(said)])
    assert trainer.run().stopped and trainer.step == 4 and trainer.epoch == 2
    assert said[-1] == ("watch", "end", 4, True)
    assert not trainer.run().stopped and trainer.step == 9
    assert [what[2] for what in said if what[1] == "after_step"] == list(range(1, 10))
    if device == "cpu":
        assert same(weights(trainer.model), weights(whole.model))
    else:  # their kernels add up in any order
        ours, theirs = weights(trainer.model), weights(whole.model)
        assert all(torch.allclose(ours[key], theirs[key], atol=1e-3) for key in theirs)
    steps = len(said)
    trainer.run()  # nothing is left to be done
    assert [what[1] for what in said[steps:]] == ["start", "end"] and trainer.step == 9


def test_after_an_error_what_was_opened_is_closed_and_end_is_not_called(tiny_config):
    said = []

    class Opens(Hook):
        def start(self, trainer):
            trainer.cleanup.callback(said.append, "closed")

    def fail(trainer):
        raise RuntimeError("a hook's own")

    trainer = Trainer(tiny_config(), [Opens(), Watch(said), Do(fail, 2), Watch(said, "behind")])
    with pytest.raises(RuntimeError, match="a hook's own"):
        trainer.run()
    assert [what[:2] for what in said[:3]] == [("watch", "start"), ("behind", "start"), ("watch", "after_step")]
    assert said[-2:] == [("watch", "after_step", 2, 1, 1), "closed"]


def test_a_hook_may_set_where_it_starts_and_stop_there(tiny_config):
    class Later(Hook):
        def start(self, trainer):
            trainer.step = 7

    class Never(Hook):
        def start(self, trainer):
            trainer.stop()

    said = []
    trainer = Trainer(tiny_config(), [Later(), Watch(said)]).run()
    assert [what[2] for what in said if what[1] == "after_step"] == [8, 9]
    assert list(trainer.batch_numbers[7]) == [14, 15]
    assert Trainer(tiny_config(), [Never()]).run().step == 0


def test_max_steps_ends_within_an_epoch_with_the_rate_decayed(tiny_config):
    said = []
    trainer = Trainer(tiny_config(max_steps=4), [Watch(said)]).run()
    assert trainer.total_steps == 4 and not trainer.stopped
    assert [what[-1] for what in said if what[1] == "after_step"] == [1, 1, 1, 0.5]
    assert [what[2] for what in said if what[1] == "after_epoch"] == [3]


# What is passed in


def test_model_data_and_schedule_that_are_passed_in_are_used(tiny_config):
    config = tiny_config(num_epochs=1)
    model, rates = CycleGAN(base_channels=6, num_residual=2), []

    class Grey(UnpairedDataset):
        def crop(self, domain, n, rng):
            seen.append(n)
            return torch.zeros(3, 32, 32)

    def schedule(config, step, total_steps, steps_per_epoch):
        rates.append((step, total_steps, steps_per_epoch))
        return 0.0

    seen, before = [], {key: value.clone() for key, value in weights(model).items()}
    trainer = Trainer(config, model=model, data=Grey(config.dataset_folder, (32, 32)), schedule=schedule).run()
    assert trainer.model is model and rates == [(0, 3, 3), (1, 3, 3), (2, 3, 3)]
    assert sorted(seen) == sorted([*range(6)] * 2) and trainer.lr == 0
    assert same(weights(model), before), "a rate of 0 moves nothing"


@pytest.mark.parametrize("change", [{"dataset_name": "nowhere"}, {"precision": "fp16"}, {"decay_epoch": 9}])
def test_what_cannot_be_is_refused_when_it_is_made(tiny_config, change):
    with pytest.raises(UserError, match=str(*change.values())):
        Trainer(tiny_config(**change))


# What changes a training


def some_losses(config):
    seen = []
    Trainer(config, [Do(lambda trainer: seen.append(trainer.losses["loss_G"].item()))]).run()
    return seen


@pytest.fixture(scope="module")
def plain_losses(tiny_root, tmp_path_factory):
    torch.set_num_threads(1)
    return some_losses(tiny(tiny_root.parent, tmp_path_factory.mktemp("plain"), num_epochs=1))


@pytest.mark.parametrize(
    "change",
    [
        {"lambda_cycle": 3.0}, {"lambda_identity": 2.0}, {"output_norm": "instance"}, {"output_norm": "batch"},
        {"output_norm": "instance_affine"}, {"base_channels": 6}, {"num_residual": 2}, {"lr": 2e-3},
        {"gan_mode": "vanilla"}, {"no_init": True}, {"seed": 1}, {"batch_size": 3}, {"img_height": 40},
        {"img_width": 40}, {"channels": 1}, {"precision": "bf16"}, {"decay_epoch": 0}, {"no_augment": True},
        {"lambda_adversarial": 0.5}, {"discriminator_instance": True},
    ],
    ids=str,
)  # fmt: skip
def test_what_changes_the_training(tiny_config, plain_losses, change):
    changed = some_losses(tiny_config(num_epochs=1, **change))
    assert changed != plain_losses and all(torch.tensor(changed).isfinite())


def test_what_does_not_change_the_training(tiny_config, plain_losses):
    assert some_losses(tiny_config(num_epochs=1, num_workers=2)) == plain_losses
