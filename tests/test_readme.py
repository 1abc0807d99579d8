"""README's commands are executed as they are typed, or by the test that is named."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smai_lib.core import paths
from smai_lib.multitask.data import fashion_mnist

TEXT = (paths.ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```\n(.*?)^```", re.DOTALL | re.MULTILINE)
SHORT = re.compile(r"smai (fetch|train|color)|papermill|wandb leet inspect")
FULL = "smai run q1_published --profile full"
# commands that are not executed here: which file of tests does their work
ELSEWHERE = {
    "make report": "test_report.py",
    "smai report --profile quick": "test_report.py",
    "make lab": "test_lab.py",
    "make notebooks": "test_notebooks.py",
    "make bench": "test_bench.py",
    "make faults": "test_faults.py",
    "make full": "core/test_study.py",
    "make install": "test_install.py",
    "python -m venv": "test_install.py",
    ". .venv/bin/activate": "test_install.py",
    "pip install": "test_install.py",
    "wandb l": "core/test_tracking.py",
    "wandb sync": "core/test_tracking.py",
}
THESE_TESTS = ("pytest", "make test", "make lint", "smai test")


def section(heading: str) -> str:
    return TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def commands(text: str) -> list[str]:
    lines = "".join(BLOCK.findall(text)).splitlines()
    return [re.split(r"\s{2,}#", line)[0].strip() for line in lines]


# core/test_ray_pool.py executes the others
COMMANDS = commands(TEXT.replace(section("Beyond one machine"), ""))
EXECUTED = [command for command in COMMANDS if SHORT.search(command)]


def test_no_command_of_the_readme_is_left_out():
    rest = [command for command in COMMANDS if command not in [*EXECUTED, FULL]]
    assert len(EXECUTED) > 8 and FULL in COMMANDS
    assert [line for line in rest if not line.startswith((*ELSEWHERE, *THESE_TESTS))] == []
    for file in ELSEWHERE.values():
        assert (paths.ROOT / "tests" / file).is_file(), file


@pytest.mark.parametrize("target", [line for line in COMMANDS if line.startswith("make ")])
def test_a_target_of_make_exists(target):
    make = [*shlex.split(target), "--dry-run", "--always-make"]
    done = subprocess.run(make, cwd=paths.ROOT, capture_output=True, text=True, check=True)
    assert ".venv/bin/" in done.stdout


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
    pixels = np.random.default_rng(0).integers(0, 256, (4, 90, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels[0]).save(folder / "picture.jpg")
    for number, split in enumerate(("train", "train", "test", "test")):
        file = folder / "photos" / split / "cat" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[number]).save(file)
    return folder


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """Return the environment of a user in the activated environment, with runs in `folder`."""
    programs = Path(sys.executable).parent
    inherited = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    inherited["PATH"] = f"{programs}{os.pathsep}{inherited['PATH']}"
    own = {"SMAI_RUNS": str(folder / "runs"), "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    return inherited | own | variables


@pytest.mark.slow
@pytest.mark.parametrize("command", EXECUTED)
def test_a_command_does_what_it_says(command, folder):
    """They run in the order of the README: the run that wandb shows was trained before."""
    sample = environment(folder, SMAI_FASHION_MNIST="sample", SMAI_COLOR_IMAGES="sample")
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=sample, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    if "smai train" in command and "--help" not in command:
        assert re.search(r"record: .*/runs/own/\w+/\w+$", done.stdout, re.MULTILINE)
        assert list(folder.glob("runs/wandb/offline-run-*/*.wandb"))
    if "leet inspect" in command:
        assert "val_accuracy" in done.stdout
    if "papermill" in command:
        assert (folder / "out.ipynb").is_file()
    if "smai color" in command:
        out = "vivid" if "--out" in command else "picture_colored"
        assert (folder / f"{out}_compared.png").is_file()


@pytest.mark.slow
def test_the_full_study_starts_and_stops_when_told(folder):
    """It needs the full data; that a run continues is tested in core/test_runs.py."""
    if fashion_mnist(verbose=False).is_stand_in:
        pytest.skip("needs Fashion-MNIST: run `smai fetch` with a network")
    process = subprocess.Popen(shlex.split(FULL), cwd=folder, env=environment(folder))
    deadline = time.monotonic() + 300
    while not list(folder.glob("runs/full/q1_published/*/config.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130


@pytest.mark.slow
@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("pytest")])
def test_a_run_of_the_tests_finds_them(command):
    words = [sys.executable, "-m", *shlex.split(command), "--collect-only", "-q"]
    done = subprocess.run(words, cwd=paths.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert int(re.search(r"(\d+)(/\d+)? tests collected", done.stdout)[1]) > 100


def test_the_librarys_example_runs_and_leaves_a_result(tmp_path, monkeypatch):
    """As it stands in the README, on the bundled sample."""
    monkeypatch.setenv("SMAI_FASHION_MNIST", "sample")
    monkeypatch.chdir(tmp_path)
    code = re.search(r"^```python\n(.*?)^```", section("The library"), re.DOTALL | re.MULTILINE)
    exec(code[1], {"__name__": "example"})  # noqa: S102  the README is ours
    assert list(paths.runs_dir().rglob("result.json"))
