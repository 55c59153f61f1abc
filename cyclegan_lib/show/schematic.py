"""A picture of CycleGAN itself: boxes and arrows, under the names that they have in code."""

from itertools import pairwise

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from cyclegan_lib.show.plots import COLOURS, to_pixels

STATES = {
    "one direction": (3.8, "One direction: G_AB translates, D_B tells real from fake"),
    "both": (5.9, "Four networks and two cycles (each generator is drawn twice)"),
    "losses": (7.9, "Four networks, two cycles, and where each loss is measured"),
}
WIDTH, COLUMNS = 7.9, (0.85, 2.4, 3.95, 5.5, 7.05)  # inches, as all lengths here
DARK = "#333333"
ARROW = dict(arrowstyle="-|>, head_width=0.35, head_length=0.6", linewidth=2, color=DARK)


def schematic(state, pictures=None):
    """CycleGAN as boxes and arrows → `Figure`. What is in domain A is blue, what is in B vermilion.

    `state` is "one direction" (G_AB and D_B), "both" (four networks, and what each cycle loss compares) or "losses"
    (all losses). `pictures`, {"real_A": (C, H, W) in [-1, 1], …, "idt_B"}, are shown in the boxes of these names.
    """
    drawing = Drawing(*STATES[state], pictures or {})
    if state == "one direction":
        *_, fake_B = drawing.chain(("real_A", "G_AB", "fake_B"), COLUMNS[:3], 2.45)
        real_B = drawing.box("real_B", COLUMNS[2], 0.95, below=True)
        drawing.discriminator("D_B", COLUMNS[3], 1.7, [fake_B, real_B], COLUMNS[4])
        return drawing.figure
    losses, low = state == "losses", 3.4 if state == "losses" else 1.38
    cycle_A, cycle_B = ("real_A", "G_AB", "fake_B", "G_BA", "rec_A"), ("real_B", "G_BA", "fake_A", "G_AB", "rec_B")
    real_A, _, fake_B, *_ = drawing.chain(cycle_A, COLUMNS, low + 2.7, loss="cycle_A")
    real_B, _, fake_A, *_ = drawing.chain(cycle_B, COLUMNS[::-1], low, True, "cycle_B")
    drawing.discriminator("D_A", COLUMNS[1], low + 1.35, [real_A, fake_A], COLUMNS[0], losses)
    drawing.discriminator("D_B", COLUMNS[3], low + 1.35, [real_B, fake_B], COLUMNS[4], losses)
    if losses:
        drawing.chain(("real_A", "G_BA", "idt_A"), (0.7, 1.975, 3.25), 1.35, True, "identity")
        drawing.chain(("real_B", "G_AB", "idt_B"), (7.2, 5.925, 4.65), 1.35, True, "identity")
    return drawing.figure


class Drawing:
    """Boxes and arrows in a figure of this height. `pictures` are shown in the boxes of their names."""

    def __init__(self, height, title, pictures):
        self.figure, self.pictures = Figure(figsize=(WIDTH, height)), pictures
        self.axes = self.figure.add_axes([0, 0, 1, 1], xlim=(0, WIDTH), ylim=(0, height))
        self.axes.set_axis_off()
        self.write(WIDTH / 2, height - 0.25, title, family="sans-serif", weight="normal")

    def write(self, x, y, text, size=15, **style):
        style = dict(ha="center", va="center", family="monospace", weight="bold") | style
        return self.axes.text(x, y, text, fontsize=size, **style)

    def box(self, name, x, y, below=False):
        """A network; or a picture, with its name above or `below` it, or inside if there is none to show."""
        is_network, colour = name[0] in "GD", DARK if name[0] == "G" else COLOURS[name[-1]]
        height, shape = (0.56, "round, pad=0, rounding_size=0.15") if is_network else (1, "square, pad=0.02")
        style = dict(linewidth=3, edgecolor=colour, facecolor=colour if is_network else "white")
        box = self.axes.add_patch(FancyBboxPatch((x - 0.5, y - height / 2), 1, height, shape, **style))
        if name in self.pictures:
            pixels = to_pixels(self.pictures[name])
            up, across = (side / 2 / max(pixels.shape) for side in pixels.shape[:2])
            extent = (x - across, x + across, y - up, y + up)
            self.axes.imshow(pixels, vmin=0, vmax=1, interpolation="nearest", extent=extent, aspect="auto", zorder=2)
            y += -0.7 if below else 0.7
        self.write(x, y, name, color="white" if is_network else colour)
        return box

    def arrow(self, start, end):
        """From the edge of a box to the edge of another."""
        (x, y), (to_x, to_y) = (box.get_bbox().get_points().mean(0) for box in (start, end))
        clipped = dict(patchA=start, patchB=end, shrinkA=2, shrinkB=2)
        self.axes.annotate("", (to_x, to_y), (x, y), arrowprops=ARROW | clipped, zorder=0)

    def chain(self, names, columns, y, below=False, loss=None):
        """Boxes in a row and arrows between them; over or `below` them a bracket: the loss that compares its ends."""
        boxes = [self.box(name, x, y, below) for name, x in zip(names, columns, strict=True)]
        for start, end in pairwise(boxes):
            self.arrow(start, end)
        if loss:
            side, colour = -1 if below else 1, COLOURS[loss if loss in COLOURS else loss[-1]]
            first, last = (y + side * (0.87 if name in self.pictures else 0.57) for name in (names[0], names[-1]))
            left, right, line = columns[0], columns[-1], y + side * 1.08
            self.axes.plot([left, left, right, right], [first, line, line, last], "--", color=colour, linewidth=2)
            self.loss(loss, (left + right) / 2, line, colour)
        return boxes

    def discriminator(self, name, x, y, judged, beside, losses=False):
        """A network, arrows from what it judges, and `beside` it what it says, or the losses that are made of that."""
        network, side = self.box(name, x, y), 1 if beside > x else -1
        for box in judged:
            self.arrow(box, network)
        if losses:
            self.axes.plot([x, beside], [y, y], "--", color=DARK, linewidth=2, zorder=0)
            self.loss("adversarial,\nloss_D", beside, y, DARK)
        else:
            self.axes.annotate("", (beside - 0.45 * side, y), (x + 0.5 * side, y), arrowprops=ARROW)
            self.write(beside, y, "real or\nfake?", family="sans-serif", weight="normal")

    def loss(self, name, x, y, colour):
        """The name of a loss, framed."""
        frame = dict(boxstyle="round, pad=0.3", facecolor="white", edgecolor=colour, linewidth=2)
        self.write(x, y, name, 13, bbox=frame)
