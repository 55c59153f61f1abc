"""Options: their defaults, their ranges, and that each can be given."""

import dataclasses
import re

import pytest
from helpers import ROOT

from cyclegan_lib.cli import GONE, main, parse_config
from cyclegan_lib.config import TrainConfig, demo_config
from cyclegan_lib.errors import UserError


def test_the_students_options_have_their_names_and_defaults():
    config = parse_config([])
    students = dict(
        start_from=0, num_epochs=200, dataset_name="horse2zebra", batch_size=10, img_height=256, img_width=256,
        channels=3, num_residual=9, lambda_cycle=10.0,
    )  # fmt: skip
    assert list(students) == [field.name for field in dataclasses.fields(TrainConfig)][:9]
    assert {name: getattr(config, name) for name in students} == students
    assert config == TrainConfig()


@pytest.mark.parametrize("field", dataclasses.fields(TrainConfig), ids=lambda field: field.name)
def test_every_option_can_be_given(field, capsys):
    flag = f"--{field.name}"
    if not field.metadata.get("command_line", True):
        with pytest.raises(SystemExit):
            parse_config([flag])
        assert f"error: {flag} is gone: pass TrainConfig({field.name}=" in capsys.readouterr().err
        return
    if field.default is False:
        assert getattr(parse_config([flag]), field.name) is True
        return
    other = {int: "24", float: "0.5"}.get(type(field.default), "3")
    if "choices" in field.metadata:
        other = str(next(choice for choice in field.metadata["choices"] if choice != field.default))
    config = parse_config([flag, other])
    assert str(getattr(config, field.name)) == other != str(field.default)
    config.check()


def test_make_demo_is_the_demos_configuration():
    makefile = (ROOT / "Makefile").read_text()
    arguments = re.search(r"DEMO = ((?:.*\\\n)*.*)", makefile)[1].replace("\\\n", " ").split()
    assert parse_config(arguments) == demo_config()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("batch_size", (0,)), ("num_epochs", (0,)), ("img_height", (62, 20, 10**6)), ("img_width", (20,)),
        ("lambda_cycle", (-1.0,)), ("lambda_identity", (float("nan"),)), ("lr", (0.0, float("inf"), float("nan"))),
        ("decay_epoch", (201, -1)), ("max_steps", (0,)), ("seed", (-1, 2**63)), ("channels", (2,)),
        ("run_name", ("../x", "..", "", "a/b", "a\\b", ".hidden", "C:x")), ("dataset_name", ("../x", "/etc")),
        ("output_norm", ("layer",)), ("num_workers", (-1, 10**9)), ("base_channels", (10**6,)),
        ("sample_interval", (-1,)), ("checkpoint_minutes", (-0.5,)), ("device", ("tpu",)), ("resume", ("always",)),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named(name, values):
    for value in values:
        with pytest.raises(UserError, match=f"^--{name} ") as caught:
            TrainConfig(**{name: value}).check()
        shown = repr(value) if isinstance(value, str) else str(value)
        assert shown in str(caught.value) and "\n" not in str(caught.value)


def test_all_wrong_options_are_named_together(capsys):
    with pytest.raises(UserError) as caught:
        TrainConfig(batch_size=0, lr=-1.0, img_width=30).check()
    assert [line.split()[0] for line in str(caught.value).splitlines()] == ["--batch_size", "--img_width", "--lr"]
    with pytest.raises(SystemExit) as ended:
        main(["train", "--batch_size", "0", "--lr", "-1"])
    assert ended.value.code == 2
    assert [line[:9] for line in capsys.readouterr().err.splitlines()] == ["error: --"] * 2


@pytest.mark.parametrize("gone", GONE)
@pytest.mark.parametrize("value", [[], ["0.5"]])
def test_an_option_that_is_gone_says_in_a_line_what_to_do_instead(gone, value, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", "--num_epochs", "1", gone, *value])
    out, err = capsys.readouterr()
    assert ended.value.code == 2 and out == "" and err == f"error: {gone} is gone: {GONE[gone]}\n"


def test_where_a_run_lies():
    config = TrainConfig(dataset_name="mine", output_root="out", data_root="sets", img_height=64, img_width=128)
    assert [str(path) for path in (config.dataset_folder, config.models_folder, config.images_folder)] == [
        "sets/mine", "out/saved_models/mine", "out/generated_images/mine",
    ]  # fmt: skip
    assert config.size == (64, 128)
    assert dataclasses.replace(config, run_name="other").models_folder.name == "other"
