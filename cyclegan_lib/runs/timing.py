"""How long a step takes, and how many steps fit into some minutes."""

import dataclasses
import math
import statistics
import time

from cyclegan_lib.datasets import training_batches
from cyclegan_lib.runs.fast import speed_up
from cyclegan_lib.trainer import Trainer


def seconds_per_step(trainer, steps=10, warm_up=3):
    """The median time of so many steps, after some that warm up.

    It trains the trainer's model, so give it one that is thrown away.
    """
    times = []
    for batch in training_batches(trainer.data, trainer.config.batch_size, 0, warm_up + steps):
        began = time.perf_counter()
        trainer.model.step(*(pictures.to(trainer.device) for pictures in batch))["loss_D"].item()  # waits for it
        times.append(time.perf_counter() - began)
    return statistics.median(times[warm_up:])


def fit(config, steps=None, minutes=None):
    """The same config, for so many steps, or for as many as this machine does in so many minutes."""
    trainer = Trainer(dataclasses.replace(config, num_epochs=1, decay_epoch=None, max_steps=None))
    if steps is None:
        speed_up(trainer.model)
        steps = max(1, int(60 * minutes / seconds_per_step(trainer)))
    return dataclasses.replace(config, max_steps=steps, num_epochs=math.ceil(steps / trainer.steps_per_epoch))
