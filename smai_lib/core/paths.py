"""Folders of the repository.

They do not depend on the working directory where the package lies inside the repository: papermill
starts a notebook in the caller's folder, nbval and JupyterLab in the notebook's own.
"""

import hashlib
import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent


def _find_root() -> Path:
    """Return the repository around the package, else around the current folder.

    Without a repository, it is the current folder itself.
    """
    current = Path.cwd()
    for folder in (PACKAGE.parent, current, *current.parents):
        if (folder / "report" / "results").is_dir():
            return folder
    return current


ROOT = _find_root()
NOTEBOOKS = ROOT / "notebooks"
FIGURES = ROOT / "figures"
REPORT = ROOT / "report"
RESULTS = REPORT / "results"
WEIGHTS = REPORT / "weights"
SAMPLE = PACKAGE / "sample"


def data_dir() -> Path:
    """Return the folder of the data sets: the environment variable SMAI_DATA, else `data/`."""
    return Path(os.environ.get("SMAI_DATA") or ROOT / "data").expanduser().resolve()


def runs_dir() -> Path:
    """Return the folder of all runs: the environment variable SMAI_RUNS, else `runs/`."""
    return Path(os.environ.get("SMAI_RUNS") or ROOT / "runs").expanduser().resolve()


def lock_file(path: Path) -> Path:
    """Return the lock file for changes of `path`, outside the folders that git tracks."""
    folder = runs_dir() / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / hashlib.sha256(str(path).encode()).hexdigest()[:16]
