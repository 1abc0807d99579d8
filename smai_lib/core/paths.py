"""Folders of the repository.

Anchored on this file, never on the working directory: papermill starts a notebook in the caller's
folder, nbval and JupyterLab in the notebook's own.
"""

import os
from pathlib import Path

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
