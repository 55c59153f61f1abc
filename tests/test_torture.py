"""A run that is killed, stopped or out of room ends as it would have ended in peace; `make torture` does more of it."""

import os
import resource
import signal

import pytest
from helpers import finish, start, start_python, wait_for
from torture import (
    check_history,
    killed_again_and_again,
    make_config,
    result,
    stopped_in_a_notebook,
)

from cyclegan_lib.runs.folder import newest_whole


@pytest.fixture(scope="module")
def data_root(tiny_root):
    return tiny_root.parent


@pytest.fixture(scope="module")
def peace(data_root, tmp_path_factory):
    """What the run leaves when nothing happens to it."""
    config = make_config(data_root, tmp_path_factory.mktemp("peace"))
    finish(config)
    check_history(config)
    found = result(config)
    assert {name for name in found if name.endswith(".png")} == {
        "epoch_005.png", "epoch_010.png", "epoch_014.png", "curves.png",
    }  # fmt: skip
    return found


def test_killed_at_random_moments(data_root, tmp_path, peace):
    config = make_config(data_root, tmp_path)
    killed, _ = killed_again_and_again(config, kills=3)
    assert killed == 3 and result(config) == peace
    check_history(config)


def test_from_notebook_to_command_and_back(data_root, tmp_path, peace):
    config = make_config(data_root, tmp_path)
    stopped_in_a_notebook(config)
    assert result(config) == peace


def test_ctrl_c_reaches_workers_too_and_all_is_saved(data_root, tmp_path, peace):
    """In a terminal Ctrl-C goes to every process of the command. And workers change nothing: the end is the same."""
    config = make_config(data_root, tmp_path, num_workers=2)
    process = start(config, start_new_session=True)
    assert wait_for(config, 10, process)
    os.killpg(process.pid, signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors, errors
    assert "--resume auto" in out and newest_whole(config.models_folder)[0].step >= 10
    finish(config)
    assert result(config) == peace


def test_a_file_that_may_not_grow(data_root, tmp_path, peace):
    """A limit on the size of files, which the state reaches when its buffers fill: that needs no disk."""
    config = make_config(data_root, tmp_path)
    limit = 1_500_000
    process = start(config, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    _, errors = process.communicate(timeout=120)
    lines = [line for line in errors.splitlines() if line.startswith("error")]
    assert process.returncode == 2 and len(lines) == 1 and "cannot be written" in lines[0], errors
    assert "Traceback" not in errors and str(config.models_folder) in lines[0]
    found, damaged = newest_whole(config.models_folder)
    assert found and not damaged and not list(config.models_folder.glob(".*.partial"))
    finish(config)
    assert result(config) == peace


def test_nothing_grows(data_root, tmp_path):
    """300 steps in a process of their own, so that what other tests left does not count."""
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("needs /proc to look at its own memory")
    script = (
        "import sys; from pathlib import Path; from torture import check_growth, grows, make_config\n"
        "changes = dict(checkpoint_minutes=0.0, checkpoint_interval=10, sample_interval=20)\n"
        "config = make_config(Path(sys.argv[1]), Path(sys.argv[2]), **changes)\n"
        "print(check_growth(grows(config, 300, every=75)))"
    )
    process = start_python("-c", script, data_root, tmp_path)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
