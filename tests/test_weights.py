"""Official weights in, and our networks out."""

import collections
import os
import pickle
import re

import pytest
import torch

from cyclegan_lib.cli import main
from cyclegan_lib.cyclegan import CycleGAN
from cyclegan_lib.errors import UserError
from cyclegan_lib.files import write_tensors
from cyclegan_lib.models import Generator, init_weights
from cyclegan_lib.pictures import weights as lib
from cyclegan_lib.runs.checkpoint import write_checkpoint


def official_shapes():
    """Keys and shapes of an official generator (resnet_9blocks), as its files have them."""
    shapes = {"1": (64, 3, 7, 7), "4": (128, 64, 3, 3), "7": (256, 128, 3, 3)}
    shapes |= {f"{n}.conv_block.{i}": (256, 256, 3, 3) for n in range(10, 19) for i in (1, 5)}
    shapes |= {"19": (256, 128, 3, 3), "22": (128, 64, 3, 3), "26": (3, 64, 7, 7)}
    outputs = {"19": 128, "22": 64}  # transposed convolutions have them second
    found = {}
    for name, shape in shapes.items():
        found[f"model.{name}.weight"], found[f"model.{name}.bias"] = shape, (outputs.get(name, shape[0]),)
    return found


def official_weights():
    generator = torch.Generator().manual_seed(0)
    return {key: 0.02 * torch.randn(shape, generator=generator) for key, shape in official_shapes().items()}


def test_the_official_layout_loads_and_comes_out_bit_for_bit(tmp_path):
    weights = official_weights()
    assert len(weights) == 48 and sum(value.numel() for value in weights.values()) == 11_378_179
    torch.save(weights, tmp_path / "horse2zebra.pth")
    [path] = lib.export(tmp_path / "horse2zebra.pth", "official", tmp_path / "out")
    found = torch.load(path, weights_only=True)
    assert list(found) == list(weights) and all(torch.equal(found[key], weights[key]) for key in weights)


def test_old_statistics_and_several_gpus_are_seen_through(tmp_path):
    weights = official_weights()
    old = collections.OrderedDict((f"module.{key}", value) for key, value in weights.items())
    for number in (2, 5, 8, 20, 23):
        old[f"module.model.{number}.running_mean"] = torch.zeros(1)
        old[f"module.model.{number}.running_var"] = torch.ones(1)
        old[f"module.model.{number}.num_batches_tracked"] = torch.tensor(0)
    torch.save(old, tmp_path / "old.pth")
    G = lib.load_generator(tmp_path / "old.pth")
    assert all(torch.equal(value, weights[key]) for key, value in G.state_dict().items())


def test_an_official_generator_computes_what_its_layers_say(tmp_path):
    """Written out layer by layer in plain functions, from the official layout alone."""
    import torch.nn.functional as F

    weights = official_weights()
    torch.save(weights, tmp_path / "weights.pth")
    real = torch.rand(1, 3, 16, 16) * 2 - 1

    def conv(x, name, pad=0, mode="reflect", stride=1):
        x = F.pad(x, (pad,) * 4, mode=mode)
        return F.conv2d(x, weights[f"model.{name}.weight"], weights[f"model.{name}.bias"], stride)

    x = F.relu(F.instance_norm(conv(real, "1", 3)))
    for name in ("4", "7"):
        x = F.relu(F.instance_norm(conv(x, name, 1, "constant", 2)))
    for n in range(10, 19):
        h = F.relu(F.instance_norm(conv(x, f"{n}.conv_block.1", 1)))
        x = x + F.instance_norm(conv(h, f"{n}.conv_block.5", 1))
    for name in ("19", "22"):
        up = (weights[f"model.{name}.weight"], weights[f"model.{name}.bias"])
        x = F.relu(F.instance_norm(F.conv_transpose2d(x, *up, stride=2, padding=1, output_padding=1)))
    with torch.inference_mode():
        found = lib.load_generator(tmp_path / "weights.pth")(real)
    torch.testing.assert_close(found, torch.tanh(conv(x, "26", 3)), atol=1e-5, rtol=0)


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_bad_files_are_named_and_run_nothing(tmp_path):
    trap = tmp_path / "sprung"
    torch.save({"model.1.weight": Trap(str(trap))}, tmp_path / "trap.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Trap(str(trap))))
    (tmp_path / "trap.safetensors").write_bytes(pickle.dumps(Trap(str(trap))))
    (tmp_path / "page.pth").write_text("<html>not found</html>")
    torch.save(official_weights(), tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:100_000])
    (tmp_path / "empty.pth").write_bytes(b"")
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    torch.save({}, tmp_path / "nothing.pth")
    for path in [*tmp_path.glob("*.pth"), tmp_path / "trap.safetensors"]:
        if path.name != "whole.pth":
            with pytest.raises(UserError, match=path.name):
                lib.load_generator(path)
    assert not trap.exists()
    assert pickle.loads((tmp_path / "plain.pth").read_bytes()) is None and trap.exists(), "the trap works"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda w: w.pop("model.12.conv_block.5.bias"), "model.12.conv_block.5.bias the file has nothing"),
        (lambda w: w.update({"model.4.weight": torch.zeros(64, 64, 3, 3)}), r"model.4.weight the file has \(64, 64"),
        (lambda w: w.update(extra=torch.zeros(1)), "extra the file has"),
        (lambda w: w.pop("model.1.weight"), "no convolution model.1.weight"),
    ],
)
def test_another_architecture_is_told_by_its_first_key(tmp_path, change, named):
    weights = official_weights()
    change(weights)
    torch.save(weights, tmp_path / "other.pth")
    with pytest.raises(UserError, match=named):
        lib.load_generator(tmp_path / "other.pth")


def test_an_output_norm_that_nobody_knows_is_refused(tmp_path):
    tensors = init_weights(Generator(3, 4, 1)).state_dict()
    for norm in ("layer", []):
        write_tensors(tmp_path / "one.safetensors", tensors, {"output_norm": norm})
        with pytest.raises(UserError, match="one.safetensors: another architecture: output_norm is none of"):
            lib.load_generator(tmp_path / "one.safetensors")


def test_a_name_is_downloaded_once_and_only_if_whole(tmp_path, monkeypatch, site):
    folder, address = site
    weights = init_weights(Generator(3, 4, 1)).state_dict()
    torch.save(weights, folder / "horse2zebra.pth")
    whole = (folder / "horse2zebra.pth").read_bytes()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(lib, "OFFICIAL", address + "/{name}.pth")
    kept = tmp_path / "hub" / "checkpoints"
    for bad in (whole[:1000], b"<html>", b""):
        (folder / "horse2zebra.pth").write_bytes(bad)
        with pytest.raises(UserError, match="horse2zebra.pth: (sent no weights|cannot be downloaded)"):
            lib.load_generator("horse2zebra")
        assert not list(kept.iterdir())
    (folder / "horse2zebra.pth").write_bytes(whole)
    for _ in range(2):
        G = lib.load_generator("horse2zebra")
        assert all(torch.equal(value, weights[key]) for key, value in G.state_dict().items())
        (folder / "horse2zebra.pth").unlink(missing_ok=True)  # not asked for again
    assert [path.name for path in kept.iterdir()] == ["cyclegan_horse2zebra.pth"]


@pytest.fixture
def run_folder(tmp_path):
    """A run's folder with two checkpoints of small networks, and the model of the second."""
    (tmp_path / "run").mkdir()
    for number in (1, 2):
        model = CycleGAN(base_channels=4, num_residual=1, discriminator_instance=True, seed=number)
        facts = {"channels": 3, "base_channels": 4, "num_residual": 1, "output_norm": "none"}
        facts |= {"discriminator_instance": True, "step": number}
        write_checkpoint(tmp_path / "run" / f"epoch_{number}.safetensors", model, facts)
    return tmp_path / "run", model


def same(G, other):
    return all(torch.equal(value, other.state_dict()[key]) for key, value in G.state_dict().items())


def test_a_run_gives_the_generators_of_its_newest_whole_checkpoint(run_folder, capsys):
    folder, model = run_folder
    for source in (folder, folder / "epoch_2.safetensors"):
        for direction, names in {"AtoB": ("G_AB", "G_BA"), "BtoA": ("G_BA", "G_AB")}.items():
            found = lib.load_generators(source, direction)
            assert all(same(G, model.networks[name]) for G, name in zip(found, names, strict=True))
            assert same(lib.load_generator(source, direction), found[0])
    path = folder / "epoch_2.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert lib.newest(folder) == folder / "epoch_1.safetensors"
    assert not same(lib.load_generator(folder), model.G_AB)
    assert "warning: " in (said := capsys.readouterr().err) and "epoch_2.safetensors: damaged" in said


def test_a_file_with_both_generators_or_one_needs_no_training(tmp_path):
    networks = {name: init_weights(Generator(1, 4, 1)).eval() for name in ("G_AB", "G_BA")}
    tensors = {f"{name}.{key}": value for name, G in networks.items() for key, value in G.state_dict().items()}
    facts = {"channels": 1, "base_channels": 4, "num_residual": 1, "output_norm": "none"}
    write_tensors(tmp_path / "both.safetensors", tensors, facts)
    write_tensors(tmp_path / "one.safetensors", networks["G_BA"].state_dict(), facts)
    there, back = lib.load_generators(tmp_path / "both.safetensors", "BtoA")
    assert same(there, networks["G_BA"]) and same(back, networks["G_AB"])
    there, back = lib.load_generators(tmp_path / "one.safetensors")
    assert same(there, networks["G_BA"]) and back is None


def test_a_run_becomes_official_files_under_the_official_names(run_folder, tmp_path):
    """There G_A makes B of A."""
    folder, model = run_folder
    lib.export(folder, "official", tmp_path / "out")
    names = {"G_A": model.G_AB, "G_B": model.G_BA}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"latest_net_{name}.pth" for name in names}
    for name, network in names.items():
        found = torch.load(tmp_path / "out" / f"latest_net_{name}.pth", weights_only=True)
        assert all(torch.equal(found[key], value) for key, value in network.state_dict().items())
        assert len(found) == 16


def test_a_norm_at_the_output_is_not_lost_without_a_word(tmp_path):
    facts = {"channels": 3, "base_channels": 4, "num_residual": 1, "output_norm": "instance"}
    write_tensors(tmp_path / "G.safetensors", init_weights(Generator(3, 4, 1)).state_dict(), facts)
    with pytest.raises(UserError, match="G.safetensors: G has a norm at its output"):
        lib.export(tmp_path / "G.safetensors", "official", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_export_agrees_with_pytorch_at_three_sizes(run_folder, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    folder, model = run_folder
    paths = lib.export(folder, "onnx", tmp_path / "out")
    assert [path.name for path in paths] == ["G_AB.onnx", "G_BA.onnx"]
    session = onnxruntime.InferenceSession(paths[1])
    for n in (1, 2, 3):
        real = torch.rand(n, 3, 4 * n + 8, 40) * 2 - 1
        fake = torch.from_numpy(session.run(None, {"real": real.numpy()})[0])
        torch.testing.assert_close(fake, model.G_BA(real), atol=lib.AGREEMENT, rtol=0)


@pytest.mark.parametrize(("version", "old"), [("2.4.1", True), ("2.5.0", False), ("2.11.0+cu128", False)])
def test_an_export_to_onnx_says_which_torch_it_needs(run_folder, tmp_path, monkeypatch, version, old):
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion(version))
    monkeypatch.setattr(lib, "write_onnx", lambda G, path: path.write_bytes(b"written"))
    if old:
        with pytest.raises(UserError, match=re.escape(f"needs torch 2.5 or newer, and this is {version}")):
            lib.export(run_folder[0], "onnx", tmp_path / "out")
    assert old or lib.export(run_folder[0], "onnx", tmp_path / "out")
    assert (tmp_path / "out").exists() != old


def test_an_export_that_differs_is_refused_and_not_left(run_folder, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(lib, "AGREEMENT", -1.0)
    with pytest.raises(UserError, match="differs from PyTorch"):
        lib.export(run_folder[0], "onnx", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_the_command_exports_and_fails_in_one_line(run_folder, tmp_path, capsys):
    command = ["export", str(run_folder[0]), "--to", "official", "--output", str(tmp_path / "out")]
    main(command)
    assert "latest_net_G_B.pth: " in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(command)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith("error: ") and "exists already" in said and said.count("\n") == 1
