"""Pictures in, pictures out: any kind, any size, and strip by strip the same as in one piece."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan_lib.cli import main
from cyclegan_lib.cyclegan import CycleGAN
from cyclegan_lib.errors import UserError
from cyclegan_lib.files import write_tensors
from cyclegan_lib.models import Generator, init_weights
from cyclegan_lib.pictures import strips, translate
from cyclegan_lib.runs.checkpoint import write_checkpoint
from cyclegan_lib.runs.fast import speed_up

FACTS = {"channels": 3, "base_channels": 4, "num_residual": 2, "output_norm": "none"}


def generator(channels=3, output_norm="none", seed=0, num_residual=2):
    torch.manual_seed(seed)
    return init_weights(Generator(channels, 4, num_residual, output_norm), std=0.1).eval()


@pytest.fixture
def run_folder(tmp_path):
    """A run's folder with a checkpoint: G_AB is `generator(seed=0)`, and G_BA `generator(seed=1)`."""
    model = CycleGAN(base_channels=4, num_residual=2)
    model.G_AB, model.G_BA = generator(seed=0), generator(seed=1)
    (tmp_path / "saved").mkdir()
    write_checkpoint(tmp_path / "saved" / "epoch_3.safetensors", model, {**FACTS, "step": 3})
    return tmp_path / "saved"


def noise(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8).squeeze()


def run(*arguments):
    """(exit code, output) of the command in this process."""
    try:
        main(["translate", *map(str, arguments)])
    except SystemExit as end:
        return end.code
    return 0


@pytest.mark.parametrize("output_norm", ["none", "instance"])
@pytest.mark.parametrize("size", [(8, 8), (8, 200), (200, 8), (100, 60), (132, 128)])
def test_strip_by_strip_is_the_same_as_in_one_piece(monkeypatch, size, output_norm):
    monkeypatch.setattr(strips, "STRIP_PIXELS", 1024)
    G, real = generator(output_norm=output_norm), torch.rand(1, 3, *size) * 2 - 1
    found = list(strips.translate_strips(G, real))
    assert len(found) == max(1, -(-size[0] // max(8, 1024 // size[1] // 4 * 4)))
    with torch.inference_mode():
        torch.testing.assert_close(torch.cat([rows for _, _, rows in found], 2), G(real), atol=2e-5, rtol=0)


@pytest.mark.parametrize(("output_norm", "num_residual"), [("none", 0), ("none", 3), ("instance", 2)])
def test_progress_within_a_picture_comes_in_small_shares_that_add_up(monkeypatch, output_norm, num_residual):
    monkeypatch.setattr(strips, "STRIP_PIXELS", 1024)
    shares, G = [], generator(output_norm=output_norm, num_residual=num_residual)
    list(strips.translate_strips(G, torch.zeros(1, 3, 132, 128), progress=shares.append))
    assert sum(shares) == pytest.approx(1) and max(shares) < 0.02 < 1 / len(shares) * 10


def test_float64_which_mps_lacks_is_for_statistics_on_the_cpu_alone(monkeypatch):
    """Each map stays as it is; what is widened has been brought to the CPU."""
    widen, bring, seen, brought = torch.Tensor.double, torch.Tensor.cpu, [], []
    monkeypatch.setattr(torch.Tensor, "cpu", lambda x: brought.append(x.shape) or bring(x))
    monkeypatch.setattr(torch.Tensor, "double", lambda x: seen.append(x.shape) or widen(x))
    list(strips.translate_strips(generator(), torch.rand(1, 3, 32, 32) * 2 - 1))
    assert seen == brought and seen and all(shape[2:] == (1, 1) for shape in seen)


def test_layers_that_were_swapped_for_faster_ones_are_no_obstacle():
    model, real = CycleGAN(base_channels=4, num_residual=2, output_norm="instance"), torch.rand(1, 3, 64, 40) * 2 - 1
    with torch.inference_mode():
        slow = model.G_AB(real)
        found = torch.cat([rows for _, _, rows in strips.translate_strips(speed_up(model).G_AB, real)], 2)
    torch.testing.assert_close(found, slow, atol=2e-5, rtol=0)


def test_kept_in_half_precision_it_still_is_within_a_level_of_8_bits(monkeypatch):
    G, real = generator(), torch.rand(1, 3, 128, 96) * 2 - 1
    monkeypatch.setattr(strips, "HALF_ABOVE", 0)
    assert strips.kept_bytes(G, 128, 96)[1] == torch.float16
    found = torch.cat([rows for _, _, rows in strips.translate_strips(G, real)], 2)
    with torch.inference_mode():
        assert 0 < (found - G(real)).abs().max() < 2 / 255


def test_tiles_translated_apart_would_not_do(monkeypatch):
    """The reason for `strips`: a dark half beside a light one, each normalised by itself."""
    G = generator()
    real = torch.cat([torch.full((1, 3, 64, 64), -0.7), torch.full((1, 3, 64, 64), 0.6)], 3)
    real = real + 0.2 * torch.randn(real.shape)
    with torch.inference_mode():
        whole, apart = G(real), torch.cat([G(half) for half in real.split(64, 3)], 3)
    monkeypatch.setattr(strips, "STRIP_PIXELS", 1024)
    ours = torch.cat([rows for _, _, rows in strips.translate_strips(G, real)], 2)
    assert (apart - whole).abs().mean() > 0.04 > 1e-4 > (ours - whole).abs().mean()


def test_a_norm_with_learned_scale_is_refused_by_name():
    with pytest.raises(UserError, match="InstanceNorm2d"):
        list(strips.translate_strips(generator(output_norm="instance_affine"), torch.zeros(1, 3, 32, 32)))


def reflected(i, side):
    """The place below `side` that place i stands for, going to and fro."""
    period = max(1, 2 * side - 2)
    return min(i % period, period - i % period) if side > 1 else 0


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3, 7), (64, 65), (31, 9)])
def test_odd_sizes_are_padded_by_reflection_and_cut_off_again(size):
    G, pixels = generator(), noise(*size).reshape(*size, 3)
    rows, columns = ([reflected(i, side) for i in range(max(8, -(-side // 4) * 4))] for side in size)
    padded = pixels[rows][:, columns]
    real = torch.from_numpy(padded).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.inference_mode():
        expected = translate.to_uint8(G(real))[0, :, : size[0], : size[1]].permute(1, 2, 0).numpy()
    fake = translate.translate_image(G, Image.fromarray(pixels))
    assert fake.size == size[::-1] and np.array_equal(np.asarray(fake).reshape(expected.shape), expected)


def make_pictures(folder):
    """A folder of good pictures of every kind, and two bad files. Returns {name: (size, mode) that comes out}."""
    (folder / "deep").mkdir(parents=True)
    Image.fromarray(noise(20, 30, 1)).save(folder / "grey.png")
    Image.fromarray(noise(20, 30, 1).astype(np.uint16) * 257).save(folder / "sixteen.png")
    Image.fromarray(noise(24, 32)).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(noise(24, 32)).quantize(16).save(folder / "palette.gif")
    Image.fromarray(noise(24, 32, 4)).save(folder / "deep" / "alpha.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(24, 40)).save(folder / "rotated.jpg", exif=exif)
    Image.fromarray(noise(1, 40).reshape(1, 40, 3)).save(folder / "thin.png")
    Image.fromarray(noise(33, 57)).save(folder / "odd.webp")
    whole = folder / "odd.webp"
    (folder / "truncated.webp").write_bytes(whole.read_bytes()[:200])
    (folder / "notes.txt").write_text("not a picture")
    return {
        "grey.png": ((30, 20), "RGB"), "sixteen.png": ((30, 20), "RGB"), "cmyk.jpg": ((32, 24), "RGB"),
        "palette.gif.png": ((32, 24), "RGB"), "deep/alpha.png": ((32, 24), "RGBA"),
        "rotated.jpg": ((24, 40), "RGB"), "thin.png": ((40, 1), "RGB"), "odd.webp": ((57, 33), "RGB"),
    }  # fmt: skip


def test_a_folder_of_all_kinds_comes_out_and_bad_files_are_named(tmp_path, run_folder, capsys):
    expected = make_pictures(tmp_path / "in")
    assert run(tmp_path / "in", "--checkpoint", run_folder, "--output", tmp_path / "out") == 1
    said = capsys.readouterr().out
    assert (
        "truncated.webp: " in said
        and "passed over 1 files that Pillow does not read: 1 with .txt" in said
        and "8 pictures" in said
    )
    found = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert found == set(expected)
    for name, (size, mode) in expected.items():
        with Image.open(tmp_path / "out" / name) as image:
            assert (image.size, image.mode) == (size, mode), name
    with Image.open(tmp_path / "in/deep/alpha.png") as before, Image.open(tmp_path / "out/deep/alpha.png") as after:
        assert np.array_equal(np.asarray(before)[..., 3], np.asarray(after)[..., 3])


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_date_and_camera_survive_the_place_does_not_and_a_picture_is_decoded_once(
    tmp_path, run_folder, ending, monkeypatch
):
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0112], exif[0x0132] = "Maker", "Phone", 6, "2026:05:01 12:00:00"
    exif.get_ifd(0x8769)[0x9003] = "2026:05:01 11:59:59"
    exif.get_ifd(0x8825)[1] = "N"
    Image.fromarray(noise(24, 40)).save(tmp_path / f"a.{ending}", exif=exif)
    assert Image.open(tmp_path / f"a.{ending}").getexif().get_ifd(0x8825) == {1: "N"}
    opened, read = [], translate.open_upright
    monkeypatch.setattr(translate, "open_upright", lambda *arguments: opened.append(arguments) or read(*arguments))
    assert run(tmp_path / f"a.{ending}", "--checkpoint", run_folder, "--output", tmp_path / "out") == 0
    with Image.open(tmp_path / "out" / f"a.{ending}") as image:
        found = image.getexif()
        assert image.size == (24, 40) and len(opened) == 1
        assert {tag: found.get(tag) for tag in (0x010F, 0x0110, 0x0132)} == {
            0x010F: "Maker", 0x0110: "Phone", 0x0132: "2026:05:01 12:00:00",
        }  # fmt: skip
        assert found.get_ifd(0x8769) == {0x9003: "2026:05:01 11:59:59"}
        assert 0x0112 not in found and 0x8825 not in found and not found.get_ifd(0x8825)


def test_damaged_exif_data_cost_no_picture(tmp_path, run_folder):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    Image.fromarray(noise(24, 40)).save(tmp_path / "a.jpg", exif=exif)
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole.replace(b"Exif\0\0MM", b"Exif\0\0VM"))
    assert run(tmp_path / "a.jpg", "--checkpoint", run_folder, "--output", tmp_path / "out") == 0
    assert Image.open(tmp_path / "out" / "a.jpg").size == (40, 24)


def test_a_large_picture_says_before_it_begins_how_long_it_will_take(tmp_path, run_folder, monkeypatch, capsys):
    monkeypatch.setattr(translate, "WHOLE_PIXELS", 100)
    monkeypatch.setattr(translate, "estimated_seconds", lambda G, pixels, device: 77.4)
    Image.fromarray(noise(24, 40)).save(tmp_path / "a.png")
    assert run(tmp_path / "a.png", "--checkpoint", run_folder, "--output", tmp_path / "out") == 0
    assert "0 megapixels, about 77 s:   0%" in capsys.readouterr().err


def test_side_by_side_cycle_and_direction(tmp_path, run_folder):
    Image.fromarray(noise(20, 30)).save(tmp_path / "a.png")
    G_AB, G_BA = generator(seed=0), generator(seed=1)
    fake = translate.translate_image(G_AB, Image.open(tmp_path / "a.png"))
    rec = translate.translate_image(G_BA, fake)
    start = [tmp_path / "a.png", "--checkpoint", run_folder, "--output"]
    assert run(*start, tmp_path / "two", "--side_by_side") == run(*start, tmp_path / "three", "--cycle") == 0
    assert run(*start, tmp_path / "back", "--direction", "BtoA") == 0
    three = np.asarray(Image.open(tmp_path / "three/a.png"))
    assert np.array_equal(three, np.hstack([noise(20, 30), np.asarray(fake), np.asarray(rec)]))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "two/a.png")), three[:, :60])
    back = translate.translate_image(G_BA, Image.open(tmp_path / "a.png"))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "back/a.png")), np.asarray(back))


def test_mistakes_are_one_line_and_nothing_is_written(tmp_path, run_folder, capsys):
    (tmp_path / "in").mkdir()
    Image.fromarray(noise(20, 30)).save(tmp_path / "in" / "a.png")
    (tmp_path / "empty").mkdir()
    out, one = ["--output", tmp_path / "out"], tmp_path / "one.safetensors"
    write_tensors(one, generator().state_dict(), FACTS)
    wrong = {
        "no such file or folder": [tmp_path / "nowhere", "--checkpoint", run_folder, *out],
        "no pictures in": [tmp_path / "empty", "--checkpoint", run_folder, *out],
        "no such file; nor is it official weights": [tmp_path / "in", "--checkpoint", "horse3zebra", *out],
        "no checkpoint in it": [tmp_path / "in", "--checkpoint", tmp_path / "empty", *out],
        "has one direction only": [tmp_path / "in", "--checkpoint", one, "--cycle", *out],
        "--memory: must be": [tmp_path / "in", "--checkpoint", run_folder, "--memory", 0, *out],
        "would both become": [tmp_path / "in", tmp_path / "in" / "a.png", tmp_path / "b" / "a.png"]
        + ["--checkpoint", run_folder, *out],
    }
    (tmp_path / "b").mkdir()
    Image.fromarray(noise(20, 30)).save(tmp_path / "b" / "a.png")
    for message, arguments in wrong.items():
        assert run(*arguments) == 2, message
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1 and said.startswith("error: "), said
    assert not (tmp_path / "out").exists()


def test_a_result_is_not_overwritten_unless_told(tmp_path, run_folder, capsys):
    Image.fromarray(noise(20, 30)).save(tmp_path / "a.png")
    command = [tmp_path / "a.png", "--checkpoint", run_folder, "--output", tmp_path / "out"]
    assert [run(*command), run(*command), run(*command, "--overwrite")] == [0, 2, 0]
    assert "exists already" in capsys.readouterr().err


MEASURED = """
import resource, sys, torch
from PIL import Image
from cyclegan_lib.pictures import translate
from cyclegan_lib.models import Generator
G = Generator(3, 4, 1).eval()
torch.set_num_threads(1)
image = Image.new("RGB", tuple(map(int, sys.argv[1:])), "teal")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
translate.translate_image(G, image)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
def test_a_large_picture_needs_little_memory():
    """6 megapixels: whole, its widest layers alone would take 3 × 4 × 4 × 6e6 bytes, 290 MB, with temporaries twice."""
    done = subprocess.run([sys.executable, "-c", MEASURED, "3000", "2000"], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 240e6


def test_too_large_for_the_memory_is_refused_by_name(tmp_path, run_folder, monkeypatch, capsys):
    monkeypatch.setattr(translate, "WHOLE_PIXELS", 100)
    monkeypatch.setattr(translate, "BESIDES", 2 * 1024**3)
    Image.fromarray(noise(20, 30)).save(tmp_path / "a.png")
    assert run(tmp_path / "a.png", "--checkpoint", run_folder, "--output", tmp_path / "out", "--memory", 1) == 1
    assert "a.png: 30×20 pixels need about 2.0 GB; give a larger --memory" in capsys.readouterr().out


@pytest.mark.parametrize("how", ["a file", "through a link", "one of two", "with --overwrite"])
def test_an_original_is_never_replaced(tmp_path, run_folder, capsys, how):
    for name in ("a.png", "b/a.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(12, 16)).save(tmp_path / "in" / name)
    (tmp_path / "link").symlink_to(tmp_path / "in")
    pictures, output = [tmp_path / "in" / "a.png"], tmp_path / "in"
    if how == "through a link":
        output = tmp_path / "link"
    if how == "one of two":
        pictures, output = [tmp_path / "in" / "b" / "a.png", tmp_path / "in" / "a.png"][:1] + pictures, tmp_path / "in"
    before = {path: path.read_bytes() for path in (tmp_path / "in").rglob("*.png")}
    arguments = ["translate", *map(str, pictures), "--checkpoint", str(run_folder), "--output", str(output)]
    with pytest.raises(SystemExit) as ended:
        main(arguments + ["--overwrite"] * (how != "a file"))
    assert ended.value.code == 2 and capsys.readouterr().err.count("\n") == 1
    assert {path: path.read_bytes() for path in (tmp_path / "in").rglob("*.png")} == before


def test_weights_that_are_not_finite_are_refused(tmp_path, capsys):
    G = generator()
    G.model[1].weight.data[0, 0, 0, 0] = float("nan")
    write_tensors(tmp_path / "G.safetensors", G.state_dict(), FACTS)
    Image.fromarray(noise(12, 16)).save(tmp_path / "a.png")
    picture, checkpoint, output = (str(tmp_path / name) for name in ("a.png", "G.safetensors", "out"))
    with pytest.raises(SystemExit) as ended:
        main(["translate", picture, "--checkpoint", checkpoint, "--output", output])
    assert ended.value.code == 2 and "G.safetensors: has weights that are not finite" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
