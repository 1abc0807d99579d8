"""What a search may vary."""

from dataclasses import dataclass, replace

import optuna
import pandas as pd
from optuna.trial import Trial

from .config import ColorizationConfig

SEARCHED = ("learning_rate", "batch_size", "num_filters", "kernel_size", "optimizer")


@dataclass(frozen=True, kw_only=True)
class Space:
    """What a search may vary of `base`, which is also its first trial. Sizes cost time: k^2 and NF^2."""

    base: ColorizationConfig  # its epochs are those of a trial
    learning_rate: tuple[float, float]  # a range, logarithmic
    batch_size: tuple[int, ...]
    num_filters: tuple[int, ...]
    kernel_size: tuple[int, ...]
    optimizer: tuple[str, ...] = ("Adam", "AdamW")

    def suggest(self, trial: Trial) -> ColorizationConfig:
        """The configuration of one trial."""
        chosen = {
            "learning_rate": trial.suggest_float("learning_rate", *self.learning_rate, log=True)
        }
        chosen |= {key: trial.suggest_categorical(key, getattr(self, key)) for key in SEARCHED[1:]}
        return replace(self.base, **chosen)

    def as_optuna(self, results: pd.DataFrame) -> optuna.Study:
        """The complete trials as a study of Optuna's, for its plots and importances.

        Args:
            results: rows of one model, as in `ColorSearch.results`.
        """
        ranges = {
            "learning_rate": optuna.distributions.FloatDistribution(*self.learning_rate, log=True)
        }
        ranges |= {
            key: optuna.distributions.CategoricalDistribution(getattr(self, key))
            for key in SEARCHED[1:]
        }
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        found = optuna.create_study()
        for _, row in results[results["state"] == "complete"].iterrows():
            found.add_trial(
                optuna.trial.create_trial(
                    params={key: row[key] for key in SEARCHED},
                    distributions=ranges,
                    value=row["val_nll"],
                )
            )
        return found
