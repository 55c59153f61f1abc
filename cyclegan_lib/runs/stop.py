"""How a training ends before its last step: by Ctrl-C or a closed terminal, or by an error. It saves first."""

import signal
import threading
import traceback
from pathlib import Path

from cyclegan_lib.cyclegan import CycleGAN
from cyclegan_lib.errors import UserError, is_out_of_memory
from cyclegan_lib.trainer import Hook, Trainer

SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
OUT_OF_MEMORY = "out of memory; lower --batch_size, --img_height and --img_width, or --base_channels"


class StopOnSignal(Hook):
    """Observer: the first Ctrl-C, SIGTERM or closed terminal (SIGHUP) stops the training after the step.

    A second Ctrl-C or SIGTERM ends it at once. All `processes` (a `Processes`; None for one) stop after the same step.
    """

    def __init__(self, processes=None):
        self.processes, self.asked = processes, False

    def start(self, trainer):
        self.asked = False
        trainer.worker_init_fn = _ignore_signals
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if number in SIGNALS[:2] or signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
                    trainer.cleanup.callback(signal.signal, number, signal.signal(number, self._ask))

    def _ask(self, number, frame):
        if self.asked and number in SIGNALS[:2]:  # a terminal that is closed may send SIGHUP twice
            raise KeyboardInterrupt
        self.asked = True

    def after_step(self, trainer):
        if trainer.num_workers and hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
            # torch's handler raises at any moment, within an update too; without it a dead loader is found later.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if self.processes.agree(self.asked) if self.processes else self.asked:
            trainer.stop()


class SaveOnError(Hook):
    """Observer: an error that is no bug ends the training with a `UserError` in one line, and saves the steps done.

    These are: a picture that cannot be read any more, the death of a process that loads pictures, and too little
    memory. It stands behind `checkpoints`. One of several processes saves nothing, as the others may be elsewhere.
    """

    def __init__(self, checkpoints):
        self.checkpoints = checkpoints

    def start(self, trainer):
        self.trainer = trainer
        trainer.cleanup.push(self._on_error)

    def _on_error(self, kind, error, trace):
        where = [frame.f_code for frame, _ in traceback.walk_tb(trace)]
        reason = _reason(error, where) if isinstance(error, Exception) else None
        if reason is None:
            return
        traceback.clear_frames(trace)  # they hold the loading processes, which would otherwise never end
        updating = CycleGAN.discriminator_step.__code__ in where or any(
            "optim" in Path(code.co_filename).parts for code in where
        )
        step = self.trainer.step
        if step and self.checkpoints.processes.count == 1 and not updating:  # else the networks may be of two steps
            try:
                self.checkpoints.save(self.trainer, f"step_{step}")
                reason += f"; saved {self.checkpoints.path}, --resume auto continues"
            except UserError as failure:
                reason += f"; step {step} is not saved: {failure}"
        raise UserError(reason) from None


def _reason(error, where):
    """What ended the training, in one line; None for a bug, and for what a hook has put in one line."""
    if is_out_of_memory(error):
        return OUT_OF_MEMORY
    if Trainer._batches.__code__ not in where:
        return None
    if isinstance(error, UserError):  # from a loading process it comes with its whole traceback as text
        return str(error).rpartition("UserError: ")[2].strip()
    return "a process that loads pictures has ended, for want of memory perhaps; lower --num_workers, or give 0"


def _ignore_signals(number):
    """In a process that loads pictures. Ctrl-C in a terminal, or a machine that shuts down, tells all processes of
    a command to end: if these did, the trainer could not save.
    """
    for name in SIGNALS:
        signal.signal(name, signal.SIG_IGN)
