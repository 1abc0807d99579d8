"""The studies of Q1: the reference report's ten configurations, and what the lambdas really do."""

import math
from pathlib import Path

import pandas as pd
from safetensors.torch import load_file, save_file

from ..core import paths
from ..core.study import Study, assemble, check_profile, shipped
from ..core.weights import load_multitask
from .config import MultiTaskConfig, RecipeConfig
from .fashion_mnist import FashionMNIST, fashion_mnist
from .model import MultiTaskCNN
from .objective import ink_baselines

WAY_OUT = "see `python -m smai_lib fetch`"  # of a full study without the data set

# the reference report's ten, keys and values
_shared = {"lambda1": 1.0, "lambda2": 1.0, "learning_rate": 0.001, "dropout_rate": 0.3, "optimizer": "Adam",
           "batch_size": 128, "epochs": 20, "num_layers": 3, "base_filters": 32}  # fmt: skip
_small = _shared | {"learning_rate": 0.0008, "batch_size": 64, "num_layers": 2}
_narrow = _shared | {"learning_rate": 0.0005, "batch_size": 64, "base_filters": 16}
TEN_CONFIGS = {
    f"config {number}": MultiTaskConfig.from_dict(values)
    for number, values in enumerate(
        [
            _shared,
            _shared | {"lambda1": 2.0, "lambda2": 0.5},
            _shared | {"lambda1": 0.5, "lambda2": 2.0},
            _small | {"base_filters": 16},
            _small,
            _narrow,
            _shared | {"num_layers": 2},
            _small | {"lambda2": 2.0, "optimizer": "AdamW"},
            _narrow | {"lambda1": 0.5, "dropout_rate": 0.25, "optimizer": "AdamW"},
            _narrow | {"lambda2": 0.5, "learning_rate": 0.002, "dropout_rate": 0.35},
        ],
        start=1,
    )
}
REPORTED_VAL_ACCURACY = {"config 3": 0.89083, "config 1": 0.885}  # the reference report's best two
# 0 and infinity train one task alone
LAMBDA_RATIOS = (0.0, 0.01, 0.1, 1.0, 10.0, 100.0, math.inf)
LAMBDA_SEEDS = 5
QUICK_IMAGES = (6000, 1000, 1000)  # of the many runs of the lambda study


class TenConfigs(Study):
    """The reference report's ten configurations, with confusion counts and baselines."""

    def confusion(self, name: str) -> list[list[int]]:
        """Test confusion counts of the run called `name`, row true and column predicted."""
        if self.profile == "recorded":
            counts = shipped(f"{self.name}_confusion.csv")
            return counts[counts["name"] == name].drop(columns="name").to_numpy().tolist()
        return next(self.result(spec)["confusion"] for spec in self.specs if spec.name == name)

    def ink_baselines(self) -> pd.DataFrame:
        """RMSE and R2 of the predictions that need no network, on the test images."""
        if self.profile == "recorded":
            return shipped(f"{self.name}_ink_baselines.csv")
        return ink_baselines(self.data, self.data.test)

    def tables(self) -> dict[str, pd.DataFrame]:
        counts = [pd.DataFrame(self.result(spec)["confusion"]).assign(name=spec.name) for spec in self.specs]
        return super().tables() | {"_confusion": pd.concat(counts), "_ink_baselines": self.ink_baselines()}


class LambdaStudy(Study):
    """Runs over lambda2 / lambda1, several seeds each."""

    def results(self) -> pd.DataFrame:
        """One row a run, with the `ratio` lambda2 / lambda1, infinite where ink is trained alone."""
        results = super().results()
        return results.assign(ratio=(results["lambda2"] / results["lambda1"]).round(6))

    def best(self) -> str:
        """Name of the runs with the highest mean validation accuracy."""
        return self.results().groupby("name")["val_accuracy"].mean().idxmax()

    def weights(self) -> dict[str, Path]:
        """The backbones of the z-scored runs of the first two seeds; heads are a hundred times larger."""
        shown = [spec for spec in self.specs if spec.config.ink_scaling == "z_score"
                 and spec.config.weighting == "fixed" and spec.seed < self.specs[0].seed + 2]  # fmt: skip
        tensors = {f"{spec.name}/{spec.seed}/{key}": tensor for spec in shown
                   for key, tensor in load_file(spec.folder.weights_file).items() if key.startswith("backbone.")}
        file = self.specs[0].root / "backbones.safetensors"
        save_file(tensors, file)
        return {"_backbones": file}


def ten_configs(profile: str = "recorded", seed: int = 0, data: FashionMNIST | None = None) -> TenConfigs:
    """The reference report's ten configurations (Q1)."""
    check_profile(profile)
    runs = [(name, config, seed) for name, config in TEN_CONFIGS.items()]
    return assemble(TenConfigs, "q1_configs", profile, runs, data or fashion_mnist(), way_out=WAY_OUT)


def lambda_config(ratio: float, **settings) -> RecipeConfig:
    """The small network of config 4 for ten epochs, with lambda1 + lambda2 = 1.

    Adam does not feel a common factor of both lambdas, so their ratio is all there is to vary.
    """
    lambda2 = 1.0 if math.isinf(ratio) else ratio / (1 + ratio)
    base = TEN_CONFIGS["config 4"].to_dict() | {"epochs": 10}
    return RecipeConfig.from_dict(base | {"lambda1": 1 - lambda2, "lambda2": lambda2} | settings)


def lambda_study(profile: str = "recorded", seed: int = 0, data: FashionMNIST | None = None) -> LambdaStudy:
    """lambda2 / lambda1 from 0 to infinity, raw and z-scored ink, the same seeds for all.

    And one adaptive control, whose weights are learnt.
    """
    data = few_images(profile, data)
    configs = {f"{scaling} {ratio:g}": lambda_config(ratio, ink_scaling=scaling)
               for ratio in LAMBDA_RATIOS for scaling in ("raw", "z_score")}  # fmt: skip
    configs["uncertainty"] = lambda_config(1.0, ink_scaling="z_score", weighting="uncertainty")
    # seed by seed, so that an interrupted study has whole comparisons
    runs = [(name, config, seed + offset) for offset in range(2 if profile == "quick" else LAMBDA_SEEDS)
            for name, config in configs.items()]  # fmt: skip
    return assemble(LambdaStudy, "q1_lambda", profile, runs, data, way_out=WAY_OUT)


def few_images(profile: str, data: FashionMNIST | None) -> FashionMNIST:
    """The images of a study of many runs: under `quick` only the first few thousand."""
    check_profile(profile)
    data = data or fashion_mnist()
    return data.subset(*QUICK_IMAGES) if profile == "quick" else data


def best_of(study: Study) -> MultiTaskCNN:
    """The trained network of a Q1 study's best run: the shipped one for recorded results, else the run's own.

    Raises:
        WeightsError: from `load_multitask`.
        RunError: the study's runs have not finished.
    """
    name = study.best()
    config = next(spec.config for spec in study.specs if spec.name == name)
    recorded = study.profile == "recorded"
    return load_multitask(paths.WEIGHTS / f"{study.name}_best.safetensors" if recorded else study.weights()["_best"],
                          config)
