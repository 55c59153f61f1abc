"""Where learners open it: what Colab and Kaggle have, Python 3.11 and later, and what GitHub runs."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml
from helpers import ROOT
from notebook_cells import NOTEBOOKS, code_cells
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github" / "workflows").glob("*.yml")}


@pytest.mark.parametrize("host", ["colab", "kaggle"])
def test_nothing_has_to_be_installed_again_on(host):
    lines = (ROOT / "tests" / "hosts" / f"{host}.txt").read_text().splitlines()
    there = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert SpecifierSet(PROJECT["requires-python"]).contains(there["python"])
    needed = [Requirement(text) for text in PROJECT["dependencies"]]
    for requirement in [*needed, *map(Requirement, PROJECT["optional-dependencies"]["notebooks"])]:
        assert requirement.specifier.contains(there.get(requirement.name, "9999")), requirement
    large = {"ipywidgets", "matplotlib", "numpy", "torch", "torchvision"}
    assert ({requirement.name for requirement in needed} if host == "colab" else large) <= there.keys()


# Python


def test_python_3_11_is_the_least_and_everything_says_so():
    assert PROJECT["requires-python"] == ">=3.11"
    assert "python>=3.11" in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    for name in ("README.md", "Makefile"):
        assert "Python 3.11 or newer" in (ROOT / name).read_text()
    assert "sys.version_info < (3, 11)" in code_cells(NOTEBOOKS[0])[0].source


def test_no_syntax_is_newer_than_3_11():
    with pytest.raises(SyntaxError):
        ast.parse("type Picture = int", feature_version=(3, 11))
    modules = [path for name in ("cyclegan_lib", "tests", ".ci") for path in (ROOT / name).rglob("*.py")]
    assert len(modules) > 90
    for path in modules:
        ast.parse(path.read_text(), path, feature_version=(3, 11))
    for path in NOTEBOOKS:
        for cell in code_cells(path):
            ast.parse(cell.source, path, feature_version=(3, 11))


# What GitHub runs


def steps(workflow):
    """(the only job of a workflow, the commands of its steps)."""
    [job] = WORKFLOWS[workflow]["jobs"].values()
    return job, [step["run"] for step in job["steps"] if "run" in step]


def bash(command, folder, **environment):
    """What it prints; as GitHub calls it, ended by the first error."""
    how = dict(cwd=folder, env=os.environ | environment, check=True, stdout=subprocess.PIPE, text=True)
    return subprocess.run(["bash", "-e", "-c", command], **how).stdout


def test_ubuntu_with_python_3_11_blocks_and_the_others_are_tried():
    job, commands = steps("ci")
    tried = {(row["os"], row["python"]): row["may_fail"] for row in job["strategy"]["matrix"]["include"]}
    assert [where for where, may_fail in tried.items() if not may_fail] == [("ubuntu-latest", "3.11")]
    assert {("ubuntu-latest", "3.12"), ("ubuntu-latest", "3.13")} < tried.keys()
    assert {("macos-latest", "3.11"), ("windows-latest", "3.11")} < tried.keys()
    assert job["continue-on-error"] == "${{ matrix.may_fail }}" and "bash .ci/run" in commands
    readme = (ROOT / "README.md").read_text()
    assert all(line.replace("python -m pip", "pip") in readme for line in commands[1].splitlines())


def test_the_page_is_published_as_the_index(tmp_path):
    (tmp_path / "data").mkdir()
    shutil.copy(ROOT / "data" / "explorer.html", tmp_path / "data")
    job, [command] = steps("pages")
    bash(command, tmp_path)
    [upload] = [step["with"]["path"] for step in job["steps"] if "upload-pages-artifact" in step.get("uses", "")]
    assert (tmp_path / upload / "index.html").read_bytes() == (ROOT / "data" / "explorer.html").read_bytes()


@pytest.fixture
def pushed(tmp_path):
    """A clone that was pushed to an empty remote, and whose files say OWNER/REPO."""
    clone = tmp_path / "clone"
    for name in (".ci", ".github", "notebooks"):
        shutil.copytree(ROOT / name, clone / name)
    pages = ("cyclegan_lib/show/page/page.html", "data/explorer.html")
    for name in ("README.md", "CITATION.cff", "pyproject.toml", "playground.ipynb", "data/README.md", *pages):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, clone / name)
    subprocess.run([sys.executable, clone / ".ci" / "address.py", "OWNER/REPO"], check=True)
    bash(
        "git init --quiet --bare ../remote && git init --quiet && git remote add origin ../remote && git add --all && "
        "git -c user.name=a -c user.email=a commit --quiet -m first && git push --quiet --set-upstream origin HEAD",
        clone,
    )
    return clone


def test_the_address_heals_itself_once(pushed):
    job, [command] = steps("address")
    assert job["if"] == "${{ !github.event.repository.fork }}"
    assert job["steps"][-1]["env"] == {"REPOSITORY": "${{ github.repository }}"}

    def heal(repository):
        bash(command, pushed, REPOSITORY=repository)
        assert bash("git status --porcelain", pushed) == ""
        return bash("git -C ../remote log --format=%H", pushed).split()

    first = heal("somebody/some.repo")
    assert len(first) == 2
    changed = bash("git show --name-only --format=", pushed).split()
    assert "playground.ipynb" in changed and not [name for name in changed if name.startswith(".github")]  # not allowed
    for name in changed:
        text = (pushed / name).read_text()
        assert "github.com/somebody/some.repo" in text and not re.search(r"github(\.com)?/OWNER/REPO", text), name
    assert heal("somebody/some.repo") == heal("somebody/renamed") == first
