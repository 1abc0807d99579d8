"""Two machines of a Ray cluster, both on this one: README's commands, and the same bits as by worker processes."""

import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from smai_lib import document
from smai_lib.colorization.config import ColorizationConfig
from smai_lib.colorization.search import ColorSearch
from smai_lib.colorization.space import Space
from smai_lib.colorization.studies import color_models
from smai_lib.core import cluster, paths, runs
from smai_lib.core.study import loader
from smai_lib.multitask.config import MultiTaskConfig

PATIENCE = 300  # seconds; a busy machine is slow
SMALL = [
    "--num-cpus",
    "1",
    "--object-store-memory",
    str(100 * 2**20),
]  # of a machine, so that two fit on one


def wait_until(condition):
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module", autouse=True)
def ray(tmp_path_factory):
    """Ray, asking for the token that is in a home of its own; it reads its environment when it is imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.delenv("RAY_ADDRESS", raising=False)
        yield pytest.importorskip(
            "ray", reason="ray is not installed: pip install -r requirements-cluster.txt"
        )


@pytest.fixture(scope="module")
def commands():
    """README's to generate a token, to start a machine and another, and to run a study; here, at a free port.

    The first two, an `export` and an installation, are done.
    """
    section = document.README.read_text().split("\n## Beyond one machine\n")[1].split("\n## ")[0]
    with socket.socket() as free:
        free.bind(("", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    lines = re.search(r"^```\n(.*?)^```", section, re.DOTALL | re.MULTILINE)[1]
    lines = lines.replace("HOST:6379", address).replace(
        "--port 6379", f"--port {address.split(':')[1]}"
    )
    lines = lines.replace(".venv/bin", str(Path(sys.executable).parent))
    export, install, *others = [shlex.split(line, comments=True) for line in lines.splitlines()]
    assert export == ["export", "RAY_AUTH_MODE=token"] and install[1:] == [
        "install",
        "-r",
        "requirements-cluster.txt",
    ]
    return others


@pytest.fixture(scope="module")
def address(ray, commands, tmp_path_factory):
    """Of a cluster of two machines with a CPU each."""
    generate, head, other, _ = commands
    subprocess.run(generate, check=True, capture_output=True)
    started = []
    with ExitStack() as stack:
        stack.callback(ray.shutdown)
        for command in (head, other):
            log = tmp_path_factory.mktemp("ray") / "log"
            with open(log, "w") as stream:
                started.append(
                    subprocess.Popen(
                        command + SMALL, stdout=stream, stderr=stream, start_new_session=True
                    )
                )
            stack.callback(end, psutil.Process(started[-1].pid))
            wait_until(
                lambda log=log: (
                    started[-1].poll() is not None or "Ray runtime started" in log.read_text()
                )
            )
            assert started[-1].poll() is None, log.read_text()
        yield other[other.index("--address") + 1]


def end(process):
    """End what `ray start` started, which it does itself when it is asked to."""
    with suppress(psutil.NoSuchProcess):  # it has ended itself
        family = [*process.children(recursive=True), process]
        process.terminate()
        for left in psutil.wait_procs(family, 20)[1]:
            left.kill()


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """A folder of few colour images, as the source of Q2's studies."""
    generator = np.random.default_rng(0)
    for part, count in (("train", 60), ("test", 20)):
        for name in ("cat", "horse"):
            (folder := tmp_path / "pictures" / part / name).mkdir(parents=True)
            for number in range(count):
                Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(
                    folder / f"{number:02}.png"
                )
    monkeypatch.setenv("SMAI_COLOR_IMAGES", str(tmp_path / "pictures"))


def test_what_is_installed_is_what_was_tested(ray):
    required = (paths.ROOT / "requirements-cluster.txt").read_text()
    assert f"tested: {ray.__version__}" in required


def test_the_readmes_study_on_two_machines_equals_that_of_processes(
    commands, address, pictures, tmp_path, monkeypatch
):
    found = []
    for engine, command in (
        ("ray", commands[3]),
        ("processes", commands[3][: commands[3].index("--engine")]),
    ):
        monkeypatch.setenv("SMAI_RUNS", str(tmp_path / engine))
        done = subprocess.run(
            command, cwd=paths.ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert done.returncode == 0, done.stderr
        study = color_models("quick")
        found.append(
            [
                study.results().drop(columns="seconds").to_csv(),
                study.history().to_csv(),
                *(
                    file.read_bytes()
                    for spec in study.specs
                    for file in spec.folder.weights_files.values()
                ),
            ]
        )
    assert len(found[0]) == 2 + 2 * 4
    assert found[0] == found[1]


@pytest.mark.parametrize("lost", ["a worker", "no worker"])
def test_a_lost_workers_run_goes_on_elsewhere_to_the_same_bits(address, tiny, tmp_path, lost):
    config = MultiTaskConfig(num_layers=2, base_filters=4, batch_size=32, epochs=40)
    specs, straight = (
        [
            runs.RunSpec(
                str(seed),
                "test",
                replace(config, epochs=config.epochs if seed else 3),
                seed,
                tiny.fingerprint,
                tmp_path / folder,
            )
            for seed in (0, 1)
        ]
        for folder in ("ray", "serial")
    )
    killed = []

    def kill():
        wait_until(specs[1].folder.checkpoint_file.exists)
        # both machines are here, so the lock says which of the workers has the run
        lock = str(specs[1].folder.path / ".lock")
        victims = [
            process
            for process in psutil.process_iter(["cmdline", "open_files"])
            if (process.info["cmdline"] or [""])[0].startswith("ray::_attempt")
            and lock in {file.path for file in process.info["open_files"] or ()}
        ]
        assert len(victims) == 1
        killed.append(victims[0].pid)
        victims[0].kill()

    thread = threading.Thread(target=kill if lost == "a worker" else lambda: None, daemon=True)
    thread.start()
    runs.run_all(specs, tiny, engine="ray", address=address)
    thread.join()
    torch.set_num_threads(1)
    runs.run_all(straight, tiny, engine="serial")
    assert len(killed) == (lost == "a worker")
    for one, other in zip(specs, straight, strict=True):
        assert one.folder.result()["metrics"] == other.folder.result()["metrics"]
        assert one.folder.history_file.read_bytes() == other.folder.history_file.read_bytes()
        assert one.weights_file.read_bytes() == other.weights_file.read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_study_leaves_no_run_going_and_begins_none(
    commands, address, tmp_path, monkeypatch, number
):
    def begun():
        return sorted((tmp_path / "runs/quick/q1_configs").glob("*/config.json"))

    def attempts():
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if (process.info["cmdline"] or [""])[0].startswith("ray::_attempt")
        ]

    monkeypatch.setenv("SMAI_FASHION_MNIST", "sample")
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # started in the background, we and our children ignored it
    command = ["q1_configs" if word == "q2_models" else word for word in commands[-1]]
    process = subprocess.Popen(
        command, cwd=paths.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_until(lambda: len(begun()) >= 2 or process.poll() is not None)
    assert len(attempts()) == 2
    process.send_signal(number)
    assert process.wait(30) != 0  # which code is for Ray to say
    end = time.monotonic() + 30
    while left := attempts():
        assert time.monotonic() < end, left
        time.sleep(0.2)
    folders = begun()
    time.sleep(1)
    assert begun() == folders and len(folders) < 10


def test_one_failing_run_does_not_stop_the_others(address, tiny, tmp_path):
    config = MultiTaskConfig(num_layers=2, base_filters=4, batch_size=32, epochs=1)
    (tmp_path / "file").write_text("not a folder")
    bad, good = (
        runs.RunSpec(name, "test", config, 0, tiny.fingerprint, tmp_path / name)
        for name in ("file", "folder")
    )
    with pytest.raises(runs.RunError, match="cannot write") as caught:
        runs.run_all([bad, good], tiny, engine="ray", address=address)
    assert "in run 'file'" in caught.value.__notes__[0]
    assert good.folder.result() is not None


def test_a_search_on_two_machines_through_a_database(address, made_up_colors, tmp_path):
    data = made_up_colors((20, 5, 5), 4, side=16)
    base = ColorizationConfig(num_colors=4, num_filters=2, kernel_size=3, epochs=2, batch_size=10)
    space = Space(
        base=base,
        learning_rate=(1e-3, 1e-1),
        batch_size=(5, 10),
        num_filters=(2, 3),
        kernel_size=(1, 3),
    )
    search = ColorSearch(
        "s",
        "quick",
        {"cnn": space},
        4,
        0,
        loader("quick", lambda: data),
        tmp_path / "search",
        f"sqlite:///{tmp_path}/trials.db",
    )
    search.run(engine="ray", address=address)
    assert sorted(
        trial.user_attrs["place"] for trial in search.optuna_study("cnn").get_trials()
    ) == [0, 1, 2, 3]
    assert len(search.results()) == 4 and not search.journal.exists()


@pytest.mark.parametrize(
    "wanted, message",
    [
        ({"gpus": 99}, "no machine of the Ray cluster has 1 CPUs and 99 GPUs"),
        ({"cpus": 99}, "no machine of the Ray cluster has 99 CPUs and 0 GPUs"),
    ],
)
def test_a_run_that_fits_on_no_machine_is_refused_at_once(address, wanted, message):
    with pytest.raises(ValueError, match=message):
        cluster.connect(address, **wanted)


@pytest.mark.parametrize("listening", [False, True], ids=["nobody", "something else"])
def test_an_address_that_does_not_answer_ends_in_one_line_and_exit_code_2(listening):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        if listening:
            other.listen()
        wrong = f"127.0.0.1:{other.getsockname()[1]}"
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "smai_lib",
                "run",
                "q2_models",
                "--engine",
                "ray",
                "--address",
                wrong,
            ],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(
        f"error: no Ray answers at '{wrong}'; `ray start --head` begins one, and prints its address"
    )
    assert "Traceback" not in done.stderr
