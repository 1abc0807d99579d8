"""Interrupted, killed and frozen processes: no worker survives, no run is lost or altered."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress

import psutil
import pytest

from smai_lib import multitask
from smai_lib.core import runs
from smai_lib.core.files import exclusive
from smai_lib.core.runs import Run
from tests.core.test_runs import bits

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals"),
]

PATIENCE = 300  # seconds until something has started; a busy machine is slow
LIMIT = 30  # seconds until workers have ended, which would otherwise go on for longer
IMPORTS = """
    import pathlib, sys, time
    import psutil, torch
    import smai_lib as smai
    from smai_lib.core import pool, runs, tracking

    torch.set_num_threads(1)
    folder = pathlib.Path(sys.argv[1])

    def make_runs(count, images=300, **keys):
        data = smai.fashion_mnist("sample", verbose=False).take(images, 100, 100)
        config = smai.multitask.Config(num_layers=2, base_filters=4, batch_size=32, **keys)
        make = lambda seed: runs.Run(config, seed, data.fingerprint, folder, f"seed {seed}")
        return [make(seed) for seed in range(count)], data

    def sleep(item, shared, report):
        (folder / item).touch()
        time.sleep(600)
"""


def wait_until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


def workers_of(pid):
    """Return the worker processes of a process."""
    workers = []
    for child in psutil.Process(pid).children():
        with suppress(psutil.Error):  # it has ended
            if "spawn_main" in " ".join(child.cmdline()):
                workers.append(child)
    return workers


@pytest.fixture
def start(tmp_path):
    """Start Python, with arguments or a script, in a process group that ends with the test."""
    processes = []
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what runs in background

    def start_process(*arguments, script="", **variables):
        if script:
            file = tmp_path / "script.py"
            file.write_text(textwrap.dedent(IMPORTS) + textwrap.dedent(script), "utf-8")
            arguments = (file, *arguments)
        inherited = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
        process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=inherited | {"OMP_NUM_THREADS": "1"} | variables,
        )
        processes.append(process)
        return process

    yield start_process
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def check_workers_end(process, stop):
    """Check that both workers of a process end within LIMIT seconds of `stop`."""
    workers = workers_of(process.pid)
    assert len(workers) == 2
    stop()
    assert not psutil.wait_procs(workers, LIMIT)[1]


@pytest.mark.parametrize("name, group", [("SIGINT", False), ("SIGINT", True), ("SIGTERM", False)])
def test_an_interrupted_study_leaves_no_worker_and_starts_no_run(start, tmp_path, name, group):
    def started():
        return list((tmp_path / "runs/quick/q1_published").glob("*/config.json"))

    command = ("-m", "smai_lib", "run", "q1_published", "--workers", "2")
    process = start(*command, SMAI_FASHION_MNIST="sample", SMAI_RUNS=str(tmp_path / "runs"))
    wait_until(lambda: len(started()) >= 2 or process.poll() is not None)
    number = getattr(signal, name)
    send = os.killpg if group else os.kill
    check_workers_end(process, lambda: send(process.pid, number))
    assert process.wait(PATIENCE) in (-number, 128 + number)
    before = started()
    for file in before:
        with exclusive(file.parent):  # the study can be started again at once
            pass
    time.sleep(1)
    assert started() == before


def test_interrupted_work_can_be_done_again_where_the_process_lives_on(start, tmp_path):
    """As in JupyterLab, where Stop interrupts a cell and the kernel goes on."""
    script = """
        if __name__ == "__main__":
            todo, data = make_runs(2, epochs=500)
            try:
                runs.run_all(todo, data, workers=2)
            except KeyboardInterrupt:
                todo, data = make_runs(2, epochs=2)
                runs.run_all(todo, data, workers=2)
    """
    process = start(tmp_path, script=script)
    wait_until(lambda: len(list(tmp_path.glob("*/checkpoint.pt"))) == 2)
    check_workers_end(process, lambda: os.killpg(process.pid, signal.SIGINT))
    _, printed = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, printed
    assert len(list(tmp_path.glob("*/result.json"))) == 2


def test_workers_end_with_a_killed_process_even_while_they_report_nothing(start, tmp_path):
    script = """
        if __name__ == "__main__":
            pool.run_tasks(sleep, ["one", "two"], None, workers=2)
    """
    process = start(tmp_path, script=script)
    wait_until(lambda: (tmp_path / "one").exists() and (tmp_path / "two").exists())
    check_workers_end(process, process.kill)


def test_the_run_of_a_killed_worker_is_continued_by_another(tiny, tmp_path):
    config = multitask.Config(num_layers=2, base_filters=4, batch_size=32, epochs=12)
    killed, undisturbed = (
        Run(config, 0, tiny.fingerprint, tmp_path / name, name)
        for name in ("killed", "undisturbed")
    )
    victims = []

    def kill():
        wait_until(killed.checkpoint_file.exists)
        victims.extend(workers_of(os.getpid()))
        victims[0].kill()

    thread = threading.Thread(target=kill)
    thread.start()
    runs.run_all([killed], tiny)
    thread.join()
    runs.execute(undisturbed, tiny)
    assert len(victims) == 1
    assert bits(killed) == bits(undisturbed)


@pytest.mark.parametrize("fault", ["SIGSTOP", "SIGKILL"])
def test_a_frozen_or_killed_wandb_stops_no_run(start, tmp_path, fault):
    script = f"""
        import signal
        tracking.FINISH_SECONDS = 3
        (run,), data = make_runs(1, images=100, epochs=3)
        done = 0

        def services():
            children = psutil.Process().children()
            return [child for child in children if child.name().startswith("wandb-core")]

        def on_batch(images):
            global done
            done += images
            if done == 100:
                while not services():
                    time.sleep(0.1)
                time.sleep(2)
                services()[0].send_signal(signal.{fault})

        runs.execute(run, data, on_batch)
    """
    process = start(tmp_path, script=script, WANDB_MODE="offline", WANDB_DIR=str(tmp_path))
    _, printed = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, printed
    assert printed.count("wandb: seed 0 is not fully tracked") == 1, printed
    result = next(tmp_path.glob("*/result.json")).read_text("utf-8")
    assert json.loads(result)["config"]["epochs"] == 3


def test_two_processes_may_do_one_study_at_once_and_its_files_are_the_same(start, tmp_path):
    script = "runs.run_all(*make_runs(3, epochs=6), engine='serial')"
    together = [start(tmp_path / "two", script=script) for _ in range(2)]
    for process in together:
        _, printed = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0 or "is in use by another process" in printed, printed
    contents = []
    for folder in (tmp_path / "two", tmp_path / "one"):
        process = start(folder, script=script)
        _, printed = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, printed
        files = [*folder.glob("*/history.csv"), *folder.glob("*/*.safetensors")]
        contents.append({str(file.relative_to(folder)): file.read_bytes() for file in files})
    assert len(contents[0]) == 9
    assert contents[0] == contents[1]
