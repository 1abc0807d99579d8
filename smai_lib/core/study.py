"""A study: runs that belong together, their results, and where their numbers live.

recorded: read the results that the repository ships. quick: train everything, briefly, on the real
data. full: the reported study; the only profile that writes `report/results/` and `figures/`.
"""

import json
import platform
import sys
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure

from . import engines, paths, plotting, runs
from .config import Config
from .sources import SAMPLES
from .weights import record

PROFILES = ("recorded", "quick", "full")
QUICK_EPOCHS = 1


class Captioned:
    """What has a name, a profile and results: figures that say where their numbers come from."""

    def caption(self) -> str:
        """Where the numbers come from, for under a figure."""
        results = self.results()
        first = results.iloc[0]
        warning = f"{SAMPLES[first['data_source']]} · " if first["data_source"] in SAMPLES else ""
        return (f"{warning}{self.profile} profile · {self.extent(results)} · {first['train_images']:,} training "
                f"images from {first['data_source']} · seed {_span(results['seed'])} · {first['precision']} on "
                f"{first['device']} · torch {first['torch']}")

    def extent(self, results: pd.DataFrame) -> str:
        """How much was run, in words for the caption."""
        raise NotImplementedError

    def figure(self, figure: Figure, name: str) -> Figure:
        """`figure` with the caption under it; `full` also writes it to `figures/`."""
        plotting.caption(figure, self.caption())
        if self.profile == "full":
            plotting.save_figure(figure, f"{self.name}_{name}")
        return figure


@dataclass(frozen=True)
class Study(Captioned):
    """Runs that belong together, under one profile."""

    name: str
    profile: str
    specs: list[runs.RunSpec]
    data: runs.Data

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
            return shipped(f"{self.name}.csv")
        return runs.table([self.result(spec) for spec in self.specs])

    def history(self) -> pd.DataFrame:
        """One row a run and epoch."""
        if self.profile == "recorded":
            return shipped(f"{self.name}_history.csv")
        return pd.concat([spec.folder.history().assign(name=spec.name, seed=spec.seed) for spec in self.specs],
                         ignore_index=True)  # fmt: skip

    def best(self) -> str:
        """Name of the run with the highest validation accuracy after its last epoch."""
        results = self.results()
        return results.loc[results["val_accuracy"].idxmax(), "name"]

    def extent(self, results: pd.DataFrame) -> str:
        return f"epochs {_span(results['epochs'])}"

    @staticmethod
    def result(spec: runs.RunSpec) -> dict:
        """What the run of `spec` found; RunError if it has not finished."""
        result = spec.folder.result()
        if result is None:
            raise runs.RunError(f"{spec.name} has not finished ({spec.folder.path}); call study.run() first")
        return result

    def tables(self) -> dict[str, pd.DataFrame]:
        """What `full` ships, by suffix of the file's name."""
        return {"": self.results(), "_history": self.history()}

    def weights(self) -> dict[str, Path]:
        """Weights that `full` ships, by suffix of the file's name: the best run's."""
        best = next(spec for spec in self.specs if spec.name == self.best())
        return {"_best": best.folder.weights_file}

    def _publish(self) -> None:
        ship(self.name, self.data, self.tables(), self.weights(), runs=len(self.specs), best=self.best())


def ship(name: str, data: runs.Data, tables: dict[str, pd.DataFrame], weights: dict[str, Path], **facts) -> None:
    """Write what `full` publishes: tables, weights, and how they were made.

    Args:
        tables, weights: by suffix of the file's name.
        facts: what else provenance.json says of `name`.
    """
    paths.RESULTS.mkdir(parents=True, exist_ok=True)
    paths.WEIGHTS.mkdir(parents=True, exist_ok=True)
    for suffix, frame in tables.items():
        frame.to_csv(paths.RESULTS / f"{name}{suffix}.csv", index=False)
    for suffix, file in weights.items():
        target = paths.WEIGHTS / f"{name}{suffix}.safetensors"
        target.write_bytes(file.read_bytes())
        record(target)
    file = paths.RESULTS / "provenance.json"
    provenance = json.loads(file.read_text()) if file.exists() else {}
    provenance[name] = {
        "command": f"python -m smai_lib run {name} --profile full",
        "date": date.today().isoformat(), **facts,
        "data": str(data), "data_fingerprint": data.fingerprint,
        "machine": f"{platform.machine()}, {engines.cores()} cores, {torch.backends.cpu.get_cpu_capability()}",
        "python": sys.version.split()[0], "torch": torch.__version__,
    }  # fmt: skip
    file.write_text(json.dumps(provenance, indent=1) + "\n")


def check_profile(profile: str) -> None:
    """ValueError unless `profile` is one of PROFILES."""
    if profile not in PROFILES:
        raise ValueError(f"profile: found {profile!r}, expected one of {', '.join(PROFILES)}")


def refuse_sample(profile: str, data: runs.Data, way_out: str) -> None:
    """RunError if `full`, which reports and publishes, would run on what stands in for the study's data."""
    if profile == "full" and data.is_sample:
        raise runs.RunError(f"the full profile reports on the study's own data, and only {data.source} was "
                            f"found; {way_out}, or choose the profile 'quick'")


def assemble(kind: type[Study], name: str, profile: str, asked: list[tuple[str, Config, int]],
             data: runs.Data, *, way_out: str) -> Study:
    """The study `name` of the runs `asked` for: label, configuration and seed of each. `quick` trains them for one epoch.

    Args:
        way_out: where there is data that does not stand in for the study's own, as for `refuse_sample`.

    Raises:
        RunError: the full profile, and `data` only stands in for the study's own.
    """
    refuse_sample(profile, data, way_out)
    if profile == "quick":
        asked = [(label, replace(config, epochs=QUICK_EPOCHS), seed) for label, config, seed in asked]
    root = paths.runs_dir() / profile / name
    return kind(name, profile, [runs.RunSpec(label, name, config, seed, data.fingerprint, root)
                                for label, config, seed in asked], data)  # fmt: skip


def shipped(name: str) -> pd.DataFrame:
    """A table of `report/results/`; FileNotFoundError says how to get it back."""
    file = paths.RESULTS / name
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing: it ships with the repository; restore it with git, "
                                "or choose the profile 'quick' or 'full'")  # fmt: skip
    return pd.read_csv(file)


def _span(values: pd.Series) -> str:
    low, high = values.min(), values.max()
    return str(low) if low == high else f"{low} to {high}"
