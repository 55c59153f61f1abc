"""The training loop: steps, and hooks around them."""

import contextlib
import math
import time

from cyclegan_lib.cyclegan import CycleGAN
from cyclegan_lib.datasets import BatchNumbers, UnpairedDataset, training_batches


def learning_rate(config, step, total_steps, steps_per_epoch):
    """The learning rate of a step (counted from 0): constant, then falling linearly to zero at the end.

    The paper, section 4: 100 epochs constant, 100 epochs of decay; here by the step.
    """
    start = total_steps / 2 if config.decay_epoch is None else config.decay_epoch * steps_per_epoch
    if step < start or start >= total_steps:
        return config.lr
    return config.lr * (total_steps - step) / (total_steps - start)


class Hook:
    """Something that the trainer calls: a progress bar, a log, checkpoints, a change of the model half way.

    A hook may read everything of the trainer and call `trainer.stop()`. An *observer* changes
    nothing but its own files. An *intervention* changes the training, and its docstring says so.
    """

    def start(self, trainer):
        """Before the first step. Here, and only here, an intervention may set `trainer.step` and load a state."""

    def after_step(self, trainer):
        """`trainer.step` steps are done; `trainer.losses` are those of the last one, tensors on the device.

        To read a loss makes the device wait, so a hook does it every 25 steps or so.
        """

    def after_epoch(self, trainer):
        """`trainer.epoch` epochs are done."""

    def end(self, trainer):
        """After the last step, or after the one in which somebody called `trainer.stop()`. Not after an error."""


class Trainer:
    """One training. `Trainer(config).run()` is all of it: it writes no file.

    Options about checkpoints, samples and resuming are for the hooks in `runs` and `show`, which
    `train.train` adds. Here they have no effect.

    Args:
        config: a `TrainConfig`.
        hooks: called in this order at each of their four moments.
        model: a `CycleGAN`, instead of the one that the config describes.
        data: an `UnpairedDataset`, or what has its length, `[n]` and `test`, instead of the config's.
        schedule: a function like `learning_rate`.
        processes: of several that train together, see `runs.processes.Processes`. It gives this
            process's share of a batch, and sums the gradients before every update.

    Attributes:
        step, epoch, total_steps, steps_per_epoch: `step` counts the steps that are done.
        shown: the model that is drawn and scored; a hook may put one with averaged generators there.
        losses, lr: of the last step; seconds: how long the last `run` took.
        cleanup: an `ExitStack` for what a hook holds open, unwound after the training or an error.

    Raises:
        UserError: a line for each thing that is wrong with the options or the data.
    """

    def __init__(self, config, hooks=(), model=None, data=None, schedule=learning_rate, processes=None):
        config.check()
        self.config, self.hooks, self.schedule, self.processes = config, list(hooks), schedule, processes
        self.model = self.shown = CycleGAN.from_config(config) if model is None else model
        self.device = self.model.device
        self.data = data = UnpairedDataset.from_config(config) if data is None else data
        self.steps_per_epoch = math.ceil(len(data) / config.batch_size)
        self.total_steps = min(config.num_epochs * self.steps_per_epoch, config.max_steps or math.inf)
        self.step, self.losses, self.lr, self.seconds = 0, None, config.lr, 0.0
        self.batch_numbers = BatchNumbers(len(data), config.batch_size, 0, self.total_steps)
        self.num_workers, self.worker_init_fn = config.num_workers or 0, None  # as a `DataLoader` takes them

    @property
    def epoch(self):
        """The epoch of the last step done, from 1."""
        return max(1, math.ceil(self.step / self.steps_per_epoch))

    @property
    def stopped(self):
        """Whether it has ended before its last step."""
        return self.step < self.total_steps

    def hook(self, kind):
        """The hook of this class, or None."""
        return next((hook for hook in self.hooks if isinstance(hook, kind)), None)

    def stop(self):
        """Take no more steps."""
        self._is_to_stop = True

    def run(self):
        """Train to the end, or until a hook stops it. Returns this `Trainer`; `run` again continues."""
        began, self._is_to_stop = time.perf_counter(), False
        with contextlib.ExitStack() as self.cleanup:
            self._call("start")
            for real_A, real_B in self._batches():
                if self._is_to_stop:
                    break
                self.lr = self.schedule(self.config, self.step, self.total_steps, self.steps_per_epoch)
                self.model.set_lr(self.lr)
                self.losses = self._step(real_A, real_B)
                self.step += 1
                self._call("after_step")
                if self.step % self.steps_per_epoch == 0:
                    self._call("after_epoch")
            self.seconds = time.perf_counter() - began
            self._call("end")
        return self

    def sheet(self, count=8):
        """The rows of a sample sheet: always the same test pictures, there and back."""
        return self.shown.sheet(self.data.test("A", count), self.data.test("B", count))

    def _batches(self):
        pin, share = self.device.type == "cuda", self.processes and self.processes.share
        numbers = self.config.batch_size, self.step, self.total_steps
        batches = training_batches(self.data, *numbers, self.num_workers, pin, share)
        batches.worker_init_fn = self.worker_init_fn
        for real_A, real_B in batches:
            yield real_A.to(self.device, non_blocking=pin), real_B.to(self.device, non_blocking=pin)

    def _step(self, real_A, real_B):
        """One step; of several processes, each takes its share and all make the same update."""
        if self.processes is None:
            return self.model.step(real_A, real_B)
        with self.processes.joint_update(self.model, self.batch_numbers[self.step]) as sum_losses:
            return sum_losses(self.model.step(real_A, real_B))

    def _call(self, moment):
        for hook in self.hooks:
            getattr(hook, moment)(self)
