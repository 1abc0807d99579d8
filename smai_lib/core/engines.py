"""Where runs execute: in this process, or in one single-threaded process a core.

Independent runs share the cores without waiting for each other, and a run with one thread gives the
same bits on any number of cores. `make bench` measures what either way is worth on a machine.
"""

import os
from concurrent.futures import ProcessPoolExecutor, wait

import torch
from torch import multiprocessing
from tqdm.auto import tqdm

from . import runs
from .runs import Data, RunSpec

ENGINES = ("processes", "serial")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_all(specs: list[RunSpec], data: Data, *, engine: str = "processes", workers: int = 0) -> None:
    """Finish every run of `specs`, showing one bar over all images.

    One run that fails does not stop the others; the first failure is raised when all are done.

    Args:
        engine: "processes", or "serial" for debugging.
        workers: processes; 0 is one a core.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine: found {engine!r}, expected one of {', '.join(ENGINES)}")
    todo = [spec for spec in specs if spec.folder.result() is None]
    total = sum(spec.config.epochs for spec in todo) * len(data.train.images)
    if not todo:
        return
    with tqdm(total=total, unit="img", unit_scale=True, desc=todo[0].study, leave=False) as bar:
        if engine == "serial":
            for spec in todo:
                runs.execute(spec, data, on_batch=bar.update)
            return
        _run_in_processes(todo, data, min(workers or cores(), len(todo)), bar)


def _run_in_processes(specs, data, workers, bar):
    context = multiprocessing.get_context("spawn")  # a forked torch can hang in its thread pool
    done = context.Value("q", 0)
    # torch's pickling puts the tensors into shared memory: one copy serves every worker
    with ProcessPoolExecutor(workers, context, _start_worker, (data, done)) as pool:
        futures = {pool.submit(_execute, spec): spec for spec in specs}
        pending = set(futures)
        try:
            while pending:
                pending = wait(pending, timeout=0.5).not_done
                bar.update(done.value - bar.n)
        except BaseException:  # an interrupt: what has not begun must not begin
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for future, spec in futures.items():
        if error := future.exception():
            error.add_note(f"in run {spec.name!r} ({spec.folder.path}); finished runs are kept, and "
                           "starting again continues the others")
            raise error


_worker: dict = {}  # what this worker process was started with


def _start_worker(data: Data, done) -> None:
    torch.set_num_threads(1)
    _worker.update(data=data, done=done)


def _execute(spec: RunSpec) -> None:
    def on_batch(images: int) -> None:
        if not multiprocessing.parent_process().is_alive():
            os._exit(1)  # killed parents leave nobody to stop us, and the folder locked
        with _worker["done"].get_lock():
            _worker["done"].value += images

    runs.execute(spec, _worker["data"], on_batch=on_batch)
