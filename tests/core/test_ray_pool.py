"""A Ray cluster of two machines, both on this one, by the commands of README."""

import math
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest
import torch

from smai_lib import multitask
from smai_lib.colorization.studies import color_models
from smai_lib.core import paths, ray_pool, runs
from smai_lib.core.errors import ConfigError, RunError
from smai_lib.core.runs import Run
from tests.colorization.test_images import write_images
from tests.colorization.test_search import make_search
from tests.conftest import free_port, output_of
from tests.core.test_runs import bits
from tests.test_faults import PATIENCE, wait_until
from tests.test_readme import BLOCK, TEXT

pytestmark = pytest.mark.ray

BIN = Path(sys.executable).parent
SMALL = ["--num-cpus", "1", "--object-store-memory", str(100 * 2**20)]  # two fit on one machine


@pytest.fixture(scope="module", autouse=True)
def ray(tmp_path_factory):
    """Ray with a token in a home of its own; it reads its environment when it is imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.delenv("RAY_ADDRESS", raising=False)
        yield pytest.importorskip("ray", reason="needs pip install -r requirements-cluster.txt")


@pytest.fixture(scope="module")
def commands():
    """README's commands by their first words, at a free port of this machine."""
    block = BLOCK.search(TEXT.split("## Beyond one machine")[1])[2]
    block = block.replace("HOST", "127.0.0.1").replace("6379", free_port())
    _, _, *lines = [shlex.split(line, comments=True) for line in block.splitlines()]
    keys = ("token", "head", "other", "study")
    return {key: [str(BIN / line[0]), *line[1:]] for key, line in zip(keys, lines, strict=True)}


def start_machine(command):
    """Start a machine of the cluster; Ray gives up after 30 s, which is short on a busy machine."""
    for _ in range(5):
        machine = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )
        lines = []
        for line in machine.stdout:
            lines.append(line)
            if "Ray runtime started" in line:
                return psutil.Process(machine.pid)
    raise AssertionError("".join(lines))


@pytest.fixture(scope="module")
def address(ray, commands, tmp_path_factory):
    """Address of a running cluster of two machines with a core each."""
    output_of(*commands["token"])
    with ExitStack() as stack:
        stack.callback(ray.shutdown)
        for key in ("head", "other"):
            stack.callback(end, start_machine(commands[key] + SMALL))
        yield commands["other"][commands["other"].index("--address") + 1]


def end(process):
    """End a machine of the cluster with all that it started."""
    with suppress(psutil.NoSuchProcess):
        family = [*process.children(recursive=True), process]
        process.terminate()
        for left in psutil.wait_procs(family, 20)[1]:
            left.kill()


def run(command):
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


def workers():
    """Return the processes that do an item now."""
    processes = psutil.process_iter(["cmdline", "open_files"])
    return [p for p in processes if (p.info["cmdline"] or [""])[0].startswith("ray::_run_item")]


@pytest.fixture
def make_run(tiny, tmp_path):
    def make(root, seed=0, epochs=3):
        config = multitask.Config(num_layers=2, base_filters=4, batch_size=32, epochs=epochs)
        return Run(config, seed, tiny.fingerprint, tmp_path / root, root)

    return make


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """A folder of few colour images, as the data of Q2."""
    write_images(tmp_path / "pictures/train/cat", 120)
    write_images(tmp_path / "pictures/test/cat", 40)
    monkeypatch.setenv("SMAI_COLOR_IMAGES", str(tmp_path / "pictures"))


def test_the_installed_ray_is_the_tested_one(ray):
    requirements = (paths.ROOT / "requirements-cluster.txt").read_text("utf-8")
    assert f"tested: {ray.__version__}" in requirements


def test_the_readmes_study_is_bit_identical_to_one_by_worker_processes(
    commands, address, pictures, tmp_path, monkeypatch
):
    outcomes = []
    words = commands["study"]
    for engine, command in (("ray", words), ("processes", words[: words.index("--engine")])):
        monkeypatch.setenv("SMAI_RUNS", str(tmp_path / engine))
        done = run(command)
        assert done.returncode == 0, done.stderr
        study = color_models("quick")
        outcomes.append([bits(run) for run in study.runs])
    assert len(outcomes[0]) > 1
    assert outcomes[0] == outcomes[1]


def test_the_run_of_a_lost_worker_is_continued_elsewhere(address, make_run, tiny):
    on_ray = [make_run("ray"), make_run("ray", seed=1, epochs=40)]
    here = [make_run("serial"), make_run("serial", seed=1, epochs=40)]
    lost = []

    def kill():
        wait_until(on_ray[1].checkpoint_file.exists)
        lock = str(on_ray[1].folder / ".lock")  # open in the worker that has the run
        for worker in workers():
            if lock in {file.path for file in worker.info["open_files"] or ()}:
                lost.append(worker)
                worker.kill()

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    runs.run_all(on_ray, tiny, engine="ray", address=address)
    thread.join()
    assert len(lost) == 1
    torch.set_num_threads(1)
    runs.run_all(here, tiny, engine="serial")
    for first, second in zip(on_ray, here, strict=True):
        assert bits(first) == bits(second)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_an_interrupted_study_leaves_no_worker_and_starts_no_run(
    commands, address, tmp_path, monkeypatch, name
):
    def started():
        return sorted((tmp_path / "runs/quick/q1_published").glob("*/config.json"))

    monkeypatch.setenv("SMAI_FASHION_MNIST", "sample")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what runs in background
    command = ["q1_published" if word == "q2_models" else word for word in commands["study"]]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: len(started()) >= 2 or process.poll() is not None)
    assert len(workers()) == 2
    process.send_signal(getattr(signal, name))
    assert process.wait(30) != 0
    wait_until(lambda: not workers())
    before = started()
    time.sleep(1)
    assert started() == before and len(before) < 10


def test_a_failing_run_does_not_stop_the_others(address, make_run, tiny, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    bad, good = make_run("file"), make_run("folder")
    with pytest.raises(RunError, match="cannot write") as caught:
        runs.run_all([bad, good], tiny, engine="ray", address=address)
    assert "in run 'file'" in "".join(caught.value.__notes__)
    assert good.finished


def test_a_search_on_two_machines_shares_a_database(address, tmp_path):
    search = make_search(tmp_path)
    search.run(engine="ray", address=address)
    places = [trial.user_attrs["place"] for trial in search.optuna_study("cnn").get_trials()]
    assert sorted(places) == [0, 1, 2, 3]


@pytest.mark.parametrize("resources", [{"gpus": 99}, {"cpus": 99}])
def test_a_run_that_fits_on_no_machine_is_refused_at_once(address, resources):
    with pytest.raises(ConfigError, match="no machine of the Ray cluster has .*99 "):
        ray_pool.connect(address=address, **resources)


@pytest.mark.parametrize(
    "resources, found",
    [
        ({"cpus": math.nan}, "nan"),
        ({"cpus": 0}, "0"),
        ({"gpus": -1}, "-1"),
        ({"gpus": math.inf}, "inf"),
    ],
)
def test_impossible_resources_are_refused_before_ray_starts(monkeypatch, resources, found):
    monkeypatch.setattr("ray.is_initialized", lambda: pytest.fail("Ray was asked"))
    with pytest.raises(ConfigError, match=f"{next(iter(resources))}: found {found}, expected"):
        ray_pool.connect(**resources)


@pytest.mark.parametrize("listening", [False, True], ids=["nobody", "another server"])
def test_an_address_without_ray_ends_in_one_line_and_exit_code_2(listening):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        if listening:
            other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        command = [BIN / "smai", "run", "q2_models", "--engine", "ray", "--address", address]
        done = run(command)
    assert done.returncode == 2
    assert f"no Ray cluster answers at {address!r}" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
