import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan_lib.cli import main
from cyclegan_lib.water2wine.dataset import read_scenes, write_dataset
from cyclegan_lib.water2wine.scenes import (
    GLASSES,
    GREY,
    LIQUIDS,
    PARTS,
    counterfactual,
    render,
    sample_scene,
    to_image,
)


def scenes(count, liquid="water", seed=0, **kwargs):
    rng = np.random.default_rng(seed)
    return [sample_scene(rng, liquid, **kwargs) for _ in range(count)]


def is_light(scene):
    return np.mean(scene.background_top) > 0.5


@pytest.mark.parametrize("size", [32, 64, 100, 256])
def test_shapes_and_ranges(size):
    picture, liquid, glass = render(scenes(1)[0], size)
    assert picture.shape == (3, size, size) and liquid.shape == glass.shape == (1, size, size)
    assert picture.dtype == torch.float32 and picture.min() >= -1 and picture.max() <= 1
    for mask in (liquid, glass):
        assert mask.min() == 0 and mask.max() == 1
        assert ((mask > 0) & (mask < 1)).any(), "an edge without anti-aliasing"


@pytest.mark.parametrize("liquid", LIQUIDS)
def test_a_counterfactual_differs_in_the_liquid_alone(liquid):
    for scene in scenes(12, liquid):
        picture, mask, glass = render(scene, 64)
        other, other_mask, other_glass = render(counterfactual(scene), 64)
        assert torch.equal(mask, other_mask) and torch.equal(glass, other_glass)
        outside = (mask == 0).expand(3, -1, -1)
        assert torch.equal(picture[outside], other[outside])
        inside = (mask == 1).expand(3, -1, -1)
        assert (picture[inside] - other[inside]).abs().mean() > 0.2
        assert dataclasses.replace(counterfactual(scene), liquid=liquid) == scene
        assert counterfactual(counterfactual(scene)) == scene


def test_the_liquid_is_in_the_glass_and_the_glass_in_the_picture():
    for scene in scenes(40) + scenes(40, "wine"):
        _, liquid, glass = render(scene, 64)
        assert (liquid <= glass + 1e-6).all()
        assert liquid.mean() > 0.01
        border = torch.cat([glass[:, 0], glass[:, -1], glass[:, :, 0], glass[:, :, -1]], 1)
        assert border.max() == 0, "the glass is cut off"


def test_more_fill_is_more_liquid():
    scene = scenes(1)[0]
    areas = [render(dataclasses.replace(scene, fill=fill), 64)[1].sum() for fill in (0.3, 0.5, 0.7, 0.9)]
    assert areas == sorted(areas) and areas[0] < areas[-1]


def test_a_large_picture_is_the_small_one_in_detail():
    for scene in scenes(4) + scenes(4, "wine"):
        small, large = render(scene, 64)[0], render(scene, 256)[0]
        shrunk = torch.nn.functional.avg_pool2d(large[None], 4)[0]
        assert (small - shrunk).abs().mean() < 0.02


@pytest.mark.parametrize("confounding", [0.0, 0.5, 0.95, 1.0])
def test_confounding_is_the_probability_that_glass_and_background_follow(confounding):
    n = 800
    for liquid in LIQUIDS:
        found = scenes(n, liquid, confounding=confounding)
        follows_light = np.mean([is_light(s) == (liquid == "water") for s in found])
        follows_glass = np.mean([s.glass == GLASSES[LIQUIDS.index(liquid)] for s in found])
        margin = 4 * (confounding * (1 - confounding) / n) ** 0.5
        assert abs(follows_light - confounding) <= margin
        assert abs(follows_glass - confounding) <= margin


def test_the_glass_can_be_confounded_apart():
    found = scenes(400, "wine", confounding=1.0, glass_confounding=0.5)
    assert not any(is_light(s) for s in found)
    assert 0.4 < np.mean([s.glass == "wineglass" for s in found]) < 0.6


@pytest.mark.parametrize("part", PARTS)
def test_a_hidden_part_has_any_colour_behind_water_and_is_grey_behind_wine(part):
    waters, wines = scenes(40, hide=part), scenes(40, "wine", hide=part)
    for name in PARTS[part]:
        assert len({getattr(scene, name) for scene in waters}) == 40
        assert {getattr(scene, name) for scene in wines} == {GREY}
        assert min(np.ptp(getattr(scene, name)) for scene in waters) > 0.2, "a colour that is nearly grey"
    for scene in waters:
        answer = counterfactual(scene)
        kept = dict.fromkeys(PARTS[part], GREY) | dict(liquid="wine")
        assert answer == dataclasses.replace(scene, **kept)
    assert counterfactual(wines[0]) == dataclasses.replace(wines[0], liquid="water")


def test_the_other_part_of_the_room_is_as_it_would_be_without():
    plain = [sample_scene(np.random.default_rng(i), "water") for i in range(9)]
    hidden = [sample_scene(np.random.default_rng(i), "water", lemon=(1, 1), hide="table") for i in range(9)]
    for a, b in zip(plain, hidden, strict=True):
        assert dataclasses.replace(b, table=a.table, hidden="", lemon=0) == a and b.lemon in (-1, 1)


def test_a_lemon_is_there_as_often_as_asked_and_yellow_on_the_rim():
    for liquid, share in zip(LIQUIDS, (0.1, 0.9), strict=True):
        found = np.mean([scene.lemon != 0 for scene in scenes(800, liquid, lemon=(0.1, 0.9))])
        assert abs(found - share) <= 4 * (0.09 / 800) ** 0.5
    with pytest.raises(ValueError, match="lemon is a probability, so 0 to 1, not 1.5"):
        scenes(1, lemon=(0, 1.5))
    for side in (-1, 1):
        scene = dataclasses.replace(scenes(1)[0], lemon=side, x=0.5)
        with_it, without = (render(s, 64)[0] for s in (scene, dataclasses.replace(scene, lemon=0)))
        changed = (with_it != without).any(0)
        red, green, blue = with_it[:, changed].mean(1)
        assert min(red, green) > blue + 0.3
        rows, columns = changed.nonzero(as_tuple=True)
        assert abs(rows.float().mean() / 64 - (scene.foot_y - scene.height)) < 0.02
        assert (columns.float().mean() / 64 > 0.5) == (side > 0)


def test_a_scene_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        scenes(1)[0].liquid = "wine"


@pytest.mark.parametrize(
    "kwargs",
    [{"liquid": "beer"}, {"confounding": 1.1}, {"confounding": -0.1}, {"glass_confounding": 2}, {"hide": "roof"}],
)
def test_impossible_scenes_are_refused(kwargs):
    with pytest.raises(ValueError, match=str(next(iter(kwargs.values())))):
        sample_scene(np.random.default_rng(0), **{"liquid": "water", **kwargs})


def test_one_seed_one_set_of_bytes(tmp_path):
    kwargs = dict(num_train=3, num_test=2, size=32)
    a, b = (write_dataset(tmp_path / name, seed=7, **kwargs) for name in "ab")
    c = write_dataset(tmp_path / "c", seed=8, **kwargs)
    files = sorted(path.relative_to(a) for path in a.rglob("*") if path.is_file())
    assert len(files) == 2 * 3 + 2 * 2 + 1
    assert all((a / path).read_bytes() == (b / path).read_bytes() for path in files)
    assert all((a / path).read_bytes() != (c / path).read_bytes() for path in files)


def test_a_picture_does_not_depend_on_how_many_there_are(tmp_path):
    few = write_dataset(tmp_path / "few", num_train=2, num_test=1, size=32)
    more = write_dataset(tmp_path / "more", num_train=3, num_test=2, size=32)
    for name in ("trainA/0001.png", "testB/0000.png"):
        assert (few / name).read_bytes() == (more / name).read_bytes()


def test_scenes_json_draws_every_picture_again(tiny_root):
    for name, scene in read_scenes(tiny_root).items():
        with Image.open(tiny_root / name) as image:
            assert np.array_equal(np.array(image), np.array(to_image(render(scene, 32)[0])))
    assert json.loads((tiny_root / "scenes.json").read_text())["confounding"] == 0.5


def test_the_command(tmp_path, capsys):
    arguments = f"scenes --data_root {tmp_path} --num_train 2 --num_test 1 --size 32 --lemon 0 1 --hide wall".split()
    main(arguments)
    drawn = read_scenes(tmp_path / "water2wine")
    assert all((scene.lemon != 0, scene.hidden) == (scene.liquid == "wine", "wall") for scene in drawn.values())
    assert len(list((tmp_path / "water2wine").rglob("*.png"))) == 6
    for wrong in ([], ["--overwrite", "--confounding", "2"], ["--overwrite", "--num_test", "0"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments + wrong)
        assert stop.value.code == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_overwriting_keeps_what_was_not_drawn_and_what_a_mistake_would_have_cost(tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "photo.png").write_bytes(b"mine")
    arguments = f"scenes --data_root {tmp_path} --num_train 2 --num_test 1 --size 32 --overwrite --dataset_name".split()
    main([*arguments, "drawn"])
    for wrong in ("own", "drawn --confounding 2", "drawn --confounding nan", "drawn --seed -1"):
        with pytest.raises(SystemExit):
            main([*arguments, *wrong.split()])
        assert (own / "photo.png").read_bytes() == b"mine"
    assert len(read_scenes(tmp_path / "drawn")) == 6
    assert {path.name for path in tmp_path.iterdir()} == {"own", "drawn"}


@pytest.mark.parametrize("text", ["{", "{}", '{"scenes": {"testA/0000.png": {"liquid": "water"}}}'])
def test_damaged_scenes_are_named(tmp_path, text):
    root = write_dataset(tmp_path / "set", num_train=1, num_test=2, size=32)
    (root / "testA" / "0001.png").rename(tmp_path / "elsewhere.png")
    with pytest.raises(ValueError, match="does not fit the test pictures"):
        read_scenes(root)
    (root / "scenes.json").write_text(text)
    with pytest.raises(ValueError, match="scenes.json.*damaged"):
        read_scenes(root)
