"""How a training ends before its last step: by Ctrl-C or a closed terminal, or by an error. It saves first."""

import signal
import threading
import traceback

from cyclegan_lib.errors import UserError, is_out_of_memory
from cyclegan_lib.trainer import Hook, Trainer

SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))


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


def save_on_error(checkpoints, trainer, kind, error, trace):
    """The exit of a training with `Checkpoints`: turns an error that is no bug into a `UserError` in one line.

    These are too little memory, a picture that cannot be read any more, and the death of a process that loads
    pictures. After the last two the networks are whole, and are saved, but not by one of several processes.
    """
    loading = any(frame.f_code is Trainer._batches.__code__ for frame, _ in traceback.walk_tb(trace))
    if is_out_of_memory(error):
        reason = "out of memory; lower --batch_size, --img_height and --img_width, or --base_channels"
    elif loading and isinstance(error, UserError):  # from a loading process its traceback comes before it, as text
        reason = str(error).rpartition("UserError: ")[2].strip()
    elif loading and isinstance(error, Exception):
        reason = "a process that loads pictures has ended, for want of memory perhaps; lower --num_workers"
    else:
        return
    traceback.clear_frames(trace)  # they hold the loading processes, which would otherwise never end
    if loading and trainer.step and checkpoints.processes.count == 1:
        try:
            checkpoints.save(trainer, f"step_{trainer.step}")
            reason += f"; saved {checkpoints.path}, --resume auto continues"
        except UserError as failure:
            reason += f"; step {trainer.step} is not saved: {failure}"
    raise UserError(reason) from None


def _ignore_signals(number):
    """In a process that loads pictures: a terminal's Ctrl-C goes to all, and without these the trainer cannot save."""
    for name in SIGNALS:
        signal.signal(name, signal.SIG_IGN)
