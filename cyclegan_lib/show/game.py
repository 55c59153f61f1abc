"""A game: name the fault of a training."""

import html

import ipywidgets as ipw

from cyclegan_lib.runs.log import FLUSH_STEPS
from cyclegan_lib.show import plots
from cyclegan_lib.show.widgets import Picture, labelled
from cyclegan_lib.trainer import Hook


class FaultGame(Hook):
    """Trainings with a hidden fault: look at curves, pictures and a probe, and name it. `box` is the widget to show.

    As a hook of a training it is an observer, which says how far that is.

    Args:
        play: a function (case number, hook) → (name of the fault, history, samples, probe).
            It trains a `Trainer` that has the hook.
        healthy: (history, samples) of a healthy run, to show beside.
        names: of the faults to choose from.
    """

    def __init__(self, play, healthy, names):
        self.play, self.healthy, self.evidence = play, healthy, None
        self.case = ipw.BoundedIntText(1, min=1, max=999, **labelled("case number", 420))
        self.train = ipw.Button(description="train it", button_style="primary")
        self.probe = ipw.Button(description="probe")
        self.answer = ipw.Dropdown(options=["", *names], value="", **labelled("the fault is", 420))
        self.message, self.picture = ipw.HTML("choose a case and train it"), Picture(936)
        self.train.on_click(lambda button: self._train())
        self.probe.on_click(lambda button: self._probe())
        self.answer.observe(lambda change: self._check(), "value")
        top = ipw.HBox([self.case, self.train, self.probe])
        self.box = ipw.VBox([top, self.answer, self.message, self.picture.widget])

    @property
    def verdict(self):
        """What is said now, without its markup."""
        return html.unescape(self.message.value)

    def figure(self):
        """The case beside a healthy run."""
        return plots.beside_healthy(*self.evidence[:2], *self.healthy, f"Case {self.case.value}: which fault is it?")

    def after_step(self, trainer):
        if trainer.step % FLUSH_STEPS == 0:
            self._say(f"step {trainer.step} of {trainer.total_steps}")

    def _say(self, text):
        self.message.value = html.escape(text)

    def _train(self):
        self.answer.value, self.evidence = "", None
        self.fault, *self.evidence = self.play(self.case.value, self)
        self._say("trained: look at it, probe it, and name the fault")
        self.picture.draw(self.figure())

    def _probe(self):
        if self.evidence is None:
            self._say("train a case first")
            return
        probe = self.evidence[2]
        reached, mixed, unmoved = (", ".join(probe[name]) for name in ("reached", "mixed", "unmoved"))
        self._say(
            f"the discriminator step leaves gradients in: {reached or 'no generator'}; "
            f"the other pictures of a batch change the scores of: {mixed or 'no network'}; "
            f"a step does not change: {unmoved or 'no network, all change'}; in the next epoch "
            f"{probe['same_crops']:.0%} of the pictures come with the same crop, "
            f"{probe['same_pairs']:.0%} with the same partner"
        )

    def _check(self):
        if not self.answer.value:
            return
        if self.evidence is None:
            self._say("train a case first")
        elif self.answer.value == self.fault:
            self._say(f"right! It is: {self.fault}")
        else:
            self._say(f"not {self.answer.value}: look again")
