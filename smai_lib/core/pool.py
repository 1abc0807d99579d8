"""Tasks in worker processes: one single-threaded process a core, this process alone, or Ray.

Independent runs share the cores without waiting for each other. A run with one thread is
bit-identical on any number of cores. `make bench` compares processes with threads on a machine.
"""

import ctypes
import os
import pickle
import platform
import signal
import sys
import tempfile
import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

import joblib
import torch
from torch import multiprocessing
from tqdm.auto import tqdm

from . import ray_pool
from .config import whole_number
from .errors import ConfigError, RunError

ENGINES = ("processes", "serial", "ray")
TRIES = 3  # workers that an item may kill before it counts as failed
UNGUARDED = (
    "Workers import this script: save it as a file, and make its calls under "
    '`if __name__ == "__main__":`'
)

Report = Callable[[int], None]  # called with the amount of further progress
Outcome = tuple[Any, Exception | None]  # what a task returned, or what it raised


def cores() -> int:
    """Return the number of cores that this process may use.

    Its CPU affinity and the CPU quota of its container (cgroup v1 or v2) limit them.
    """
    return joblib.cpu_count()


@contextmanager
def keep_freed_memory():
    """Let glibc keep freed buffers within the block; other C libraries are left alone.

    To fault the pages of a training step in anew costs 10 to 25 % of the step. After the block,
    glibc's thresholds are the largest that it chooses itself, see mallopt(3).
    """
    glibc = platform.libc_ver()[0] == "glibc"
    if glibc:
        _set_thresholds(mmap=1 << 30, trim=1 << 30)
    try:
        yield
    finally:
        if glibc:
            _set_thresholds(mmap=32 << 20, trim=64 << 20)


def _set_thresholds(mmap: int, trim: int) -> None:
    """Set the sizes from which glibc maps a buffer on its own, and returns freed memory."""
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(-3, mmap)  # M_MMAP_THRESHOLD
    mallopt(-1, trim)  # M_TRIM_THRESHOLD


def run_tasks(
    task: Callable[[Any, Any, Report], Any],
    items: Sequence,
    shared: Any,
    *,
    engine: str = "processes",
    workers: int = 0,
    total: int = 0,
    unit: str = "it",
    title: str = "",
    hint: Callable[[Any], str] = str,
    **resources,
) -> list:
    """Return `task(item, shared, report)` of every item, in order, with one progress bar.

    A failing item does not stop the others; the first failure is raised when all are done. If a
    worker process dies, its item is retried in a new one. An interrupt, or the death of this
    process, ends all workers at once.

    Args:
        task: function of a module.
        items: one argument of the task each.
        shared: argument of every task; its tensors are in memory once for all workers.
        engine: "processes"; "serial", in this process, where the first failure stops; or "ray".
        workers: number of processes; 0: one a core, or as many as fit into the Ray cluster.
        total: sum of all reported progress; 0 shows no bar.
        unit: unit of the progress.
        title: title of the bar.
        hint: returns a note for the error of an item, such as where it happened.
        resources: address, cpus and gpus for Ray, as in `ray_pool.connect`.

    Raises:
        ConfigError: the engine is unknown or has no such resources, or `workers` is not a whole
            number.
        RunError: no worker can start, or an item killed TRIES workers.
    """
    if engine not in ENGINES:
        raise ConfigError(f"engine: found {engine!r}, expected one of {', '.join(ENGINES)}")
    if resources and engine != "ray":
        raise ConfigError(f"{', '.join(resources)}: only for the engine 'ray', found {engine!r}")
    workers = whole_number("workers", workers)
    if not items:
        return []
    bar = tqdm(
        total=total,
        unit=unit,
        unit_scale=unit != "trial",
        desc=title,
        leave=False,
        disable=not total,
    )
    with bar:
        if engine == "serial":
            return [_do_here(task, item, shared, bar.update, hint) for item in items]
        task = partial(_attempt, task)
        if engine == "ray":
            outcomes = ray_pool.run(task, items, shared, bar, TRIES, workers, **resources)
        else:
            outcomes = Pool(task, items, shared, workers or cores(), bar).run()
    for item, (_, error) in zip(items, outcomes, strict=True):
        if error:
            error.add_note(hint(item))
            raise error
    return [value for value, _ in outcomes]


def _do_here(task, item, shared, report: Report, hint: Callable[[Any], str]):
    """Return what the task returns; an error carries the hint as a note."""
    try:
        return task(item, shared, report)
    except Exception as error:
        error.add_note(hint(item))
        raise


def _attempt(task, item, shared, report: Report) -> Outcome:
    """Return what the task returns or raises; an error carries its traceback as a note."""
    try:
        return task(item, shared, report), None
    except Exception as error:  # noqa: BLE001  raised again by `run_tasks`
        error.add_note(traceback.format_exc())
        return None, error


@dataclass
class Worker:
    """A worker process."""

    process: BaseProcess
    item: int | None = None  # number of the item that it works on; None until it has started


class Pool:
    """Worker processes with one thread each, which do one item after another.

    Each worker has a pipe of its own, so that its death disturbs no other worker. Its messages are
    None once it has started, an int for progress, an `Outcome`, or an error that stops the pool.
    """

    def __init__(self, task, items: Sequence, shared: Any, size: int, bar: tqdm):
        self.content = (task, shared)
        self.items, self.size, self.bar = items, size, bar
        self.todo = deque(range(len(items)))
        self.workers: dict[Connection, Worker] = {}  # by the pool's end of their pipes
        self.outcomes: dict[int, Outcome] = {}
        self.progress, self.deaths = Counter(), Counter()  # of each item
        self.folder = ExitStack()  # of a file in place of shared memory
        self.needs_script = b"__main__" in pickle.dumps((task, items))

    def run(self) -> list[Outcome]:
        """Return the outcome of every item, in order."""
        try:
            while len(self.outcomes) < len(self.items):
                unfinished = len(self.items) - len(self.outcomes)
                while len(self.workers) < min(self.size, unfinished):
                    self.start()
                for pipe in wait(list(self.workers)):
                    self.receive(pipe)
        finally:  # after an interrupt, too
            for pipe in list(self.workers):
                self.end(pipe)
            self.folder.close()
        return [self.outcomes[number] for number in range(len(self.items))]

    def start(self) -> None:
        """Start a worker, and send it the task and the shared data.

        Tensors move to shared memory. Where that is short (64 MB in a container by default),
        workers map a file instead.
        """
        context = multiprocessing.get_context("spawn")  # a forked torch can hang in its threads
        pipe, worker_end = context.Pipe()
        process = context.Process(target=_work, args=(worker_end,), daemon=True)
        with nullcontext() if self.needs_script else _hidden_script():
            try:
                process.start()
            except RuntimeError:  # this is a worker itself, which imports an unguarded script
                sys.exit(UNGUARDED)
            except OSError as error:
                raise RunError(f"cannot start a worker ({error}). Try fewer workers") from error
        worker_end.close()
        self.workers[pipe] = Worker(process)
        try:
            _send(pipe, self.content)
        except RuntimeError:  # torch cannot allocate shared memory
            folder = self.folder.enter_context(tempfile.TemporaryDirectory(prefix="smai_"))
            content, self.content = self.content, Path(folder, "shared.pt")
            torch.save(content, self.content)
            _send(pipe, self.content)

    def receive(self, pipe: Connection) -> None:
        """Handle the next message of a worker, or its death.

        Raises:
            RunError: the worker could not start.
        """
        worker = self.workers[pipe]
        try:
            message = pipe.recv()
        except (EOFError, OSError):
            self.retry(worker.item, self.end(pipe))
            return
        except Exception as error:  # noqa: BLE001  an outcome that cannot be unpickled
            message = None, error
        if isinstance(message, RunError):
            raise message
        if isinstance(message, int):
            self.progress[worker.item] += message
            self.bar.update(message)
            return
        if message:
            self.outcomes[worker.item] = message
        if self.todo:
            worker.item = self.todo.popleft()
            _send(pipe, self.items[worker.item])
        else:
            self.end(pipe)

    def retry(self, item: int | None, code: int) -> None:
        """Put the item of a dead worker first in line again, unless it has killed TRIES workers.

        Args:
            item: number of the item.
            code: exit code of the worker.

        Raises:
            RunError: the worker died before it had started.
        """
        if item is None:
            fix = UNGUARDED if self.needs_script else "Its own message is above. Try fewer workers."
            raise RunError(f"a worker could not start (exit code {code}). {fix}") from None
        self.bar.update(-self.progress.pop(item, 0))
        self.deaths[item] += 1
        if self.deaths[item] < TRIES:
            self.todo.appendleft(item)
            return
        error = RunError(
            f"{TRIES} workers died over the same item, the last with exit code {code}. "
            "Exit code -9 usually means lack of memory: try fewer workers"
        )
        self.outcomes[item] = None, error

    def end(self, pipe: Connection) -> int:
        """Kill a worker, unless it is dead, and return its exit code."""
        process = self.workers.pop(pipe).process
        process.kill()
        process.join()
        return process.exitcode


def _send(pipe: Connection, message: Any) -> None:
    with suppress(OSError):  # the worker has died, which `receive` will notice
        pipe.send(message)


@contextmanager
def _hidden_script():
    """Let new processes not import the running script, which then needs no guard."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _work(pipe: Connection) -> None:
    """Do one item after another in a worker process, until the pool ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the pool, which ends its workers
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # for processes that a task starts
    try:
        content = pipe.recv()
        if isinstance(content, Path):
            content = torch.load(content, mmap=True, weights_only=False)
        task, shared = content
        pipe.send(None)
        while True:
            pipe.send(task(pipe.recv(), shared, pipe.send))
    except EOFError:
        return
    except Exception as error:  # noqa: BLE001  raised by the pool
        pipe.send(
            RunError(
                f"a worker cannot load its work or return its result ({type(error).__name__}: "
                f"{error}). Define its classes in a module, or use the engine 'serial'"
            )
        )


def _exit_with_parent() -> None:
    """End this worker as soon as its parent has died, whatever it is doing."""
    multiprocessing.parent_process().join()
    os._exit(1)
