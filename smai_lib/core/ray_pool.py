"""Tasks on Ray: on the machines of a cluster, or on this machine alone; see `pool.run_tasks`.

All machines see this repository and the folder of runs under the same paths. If a worker or its
machine is lost, the run therefore continues from its checkpoint on another machine. Ray does the
retries, and keeps the shared data once a machine.
"""

import logging
import math
import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch
from tqdm.auto import tqdm

from .errors import ConfigError, RunError

CONNECT_SECONDS = 5  # for a cluster to answer
JOIN_SECONDS = 30  # for a cluster to accept this process
REPORT_SECONDS = 0.5  # between two reports of a worker
# variables of this process that workers get, too; no wandb key
ENVIRONMENT = (
    "SMAI_RUNS",
    "WANDB_BASE_URL",
    "WANDB_DIR",
    "WANDB_DISABLED",
    "WANDB_MODE",
    "WANDB_PROJECT",
)
JOIN = "import sys, ray; ray.init(sys.argv[1], log_to_driver=False)"


def connect(workers: int = 0, *, address: str = "", cpus: float = 1, gpus: float = 0):
    """Join a Ray cluster, or start Ray on this machine, and return the module `ray`.

    Args:
        workers: number of items at a time for which a new cluster has cores; 0: as many as fit.
        address: HOST:PORT of a cluster, "auto" for the one on this machine, "" to start one.
        cpus: cores of an item.
        gpus: GPUs of an item.

    Raises:
        ConfigError: Ray is not installed, does not answer within seconds, or has no machine with
            so many cores and GPUs; or these are not possible numbers.
        RunError: Ray does not start on this machine.
    """
    if not 0 < cpus < math.inf:
        raise ConfigError(f"cpus: found {cpus:g}, expected more than 0")
    if not 0 <= gpus < math.inf:
        raise ConfigError(f"gpus: found {gpus:g}, expected 0 or more")
    try:
        import ray
    except ImportError as error:
        install = "pip install -r requirements-cluster.txt"
        raise ConfigError(f"the engine 'ray' needs Ray. Run `{install}`") from error
    if not ray.is_initialized():
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        if address:
            _check_answer(address)
            options = {"address": address}
        else:
            count = math.ceil(workers * cpus) or None
            options = {"address": "local", "num_cpus": count, "include_dashboard": False}
        try:
            ray.init(logging_level=logging.ERROR, **options)
        except ConnectionError as error:
            raise _no_answer(address) from error
        except Exception as error:  # Ray raises it plainly
            raise RunError(f"Ray cannot start ({error}). Try again when less is running") from error
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(has.get("CPU", 0) >= cpus and has.get("GPU", 0) >= gpus for has in machines):
        raise ConfigError(
            f"no machine of the Ray cluster has {cpus:g} CPUs and {gpus:g} GPUs. "
            "Choose fewer a run by --cpus and --gpus"
        )
    return ray


def _check_answer(address: str) -> None:
    """Check that a Ray cluster answers at `address`; Ray itself would try for minutes.

    Raises:
        ConfigError: none answers.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    command = [sys.executable, "-c", JOIN, address]
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
        subprocess.run(command, check=True, timeout=JOIN_SECONDS, capture_output=True)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise _no_answer(address) from error


def _no_answer(address: str) -> ConfigError:
    return ConfigError(
        f"no Ray cluster answers at {address!r}. `ray start --head` starts one and prints its "
        "address"
    )


def run(
    task: Callable,
    items: Sequence,
    shared: Any,
    bar: tqdm,
    tries: int,
    workers: int,
    *,
    cpus: float = 1,
    gpus: float = 0,
    **cluster,
) -> list:
    """Return the outcome of every item, in order.

    Args:
        task: function of an item, the shared data and a function for progress; returns an outcome.
        items: one argument of the task each.
        shared: argument of every task.
        bar: shows the progress.
        tries: how often Ray tries an item whose worker dies.
        workers: number of items at a time; 0: as many as fit.
        cpus: as in `connect`.
        gpus: as in `connect`.
        cluster: the address, as in `connect`.
    """
    ray = connect(workers, cpus=cpus, gpus=gpus, **cluster)
    from ray.util.queue import Queue

    submit = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=tries - 1)(_run_item)
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    content = ray.put((task, shared, max(1, int(cpus)), environment))
    reports = Queue()
    todo, running = deque(enumerate(items)), {}
    progress, outcomes = {}, {}
    try:
        while todo or running:
            while todo and len(running) < (workers or len(items)):
                number, item = todo.popleft()
                running[submit.remote(number, item, content, reports)] = number
            finished, _ = ray.wait(list(running), timeout=REPORT_SECONDS)
            for reference in finished:
                number = running.pop(reference)
                try:
                    outcomes[number] = ray.get(reference)
                except ray.exceptions.RayError as error:
                    outcomes[number] = None, _lost_item(error, tries)
            progress.update(reports.get_nowait_batch(reports.qsize()))
            bar.update(sum(progress.values()) - bar.n)
    finally:  # after an interrupt, too
        for reference in running:
            ray.cancel(reference, force=True)
        reports.shutdown(force=True)
    return [outcomes[number] for number in range(len(items))]


def _lost_item(error: Exception, tries: int) -> RunError:
    """Return the error of an item of which Ray has no outcome."""
    problem = RunError(
        f"Ray could not finish this item ({type(error).__name__}). If its workers died, {tries} "
        "in turn, they usually lacked memory: give a run more --cpus, so that fewer share a machine"
    )
    problem.__cause__ = error
    return problem


def _run_item(number: int, item, content, reports):
    """Do an item on a worker.

    Reports count from the item's start, so that a second try counts nothing twice.
    """
    task, shared, threads, environment = content
    os.environ.update(environment)
    torch.set_num_threads(threads)
    done, last_report = 0, time.monotonic()

    def report(more: int) -> None:
        nonlocal done, last_report
        done += more
        if time.monotonic() - last_report > REPORT_SECONDS:
            last_report = time.monotonic()
            reports.put((number, done))

    outcome = task(item, shared, report)
    reports.put((number, done))
    return outcome
