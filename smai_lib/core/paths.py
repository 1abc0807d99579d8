"""Folders of the repository.

They do not depend on the working directory where the package lies inside the repository: papermill
starts a notebook in the caller's folder, nbval and JupyterLab in the notebook's own.
"""

import hashlib
import os
from pathlib import Path

from .errors import ConfigError

PACKAGE = Path(__file__).resolve().parent.parent


def _find_root() -> Path:
    """Return the repository around the package, else around the current folder.

    Without a repository, it is the current folder itself.
    """
    try:
        current = Path.cwd()
    except FileNotFoundError:  # it has been deleted
        current = PACKAGE.parent
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
    return _find_folder("SMAI_DATA", ROOT / "data")


def runs_dir() -> Path:
    """Return the folder of all runs: the environment variable SMAI_RUNS, else `runs/`."""
    return _find_folder("SMAI_RUNS", ROOT / "runs")


def _find_folder(variable: str, default: Path) -> Path:
    """Return the folder that an environment variable names, else the default.

    Raises:
        ConfigError: it is the home of an unknown user, or links to itself.
    """
    name = os.environ.get(variable)
    try:
        return Path(name or default).expanduser().resolve()
    except (RuntimeError, OSError) as error:
        raise ConfigError(f"{variable}: found {name!r}, expected a folder ({error})") from error


def lock_file(path: Path) -> Path:
    """Return the lock file for changes of `path`, outside the folders that git tracks."""
    folder = runs_dir() / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / hashlib.sha256(str(path).encode()).hexdigest()[:16]
