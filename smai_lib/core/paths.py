"""Folders of the repository.

Anchored on this file, never on the working directory: papermill starts a notebook in the caller's
folder, nbval and JupyterLab in the notebook's own.
"""

import os
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

PACKAGE = Path(__file__).resolve().parent.parent
ROOT = PACKAGE.parent
NOTEBOOKS = ROOT / "notebooks"
FIGURES = ROOT / "figures"
RESULTS = ROOT / "report" / "results"
WEIGHTS = ROOT / "report" / "weights"
SAMPLE = PACKAGE / "sample"


def data_dir() -> Path:
    """Where data sets are kept: the environment variable SMAI_DATA, else `data/`."""
    return Path(os.environ.get("SMAI_DATA") or ROOT / "data").expanduser().resolve()


def runs_dir() -> Path:
    """Where runs are recorded: the environment variable SMAI_RUNS, else `runs/`."""
    return Path(os.environ.get("SMAI_RUNS") or ROOT / "runs").expanduser().resolve()


@contextmanager
def exclusive(folder: Path, error: type[Exception]):
    """Sole use of `folder`, which is made if need be; `error` if another process has it, or it is not writable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        lock.acquire()
    except Timeout as cause:
        raise error(f"{folder} is in use by another process; wait for it, or stop it") from cause
    except OSError as cause:
        raise error(f"cannot write to {folder} ({cause}); set SMAI_RUNS to a folder that you may write") from cause
    try:
        yield
    finally:
        lock.release()
