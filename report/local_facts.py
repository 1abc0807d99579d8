"""The facts of `here.md`: what this machine trained, beside the recorded results."""

import platform
from collections.abc import Sequence
from importlib.metadata import version

import pandas as pd
import torch

import smai_lib as smai
from smai_lib.core import paths
from smai_lib.formats import table_fact
from smai_lib.studies import STUDIES


def facts(profile: str, seed: int, pages: Sequence[str]) -> dict[str, object]:
    """Return the facts by name.

    Args:
        profile: "quick" or "full".
        seed: seed of the studies.
        pages: names of the notebooks that have a page.
    """
    rows = []
    for name in STUDIES:
        here = smai.load_study(name, profile, seed)
        recorded = smai.load_study(name).results
        trained = (paths.runs_dir() / profile / name).exists()
        if trained and "val_accuracy" in recorded:
            row = {"study": f"`{name}`", "runs": len(here.results)}
            row["source"] = here.results["data_source"].iloc[0]
            rows.append(row | summary(here.results) | summary(recorded, "recorded_"))
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "pandas"))
    return table_fact("here.studies", pd.DataFrame(rows)) | {
        "here.profile": profile,
        "here.machine": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "here.versions": f"Python {platform.python_version()}, {libraries}",
        "here.pages": ", ".join(f"[{name}]({name}.html)" for name in pages),
    }


def summary(results: pd.DataFrame, prefix: str = "") -> dict[str, object]:
    """Return epochs, images and best validation accuracy of a study."""
    return {
        f"{prefix}epochs": results["epochs"].max(),
        f"{prefix}images": results["train_images"].iloc[0],
        f"{prefix}accuracy": results["val_accuracy"].max(),
    }
