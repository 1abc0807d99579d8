"""Kill processes at random moments and damage every file, many more times than the tests do.

After each fault the work is started again, in the way that the error names where there is one.
The files are then compared with those of an undisturbed process, bit by bit. The table has one row
a kind of fault. The exit code is 1 unless every fault was survived.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import psutil
import torch
from cyclopts import App

import smai_lib as smai
from smai_lib.core import paths, runs
from smai_lib.core.errors import SmaiError
from smai_lib.core.files import read_weights, record_checksum
from smai_lib.core.runs import Run
from smai_lib.core.study import read_table

RUNS, WORKERS = 3, 2
RESTARTS = 3  # a dying worker may still hold its run at the first
CONFIG = {"num_layers": 2, "base_filters": 4, "batch_size": 32, "epochs": 8}

app = App(help=__doc__)


def load_data():
    """Return the first images of the sample."""
    return smai.fashion_mnist("sample", verbose=False).take(300, 100, 100)


def make_runs(root: Path, data, count: int) -> list[Run]:
    """Return `count` runs that differ in their seed."""
    config = smai.multitask.Config(**CONFIG)
    return [Run(config, seed, data.fingerprint, root, f"seed {seed}") for seed in range(count)]


def contents_of(root: Path) -> dict[str, bytes]:
    """Return the files of all finished runs in `root`, without times."""
    contents = {}
    for file in root.glob("*/*"):
        if file.name in ("history.csv", "config.json") or file.suffix == ".safetensors":
            contents[f"{file.parent.name}/{file.name}"] = file.read_bytes()
        elif file.name == "result.json":
            result = json.loads(file.read_text("utf-8"))
            numbers = json.dumps([result["metrics"], result["nested"]])
            contents[f"{file.parent.name}/{file.name}"] = numbers.encode()
    return contents


@app.command(show=False)
def train(root: Path, count: int, workers: int) -> None:
    """Finish `count` runs in `root`, by worker processes or, for 0, in this one."""
    torch.set_num_threads(1)
    data = load_data()
    engine = "processes" if workers else "serial"
    runs.run_all(make_runs(root, data, count), data, engine=engine, workers=workers)


def start_training(root: Path, count: int, workers: int) -> subprocess.Popen:
    """Start `train` in a process of its own."""
    command = [sys.executable, __file__, "train", root, count, workers]
    return subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    """Return the worker processes of a process; none if it has ended."""
    children = process.children() if process.is_running() else []
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def kill_at_random(
    victim: str, expected: dict[str, bytes], root: Path, seconds: float, draw: random.Random
) -> dict:
    """Kill a process of a training that takes so many seconds, train on, and return a row.

    Args:
        victim: "run", which is its own process; "worker"; or "runner", which has workers.
        expected: files of an undisturbed training.
        root: folder of the runs.
        seconds: duration of the training.
        draw: chooses the moment and the worker.
    """
    count, workers = (1, 0) if victim == "run" else (RUNS, WORKERS)
    ids = [run.run_id for run in make_runs(root, load_data(), count)]
    expected = {name: expected[name] for name in expected if name.split("/")[0] in ids}
    process = start_training(root, count, workers)
    while not list(root.glob("*/config.json")) and process.poll() is None:
        time.sleep(0.01)
    time.sleep(draw.uniform(0, seconds))
    target = psutil.Process(process.pid)
    if victim == "worker":
        target = draw.choice(workers_of(target) or [target])
    finished = {file: file.stat().st_mtime_ns for file in root.glob("*/result.json")}
    target.send_signal(signal.SIGKILL)
    process.wait()
    for _ in range(RESTARTS):
        again = start_training(root, count, workers)
        _, message = again.communicate()
        if again.returncode == 0:
            break
    untouched = all(file.stat().st_mtime_ns == stamp for file, stamp in finished.items())
    return {
        "fault": f"SIGKILL of a {victim}",
        "survived": again.returncode == 0 and untouched,
        "identical": contents_of(root) == expected,
        "message": message[-200:],
    }


def cut(file: Path) -> None:
    """Halve a file."""
    os.truncate(file, file.stat().st_size // 2)


def empty(file: Path) -> None:
    """Leave nothing of a file's content."""
    os.truncate(file, 0)


def flip(file: Path, draw: random.Random) -> None:
    """Change one bit of a file."""
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)


def interrupt(run: Run, data) -> None:
    """Train a run to the middle of its third epoch."""
    images = 0

    def on_batch(batch: int) -> None:
        nonlocal images
        images += batch
        if images > 2.5 * len(data.train.images):
            raise KeyboardInterrupt

    try:
        runs.execute(run, data, on_batch)
    except KeyboardInterrupt:
        return
    raise AssertionError("the run was not interrupted")


def damage_run(original: Run, data, name: str, damage: Callable, expected, root: Path) -> dict:
    """Damage a file of a copy of a run, execute the run as its error says, and return a row."""
    run = replace(original, root=root)
    shutil.copytree(original.folder, run.folder)
    file = run.folder / name
    damage(file)
    message = ""
    try:
        runs.execute(run, data)
    except SmaiError as error:
        message = str(error)
        if "delete it" in message:
            file.unlink()
        else:
            shutil.rmtree(run.folder)
        runs.execute(run, data)
    files = {name: expected[name] for name in expected if name.startswith(run.run_id)}
    return {
        "survived": not message or str(file) in message,
        "identical": contents_of(root) == files,
        "message": message,
    }


def damage_runs(expected, folder: Path, kinds: dict[str, Callable]) -> Iterator[dict]:
    """Damage every file of a finished and of an interrupted run, and yield a row each."""
    data = load_data()
    finished = make_runs(folder / "finished", data, 1)[0]
    interrupted = make_runs(folder / "interrupted", data, 1)[0]
    runs.execute(finished, data)
    interrupt(interrupted, data)
    for state, run in (("a finished run", finished), ("an interrupted run", interrupted)):
        for name in sorted(file.name for file in run.folder.iterdir() if file.suffix):
            for kind, damage in kinds.items():
                row = damage_run(run, data, name, damage, expected, folder / "damaged")
                yield {"fault": f"{name} of {state} {kind}", **row}
                shutil.rmtree(folder / "damaged")


def damage_shipped(folder: Path, kinds: dict[str, Callable]) -> Iterator[dict]:
    """Damage shipped files, which must be refused by name, and yield a row each."""
    cases = {
        "shipped table": ("RESULTS", "q1_published.csv", lambda file: read_table(file.name)),
        "shipped weights": ("WEIGHTS", "q1_best_best.safetensors", read_weights),
        "data file": ("SAMPLE", "train-labels-idx1-ubyte.gz", lambda file: load_data()),
    }
    for label, (location, name, read) in cases.items():
        for kind, damage in kinds.items():
            copy = folder / "copy"
            shutil.copytree(getattr(paths, location), copy)
            message = ""
            with patch.object(paths, location, copy):
                read(copy / name)
                damage(copy / name)
                try:
                    read(copy / name)
                except SmaiError as error:
                    message = str(error)
            shutil.rmtree(copy)
            yield {
                "fault": f"{label} {kind}",
                "survived": name in message,
                "identical": True,
                "message": message,
            }


def inject_all(folder: Path, kills: int, draw: random.Random) -> Iterator[dict]:
    """Inject all faults, and yield a row each: fault, survived, identical, message."""
    undisturbed = start_training(folder / "undisturbed", RUNS, WORKERS)
    _, message = undisturbed.communicate()
    assert undisturbed.returncode == 0, message
    expected = contents_of(folder / "undisturbed")
    results = (folder / "undisturbed").glob("*/result.json")
    seconds = sum(json.loads(file.read_text("utf-8"))["seconds"] for file in results)
    kinds = {"cut": cut, "emptied": empty, "bit flipped": partial(flip, draw=draw)}
    yield from damage_runs(expected, folder, kinds)
    yield from damage_shipped(folder, kinds)
    for victim, share in (("run", 1 / RUNS), ("worker", 1 / WORKERS), ("runner", 1 / WORKERS)):
        for number in range(kills):
            root = folder / f"{victim} {number}"
            yield kill_at_random(victim, expected, root, seconds * share, draw)
            shutil.rmtree(root)


@app.default
def main(*, kills: int = 20, seed: int = 0, record: bool = False) -> int:
    """Inject all faults and print the table.

    Args:
        kills: kills of a run, of a worker and of a runner each.
        seed: seed of the moments and bits.
        record: write report/results/faults.csv, which the report quotes, instead of
            runs/faults.csv.
    """
    os.environ["WANDB_MODE"] = "disabled"
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for row in inject_all(Path(name), kills, random.Random(seed)):
            rows.append(row)
            if not (row["survived"] and row["identical"]):
                print("NOT SURVIVED:", row, flush=True)
    faults = pd.DataFrame(rows).groupby("fault", sort=False)
    table = faults[["survived", "identical"]].sum()
    table.insert(0, "injected", faults.size())
    table.loc["all"] = table.sum()
    print(table.to_string())
    file = paths.RESULTS / "faults.csv" if record else paths.runs_dir() / "faults.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(file)
    if record:
        record_checksum(file)
    print(file)
    return int((table[["survived", "identical"]].min(axis=1) < table["injected"]).any())


if __name__ == "__main__":
    app()
