"""An average of the generators' weights over the steps: it changes less from step to step than the latest weights."""

import copy

import torch

from cyclegan_lib.trainer import Hook


class Average(Hook):
    """Observer, before `Resume`: averages the generators' weights, and offers them as `trainer.shown`.

    After each step: average ← decay · average + (1 - decay) · weights (exercise 3 of notebook 04). In the first steps
    the decay is lower, so that the weights of the beginning are soon forgotten.
    """

    def __init__(self, decay):
        self.decay = decay

    def start(self, trainer):
        if trainer.shown is trainer.model:  # else it was stopped, and goes on
            trainer.shown = copy.copy(trainer.model)
            trainer.shown.G_AB, trainer.shown.G_BA = map(copy.deepcopy, (trainer.model.G_AB, trainer.model.G_BA))

    @torch.no_grad()
    def after_step(self, trainer):
        decay = min(self.decay, (1 + trainer.step) / (10 + trainer.step))
        for name in ("G_AB", "G_BA"):
            average, latest = trainer.shown.networks[name], trainer.model.networks[name]
            torch._foreach_lerp_(list(average.parameters()), list(latest.parameters()), 1 - decay)
            for kept, now in zip(average.buffers(), latest.buffers(), strict=True):
                kept.copy_(now)
