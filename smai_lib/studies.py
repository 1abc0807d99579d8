"""The studies: which runs there are, under which profile, and where their numbers live.

recorded: read the results that the repository ships. quick: train everything, briefly, on the real
data. full: the reported study; the only profile that writes `report/results/` and `figures/`.
"""

import json
import math
import platform
import sys
from dataclasses import dataclass
from datetime import date

import pandas as pd
import torch
from matplotlib.figure import Figure

from . import engines, paths, plotting, runs
from .config import MultiTaskConfig
from .data import FashionMNIST, fashion_mnist
from .objectives import ink_baselines

PROFILES = ("recorded", "quick", "full")
QUICK_EPOCHS = 1

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


@dataclass(frozen=True)
class Study:
    """Runs that belong together, under one profile."""

    name: str
    profile: str
    specs: list[runs.RunSpec]
    data: FashionMNIST

    def run(self, *, engine: str = "processes", workers: int = 0) -> None:
        """Finish every run; nothing to do for recorded results. `full` also publishes them."""
        if self.profile == "recorded":
            return
        engines.run_all(self.specs, self.data, engine=engine, workers=workers)
        if self.profile == "full":
            self._publish()

    def results(self) -> pd.DataFrame:
        """One row a run: the config's keys, seed, metrics, provenance."""
        if self.profile == "recorded":
            return _shipped(f"{self.name}.csv")
        return runs.table([self._result(spec) for spec in self.specs])

    def history(self) -> pd.DataFrame:
        """One row a run and epoch."""
        if self.profile == "recorded":
            return _shipped(f"{self.name}_history.csv")
        return pd.concat([spec.folder.history().assign(name=spec.name, seed=spec.seed) for spec in self.specs],
                         ignore_index=True)  # fmt: skip

    def confusion(self, name: str) -> list[list[int]]:
        """Test confusion counts of the run called `name`, row true and column predicted."""
        if self.profile == "recorded":
            counts = _shipped(f"{self.name}_confusion.csv")
            return counts[counts["name"] == name].drop(columns="name").to_numpy().tolist()
        return next(self._result(spec)["confusion"] for spec in self.specs if spec.name == name)

    def best(self) -> str:
        """Name of the run with the highest validation accuracy after its last epoch."""
        results = self.results()
        return results.loc[results["val_accuracy"].idxmax(), "name"]

    def caption(self) -> str:
        """Where the numbers come from, for under a figure."""
        first = self.results().iloc[0]
        warning = "SAMPLE DATA · " if first["data_source"] == "sample" else ""
        return (f"{warning}{self.profile} profile · epochs {first['epochs']} · {first['train_images']:,} training "
                f"images from {first['data_source']} · seed {first['seed']} · {first['precision']} on "
                f"{first['device']} · torch {first['torch']}")

    def figure(self, figure: Figure, name: str) -> Figure:
        """`figure` with the caption under it; `full` also writes it to `figures/`."""
        plotting.caption(figure, self.caption())
        if self.profile == "full":
            plotting.save_figure(figure, f"{self.name}_{name}")
        return figure

    def ink_baselines(self) -> pd.DataFrame:
        """RMSE and R2 of the predictions that need no network, on the test images."""
        if self.profile == "recorded":
            return _shipped(f"{self.name}_ink_baselines.csv")
        return ink_baselines(self.data, self.data.test)

    @staticmethod
    def _result(spec: runs.RunSpec) -> dict:
        result = spec.folder.result()
        if result is None:
            raise runs.RunError(f"{spec.name} has not finished ({spec.folder.path}); call study.run() first")
        return result

    def _publish(self) -> None:
        """Ship tables, the weights of the best run, and how they were made."""
        if self.data.is_sample:
            raise runs.RunError("the full profile reports on the full data set, and only the sample was found")
        paths.RESULTS.mkdir(parents=True, exist_ok=True)
        paths.WEIGHTS.mkdir(parents=True, exist_ok=True)
        tables = {"": self.results(), "_history": self.history(), "_confusion": pd.concat(
            [pd.DataFrame(self._result(spec)["confusion"]).assign(name=spec.name) for spec in self.specs]), "_ink_baselines": self.ink_baselines()}
        for suffix, frame in tables.items():
            frame.to_csv(paths.RESULTS / f"{self.name}{suffix}.csv", index=False)
        best = next(spec for spec in self.specs if spec.name == self.best())
        target = paths.WEIGHTS / f"{self.name}_best.safetensors"
        target.write_bytes(best.folder.weights_file.read_bytes())
        file = paths.RESULTS / "provenance.json"
        provenance = json.loads(file.read_text()) if file.exists() else {}
        provenance[self.name] = {
            "command": f"python -m smai_lib run {self.name} --profile full",
            "date": date.today().isoformat(), "runs": len(self.specs), "best": self.best(),
            "data": str(self.data), "data_fingerprint": self.data.fingerprint,
            "machine": f"{platform.machine()}, {engines.cores()} cores, {torch.backends.cpu.get_cpu_capability()}",
            "python": sys.version.split()[0], "torch": torch.__version__,
        }  # fmt: skip
        file.write_text(json.dumps(provenance, indent=1) + "\n")


def ten_configs(profile: str = "recorded", seed: int = 0, data: FashionMNIST | None = None) -> Study:
    """The reference report's ten configurations (Q1)."""
    if profile not in PROFILES:
        raise ValueError(f"profile: found {profile!r}, expected one of {', '.join(PROFILES)}")
    data = data or fashion_mnist()
    configs = TEN_CONFIGS
    if profile == "quick":
        configs = {name: MultiTaskConfig.from_dict(config.to_dict() | {"epochs": QUICK_EPOCHS})
                   for name, config in TEN_CONFIGS.items()}  # fmt: skip
    root = paths.runs_dir() / profile / "q1_configs"
    specs = [runs.RunSpec(name, "q1_configs", config, seed, data.fingerprint, root)
             for name, config in configs.items()]  # fmt: skip
    return Study("q1_configs", profile, specs, data)


STUDIES = {"q1_configs": ten_configs}


def wilson(share: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """95 % confidence interval of a share of n independent images (Wilson 1927)."""
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return centre - half, centre + half


def _shipped(name: str) -> pd.DataFrame:
    file = paths.RESULTS / name
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing: it ships with the repository; restore it with git, "
                                "or choose the profile 'quick' or 'full'")  # fmt: skip
    return pd.read_csv(file)
