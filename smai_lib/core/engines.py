"""Where work executes: in this process, or in one single-threaded process a core.

Independent runs share the cores without waiting for each other, and a run with one thread gives the
same bits on any number of cores. `make bench` measures what either way is worth on a machine.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from typing import Any

import torch
from torch import multiprocessing
from tqdm.auto import tqdm

ENGINES = ("processes", "serial")
Report = Callable[[int], None]  # how much more was done


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def work(task: Callable[[Any, Any, Report], Any], items: Sequence, shared: Any, *, engine: str = "processes",
         workers: int = 0, total: int = 0, unit: str = "it", title: str = "",
         way_out: Callable[[Any], str] = str) -> list:
    """`task(item, shared, report)` for every item, showing one bar; what they return, in order.

    One that fails does not stop the others; the first failure is raised when all are done.

    Args:
        task: a module's function, since workers import it.
        shared: given to every task; its tensors are in memory once, whatever the number of workers.
        engine: "processes", or "serial" for debugging.
        workers: processes; 0 is one a core.
        total: what the reports add up to.
        way_out: of an item that failed, a note for the error.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine: found {engine!r}, expected one of {', '.join(ENGINES)}")
    if not items:
        return []
    with tqdm(total=total, unit=unit, unit_scale=unit != "trial", desc=title, leave=False, disable=not total) as bar:
        if engine == "serial":
            return [task(item, shared, bar.update) for item in items]
        return _in_processes(task, items, shared, min(workers or cores(), len(items)), bar, way_out)


def _in_processes(task, items, shared, workers, bar, way_out) -> list:
    context = multiprocessing.get_context("spawn")  # a forked torch can hang in its thread pool
    done = context.Value("q", 0)
    # torch's pickling puts the tensors into shared memory: one copy serves every worker
    with ProcessPoolExecutor(workers, context, _start_worker, (shared, done)) as pool:
        futures = {pool.submit(_run, task, item): item for item in items}
        pending = set(futures)
        try:
            while pending:
                pending = wait(pending, timeout=0.5).not_done
                bar.update(done.value - bar.n)
        except BaseException:  # an interrupt: what has not begun must not begin
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for future, item in futures.items():
        if error := future.exception():
            error.add_note(way_out(item))
            raise error
    return [future.result() for future in futures]


_worker: dict = {}  # what this worker process was started with


def _start_worker(shared: Any, done) -> None:
    torch.set_num_threads(1)
    _worker.update(shared=shared, done=done)


def _run(task, item):
    def report(amount: int) -> None:
        if not multiprocessing.parent_process().is_alive():
            os._exit(1)  # killed parents leave nobody to stop us, and the folder locked
        with _worker["done"].get_lock():
            _worker["done"].value += amount

    return task(item, _worker["shared"], report)
