"""The reference report's 21 runs of its colorization network, and the same 21 here: as published?

All of CIFAR-10 in the 24 supplied colours, 45,000 training and 5,000 validation images, 30 epochs at a
constant rate, SGD with momentum 0.9. What is published is each run's last epoch on validation.
"""

import pandas as pd

from ..core import significance
from ..core.study import Study, assemble, over_seeds
from .config import ColorizationConfig
from .data import ColorizationData, prepare
from .images import color_images
from .palette import SUPPLIED
from .tables import measured_baselines

PUBLISHED = pd.DataFrame(
    [
        (1e-4, 32, 16, 5, "Adam", 1.5157, 44.36),
        (1e-4, 64, 8, 5, "Adam", 1.7391, 38.15),
        (1e-4, 128, 16, 3, "Adam", 1.7876, 37.28),
        (1e-4, 64, 32, 3, "Adam", 1.6165, 41.66),
        (3e-4, 32, 8, 3, "Adam", 1.8619, 35.32),
        (3e-4, 64, 8, 5, "Adam", 1.6708, 39.39),
        (3e-4, 128, 16, 3, "Adam", 1.7254, 38.52),
        (3e-4, 64, 32, 3, "Adam", 1.5742, 42.44),
        (1e-3, 32, 16, 3, "Adam", 1.6855, 39.72),
        (1e-3, 32, 32, 5, "Adam", 1.3077, 50.11),
        (1e-3, 64, 8, 3, "Adam", 1.8450, 35.50),
        (1e-3, 64, 16, 3, "Adam", 1.6743, 39.85),
        (1e-3, 64, 16, 5, "Adam", 1.5862, 41.34),
        (1e-3, 64, 32, 3, "Adam", 1.5318, 43.54),
        (1e-3, 128, 16, 5, "Adam", 1.4859, 44.35),
        (3e-3, 64, 16, 3, "Adam", 1.6753, 39.89),
        (1e-4, 128, 32, 3, "SGD", 2.7519, 14.62),
        (3e-4, 32, 32, 3, "SGD", 1.8730, 34.96),
        (3e-4, 64, 8, 5, "SGD", 2.1485, 29.39),
        (3e-3, 32, 16, 5, "SGD", 1.5193, 43.79),
        (3e-3, 128, 8, 3, "SGD", 1.9175, 34.12),
    ],
    columns=[
        "learning_rate",
        "batch_size",
        "num_filters",
        "kernel_size",
        "optimizer",
        "nll",
        "accuracy",
    ],
    index=[f"run {number}" for number in range(1, 22)],
)
PUBLISHED["accuracy"] = (PUBLISHED["accuracy"] / 100).round(4)
BEST_PUBLISHED = 1.3015  # lowest validation loss of run 10 over its epochs
EPOCHS = 30
QUICK_IMAGES = (4500, 500, 500)
CONFIGS = {
    name: ColorizationConfig(
        **row, momentum=0.9 if row["optimizer"] == "SGD" else 0.0, epochs=EPOCHS, keep="best"
    )
    for name, row in PUBLISHED.drop(columns=["nll", "accuracy"]).to_dict("index").items()
}


class Sweep(Study):
    """The published runs, trained again."""

    def comparison(self) -> pd.DataFrame:
        """One row a run that has finished: ours and the published figures, last epoch, validation.

        Columns: the run's keys, `nll`, `accuracy` and `best_nll` of ours, `published_nll`,
        `published_accuracy`, and the differences ours minus theirs, `nll_difference`, `accuracy_difference`.
        """
        ours = self.results().set_index("name")[["val_nll", "val_accuracy", "best_val_loss"]]
        ours.columns = ["nll", "accuracy", "best_nll"]
        return significance.beside_published(PUBLISHED, ours)

    def agreement(self, without: tuple[str, ...] = ()) -> dict[str, float]:
        """How alike ours and theirs are, over the runs not named: rank correlation, mean and mean absolute difference."""
        table = self.comparison()
        return significance.agreement(table[~table["run"].isin(without)], "nll")

    def baselines(self) -> pd.DataFrame:
        """One row an answer that needs no network, on the same images."""
        return self.table("_baselines", lambda: measured_baselines(self.data))

    def tables(self) -> dict[str, pd.DataFrame]:
        return super().tables() | {"_baselines": self.baselines()}

    def best(self) -> str:
        """Name of the run with the lowest validation loss of any epoch."""
        results = self.results()
        return results.loc[results["best_val_loss"].idxmin(), "name"]

    def weights(self) -> dict:
        """None: the network as it was, from several seeds, ships with the study of the networks."""
        return {}


def color_sweep(
    profile: str = "recorded", seed: int = 0, data: ColorizationData | None = None
) -> Sweep:
    """The 21 published configurations, on all of CIFAR-10 in the supplied colours."""
    return assemble(
        Sweep, "q2_sweep", profile, over_seeds(CONFIGS, seed), lambda: sweep_data(profile, data)
    )


def sweep_data(profile: str = "full", data: ColorizationData | None = None) -> ColorizationData:
    """All of CIFAR-10, or what there is, in the supplied colours, unless `data` is given; `quick` takes a tenth."""
    found = data or prepare(color_images(), SUPPLIED)
    return found.subset(*QUICK_IMAGES) if profile == "quick" else found
