import csv
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from cyclegan_lib.errors import UserError
from cyclegan_lib.files import write_tensors
from cyclegan_lib.models import Generator
from cyclegan_lib.study.floor import LARGEST_MEAN
from cyclegan_lib.study.tables import HISTORY_COLUMNS, SCORE_COLUMNS

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / ".ci"))
import animation  # noqa: E402
import page  # noqa: E402

COMMITTED = ROOT / "data" / "explorer.html"
STEPS, ARMS = (25, 50), ("none", "instance")


def write_table(path, columns, rows):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def ablation(tmp_path_factory):
    """A folder as `cyclegan ablation` leaves it, with networks that have learnt nothing. Read-only."""
    folder = tmp_path_factory.mktemp("ablation")
    history, scores = [], []
    for i, arm in enumerate(ARMS):
        for step in STEPS:
            torch.manual_seed(step)
            size = dict(channels=3, base_channels=4, num_residual=1, output_norm=arm)
            weights = {name: value.half() for name, value in Generator(*size.values()).state_dict().items()}
            write_tensors(folder / f"{arm}_step_{step}.safetensors", weights, {**size, "step": step})
        for seed in range(2):
            label = {"experiment": "output_norm", "arm": arm, "seed": seed}
            losses = [0.5 + i / 10 + seed / 100 - step / 125 for step in (0, *STEPS)]
            history += [{**label, "step": step, "cycle_A": loss, "cycle_B": loss}
                        for step, loss in zip((0, *STEPS), losses, strict=True)]  # fmt: skip
            scores.append({**dict.fromkeys(SCORE_COLUMNS, 0.25), **label, "steps": 50, "cycle_A": losses[-1],
                           "cycle_B": losses[-1], "floor_A": 0.1875, "floor_B": 0.15625})  # fmt: skip
    scores.append({**scores[0], "experiment": "confounded", "floor_A": 0.99})
    write_table(folder / "history.csv", HISTORY_COLUMNS, history)
    write_table(folder / "scores.csv", SCORE_COLUMNS, scores)
    return folder


@pytest.fixture(scope="module")
def built(ablation, tmp_path_factory):
    """The page of that folder."""
    torch.set_num_threads(1)  # as in the tests: other numbers of threads sum in another order
    path = tmp_path_factory.mktemp("page") / "explorer.html"
    page.main(ablation, path)
    return path


def data_of(path):
    return json.loads(re.search(r'type="application/json">(.*?)</script>', path.read_text("utf-8"), re.S)[1])


@pytest.mark.parametrize("which", ["built", "committed"])
def test_the_page_is_one_file_and_small(which, built):
    path = {"built": built, "committed": COMMITTED}[which]
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 5e6
    assert "://" not in text and "<link" not in text and "@import" not in text and "url(" not in text
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'src="([^"]*)"', text))
    assert "{{" not in text and "nan" not in re.sub("<script.*", "", re.sub(r"base64,[^\"]*", "", text), flags=re.S)
    assert all(len(alt) > 5 for alt in re.findall(r'<img[^>]* alt="([^"]*)"', text))
    assert text.count("<img") == text.count('alt="') == 10
    for link in re.findall(r'href="([^"]*)"', text):
        assert not link.startswith("/") and link.startswith("../")


def test_the_same_tables_and_networks_give_the_same_bytes(ablation, built, tmp_path):
    page.main(ablation, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == built.read_bytes()
    first, second = (shutil.copytree(ablation, tmp_path / name) for name in ("first", "second"))
    animation.main(first)
    animation.main(second)
    assert (first / "training.gif").read_bytes() == (second / "training.gif").read_bytes()


def test_the_chart_has_the_tables_numbers(ablation, built):
    data = data_of(built)
    with open(ablation / "history.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["seed"] == "0"]
    for arm in ARMS:
        assert data["curves"][arm] == [[int(row["step"]), float(row["cycle_A"])] for row in rows if row["arm"] == arm]
    assert data["floor"] == 0.1875 and data["steps"] == list(STEPS)


def test_the_text_has_the_tables_numbers(built):
    text = re.sub("[ \n]+", " ", built.read_text(encoding="utf-8"))
    assert "<b>0.188</b> for water and <b>0.156</b> for wine" in text
    assert "Without the norm, 4 of 4 cycle losses" in text and "(2 seeds, two losses each)" in text
    assert "With it, 0 of 4 did (2 seeds)" in text
    assert "was 0.105 ± 0.064 without the norm, 44\u00a0% below the floor" in text  # 0.10 and 0.11 against 0.1875
    assert "and 0.205 ± 0.064 with it, 9\u00a0% above the floor" in text
    assert "25\u00a0% of cases" in text


def test_every_position_of_the_controls_has_pictures(built):
    data = data_of(built)
    assert len(set(data["pictures"])) == len(data["pictures"])
    assert len(data["training"]) == len(STEPS)
    assert all(len(moment) == len(page.TEST_PICTURES) for moment in data["training"])
    assert len(data["scenes"]) == 6 and all(len(scenes) == 11 for scenes in data["scenes"].values())
    positions = [pictures for moment in data["training"] for pictures in moment]
    positions += [scene["pictures"] for scenes in data["scenes"].values() for scene in scenes]
    assert {place for pictures in positions for place in pictures} == set(range(len(data["pictures"])))
    assert all(len(pictures) == len(page.SHOWN) for pictures in positions)


@pytest.mark.parametrize("which", ["built", "committed"])
def test_with_the_norm_no_mean_leaves_the_band(which, built):
    data = data_of({"built": built, "committed": COMMITTED}[which])
    place = data["shown"].index("instance")
    scenes = [scene for scenes in data["scenes"].values() for scene in scenes]
    assert all(abs(mean) <= LARGEST_MEAN for scene in scenes for mean in scene["means"][place])


def test_the_committed_page_says_what_the_committed_tables_say():
    data = data_of(COMMITTED)
    history, scores = (page.load_table(ROOT / "data" / "ablation" / f"{name}.csv") for name in ("history", "scores"))
    for arm in ARMS:
        rows = [row for row in history if row["arm"] == arm and row["seed"] == 0]
        assert data["curves"][arm] == [[row["step"], row["cycle_A"]] for row in rows]
    text = COMMITTED.read_text(encoding="utf-8")
    expected = {name: value for name, value in page.prose(scores, data["steps"]).items() if "figure" not in name}
    assert not [name for name, value in expected.items() if str(value) not in text], "make explorer"


def test_the_animation_loops_with_a_frame_a_step():
    path = ROOT / "data" / "ablation" / "training.gif"
    assert path.stat().st_size < 2e6
    with Image.open(path) as image:
        assert image.n_frames == len(data_of(COMMITTED)["steps"]) and image.width > 800 and image.info["loop"] == 0
        assert image.info["duration"] == 700
        image.seek(image.n_frames - 1)
        assert image.info["duration"] == 3000


@pytest.mark.parametrize("missing", ["history.csv", "scores.csv", "none_step_*.safetensors"])
def test_a_missing_file_is_named(missing, ablation, tmp_path):
    folder = shutil.copytree(ablation, tmp_path / "ablation")
    for path in folder.glob(missing):
        path.unlink()
    with pytest.raises(UserError, match=re.escape(str(folder))):
        page.main(folder, tmp_path / "explorer.html")
    assert not (tmp_path / "explorer.html").exists()


# The committed page in a browser


@pytest.fixture
def opened(browser):
    """The committed page, opened from its file with the network off; and what went wrong in it."""
    context = browser.new_context(viewport={"width": 360, "height": 740})
    context.set_offline(True)
    tab, wrong = context.new_page(), []
    tab.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("request", lambda request: None if request.url.startswith("data:") else wrong.append(request.url))
    tab.goto(COMMITTED.as_uri())
    assert wrong.pop(0) == COMMITTED.as_uri()
    yield tab, wrong
    context.close()


@pytest.mark.parametrize(
    ("slider", "others", "pictures", "chart"),
    [("step", ["test"], "training", "curves"), ("brightness", ["tint", "glass"], "wall", "means")],
)
def test_the_pictures_follow_the_keyboard(slider, others, pictures, chart, opened):
    tab, wrong = opened

    def seen():
        images = [tab.locator(f"#{pictures}-{arm}") for arm in ARMS]
        return [image.get_attribute("src") for image in images] + [
            element.screenshot() for element in (*images, tab.locator(f"#{chart}"))
        ]

    before = seen()
    if slider == "brightness":  # a tint of a black wall is not to be seen
        tab.locator(f"#{slider}").press("End")
    for control, keys in [(slider, ["Home", "ArrowRight"]), *((other, ["ArrowDown"]) for other in others)]:
        shown = tab.locator(f"#{slider}-value").inner_text()
        for key in keys:
            tab.locator(f"#{control}").press(key)
        after = seen()
        changed = [then != now for then, now in zip(before, after, strict=True)]
        assert all(changed[:4]), control
        assert control != slider or (changed[4] and tab.locator(f"#{slider}-value").inner_text() != shown)
        before = after
    assert not wrong


@pytest.mark.parametrize("width", [360, 768, 1280, 1920])
def test_nothing_is_wider_than_the_screen(width, opened):
    tab, wrong = opened
    tab.set_viewport_size({"width": width, "height": 800})
    assert tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    for label in tab.locator("label").all():
        assert label.is_visible()
    assert not wrong
