"""Ctrl-C: the training stops after the step and saves."""

import signal
import threading

from cyclegan_lib.trainer import Hook

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopOnSignal(Hook):
    """Observer: the first Ctrl-C or SIGTERM stops the training after the step; a second one ends it at once.

    All `processes` (a `Processes`; None for one) stop after the same step.
    """

    def __init__(self, processes=None):
        self.processes, self.asked = processes, False

    def start(self, trainer):
        self.asked = False
        trainer.worker_init_fn = _ignore_signals
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                trainer.cleanup.callback(signal.signal, number, signal.signal(number, self._ask))

    def _ask(self, number, frame):
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def after_step(self, trainer):
        if self.processes.agree(self.asked) if self.processes else self.asked:
            trainer.stop()


def _ignore_signals(number):
    """In a process that loads pictures. Ctrl-C in a terminal, or a machine that shuts down, tells all processes of
    a command to end: if these did, the trainer could not save.
    """
    for name in SIGNALS:
        signal.signal(name, signal.SIG_IGN)
