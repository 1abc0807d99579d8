"""Where work executes: in this process, in one single-threaded process a core, or on Ray (`cluster`).

Independent runs share the cores without waiting for each other, and a run with one thread gives the
same bits on any number of cores. `make bench` measures what either way is worth on a machine.
"""

import os
import signal
import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from multiprocessing.connection import wait
from typing import Any

import torch
from torch import multiprocessing
from tqdm.auto import tqdm

from . import cluster

ENGINES = ("processes", "serial", "ray")
TRIES = 3  # of an item whose worker dies; then the item is what kills it
Report = Callable[[int], None]  # how much more was done


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def work(
    task: Callable[[Any, Any, Report], Any],
    items: Sequence,
    shared: Any,
    *,
    engine: str = "processes",
    workers: int = 0,
    address: str = "",
    cpus: float = 1,
    gpus: float = 0,
    total: int = 0,
    unit: str = "it",
    title: str = "",
    way_out: Callable[[Any], str] = str,
) -> list:
    """`task(item, shared, report)` for every item, showing one bar; what they return, in order.

    One that fails does not stop the others; the first failure is raised when all are done. One whose worker
    process dies is given to another. An interrupt, or the death of this process, ends the workers at once.

    Args:
        task: a module's function, since workers import it.
        shared: given to every task; its tensors are in memory once, whatever the number of workers.
        engine: "processes", "serial" for debugging, or "ray".
        workers: processes; 0 is one a core, or as many as fit into the Ray cluster.
        address, cpus, gpus: of the Ray cluster, and what an item has there; see `cluster.connect`.
        total: what the reports add up to.
        way_out: of an item that failed, a note for the error.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine: found {engine!r}, expected one of {', '.join(ENGINES)}")
    if not items:
        return []
    with tqdm(
        total=total,
        unit=unit,
        unit_scale=unit != "trial",
        desc=title,
        leave=False,
        disable=not total,
    ) as bar:
        if engine == "serial":
            return [task(item, shared, bar.update) for item in items]
        task = partial(_outcome, task)
        if engine == "ray":
            outcomes = cluster.work(
                task,
                items,
                shared,
                bar,
                tries=TRIES,
                workers=workers,
                address=address,
                cpus=cpus,
                gpus=gpus,
            )
        else:
            outcomes = _in_processes(task, items, shared, min(workers or cores(), len(items)), bar)
    for item, (error, trace) in zip(items, outcomes, strict=True):
        if trace:
            error.add_note(way_out(item))
            error.add_note(trace)
            raise error
    return [value for value, _ in outcomes]


def _in_processes(task, items, shared, count, bar) -> list[tuple[Any, str]]:
    """What came of every item, in order: a value and "", or an error and its traceback."""
    context = multiprocessing.get_context("spawn")  # a forked torch can hang in its thread pool
    outcomes, deaths, reported = {}, Counter(), Counter()
    waiting, hired, idle = deque(range(len(items))), [], []
    busy = {}  # the pipe to a worker, its alone, so that its death disturbs no other -> its process and item
    try:
        while waiting or busy:
            while waiting and len(busy) < count:
                if not idle:
                    pipe, its_end = context.Pipe()
                    # torch's pickling puts the tensors into shared memory: one copy serves every worker
                    hired.append(
                        context.Process(target=_serve, args=(its_end, task, shared), daemon=True)
                    )
                    hired[-1].start()
                    its_end.close()
                    idle.append((pipe, hired[-1]))
                pipe, process = idle.pop()
                busy[pipe] = process, waiting.popleft()
                with suppress(OSError):  # a death is noticed when the pipe is read
                    pipe.send(items[busy[pipe][1]])
            for pipe in wait(list(busy)):
                process, number = busy[pipe]
                try:
                    message = pipe.recv()
                    if isinstance(message, int):
                        reported[number] += message
                        bar.update(message)
                        continue
                    outcomes[number] = message
                    idle.append((pipe, process))
                except Exception:  # noqa: BLE001  the worker died, or sent what nobody can read
                    process.kill()
                    process.join()
                    bar.update(-reported.pop(number, 0))
                    deaths[number] += 1
                    if deaths[number] < TRIES:
                        waiting.appendleft(number)
                    else:
                        outcomes[number] = (
                            BrokenProcessPool(
                                f"{TRIES} worker processes died over it, the last with exit code {process.exitcode}; -9 is "
                                "mostly too little memory, and fewer workers need less"
                            ),
                            "no traceback",
                        )
                del busy[pipe]
    finally:  # also of an interrupt: nothing goes on, nothing begins
        for process in hired:
            process.kill()
        for process in hired:
            process.join()
    return [outcomes[number] for number in range(len(items))]


def _serve(pipe, task, shared) -> None:
    """A worker process: one item after another, until there are no more or the process that hired it is gone."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # a terminal interrupts the whole group; the hirer decides
    threading.Thread(
        target=_end_with_the_hirer, daemon=True
    ).start()  # also in the middle of anything
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of what it starts, a notebook's kernel say
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        pipe.send(task(item, shared, pipe.send))


def _outcome(task, item, shared, report) -> tuple[Any, str]:
    try:
        return task(item, shared, report), ""
    except Exception as error:  # noqa: BLE001  it is raised where the worker was hired
        return error, traceback.format_exc()


def _end_with_the_hirer():
    multiprocessing.parent_process().join()
    os._exit(1)
