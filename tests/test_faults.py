"""Faults of real processes: interrupted, killed, frozen. No worker lives on, no run is lost, the bits stay."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from smai_lib.core import runs
from smai_lib.multitask.config import MultiTaskConfig

PATIENCE = 300  # seconds until something has begun; a busy machine is slow
LIMIT = 30  # seconds until an interrupt has ended every worker, which else would go on for longer


def wait_until(condition, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)
    return found


def workers_of(pid):
    """Worker processes that the runner of that id has hired, without those that have ended."""
    workers = []
    for child in psutil.Process(pid).children():
        with suppress(psutil.Error):
            workers += [child] if "spawn_main" in " ".join(child.cmdline()) else []
    return workers


@pytest.fixture
def start():
    """Starts Python in a process group of its own, which ends with the test."""
    processes = []
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # started in the background, we and our children ignored it

    def begin(*arguments, **environment):
        inherited = {
            name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"
        }  # another test's
        processes.append(
            subprocess.Popen(
                [sys.executable, *map(str, arguments)],
                start_new_session=True,
                stderr=subprocess.PIPE,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env=inherited | {"OMP_NUM_THREADS": "1"} | environment,
            )
        )
        return processes[-1]

    yield begin
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def script(tmp_path, text):
    file = tmp_path / "script.py"
    file.write_text(textwrap.dedent(text))
    return file


def ends_with_its_workers(process, stop):
    """Check that the workers of `process` are gone within LIMIT seconds of `stop`, and itself thereafter."""
    workers = workers_of(process.pid)
    assert len(workers) == 2
    stop()
    assert psutil.wait_procs(workers, LIMIT)[1] == []
    process.wait(PATIENCE)


def is_free(folder):
    with runs.exclusive(folder, runs.RunError):
        return True


@pytest.mark.parametrize(
    "stop", ["SIGINT to the runner", "SIGINT to the group", "SIGTERM to the runner"]
)
def test_an_interrupted_study_leaves_no_worker_and_begins_no_run(start, tmp_path, stop):
    def begun():
        return list((tmp_path / "runs/quick/q1_configs").glob("*/config.json"))

    process = start(
        "-m", "smai_lib", "run", "q1_configs", "--workers", "2", SMAI_FASHION_MNIST="sample"
    )
    wait_until(lambda: len(begun()) >= 2)
    number = getattr(signal, stop.split()[0])
    ends_with_its_workers(
        process, lambda: (os.killpg if "group" in stop else os.kill)(process.pid, number)
    )
    assert process.returncode in (-signal.SIGINT, 128 + signal.SIGTERM)
    folders = begun()
    assert all(is_free(file.parent) for file in folders)  # so that it can be started again at once
    time.sleep(1)
    assert begun() == folders


def test_an_interrupted_search_stops_where_the_runner_lives_on(start, tmp_path):
    """As under Lab's Stop: the kernel goes on, and the same cell can be run again at once."""
    tests = Path(__file__).parent
    file = script(
        tmp_path,
        f"""
        import pathlib, sys
        from dataclasses import replace
        sys.path[:0] = [{str(tests)!r}, {str(tests / "colorization")!r}]
        import conftest, test_search
        if __name__ == "__main__":
            data = conftest.make_colors(test_search.SPLITS, test_search.NUM_COLORS, side=test_search.SIDE)
            search = test_search.search_in(pathlib.Path({str(tmp_path)!r}), data, trials=10**6)
            try:
                search.run(workers=2)
            except KeyboardInterrupt:
                done = len(search.results())
                again = replace(search, trials=done + 1)
                again.run(workers=1)
                assert len(again.results()) == done + 1
                input()
    """,
    )
    process = start(file)
    journal = tmp_path / "journal.log"
    wait_until(
        lambda: (
            len(workers_of(process.pid)) == 2
            and journal.exists()
            and journal.read_bytes().count(b"\n") > 40
        )
    )
    workers = workers_of(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    assert psutil.wait_procs(workers, LIMIT)[1] == []
    _, printed = process.communicate("\n", PATIENCE)
    assert process.returncode == 0, printed


def test_workers_end_with_a_killed_runner_also_where_they_report_nothing(start, tmp_path):
    file = script(
        tmp_path,
        f"""
        import pathlib, time
        from smai_lib.core import engines

        def task(item, shared, report):
            pathlib.Path({str(tmp_path)!r}, item).touch()
            time.sleep(600)

        if __name__ == "__main__":
            engines.work(task, ["one", "two"], None, workers=2)
    """,
    )
    process = start(file)
    wait_until(lambda: (tmp_path / "one").exists() and (tmp_path / "two").exists())
    ends_with_its_workers(process, process.kill)


def test_an_item_that_kills_its_workers_is_named_and_the_others_are_done(start, tmp_path):
    file = script(
        tmp_path,
        f"""
        import os, pathlib
        from smai_lib.core import engines

        def task(item, shared, report):
            with open(pathlib.Path({str(tmp_path)!r}, item), "a") as tries:
                tries.write("x")
            if item == "bad":
                os._exit(7)

        if __name__ == "__main__":
            engines.work(task, ["bad", "good", "better"], None, workers=1, way_out=lambda item: "in " + item)
    """,
    )
    process = start(file)
    _, printed = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert (
        "BrokenProcessPool: 3 worker processes died over it, the last with exit code 7" in printed
        and "in bad" in printed
    )
    assert {name: (tmp_path / name).read_text() for name in ("bad", "good", "better")} == {
        "bad": "xxx",
        "good": "x",
        "better": "x",
    }


def test_a_killed_workers_run_is_continued_by_another(tiny, tmp_path):
    config = MultiTaskConfig(num_layers=2, base_filters=4, batch_size=32, epochs=12)
    broken, straight = (
        runs.RunSpec("run", "test", config, 0, tiny.fingerprint, tmp_path / name)
        for name in ("broken", "straight")
    )
    killed = []

    def kill():
        wait_until(broken.folder.checkpoint_file.exists)
        killed.extend(workers_of(os.getpid()))
        killed[0].kill()

    thread = threading.Thread(target=kill)
    thread.start()
    runs.run_all([broken], tiny)
    thread.join()
    assert len(killed) == 1
    assert broken.folder.result()["metrics"] == runs.execute(straight, tiny)["metrics"]
    assert broken.folder.history_file.read_bytes() == straight.folder.history_file.read_bytes()
    assert broken.weights_file.read_bytes() == straight.weights_file.read_bytes()


@pytest.mark.parametrize("fault", ["SIGSTOP", "SIGKILL"])
def test_a_frozen_or_killed_wandb_stops_no_run(start, tmp_path, fault):
    file = script(
        tmp_path,
        f"""
        import pathlib, psutil, signal, time, torch
        from smai_lib.core import runs, tracking
        from smai_lib.multitask.config import MultiTaskConfig
        from smai_lib.multitask.fashion_mnist import fashion_mnist
        torch.set_num_threads(1)
        tracking.FINISH_SECONDS = 3
        data = fashion_mnist("sample", verbose=False).subset(100, 50, 50)
        config = MultiTaskConfig(num_layers=2, base_filters=2, batch_size=32, epochs=3)
        spec = runs.RunSpec("run", "test", config, 0, data.fingerprint, pathlib.Path({str(tmp_path)!r}))
        done = 0

        def on_batch(images):
            global done
            done += images
            if done == 100:
                while not (found := [p for p in psutil.Process().children() if p.name().startswith("wandb-core")]):
                    time.sleep(0.1)
                time.sleep(2)
                found[0].send_signal(signal.{fault})

        runs.execute(spec, data, on_batch)
        assert spec.folder.result()["metrics"]["best_epoch"]
    """,
    )
    process = start(file, WANDB_MODE="offline", WANDB_DIR=str(tmp_path))
    _, printed = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, printed
    assert printed.count("wandb: run is not wholly mirrored") == 1, printed
    assert json.loads(next(tmp_path.glob("*/result.json")).read_text())["config"]["epochs"] == 3


def test_two_runners_of_one_study_share_it_or_one_is_refused_and_the_bits_stay(start, tmp_path):
    file = script(
        tmp_path,
        """
        import pathlib, sys, torch
        from smai_lib.core import runs
        from smai_lib.multitask.config import MultiTaskConfig
        from smai_lib.multitask.fashion_mnist import fashion_mnist
        torch.set_num_threads(1)
        data = fashion_mnist("sample", verbose=False).subset(300, 100, 100)
        config = MultiTaskConfig(num_layers=2, base_filters=4, batch_size=32, epochs=6)
        runs.run_all([runs.RunSpec(str(seed), "test", config, seed, data.fingerprint, pathlib.Path(sys.argv[1]))
                      for seed in range(3)], data, engine="serial")
    """,
    )
    together = [start(file, tmp_path / "two") for _ in range(2)]
    for process in together:
        _, printed = process.communicate(timeout=PATIENCE)
        assert (
            process.returncode == 0
            or "is in use by another process; wait for it, or stop it" in printed
        ), printed
    for folder in ("two", "one"):
        alone = start(file, tmp_path / folder)
        assert alone.communicate(timeout=PATIENCE) and alone.returncode == 0
    found = [
        [
            (file.parent.name, file.name, file.read_bytes())
            for name in ("history.csv", "last.safetensors", "best.safetensors")
            for file in sorted((tmp_path / folder).glob(f"*/{name}"))
        ]
        for folder in ("one", "two")
    ]
    assert len(found[0]) == 9 and found[0] == found[1]
