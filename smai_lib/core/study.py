"""A study: runs that belong together, their results, and where their numbers live.

recorded: read the results that the repository ships. quick: train everything, briefly, on the real
data. full: the reported study; the only profile that writes `report/results/` and `figures/`.
"""

import json
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property, partial
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure

from . import engines, paths, plotting, runs
from .checksums import record, verify
from .config import Config, require_number
from .sources import STAND_INS, Dataset

PROFILES = ("recorded", "quick", "full")


class Recorded:
    """What has a name, a profile and results: tables recorded or computed, figures that say where they come from."""

    @cached_property
    def data(self) -> Dataset:
        """What is trained and measured on; recorded results are read without it."""
        return self.load()

    def tables(self) -> dict[str, pd.DataFrame]:
        """What `full` ships, by suffix of the file's name."""
        return {"": self.results(), "_history": self.history()}

    def table(self, suffix: str, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """The table of that suffix: the shipped one under the profile `recorded`, else what `compute` returns."""
        return shipped(f"{self.name}{suffix}.csv") if self.profile == "recorded" else compute()

    def caption(self) -> str:
        """Where the numbers come from, for under a figure."""
        results = self.results()
        first = results.iloc[0]
        warning = (
            f"{STAND_INS[first['data_source']]} · " if first["data_source"] in STAND_INS else ""
        )
        return (
            f"{warning}{self.profile} profile · {self.extent(results)} · {first['train_images']:,} training "
            f"images from {first['data_source']} · seed {_span(results['seed'])} · "
            f"{' and '.join(results['precision'].unique())} on {first['device']} · torch {first['torch']}"
        )

    def extent(self, results: pd.DataFrame) -> str:
        """How much was run, in words for the caption."""
        raise NotImplementedError

    def figure(self, figure: Figure, name: str) -> Figure:
        """`figure` with the caption under it; `full` also writes it to `figures/`."""
        plotting.caption(figure, self.caption())
        if self.profile == "full":
            paths.FIGURES.mkdir(exist_ok=True)
            figure.savefig(
                paths.FIGURES / f"{self.name}_{name}.png", dpi=150, metadata={"Software": None}
            )
        return figure


@dataclass(frozen=True)
class Study(Recorded):
    """Runs under one profile."""

    name: str
    profile: str
    specs: list[runs.RunSpec]
    load: Callable[[], Dataset]

    def run(self, *, device: str = "auto", **where) -> None:
        """Finish every run, showing one bar over all images; `full` also publishes the results.

        Nothing to do for recorded results. `where`: engine, workers and the like, as in `engines.work`.
        """
        if self.profile == "recorded":
            return
        runs.run_all(self.specs, self.data, device=device, **where)
        if self.profile == "full":
            self.publish()

    def publish(self) -> None:
        ship(
            self.name,
            self.data,
            self.tables(),
            self.weights(),
            runs=len(self.specs),
            best=self.best(),
        )

    def results(self) -> pd.DataFrame:
        """One row a run: the config's keys, seed, metrics, provenance."""
        return self.table("", lambda: runs.table([self.result(spec) for spec in self.specs]))

    def history(self) -> pd.DataFrame:
        """One row a run and epoch."""
        return self.table(
            "_history",
            lambda: pd.concat(
                [
                    spec.folder.history().assign(name=spec.name, seed=spec.seed)
                    for spec in self.specs
                    if self.result(spec)
                ],
                ignore_index=True,
            ),
        )

    def best(self) -> str:
        """Name of the run with the highest validation accuracy after its last epoch."""
        results = self.results()
        return results.loc[results["val_accuracy"].idxmax(), "name"]

    def best_spec(self, name: str = "") -> runs.RunSpec:
        """The run of `name`, by default the best, whose seed is best by the same measure."""
        return max(
            (spec for spec in self.specs if spec.name == (name or self.best())), key=self.merit
        )

    def merit(self, spec: runs.RunSpec) -> float:
        """What seeds of one name are chosen by, on validation; higher is better."""
        return self.result(spec)["metrics"]["val_accuracy"]

    def best_network(self) -> torch.nn.Module:
        """The trained network of the best run: the shipped one for recorded results, else the run's own.

        Raises: WeightsError, as `Config.load`; RunError if the study's runs have not finished.
        """
        config = next(spec.config for spec in self.specs if spec.name == self.best())
        shipped_file = paths.WEIGHTS / f"{self.name}_best.safetensors"
        return config.load(shipped_file if self.profile == "recorded" else self.weights()["_best"])

    def extent(self, results: pd.DataFrame) -> str:
        return f"epochs {_span(results['epochs'])}"

    @staticmethod
    def result(spec: runs.RunSpec) -> dict:
        """What the run of `spec` found; RunError if it has not finished, or is not as it was written."""
        if result := spec.folder.result():
            return result
        raise runs.RunError(
            f"{spec.name} has not finished ({spec.folder.path}); call study.run() first"
        )

    def weights(self) -> dict[str, Path]:
        """Weights that `full` ships, by suffix of the file's name: the best run's."""
        return {"_best": self.best_spec().weights_file}


def over_seeds(
    configs: Mapping[str, Config], seed: int, count: int = 1
) -> list[tuple[str, Config, int]]:
    """What `assemble` wants, seed by seed, so that an interrupted study has whole comparisons.

    Raises: ConfigError for a seed that is no whole number.
    """
    require_number("seed", seed, int)
    return [
        (name, config, seed + offset) for offset in range(count) for name, config in configs.items()
    ]


def assemble(
    kind: type[Study],
    name: str,
    profile: str,
    wanted: Sequence[tuple[str, Config, int]],
    load: Callable[[], Dataset],
    *,
    quick_epochs: Mapping[str, int] | None = None,
) -> Study:
    """The study `name` of the runs `wanted`: label, configuration and seed of each.

    Args:
        load: the data, which recorded results do not need.
        quick_epochs: label -> epochs under `quick`, 1 where it is not named.

    Raises: as `loader`.
    """
    load = loader(profile, load)
    fingerprint = "" if profile == "recorded" else load().fingerprint
    if profile == "quick":
        wanted = [
            (label, replace(config, epochs=(quick_epochs or {}).get(label, 1)), seed)
            for label, config, seed in wanted
        ]
    root = paths.runs_dir() / profile / name
    specs = [
        runs.RunSpec(label, name, config, seed, fingerprint, root, profile)
        for label, config, seed in wanted
    ]
    return kind(name, profile, specs, load)


def ship(
    name: str, data: Dataset, tables: dict[str, pd.DataFrame], weights: dict[str, Path], **facts
) -> None:
    """Write what `full` publishes: tables and weights, by suffix of the file's name, with `facts` of their making."""
    for folder in (paths.RESULTS, paths.WEIGHTS):
        folder.mkdir(parents=True, exist_ok=True)
    file = paths.RESULTS / "provenance.json"
    provenance = json.loads(file.read_text()) if file.exists() and verify(file) else {}
    for suffix, frame in tables.items():
        frame.to_csv(table := paths.RESULTS / f"{name}{suffix}.csv", index=False)
        record(table)
    for suffix, trained in weights.items():
        target = paths.WEIGHTS / f"{name}{suffix}.safetensors"
        target.write_bytes(trained.read_bytes())
        record(target)
    provenance[name] = {
        "command": f"python -m smai_lib run {name} --profile full",
        "date": date.today().isoformat(),
        **facts,
        "data": str(data),
        "data_fingerprint": data.fingerprint,
        "machine": f"{platform.machine()}, {engines.cores()} cores, {torch.backends.cpu.get_cpu_capability()}",
        "python": sys.version.split()[0],
        "torch": torch.__version__,
    }
    file.write_text(json.dumps(provenance, indent=1) + "\n")
    record(file)


def check_profile(profile: str) -> None:
    """ValueError unless `profile` is one of PROFILES."""
    if profile not in PROFILES:
        raise ValueError(f"profile: found {profile!r}, expected one of {', '.join(PROFILES)}")


def loader(profile: str, load: Callable[[], Dataset]) -> Callable[[], Dataset]:
    """`load`, called here and now unless results are only read.

    Raises:
        ValueError: an unknown profile, before any data is read.
        RunError: `full`, which reports and publishes, would run on what stands in for the study's own data.
    """
    check_profile(profile)
    if profile == "recorded":
        return load
    data = load()
    if profile == "full" and data.is_stand_in:
        raise runs.RunError(
            f"the full profile reports on the study's own data, and only {data.source} was found; "
            "see `python -m smai_lib fetch`, or choose the profile 'quick'"
        )
    return partial(_same, data)  # which a worker process can be given


def _same(data: Dataset) -> Dataset:
    return data


def shipped(name: str) -> pd.DataFrame:
    """A table of `report/results/`; ChecksumError unless it is there and what was recorded."""
    verify(file := paths.RESULTS / name)
    return pd.read_csv(file)


def _span(values: pd.Series) -> str:
    low, high = values.min(), values.max()
    return str(low) if low == high else f"{low} to {high}"
