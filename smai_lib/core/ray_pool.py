"""Work on Ray: on the machines of a cluster, or on a local Ray of this one. See `engines.work`.

Every machine sees this repository and the folder of runs under the same paths, so that a run whose worker or
machine was lost goes on from its checkpoint on another. Ray tries again, and holds the shared data once a machine.
"""

import logging
import os
import subprocess
import sys
import time

import torch

from .sources import reachable

ANSWER_SECONDS = 30  # for a cluster in reach to let this process in
REPORT_SECONDS = 0.5  # between two reports of a worker
PASSED_ON = (
    "SMAI_RUNS",
    "WANDB_MODE",
    "WANDB_DIR",
    "WANDB_PROJECT",
)  # from this process's environment; no key
JOIN = "import sys, ray; ray.init(sys.argv[1], log_to_driver=False)"


def connect(address: str = "", workers: int = 0, cpus: float = 1, gpus: float = 0):
    """Ray, joined at `address`, "auto" being that of this machine, or begun here for so many workers of `cpus` each.

    Raises: ValueError, within seconds, if it is not installed, does not answer or has no machine of that size.
    """
    try:
        import ray

        if not ray.is_initialized():
            if address not in ("", "auto"):  # where none answers, Ray itself tries for minutes
                if not reachable(f"//{address}"):
                    raise ConnectionError
                subprocess.run(
                    [sys.executable, "-c", JOIN, address],
                    check=True,
                    timeout=ANSWER_SECONDS,
                    capture_output=True,
                )
            os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
            ray.init(
                address or "local",
                logging_level=logging.ERROR,
                **(
                    {}
                    if address
                    else {"num_cpus": int(workers * cpus) or None, "include_dashboard": False}
                ),
            )
    except ImportError as error:
        raise ValueError(
            "the engine 'ray' needs `pip install -r requirements-cluster.txt`"
        ) from error
    except (ConnectionError, subprocess.SubprocessError) as error:
        raise ValueError(
            f"no Ray answers at {address!r}; `ray start --head` begins one, and prints its address"
        ) from error
    has = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(machine.get("CPU", 0) >= cpus and machine.get("GPU", 0) >= gpus for machine in has):
        raise ValueError(
            f"no machine of the Ray cluster has {cpus:g} CPUs and {gpus:g} GPUs, which a run is to have"
        )
    return ray


def work(
    task, items, shared, bar, *, tries: int, workers: int, address: str, cpus: float, gpus: float
) -> list:
    """What `task` returned for every item, in order, or the error and a note of those that Ray could not finish."""
    ray = connect(address, workers, cpus, gpus)
    from ray.util.queue import Queue

    reports, done = Queue(), {}
    attempt = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=tries - 1)(_attempt)
    common = ray.put(
        (
            task,
            shared,
            max(1, int(cpus)),
            {name: os.environ[name] for name in PASSED_ON if name in os.environ},
        )
    )
    waiting, outcomes, busy = list(enumerate(items))[::-1], {}, {}
    try:
        while waiting or busy:
            while waiting and len(busy) < (workers or len(items)):
                number, item = waiting.pop()
                busy[attempt.remote(number, item, common, reports)] = number
            for reference in ray.wait(list(busy), timeout=REPORT_SECONDS)[0]:
                number = busy.pop(reference)
                try:
                    outcomes[number] = ray.get(reference)
                except ray.exceptions.RayError as error:  # its workers died over it, say
                    outcomes[number] = error, f"after {tries} tries"
            done.update(reports.get_nowait_batch(reports.qsize()))
            bar.update(sum(done.values()) - bar.n)
    finally:  # also of an interrupt
        for reference in busy:
            ray.cancel(reference, force=True)
        reports.shutdown(force=True)
    return [outcomes[number] for number in range(len(items))]


def _attempt(number, item, common, reports):
    """On a worker. What is reported counts from the item's start, so that a second try counts nothing twice."""
    task, shared, threads, environment = common
    os.environ.update(environment)
    torch.set_num_threads(threads)
    done, told = 0, time.monotonic()

    def report(more: int) -> None:
        nonlocal done, told
        done += more
        if time.monotonic() - told > REPORT_SECONDS:
            told = time.monotonic()
            reports.put((number, done))

    outcome = task(item, shared, report)
    reports.put((number, done))
    return outcome
