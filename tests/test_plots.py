import io

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from cyclegan_lib.config import OUTPUT_NORMS
from cyclegan_lib.show import plots
from cyclegan_lib.show.schematic import schematic


def image(figure, dpi=100):
    return np.array(Image.open(io.BytesIO(plots.to_png(figure, dpi))).convert("RGB"))


def history(values):
    names = ("loss_G", "loss_D", "adversarial", "cycle_A", "cycle_B")
    return [{"step": i + 1, "identity": None, **dict.fromkeys(names, value)} for i, value in enumerate(values)]


def test_colours_are_absolute():
    """A picture of little contrast stays one: nothing is stretched to black and white."""
    pictures = torch.full((1, 3, 8, 8), -0.2)
    pictures[..., :4] = 0.2
    shown = image(plots.picture_rows({"grey": pictures, "white": torch.ones(1, 3, 8, 8)}))
    levels = set(np.unique(shown[: shown.shape[0] // 2, -60:]))
    assert {102, 153} <= levels and 0 not in levels
    assert plots.to_pixels(torch.full((1, 2, 2), 3.0)).max() == 1


def test_pixels_are_shown_as_pixels():
    pictures = torch.ones(1, 3, 4, 4)
    pictures[..., ::2] = -1
    shown = image(plots.picture_rows({"stripes": pictures}), dpi=200)
    assert set(np.unique(shown[60, -150:-20])) == {0, 255}


@pytest.mark.parametrize("shape", [(5, 3, 64, 64), (2, 1, 32, 64), (1, 3, 96, 48)])
def test_a_sheet_has_room_for_its_names_and_title(shape):
    pictures = torch.zeros(shape)
    rows = {"real_A": pictures, "fake_B": pictures, "a name": pictures}
    figure = plots.picture_rows(rows, "A title", columns=[f"column {i}" for i in range(shape[0])])
    assert inside(figure) and len(figure.axes) == 3 * shape[0]
    for axes in figure.axes:
        box = axes.get_position()
        inches = figure.get_size_inches()
        assert box.height * inches[1] / (box.width * inches[0]) == pytest.approx(shape[2] / shape[3])


def inside(figure):
    """Whether all that is drawn, texts too, is within the figure."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn, (width, height) = figure.get_tightbbox(canvas.get_renderer()), figure.get_size_inches()
    return drawn.x0 >= -0.01 and drawn.y0 >= -0.01 and drawn.x1 <= width + 0.01 and drawn.y1 <= height + 0.01


def test_inside_sees_a_clipped_label():
    figure = Figure()
    figure.text(0.99, 0.5, "this leads out of the figure")
    assert not inside(figure)


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_curves_show_the_floor_with_its_value():
    figure = plots.loss_curves(history([0.5, 0.4, 0.3]), {"A": 0.24, "B": 0.336}, "Losses")
    assert "floor with the norm: A 0.240, B 0.336" in legend(figure.axes[0])
    dashed = [line.get_ydata()[0] for line in figure.axes[0].lines if line.get_linestyle() == "--"]
    assert dashed == [0.24, 0.336]
    assert inside(figure)


def test_arms_have_their_own_colours_and_both_floors():
    figure = plots.compare_arms({"none": history([0.3, 0.1]), "instance": history([0.4, 0.35])}, {"A": 0.2, "B": 0.3})
    for axes, domain in zip(figure.axes, "AB", strict=True):
        colours = {line.get_color() for line in axes.lines}
        assert {plots.COLOURS["none"], plots.COLOURS["instance"], "black"} <= colours
        assert f"floor with the norm: {domain} {dict(A=0.2, B=0.3)[domain]:.3f}" in legend(axes)
    assert inside(figure)


def test_one_colour_for_one_thing():
    assert len(set(plots.COLOURS.values())) == len(plots.COLOURS)
    assert set(plots.NORM_NAMES) == set(OUTPUT_NORMS) <= set(plots.COLOURS)


def test_no_history_yet_is_an_empty_figure():
    assert image(plots.loss_curves([], {"A": 0.2, "B": 0.2})).size


def test_the_same_figure_is_the_same_bytes():
    def make():
        return plots.to_png(plots.loss_curves(history(range(50)), {"A": 0.2, "B": 0.3}))

    assert make() == make()


def test_dollars_in_a_name_are_dollars():
    """Between two of them matplotlib would set a formula: `--run_name 'price_$5_to_$6'`."""
    name, pictures = "price_$5_to_$6", {"a": torch.zeros(1, 3, 8, 8)}
    for figure in (plots.picture_rows(pictures, name), plots.loss_curves([], None, name)):
        drawn, text = image(figure), figure.texts[-1]
        text.set_text(name)
        text.set_parse_math(False)
        assert np.array_equal(drawn, image(figure))


# Figures of the ablation


def scene(level):
    return torch.full((3, 16, 16), float(level))


def test_means_and_contrasts_lie_where_they_are():
    pictures = {"dark": scene(-0.5), "bright\npicture": scene(0.25)}
    figure = plots.means_and_contrasts(pictures, 0.1921)
    *shown, left, right = figure.axes
    assert [axes.get_title() for axes in shown] == list(pictures)
    for number in range(3):  # a line of letters for each channel, a row for each picture
        assert left.lines[number].get_xdata() == pytest.approx([-0.5, 0.25])
        assert right.lines[number].get_xdata() == pytest.approx([0, 0])
    assert [label.get_text() for label in left.get_yticklabels()] == ["dark", "bright picture"]
    assert inside(figure)


def test_the_floor_view_marks_the_point():
    figure = plots.floor_view(scene(0.5), scene(0.1), ([-1, 0, 1], [0.8, 0, 0.8]), 0.5, 0.3, 0.1921)
    curve = figure.axes[-1]
    assert curve.lines[2].get_xydata().tolist() == [[0.5, 0.3]]
    assert curve.texts[0].get_text() == "0.300"
    assert inside(figure)


def test_a_training_moment_marks_the_step_on_both_curves():
    curves = {"none": ([0, 10], [0.6, 0.2]), "instance": ([0, 10], [0.6, 0.4])}
    figure = plots.training_moment({"one": scene(0), "other": scene(1)}, curves, 0.3, 5)
    axes = figure.axes[-1]
    marks = [line.get_xydata()[0].tolist() for line in axes.lines if line.get_marker() == "o"]
    assert marks == [[5, pytest.approx(0.4)], [5, pytest.approx(0.5)]]
    assert "now: 5" in axes.get_xlabel() and "0.300" in axes.get_legend().get_texts()[-1].get_text()
    assert inside(figure)


def test_arms_are_means_over_seeds():
    rows = [{"arm": "none", "seed": seed, "step": step, "cycle_A": seed + step, "cycle_B": 1.0}
            for seed in (0, 1) for step in (0, 5)]  # fmt: skip
    figure = plots.arms_with_floor(rows, {"none": ("green", "no norm")}, {"A": 0.2, "B": 0.3}, "A title")
    mean = figure.axes[0].lines[2]
    assert mean.get_xydata().tolist() == [[0, 0.5], [5, 5.5]] and mean.get_label() == "no norm (2 seeds)"
    assert inside(figure)


def test_ends_show_every_seed_and_the_mean():
    groups = {arm: {"cycle_A": ([0.1, 0.3], (0.2, 0.05))} for arm in ("instance, no adversary", "another one")}
    figure = plots.arms_at_end(groups, {"cycle_A": "cycle loss of A"}, {"cycle_A": 0.25}, "A title")
    [axes] = figure.axes
    assert axes.lines[0].get_xdata().tolist() == [0.1, 0.3]
    assert axes.lines[1].get_xdata().tolist() == [0.2]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(groups)
    assert [line.get_color() for line in axes.lines[::2]] == [
        plots.COLOURS["instance"],
        plots.COLOURS["loss_D"],
        "black",
    ]
    assert axes.get_title() == "floor with the norm: 0.250" and inside(figure)


def test_images_in_a_row_are_as_high_as_each_other_and_keep_their_shape():
    images = {"one": Image.new("RGB", (40, 20), "white"), "a longer name": Image.new("L", (30, 60), 255)}
    figure = plots.images_in_a_row(images)
    assert inside(figure)
    width, height = figure.get_size_inches()
    boxes = [axes.get_position() for axes in figure.axes]
    assert boxes[0].height == boxes[1].height and boxes[0].x1 < boxes[1].x0
    for box, shape in zip(boxes, (2, 0.5), strict=True):
        assert box.width * width / (box.height * height) == pytest.approx(shape)


def test_a_saved_picture_is_shown_pixel_by_pixel(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (37, 90, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(image(plots.picture_file(tmp_path / "a.png")), pixels)


def test_distributions_have_a_line_for_each_pile_and_count_all_pixels():
    piles = {name: torch.rand(3, 3, 8, 8) * 2 - 1 for name in ("real A", "fake B", "real B")}
    figure = plots.distributions(piles, "A title")
    assert inside(figure) and len(figure.axes) == 4
    assert all(len(axes.patches) == 3 for axes in figure.axes)
    for axes in figure.axes[:3]:
        outline = axes.patches[0].get_xy()
        steps = dict(zip(outline[1:-1:2, 0], outline[1:-1:2, 1], strict=True))
        assert sum(steps.values()) * 0.05 == pytest.approx(1, abs=1e-6), "a density"


# The picture of CycleGAN

ONE_DIRECTION = {"real_A G_AB", "G_AB fake_B", "fake_B D_B", "real_B D_B"}
BOTH = ONE_DIRECTION | {"fake_B G_BA", "G_BA rec_A", "real_B G_BA", "G_BA fake_A", "fake_A G_AB", "G_AB rec_B",
                        "fake_A D_A", "real_A D_A"}  # fmt: skip
LOSSES = BOTH | {"real_A G_BA", "G_BA idt_A", "real_B G_AB", "G_AB idt_B"}
ARROWS = {"one direction": ONE_DIRECTION, "both": BOTH, "losses": LOSSES}
SHEET = ("real_A", "fake_B", "rec_A", "real_B", "fake_A", "rec_B")


def sheet(*names, shape=(3, 16, 16)):
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(shape, generator=generator) * 2 - 1 for name in names}


def written(figure):
    """[(text, its place in pixels, frame included)], and the boxes' places."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    [axes] = figure.axes
    texts = [text for text in axes.texts if text.get_text()]
    places = [(text.get_bbox_patch() or text).get_window_extent(canvas.get_renderer()) for text in texts]
    boxes = [patch.get_window_extent() for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
    return [(text.get_text(), place) for text, place in zip(texts, places, strict=True)], boxes


@pytest.mark.parametrize("state", list(ARROWS))
def test_the_schematic_has_every_arrow_between_the_names_of_the_code(state):
    figure = schematic(state)
    texts, boxes = written(figure)
    named = {text: box for text, place in texts for box in boxes if place.containsx(box.x0 + box.width / 2)
             and place.containsy(box.y0 + box.height / 2)}  # fmt: skip
    assert set(named) == {name for pair in ARROWS[state] for name in pair.split()} and len(boxes) >= len(named)
    drawn = set()
    for arrow in figure.axes[0].texts:
        if getattr(arrow, "arrow_patch", None):
            ends = [figure.axes[0].transData.transform(point) for point in (arrow.xyann, arrow.xy)]
            drawn.add(" ".join(text for end in ends for text, place in texts if place.contains(*end)))
    assert {pair for pair in drawn if len(pair.split()) == 2} == ARROWS[state]
    others = {text for text, _ in texts} - set(named)
    cycles, scored = {"cycle_A", "cycle_B"}, {"adversarial,\nloss_D"}
    shown = {"one direction": set(), "both": cycles, "losses": cycles | scored | {"identity"}}[state]
    assert others & (cycles | scored | {"identity"}) == shown and ("real or\nfake?" in others) == (not scored & shown)
    assert inside(figure)


@pytest.mark.parametrize("names", [(), SHEET, (*SHEET, "idt_A", "idt_B")])
@pytest.mark.parametrize("state", list(ARROWS))
def test_no_text_of_the_schematic_touches_a_box_that_is_not_its_own(state, names):
    texts, boxes = written(schematic(state, sheet(*names)))
    for number, (text, place) in enumerate(texts):
        touched = [box for box in boxes if box.overlaps(place)]
        assert len(touched) <= 1 and all(box.fully_containsx(x) and box.fully_containsy(y) for box in touched
                                         for x, y in (place.min, place.max)), text  # fmt: skip
        assert not touched or text not in names, f"{text} is written on its picture"
        assert not any(place.overlaps(other) for _, other in texts[:number]), text
    assert not any(box.overlaps(other) for number, box in enumerate(boxes) for other in boxes[:number])


@pytest.mark.parametrize("state", list(ARROWS))
def test_the_schematics_thumbnails_are_the_pictures(state):
    pictures = sheet(*SHEET, "idt_A", "idt_B")
    images = schematic(state, pictures).axes[0].images
    wanted = [name for name in pictures if any(name in pair for pair in ARROWS[state])]
    found = [name for image in images for name in wanted
             if np.array_equal(image.get_array(), plots.to_pixels(pictures[name]))]  # fmt: skip
    again = ["real_A", "real_B"] if state == "losses" else []  # the identity loss starts from them, too
    assert sorted(found) == sorted(wanted + again) and len(images) == len(found)
    assert all(image.get_interpolation() == "nearest" and image.get_clim() == (0, 1) for image in images)


def test_a_thumbnail_keeps_its_shape_and_grey_ones_are_drawn():
    for image in schematic("both", sheet(*SHEET, shape=(1, 16, 32))).axes[0].images:
        left, right, low, high = image.get_extent()
        assert right - left == pytest.approx(1) and high - low == pytest.approx(0.5)


def test_a_box_of_which_there_is_no_picture_shows_its_name():
    figure = schematic("both", sheet("fake_B"))
    texts, boxes = written(figure)
    assert len(figure.axes[0].images) == 1
    places = [place for text, place in texts if text == "rec_A"]
    assert any(box.contains(*places[0].min) and box.contains(*places[0].max) for box in boxes)
