import io
import os
import re
import subprocess
import sys
import textwrap

import psutil
import pytest
import torch
from tqdm import tqdm

from smai_lib.core import pool
from smai_lib.core.errors import ConfigError, RunError
from smai_lib.core.pool import run_tasks

MODULE = """
    from smai_lib.core.pool import cores, run_tasks

    def total(item, images, report):
        return images.sum().item()
"""


class UnreadableError(Exception):
    """An error that cannot be unpickled."""

    def __init__(self, first, second):
        super().__init__(first)


def task(item, folder, report):
    """Note the try, then succeed, fail or die, as the item says."""
    tries = len(list(folder.iterdir())) + 1
    (folder / f"{item} {tries}").touch()
    report(1)
    if item == "fails":
        raise ValueError("no such value")
    if item == "fails unreadably":
        raise UnreadableError(1, 2)
    if item == "kills" or (item == "kills once" and tries == 1):
        os._exit(7)
    return item.upper()


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def inspect(item, images, report):
    return images.is_shared(), torch.get_num_threads(), os.getpid()


def run_script(tmp_path, text, *, stdin=False, prefix=()):
    """Run a script beside a module `tasks`, and return the finished process."""
    (tmp_path / "tasks.py").write_text(textwrap.dedent(MODULE), "utf-8")
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(text), "utf-8")
    command = [*prefix, sys.executable, "-" if stdin else script]
    return subprocess.run(
        command,
        cwd=tmp_path,
        input=script.read_text("utf-8"),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_first_failure_is_raised_with_what_helps_once_all_are_done(tmp_path):
    with pytest.raises(ValueError, match="no such value") as caught:
        run_tasks(task, ["fails", "good"], tmp_path, workers=1, hint=lambda item: f"in {item}")
    traceback, hint = caught.value.__notes__
    assert "raise ValueError" in traceback and hint == "in fails"
    assert names(tmp_path) == ["fails 1", "good 2"]
    with pytest.raises(ValueError, match="no such value") as caught:
        run_tasks(task, ["fails"], tmp_path, engine="serial", hint=lambda item: f"in {item}")
    assert caught.value.__notes__ == ["in fails"]


def test_an_error_that_cannot_be_unpickled_is_one_of_its_item(tmp_path):
    with pytest.raises(TypeError, match="missing 1 required"):
        run_tasks(task, ["fails unreadably", "good"], tmp_path, workers=1)
    assert names(tmp_path) == ["fails unreadably 1", "good 2"]


def test_an_item_whose_worker_died_is_retried_in_a_new_one(tmp_path, monkeypatch):
    bar = tqdm(file=io.StringIO())
    monkeypatch.setattr(pool, "tqdm", lambda **_: bar)
    assert run_tasks(task, ["kills once", "good"], tmp_path, workers=1) == ["KILLS ONCE", "GOOD"]
    assert names(tmp_path) == ["good 3", "kills once 1", "kills once 2"]
    assert bar.n == 2  # a lost try does not count


def test_an_item_that_kills_three_workers_is_given_up(tmp_path):
    message = "3 workers died over the same item, the last with exit code 7"
    with pytest.raises(RunError, match=message):
        run_tasks(task, ["kills"], tmp_path, workers=1)
    assert names(tmp_path) == ["kills 1", "kills 2", "kills 3"]


def test_workers_share_tensors_have_one_thread_and_end_with_the_call():
    results = run_tasks(inspect, "ab", torch.ones(1000), workers=2)
    shared, threads, workers = zip(*results, strict=True)
    assert shared == (True, True) and threads == (1, 1)
    assert not set(workers) & set(psutil.pids())


@pytest.mark.parametrize(
    "options, message",
    [
        ({"engine": "warp"}, "engine: found 'warp', expected one of processes, serial, ray"),
        ({"cpus": 2, "gpus": 0.5}, "cpus, gpus: only for the engine 'ray', found 'processes'"),
        ({"workers": -1}, "workers: found -1, expected 0 to"),  # joblib's "all cores" would hang
        ({"workers": 1.5}, "workers: found 1.5, expected a whole number"),
    ],
)
def test_options_that_cannot_be_met_are_refused(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        run_tasks(task, ["good"], tmp_path, **options)
    assert names(tmp_path) == []


SLOW_STDIN = pytest.param(True, id="stdin", marks=pytest.mark.slow)


@pytest.mark.parametrize("stdin", [pytest.param(False, id="script"), SLOW_STDIN])
def test_a_script_needs_no_guard_for_tasks_of_a_module(tmp_path, stdin):
    script = """
        import tasks, torch
        print(tasks.run_tasks(tasks.total, ["item"], torch.ones(3)))
    """
    done = run_script(tmp_path, script, stdin=stdin)
    assert done.stdout == "[3.0]\n", done.stderr


NO_START = r'a worker could not start \(exit code 1\).* under `if __name__ == "__main__":`'
NO_CLASS = "Can't get attribute 'Config'.* Define its classes in a module"


NO_GUARD = "tasks.run_tasks(task, range(2), None, workers=1)"
NOTEBOOK = "del __file__; tasks.run_tasks(tasks.total, range(2), Config(), workers=1)"


@pytest.mark.parametrize(
    "script, stdin, message",
    [
        pytest.param(NO_GUARD, False, NO_START, id="script"),
        pytest.param(NO_GUARD, True, NO_START, id="stdin", marks=pytest.mark.slow),
        pytest.param(NOTEBOOK, False, NO_CLASS, id="notebook"),
    ],
)
def test_workers_that_cannot_start_end_in_a_few_lines_with_the_fix(
    tmp_path, script, stdin, message
):
    definitions = "import tasks\nclass Config: pass\ndef task(item, shared, report): pass\n"
    done = run_script(tmp_path, definitions + script, stdin=stdin)
    lines = done.stderr.splitlines()
    assert re.search("RunError: .*" + message, lines[-1]), done.stderr
    assert len(lines) < 30, done.stderr


@pytest.mark.slow
def test_a_container_with_little_shared_memory_and_a_cpu_quota(tmp_path):
    """As under Docker, whose /dev/shm has 64 MB by default."""
    mounts = tmp_path / "mounts.sh"
    mounts.write_text(
        "mount -t tmpfs -o size=1m tmpfs /dev/shm && mount -t tmpfs tmpfs /sys/fs/cgroup &&"
        'echo "100000 100000" > /sys/fs/cgroup/cpu.max && exec "$@"\n',
        "utf-8",
    )
    prefix = ["unshare", "--mount", "sh", mounts]
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting needs root, unshare and cgroups")
    script = """
        import tasks, torch
        images = torch.ones(10_000_000, dtype=torch.uint8)
        print(tasks.cores(), tasks.run_tasks(tasks.total, "ab", images, workers=2))
    """
    done = run_script(tmp_path, script, prefix=[*prefix, "env", f"TMPDIR={tmp_path}"])
    assert done.stdout == "1 [10000000, 10000000]\n", done.stderr
    assert not list(tmp_path.glob("smai_*"))


def test_freed_memory_is_kept_during_training_only(tmp_path):
    script = """
        import numpy, psutil
        from smai_lib.core.pool import keep_freed_memory

        def grown():
            buffers = [numpy.ones(4 << 20, numpy.uint8) for _ in range(50)]  # 200 MB
            del buffers
            return (psutil.Process().memory_info().rss - before) >> 20

        before = psutil.Process().memory_info().rss
        with keep_freed_memory():
            inside = grown()
        print(inside > 150, grown() < 100)
    """
    done = run_script(tmp_path, script)
    assert done.stdout == "True True\n", done.stderr
