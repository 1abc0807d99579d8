"""Which count does time follow? Forward passes of ColorizationCNN over a sweep of NF and k."""

import time
from itertools import product

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from ..colorization.model import ColorizationCNN
from ..core import paths
from ..core.layers import textbook
from ..core.study import check_profile
from . import formulas
from .derivation import one_thread

FILE = paths.RESULTS / "cost_timing.csv"
FILTERS, KERNELS = (8, 16, 32, 64), (1, 3, 5, 7)


@torch.inference_mode()
@one_thread()
def measure_times(filters: tuple[int, ...] = FILTERS, kernels: tuple[int, ...] = KERNELS, *, images: int = 16,
                  repeats: int = 5) -> pd.DataFrame:
    """One row a pair of NF and k: the counts of one 32 x 32 image, and the seconds that it takes.

    Seconds are processor time of one thread, so that other programs on the machine hardly change
    them; the least of `repeats` passes over a batch, after one that is not counted.
    """
    return pd.DataFrame([_row(nf, kernel, images, repeats) for nf, kernel in product(filters, kernels)])


def _row(nf: int, kernel: int, images: int, repeats: int) -> dict:
    sizes = {"NIC": 1, "NF": nf, "NC": 24, "k": kernel, "H": 32, "W": 32}
    model = textbook(ColorizationCNN(num_filters=nf, kernel_size=kernel)).eval()
    batch = torch.rand(images, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    model(batch)
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        model(batch)
        seconds.append((time.process_time() - start) / images)
    total = formulas.evaluate(formulas.HAND, **sizes).loc["total"]
    return {"NF": nf, "k": kernel, "macs": int(total["macs"]),
            "report_macs": formulas.value_at(formulas.PUBLISHED["macs"], **sizes),
            "weights": int(total["weights"]), "prepool_outputs": int(total["prepool_outputs"]),
            "seconds": min(seconds), "images": images, "threads": 1,
            "cpu": torch.backends.cpu.get_cpu_capability(), "torch": torch.__version__}


def timing(profile: str) -> pd.DataFrame:
    """The recorded sweep, or under the other profiles one that is measured now."""
    check_profile(profile)
    return pd.read_csv(FILE) if profile == "recorded" else measure_times()


def fit(table: pd.DataFrame, *counts: str) -> np.ndarray:
    """Seconds that constant + sum of rate * count predicts, by least squares of the relative error.

    Relative, so that small networks weigh as much as large ones; rates are not negative, since no
    work takes less than no time.
    """
    seconds = table["seconds"].to_numpy()
    work = np.column_stack([np.ones(len(table)), *(table[count] for count in counts)]) / seconds[:, None]
    work /= work.max(0)  # counts are millions: one scale for the solver
    relative = LinearRegression(positive=True, fit_intercept=False).fit(work, np.ones(len(table)))
    return seconds * relative.predict(work)


def explained(table: pd.DataFrame, *counts: str) -> float:
    """Share of the spread of log seconds that `fit` explains (R2)."""
    return r2_score(np.log(table["seconds"]), np.log(fit(table, *counts)))
