"""The command: help without torch, one line for a mistake, one command under three names."""

from argparse import ArgumentTypeError

import pytest
from helpers import start_python

from cyclegan_lib.cli import COMMANDS, main, parse, within

HELP = """
import sys
from cyclegan_lib.cli import COMMANDS, main
for command in [[], *([name] for name in COMMANDS)]:
    try:
        main([*command, "--help"])
    except SystemExit as ended:
        assert not ended.code, command
heavy = {"torch", "torchvision", "matplotlib", "PIL", "numpy"} & sys.modules.keys()
assert not heavy, heavy
"""


def output(*arguments):
    process = start_python(*arguments)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_help_needs_no_torch_and_lists_every_command():
    code, out, err = output("-c", HELP)
    assert code == 0, err
    out = " ".join(out.split())
    for name, (_, what, _) in COMMANDS.items():
        assert f"{name} {what}" in out and f"usage: cyclegan {name} " in out


def test_python_m_is_the_same_command():
    """Its help, its errors and its exit codes; and `python -m cyclegan_lib.train` is its `train`."""
    for arguments in (["--help"], ["--batch_size", "no"], ["--compile"]):
        one, other = output("-m", "cyclegan_lib", "train", *arguments), output("-m", "cyclegan_lib.train", *arguments)
        assert one == other and one[0] == (0 if arguments == ["--help"] else 2)
        assert one[1].startswith("usage: cyclegan train ") or one[2].startswith("error: ")


@pytest.mark.parametrize("arguments", [[], ["paint"], ["translate", "a.png"], ["train", "--nothing"], ["train", "x"]])
def test_a_mistake_in_the_command_line_is_one_line_and_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    assert ended.value.code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (FileNotFoundError(2, "No such file", "a.png"), 2, "error: a.png: No such file\n"),
        (OSError("a device of its own"), 2, "error: a device of its own\n"), (KeyboardInterrupt(), 130, "stopped\n"),
    ],
)  # fmt: skip
def test_errors_of_a_command_are_one_line(raised, code, said, capsys):
    parser = parse(["check", "x"])[2]
    with pytest.raises(SystemExit) as ended, parser.one_line_errors():
        raise raised
    assert ended.value.code == code and capsys.readouterr().err == said


def test_numbers_within():
    share, size = within(float, 0, 1), within(int, 24, 4096, 4)
    assert share("0.1") == 0.1 and share("1") == 1 and size("64") == 64
    for convert, texts in ((share, ("1.5", "-0.1", "nan", "x")), (size, ("66", "20", "6.5"))):
        for text in texts:
            with pytest.raises((ArgumentTypeError, ValueError)) as caught:
                convert(text)
            assert text in str(caught.value)


def test_a_tilde_is_the_home_folder_in_every_path(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse(["check", "~/mine"])[1].folder == tmp_path / "mine"
    assert parse(["train", "--data_root", "~/data"])[1].data_root == tmp_path / "data"
