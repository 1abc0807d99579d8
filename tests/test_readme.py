"""README's commands exist, the short ones are executed as they are typed, and its links lead on."""

import os
import re
import shlex
import sys
from pathlib import Path

import pytest
from PIL import Image

from smai_lib.cli import app
from smai_lib.core import paths
from tests.colorization.test_images import write_images
from tests.conftest import output_of

TEXT = (paths.ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
SHORT = re.compile(r"smai (fetch|train|color)|papermill|wandb leet inspect")
LINES = "".join(text for language, text in BLOCK.findall(TEXT) if not language).splitlines()
COMMANDS = [re.split(r"\s{2,}#", line)[0].strip() for line in LINES]


def commands(pattern: str):
    """Return a mark that runs a test for each of README's commands that fits."""
    found = [command for command in COMMANDS if re.search(pattern, command)]
    assert found, pattern
    return pytest.mark.parametrize("command", found)


@commands(r"\bsmai ")
def test_a_command_of_smai_and_its_options_exist(command):
    tokens = command.split("smai ")[1]
    app.parse_args(tokens, print_error=False, exit_on_error=False)


@commands("^make ")
def test_a_target_of_make_exists(command):
    make = [*shlex.split(command), "--dry-run", "--always-make"]
    assert ".venv/bin/" in output_of(*make, cwd=paths.ROOT)


@commands("^pytest")
def test_options_of_pytest_exist(command, monkeypatch):
    monkeypatch.chdir(paths.ROOT)
    words = shlex.split(command)[1:]
    assert pytest.main([*words, "--collect-only", "-qq", "tests/test_golden.py"]) == 0


def test_files_that_the_readme_names_exist():
    folders = "smai_lib|report|notebooks|figures|tests|benchmarks"
    named = re.findall(rf"(?:`|\(|\")((?:{folders})/[\w./]*)", TEXT)
    assert len(named) > 10
    assert [name for name in named if not (paths.ROOT / name).exists()] == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files that README's commands name."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "notebooks").symlink_to(paths.NOTEBOOKS)
    Image.new("RGB", (120, 90), "teal").save(folder / "picture.jpg")
    write_images(folder / "photos/train/cat", 2, size=(120, 90))
    write_images(folder / "photos/test/cat", 2, size=(120, 90))
    return folder


@pytest.mark.slow
@commands(SHORT.pattern)
def test_a_command_does_what_it_says(command, folder):
    """They run in the order of the README: the run that wandb shows was trained before."""
    inherited = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    activated = f"{Path(sys.executable).parent}{os.pathsep}{inherited['PATH']}"
    own = {"PATH": activated, "SMAI_RUNS": str(folder / "runs"), "WANDB_MODE": "offline"}
    sample = {"SMAI_FASHION_MNIST": "sample", "SMAI_COLOR_IMAGES": "sample", "OMP_NUM_THREADS": "1"}
    printed = output_of("bash", "-c", command, cwd=folder, env=inherited | own | sample)
    if "smai train" in command and "--help" not in command:
        assert re.search(r"record: .*/runs/own/\w+/\w+$", printed, re.MULTILINE)
        assert list(folder.glob("runs/wandb/offline-run-*/*.wandb"))
    if "leet inspect" in command:
        assert "val_accuracy" in printed
    if "papermill" in command:
        assert (folder / "out.ipynb").is_file()
    if "smai color" in command:
        out = "vivid" if "--out" in command else "picture_colored"
        assert (folder / f"{out}_compared.png").is_file()


@pytest.mark.slow
def test_the_librarys_example_runs_and_leaves_a_result(tmp_path, monkeypatch):
    """As it stands in the README, on the bundled sample."""
    monkeypatch.setenv("SMAI_FASHION_MNIST", "sample")
    monkeypatch.chdir(tmp_path)
    (code,) = (text for language, text in BLOCK.findall(TEXT) if language == "python")
    exec(code, {"__name__": "example"})  # noqa: S102  the README is ours
    assert list(paths.runs_dir().rglob("result.json"))
