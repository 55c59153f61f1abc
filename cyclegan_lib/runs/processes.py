"""Several processes that train one model, each on its share of every batch.

Every process holds all networks. Gradients are summed over the processes before each update, so all make the same one.
`DistributedDataParallel` does that for one forward a backward; here a generator goes forward two or three times, and
discriminators are frozen in between: one sum is shorter, and exact.
"""

import contextlib
import os
import sys
from datetime import timedelta

import torch
from torch import distributed

from cyclegan_lib.errors import UserError


class Processes:
    """Those that a launcher started for this training: `count` of them, and this is number `rank`, from 0.

    Without a launcher it is one. The first, `is_main`, is the only one that writes, prints and shows a bar. Raises
    `UserError` if the device is not for several, or there are more processes than GPUs.
    """

    def __init__(self, device):
        launched = "LOCAL_RANK" in os.environ  # a cluster may set WORLD_SIZE for what it runs, launchers set both
        self.count, self.rank = int(os.environ.get("WORLD_SIZE", 1)) if launched else 1, 0
        if self.count > 1:
            from accelerate import PartialState  # only here: it holds a process to the first device asked for

            if device not in ("cpu", "cuda"):
                raise UserError(f"--device {device}: several processes train on cpu or cuda only")
            here = int(os.environ.get("LOCAL_WORLD_SIZE", self.count))
            if device == "cuda" and here > torch.cuda.device_count():
                raise UserError(f"{here} processes for {torch.cuda.device_count()} GPUs: start one for each")
            self._state = PartialState(cpu=device == "cpu")
            self.rank = self._state.process_index
            # What is agreed on goes by the CPUs: over the GPUs, each question would wait for their work.
            self._by_cpu = distributed.new_group(backend="gloo", timeout=timedelta(days=1))
        self.is_main = self.rank == 0

    @contextlib.contextmanager
    def rank_0_first(self):
        """A context in which rank 0 runs first: it makes what the others find, who wait for it by the CPUs."""
        if not self.is_main:
            self.agree(False)
        try:
            yield
        finally:
            if self.is_main:
                self.agree(False)

    @contextlib.contextmanager
    def quietly(self):
        """A context in which only the first process prints; errors are raised in all."""
        with open(os.devnull, "w") as nowhere:
            out, err = (sys.stdout, sys.stderr) if self.is_main else (nowhere, nowhere)
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                yield

    def agree(self, flag):
        """Whether the flag is True in any process: all go the same way, at the same step."""
        if self.count == 1:
            return flag
        raised = torch.tensor(flag, dtype=torch.uint8)
        distributed.all_reduce(raised, distributed.ReduceOp.MAX, group=self._by_cpu)
        return raised.item() > 0

    def share(self, numbers):
        """The numbers of a batch that this process loads; one too many, with weight 0, where there are too few."""
        return numbers[self.rank :: self.count] or numbers[:1]

    def weight(self, numbers):
        """This process's part of a batch: losses are means over its pictures, and so weighted they make up the mean."""
        return len(numbers[self.rank :: self.count]) / len(numbers)

    @contextlib.contextmanager
    def joint_update(self, model, numbers):
        """A context for a step of `model` on this process's share of a batch; gives a function that sums losses."""
        weight = self.weight(numbers)
        model.before_update = lambda parameters: self.sum_gradients(parameters, weight)
        try:
            yield lambda losses: self.sum_losses(losses, weight)
        finally:
            model.before_update = None

    def sum_gradients(self, parameters, weight):
        """Put Σ weight · gradient over the processes into every parameter's gradient; `weight` as `self.weight`."""
        gradients = [parameter.grad for parameter in parameters]
        summed = torch.cat([gradient.flatten() for gradient in gradients]) * weight
        distributed.all_reduce(summed)
        for gradient, piece in zip(gradients, summed.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(piece.view_as(gradient))

    def sum_losses(self, losses, weight):
        """{name: Σ weight · loss} over the processes; None stays None."""
        names = [name for name, loss in losses.items() if loss is not None]
        summed = torch.stack([losses[name] for name in names]) * weight
        distributed.all_reduce(summed)
        return losses | dict(zip(names, summed, strict=True))

    def gather(self, value):
        """[value of each process, by rank] in the first process; None in the others. Tensors must be on the CPU."""
        if self.count == 1:
            return [value]
        found = [None] * self.count if self.is_main else None
        distributed.gather_object(value, found, group=self._by_cpu)
        return found

    def close(self):
        """Leave the group, when no process has anything to say to the others any more."""
        if self.count > 1:
            self._state.wait_for_everyone()
            self._state.destroy_process_group()
