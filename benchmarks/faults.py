"""The soak of faults behind `make faults`: many more than the tests inject, each followed by a comparison of every bit.

    python benchmarks/faults.py [--kills N] [--seed S] [--record]

Processes are killed at random moments, and files are cut, emptied and flipped. After each fault the work is
started again, by the way out that the error names where there is one, and what is then on disk is compared with
what an undisturbed process left. Prints a table, a row a fault, and fails unless everything was survived.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import psutil
import torch

from smai_lib.core import checksums, paths, runs, weights
from smai_lib.core.sources import DataError
from smai_lib.core.study import shipped
from smai_lib.multitask import fashion_mnist
from smai_lib.multitask.config import MultiTaskConfig

CONFIG = MultiTaskConfig(num_layers=2, base_filters=4, batch_size=32, epochs=8)
NAMED = (runs.RunError, checksums.ChecksumError, DataError)


def load():
    return fashion_mnist.fashion_mnist("sample", verbose=False).subset(300, 100, 100)


def specs_in(root: Path, data, count: int = 3) -> list[runs.RunSpec]:
    return [
        runs.RunSpec(f"run {seed}", "faults", CONFIG, seed, data.fingerprint, root)
        for seed in range(count)
    ]


def contents(root: Path) -> dict[str, bytes]:
    """Every file of the finished runs under `root`, but for what the clock says."""
    found = {}
    for file in sorted(root.glob("*/*")):
        if file.name in ("history.csv", "config.json") or file.suffix == ".safetensors":
            found[f"{file.parent.name}/{file.name}"] = file.read_bytes()
        elif file.name == "result.json":
            result = json.loads(file.read_text())
            found[f"{file.parent.name}/{file.name}"] = json.dumps(
                result["metrics"] | result["nested"]
            ).encode()
    return found


def start(root: Path, count: int, workers: int) -> subprocess.Popen:
    """A runner of `count` runs: itself for one, by worker processes for more."""
    return subprocess.Popen(
        [sys.executable, __file__, "--runner", str(root), str(count), str(workers)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def runner(root: str, count: str, workers: str) -> None:
    torch.set_num_threads(1)
    data = load()
    print("ready", flush=True)
    runs.run_all(
        specs_in(Path(root), data, int(count)),
        data,
        engine="processes" if int(workers) else "serial",
        workers=int(workers),
    )


def kill_at_random(
    victim: str,
    kills: int,
    whole: dict[str, bytes],
    folder: Path,
    seconds: float,
    draw: random.Random,
):
    """Rows for so many SIGKILLs of `victim`, each at a moment of its own within the work."""
    count, workers = (1, 0) if victim == "run" else (3, 2)
    ids = [spec.run_id for spec in specs_in(folder, load(), count)]
    expected = {name: content for name, content in whole.items() if name.split("/")[0] in ids}
    for number in range(kills):
        root = folder / f"{victim} {number}"
        moment = draw.uniform(0, seconds)
        process = start(root, count, workers)
        while not list(root.glob("*/config.json")) and process.poll() is None:
            time.sleep(0.01)
        time.sleep(moment)
        target = psutil.Process(process.pid)
        if victim == "worker":
            hired = (
                [child for child in target.children() if "spawn_main" in " ".join(child.cmdline())]
                if target.is_running()
                else []
            )
            target = draw.choice(hired) if hired else target
        done = [file for file in root.glob("*/result.json")]
        stamps = {file: file.stat().st_mtime_ns for file in done}
        target.send_signal(signal.SIGKILL)
        process.wait()
        for _ in range(3):
            again = start(root, count, workers)
            said = again.communicate()[1].decode()
            if again.returncode == 0:
                break
        kept = all(file.stat().st_mtime_ns == stamp for file, stamp in stamps.items())
        yield {
            "fault": f"SIGKILL of a {victim}",
            "survived": again.returncode == 0 and kept,
            "identical": contents(root) == expected,
            "said": said[-200:] if again.returncode else "",
        }
        shutil.rmtree(root)


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def empty(file: Path) -> None:
    os.truncate(file, 0)


def flip(file: Path, draw: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)


def interrupted(spec, data) -> None:
    """The run of `spec`, ended in the middle of its third epoch."""
    done = 0

    def on_batch(images: int) -> None:
        nonlocal done
        done += images
        if done > 2.5 * len(data.train.images):
            raise KeyboardInterrupt

    try:
        runs.execute(spec, data, on_batch)
    except KeyboardInterrupt:
        return
    raise AssertionError("the run was not interrupted")


def damage_files(whole: dict[str, bytes], folder: Path, draw: random.Random):
    """Rows for every file of an interrupted and of a finished run, a data file, a shipped table and shipped weights.

    What is damaged is either written anew, or refused by an error with the file's name, whose way out is then taken.
    """
    data = load()
    ways = {"cut": cut, "emptied": empty, "bit flipped": lambda file: flip(file, draw)}
    finished, half = (specs_in(folder / name, data, 1)[0] for name in ("finished", "half"))
    runs.execute(finished, data)
    interrupted(half, data)
    for state, origin in (("a finished run", finished), ("an interrupted run", half)):
        for name in sorted(
            file.name
            for file in origin.folder.path.iterdir()
            if file.suffix and file.name != ".lock"
        ):
            for way, damage in ways.items():
                spec = replace(origin, root=folder / "damaged")
                shutil.copytree(origin.folder.path, spec.folder.path)
                damage(file := spec.folder.path / name)
                said = "written anew"
                try:
                    runs.execute(spec, data)
                except runs.RunError as error:
                    said = str(error)
                    path = file if "delete it" in said else spec.folder.path
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                    runs.execute(spec, data)
                expected = {
                    key: value for key, value in whole.items() if key.startswith(spec.run_id)
                }
                yield {
                    "fault": f"{name} of {state} {way}",
                    "survived": said == "written anew" or str(file) in said,
                    "identical": contents(folder / "damaged") == expected,
                    "said": said,
                }
                shutil.rmtree(folder / "damaged")
    yield from damage_what_is_read(ways, folder)


def damage_what_is_read(ways, folder: Path):
    """Rows for what no run writes: it is to be refused by name."""
    table, trained = paths.RESULTS / "q1_configs.csv", paths.WEIGHTS / "q1_configs_best.safetensors"
    cases = [
        ("shipped table", table, paths.RESULTS, lambda file: shipped(file.name), "RESULTS"),
        ("shipped weights", trained, paths.WEIGHTS, weights.read, "WEIGHTS"),
        (
            "data file",
            paths.SAMPLE / "train-labels-idx1-ubyte.gz",
            paths.SAMPLE,
            lambda file: fashion_mnist.fashion_mnist("sample", verbose=False),
            "SAMPLE",
        ),
    ]
    for label, file, origin, read, name in cases:
        for way, damage in ways.items():
            copy = Path(shutil.copytree(origin, folder / "copy", symlinks=False)) / file.name
            said = ""
            with patch.object(paths, name, copy.parent):
                read(copy)
                damage(copy)
                try:
                    read(copy)
                except NAMED as error:
                    said = str(error)
            yield {
                "fault": f"{label} {way}",
                "survived": file.name in said,
                "identical": True,
                "said": said,
            }
            shutil.rmtree(folder / "copy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--kills", type=int, default=20, help="of a run, of a worker and of a runner (default: 20)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments and bits (default: 0)")
    parser.add_argument(
        "--record",
        action="store_true",
        help="write report/results/faults.csv, which the report quotes",
    )
    parser.add_argument("--runner", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ["WANDB_MODE"] = "disabled"
    if arguments.runner:
        return runner(*arguments.runner)
    torch.set_num_threads(1)
    draw = random.Random(arguments.seed)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.monotonic()
        undisturbed = start(folder / "whole", 3, 2)
        _, said = undisturbed.communicate()
        assert undisturbed.returncode == 0, said.decode()
        whole = contents(folder / "whole")
        took = sum(
            json.loads(file.read_text())["seconds"]
            for file in (folder / "whole").glob("*/result.json")
        )
        print(
            f"undisturbed: {len(whole)} files, {took:.1f} s of training in {time.monotonic() - began:.0f} s",
            flush=True,
        )
        faults = [damage_files(whole, folder, draw)]
        faults += [
            kill_at_random(
                victim, arguments.kills, whole, folder, took / (3 if victim == "run" else 2), draw
            )
            for victim in ("run", "worker", "runner")
        ]
        for rows_of in faults:
            for row in rows_of:
                rows.append(row)
                if not (row["survived"] and row["identical"]):
                    print("NOT SURVIVED:", row, flush=True)
    table = (
        pd.DataFrame(rows)
        .groupby("fault", sort=False)
        .agg(
            injected=("survived", "size"),
            survived=("survived", "sum"),
            identical=("identical", "sum"),
        )
    )
    table.loc["all"] = table.sum()
    print(table.to_string())
    file = paths.RESULTS / "faults.csv" if arguments.record else paths.runs_dir() / "faults.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(file)
    if arguments.record:
        checksums.record(file)
    print(file)
    sys.exit(
        int(
            not (table["injected"] == table["survived"]).all()
            or not (table["injected"] == table["identical"]).all()
        )
    )


if __name__ == "__main__":
    main()
