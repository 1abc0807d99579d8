"""Every command of the README is executed: here as it stands, or by the test that is named."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smai_lib import document
from smai_lib.core import paths
from smai_lib.multitask import fashion_mnist

TEXT = document.README.read_text()
CLUSTER = TEXT[
    TEXT.index("\n## Beyond one machine\n") : TEXT.index("\n## The library\n")
]  # test_cluster.py executes it
COMMANDS = [
    re.split(r"\s{2,}#", line)[0].strip()
    for block in re.findall(
        r"^```\n(.*?)^```", TEXT.replace(CLUSTER, "\n"), re.DOTALL | re.MULTILINE
    )
    for line in block.splitlines()
]
# what says what it does within seconds, as it stands; in this order, each in the folder of those before
TRIED = [
    command
    for command in COMMANDS
    if re.search(r"smai_lib (fetch|train|color)|papermill|wandb leet inspect", command)
]
# what takes long, or runs this very test: by which file of tests its work is done
ELSEWHERE = {
    "make report": "test_report.py",
    "make lab": "test_lab.py",
    "make notebooks": "test_report.py",
    "make bench": "test_bench.py",
    "make faults": "test_faults.py",
    "make full": "core/test_study.py",
}
ITSELF = ["make test", "make lint", *(command for command in COMMANDS if "bin/pytest" in command)]
FULL = ".venv/bin/python -m smai_lib run q1_configs --profile full"
# they need an account, or a terminal: that wandb knows the command
WANDB = [command for command in COMMANDS if re.search(r"wandb (login|sync|leet runs)", command)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which README's commands find what they name, and what they would find after `make install`."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "notebooks").symlink_to(paths.NOTEBOOKS)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 90, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels[0]).save(folder / "picture.jpg")
    for number, split in enumerate(("train", "train", "test", "test")):
        file = folder / "photos" / split / "cat" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[number]).save(file)
    return folder


def environment(folder: Path) -> dict[str, str]:
    """Small data, and an own folder of runs."""
    inherited = {
        name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"
    }  # another test's
    return inherited | {
        "SMAI_RUNS": str(folder / "runs"),
        "SMAI_FASHION_MNIST": "sample",
        "SMAI_COLOR_IMAGES": "sample",
        "PYTHONPATH": str(paths.ROOT),
        "WANDB_MODE": "offline",
    }


def test_no_command_of_the_readme_is_left_out():
    assert len(TRIED) > 8 and len(WANDB) == 3
    assert sorted(COMMANDS) == sorted({*TRIED, *ELSEWHERE, *ITSELF, *WANDB, FULL})
    inline = re.findall(r"`(\.venv/bin/[^`]+)`", TEXT.replace(CLUSTER, ""))
    assert inline == [".venv/bin/python -m smai_lib notebooks NAME"]  # `make notebooks` names all


@pytest.mark.parametrize("command", TRIED)
def test_a_command_does_what_it_says(command, folder):
    before = {file for file in folder.rglob("*") if file.is_file()}
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    new = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()} - {
        str(file.relative_to(folder)) for file in before
    }
    expected = {"papermill": r"^out\.ipynb$", "smai_lib color": r"^picture_colored_compared\.png$"}
    for part, name in expected.items():
        assert part not in command or any(re.match(name, file) for file in new), new
    if "smai_lib train" in command and "--help" not in command:
        assert any(re.match(r"runs/own/q[12]_own/\w+/result\.json$", file) for file in new), new
        assert any(re.match(r"runs/wandb/offline-run-.*\.wandb$", file) for file in new), new
        assert "record: " in done.stdout and done.stdout.count("among.png") == (
            "train q1" in command
        )
    if "leet inspect" in command:
        assert "val_accuracy" in done.stdout


def test_the_full_study_begins_and_stops_when_told(folder):
    """As it stands, on the study's own data; that it goes on to the same bits is shown on small data, in core/test_runs.py."""
    if fashion_mnist.fashion_mnist(verbose=False).is_stand_in:
        pytest.skip("the full data set was not found, and the full profile takes no other")
    words = shlex.split(FULL)
    real = {
        name: value for name, value in environment(folder).items() if name != "SMAI_FASHION_MNIST"
    }
    process = subprocess.Popen([str(folder / words[0]), *words[1:]], cwd=folder, env=real)
    begun = time.monotonic()
    while not list(folder.glob("runs/full/q1_configs/*/config.json")):
        assert process.poll() is None and time.monotonic() < begun + 300
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143


@pytest.mark.parametrize("target", [command for command in COMMANDS if command.startswith("make ")])
def test_a_target_of_make_is_what_the_tests_execute(target):
    """What make would do, without doing it: commands whose work is done by the tests of the file that exists."""
    done = subprocess.run(
        [*shlex.split(target), "--dry-run"],
        cwd=paths.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ".venv/bin/" in done.stdout
    assert target in ITSELF or (paths.ROOT / "tests" / ELSEWHERE[target]).is_file()


@pytest.mark.parametrize("command", [command for command in ITSELF if "pytest" in command])
def test_a_run_of_the_tests_finds_them(command):
    words = [sys.executable, "-m", "pytest", *shlex.split(command)[1:], "--collect-only", "-q"]
    done = subprocess.run(words, cwd=paths.ROOT, capture_output=True, text=True, check=False)
    assert (
        done.returncode == 0 and int(re.search(r"(\d+) tests collected", done.stdout)[1]) > 100
    ), done.stdout[-500:]


@pytest.mark.parametrize("command", WANDB)
def test_wandb_knows_the_command(command):
    wandb = shutil.which("wandb", path=str(Path(sys.executable).parent))
    subprocess.run([wandb, shlex.split(command)[1], "--help"], capture_output=True, check=True)


def test_readme_shows_the_shipped_results():
    text = document.README.read_text()
    assert document.refreshed(text) == text
    for name in ("result", "headline"):
        assert f"<!-- {name}:" in text and f"<!-- /{name} -->" in text
    assert document.refreshed(text.replace("U-Net |", "U-Net | 99.99 % |", 1)) == text


def test_files_that_the_readme_names_are_there():
    named = re.findall(
        r"(?:`|\(|\")((?:smai_lib|report|notebooks|figures|tests|benchmarks)/[\w./]*)", TEXT
    )
    assert len(named) > 10 and [name for name in named if not (paths.ROOT / name).exists()] == []


def test_the_librarys_example_runs_and_leaves_a_result(tmp_path, monkeypatch):
    """As it stands in the README, in a folder of its own, on the sample."""
    monkeypatch.setenv("SMAI_FASHION_MNIST", "sample")
    monkeypatch.chdir(tmp_path)
    section = document.README.read_text().split("\n## The library\n")[1].split("\n## ")[0]
    block = re.search(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    assert block, "no python block under 'The library'"
    exec(block[1], {"__name__": "example"})  # noqa: S102  the README is ours
    assert list(tmp_path.rglob("result.json")), "no run left its result"
