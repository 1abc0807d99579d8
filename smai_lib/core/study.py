"""A study: runs that belong together, with their results.

Profiles: `recorded` reads the results that the repository ships; `quick` trains briefly on the
real data; `full` trains the reported study, and alone writes `report/results/` and the weights.
"""

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from filelock import FileLock

from . import paths, pool, runs
from .config import Config
from .data import STAND_INS, Dataset
from .errors import ConfigError, IntegrityError, RunError
from .files import record_checksum, verify_checksum, write
from .runs import Run

PROFILES = ("recorded", "quick", "full")
PROVENANCE = "provenance.json"  # in `report/results/`


def check_profile(profile: str) -> None:
    """Check that `profile` is one of PROFILES.

    Raises:
        ConfigError: it is not.
    """
    if profile not in PROFILES:
        raise ConfigError(f"profile: found {profile!r}, expected one of {', '.join(PROFILES)}")


def read_table(file_name: str) -> pd.DataFrame:
    """Return a recorded table of `report/results/`; its `attrs` say which file it is.

    Raises:
        IntegrityError: the file is missing or altered.
    """
    file = paths.RESULTS / file_name
    verify_checksum(file)
    table = pd.read_csv(file)
    table.attrs["file"] = file_name
    return table


def over_seeds(
    configs: Mapping[str, Config], seed: int, count: int = 1
) -> list[tuple[str, Config, int]]:
    """Return (name, config, seed) for `count` seeds from `seed` on, seed by seed.

    In this order an interrupted study has complete comparisons.
    """
    seeds = range(seed, seed + count)
    return [(name, config, seed) for seed in seeds for name, config in configs.items()]


def best_weights(study: "Study") -> dict[str, Path]:
    """Return the file of weights of the best run, as "best"."""
    return {"best": study.best_run.weights_file}


class Study:
    """Runs that belong together, and their results under one profile.

    Results are recorded tables, or tables computed from what was trained here.

    Args:
        name: name of the study, and of its files in `report/results/`.
        profile: one of PROFILES.
        entries: (name, config, seed) of each run, see `over_seeds`.
        load_data: returns the data set of all runs; recorded results do not need it.
        quick_epochs: epochs by name of a run under the profile "quick"; 1 for names that it lacks.
        rank: column of the results, lower is better with "-", whose mean over seeds chooses the
            best configuration, and whose value the best of its seeds.
        choose: function of the results that names the best configuration instead.
        tables: further tables by name, each a function of the study; or another "results".
        weights: function of the study that returns the weights that `full` ships, by suffix.

    Raises:
        ConfigError: the profile is unknown.
        RunError: "full" would train on other data than the recorded results, or on a stand-in.
    """

    def __init__(
        self,
        name: str,
        profile: str,
        entries: Sequence[tuple[str, Config, int]],
        load_data: Callable[[], Dataset],
        *,
        quick_epochs: Mapping[str, int] | None = None,
        rank: str = "val_accuracy",
        choose: Callable[[pd.DataFrame], str] | None = None,
        tables: Mapping[str, Callable[["Study"], pd.DataFrame]] | None = None,
        weights: Callable[["Study"], dict[str, Path]] = best_weights,
    ):
        check_profile(profile)
        self.name, self.profile, self.load_data = name, profile, load_data
        self.root = paths.runs_dir() / profile / name
        self.rank, self.choose = rank, choose or self._highest_mean
        self.weights = weights
        self.table_functions = {
            "results": type(self).compute_results,
            "history": type(self).compute_history,
            **(tables or {}),
        }
        self._tables: dict[str, pd.DataFrame] = {}
        fingerprint = "" if profile == "recorded" else self.data.fingerprint
        if profile == "full":
            self._check_data()
        self.runs = []
        for label, config, seed in entries:
            if profile == "quick":
                config = config.replace(epochs=(quick_epochs or {}).get(label, 1))
            self.runs.append(Run(config, seed, fingerprint, self.root, label, name, profile))

    def _check_data(self) -> None:
        """Check that the data may be those of the record, which "full" replaces.

        Raises:
            RunError: they are a stand-in, or others than those of the recorded results.
        """
        recorded = _read_provenance().get(self.name, {})
        known = recorded.get("data_fingerprint", self.data.fingerprint)
        if self.data.is_stand_in or known != self.data.fingerprint:
            raise RunError(
                "the profile 'full' needs the study's own data, since it replaces the recorded "
                f"results; found {self.data.counts()} from {self.data.source}. Run `smai fetch`, "
                "unset the variables that name other data, or choose the profile 'quick'"
            )

    @cached_property
    def data(self) -> Dataset:
        """The data set that the study trains and measures on."""
        return self.load_data()

    def run(self, *, device: str = "auto", **where) -> None:
        """Finish every run, with one progress bar; `full` also publishes the results.

        Recorded results need no training.

        Args:
            device: as in `runs.train`.
            where: engine, workers and the like, as in `pool.run_tasks`.
        """
        if self.profile == "recorded":
            return
        runs.run_all(self.runs, self.data, device=device, **where)
        self._tables.clear()
        if self.profile == "full":
            self.publish(self.weights(self), runs=len(self.runs), best=self.best)

    def compute_results(self) -> pd.DataFrame:
        """Return one row a run, from the folders of the runs."""
        return runs.results_table([run.result() for run in self.runs])

    def compute_history(self) -> pd.DataFrame:
        """Return one row a run and epoch, from the folders of the runs."""
        histories = []
        for run in self.runs:
            run.result()  # refuses a damaged file
            histories.append(run.history.assign(name=run.name, seed=run.seed))
        return pd.concat(histories, ignore_index=True)

    @property
    def results(self) -> pd.DataFrame:
        """One row a run: name, config keys, seed, metrics, provenance."""
        return self.table("results")

    @property
    def history(self) -> pd.DataFrame:
        """One row a run and epoch."""
        return self.table("history")

    def table(self, name: str) -> pd.DataFrame:
        """Return a table of the study: the recorded one, or computed from what was trained here.

        It is read or computed once.

        Raises:
            ConfigError: the study has no such table.
            IntegrityError: the recorded table is missing or altered.
            RunError: a run has not finished.
        """
        if name not in self.table_functions:
            names = ", ".join(self.table_functions)
            raise ConfigError(f"table: found {name!r}, expected one of {names}")
        if name not in self._tables:
            recorded = self.profile == "recorded"
            function = self.table_functions[name]
            self._tables[name] = read_table(self._file_name(name)) if recorded else function(self)
        return self._tables[name].copy()

    def _file_name(self, table: str) -> str:
        return f"{self.name}.csv" if table == "results" else f"{self.name}_{table}.csv"

    @property
    def best(self) -> str:
        """Name of the best configuration, chosen on validation.

        Raises:
            ConfigError: the results are not those of named runs.
        """
        if "name" not in self.results:
            raise ConfigError(f"{self.name}: its results are not those of runs, so none is best")
        return self.choose(self.results)

    def _highest_mean(self, results: pd.DataFrame) -> str:
        return self._merit(results).groupby(results["name"]).mean().idxmax()

    def _merit(self, results: pd.DataFrame) -> pd.Series:
        """Return the column `rank` of the results, with its sign changed if lower is better."""
        values = results[self.rank.removeprefix("-")]
        return -values if self.rank.startswith("-") else values

    @property
    def best_run(self) -> Run:
        """The best seed's run of the best configuration."""
        return self.run_named(self.best)

    def run_named(self, name: str) -> Run:
        """Return the run of that name whose seed is best on validation, by the column `rank`.

        Raises:
            ConfigError: no run has that name.
        """
        rows = self.results[self.results["name"] == name]
        if rows.empty:
            names = ", ".join(dict.fromkeys(run.name for run in self.runs))
            raise ConfigError(f"run: found {name!r}, expected one of {names}")
        seed = rows.loc[self._merit(rows).idxmax(), "seed"]
        return next(run for run in self.runs if (run.name, run.seed) == (name, seed))

    def best_network(self) -> torch.nn.Module:
        """Return the trained network of the best run: the shipped one for recorded results.

        Raises:
            IntegrityError: the shipped file is missing, altered, or this study ships none.
            RunError: the runs have not finished.
        """
        if self.profile != "recorded":
            return self.best_run.load_model()
        file = paths.WEIGHTS / f"{self.name}_best.safetensors"
        if not file.exists():
            raise IntegrityError(
                f"{self.name} ships no weights ({file}); run it with the profile 'quick' or 'full'"
            )
        return self.best_run.config.load_model(file)

    def extent(self) -> str:
        """Return how much was trained, for the caption."""
        return f"epochs {span(self.results['epochs'])}"

    def caption(self) -> str:
        """Return where the numbers come from, for the caption of a figure."""
        results = self.results
        first = results.iloc[0]
        source = first["data_source"]
        parts = [
            f"{self.profile} profile",
            self.extent(),
            f"{first['train_images']:,} training images from {source}",
            f"seed {span(results['seed'])}",
            f"{joined(results['precision'])} on {joined(results['device'])}",
            f"torch {joined(results['torch'])}",
        ]
        return " · ".join([STAND_INS[source], *parts] if source in STAND_INS else parts)

    def publish(self, weights: Mapping[str, Path] | None = None, **facts: Any) -> None:
        """Write every table to `report/results/`, weights to `report/weights/`, and provenance.

        If tables and weights are already there, provenance stays as it is.

        Args:
            weights: files of weights by the suffix of their published name.
            facts: further entries of `provenance.json`.
        """
        for folder in (paths.RESULTS, paths.WEIGHTS):
            folder.mkdir(parents=True, exist_ok=True)
        contents = {
            paths.WEIGHTS / f"{self.name}_{suffix}.safetensors": trained.read_bytes()
            for suffix, trained in (weights or {}).items()
        }
        for name in self.table_functions:
            file = paths.RESULTS / self._file_name(name)
            contents[file] = self.table(name).to_csv(index=False)
        with FileLock(paths.lock_file(paths.RESULTS)):
            provenance = _read_provenance()
            if self.name in provenance and all(_holds(*item) for item in contents.items()):
                return  # nothing was trained since; the date and notes of the record stay
            provenance[self.name] = self._provenance() | facts
            contents[paths.RESULTS / PROVENANCE] = json.dumps(provenance, indent=1) + "\n"
            for file, content in contents.items():
                write(file, content)
                record_checksum(file)

    def _provenance(self) -> dict[str, Any]:
        capability = torch.backends.cpu.get_cpu_capability()
        return {
            "command": f"smai run {self.name} --profile full",
            "date": date.today().isoformat(),
            "data": str(self.data),
            "data_fingerprint": self.data.fingerprint,
            "machine": f"{platform.machine()}, {pool.cores()} cores, {capability}",
            "python": platform.python_version(),
            "torch": torch.__version__,
        }


def _read_provenance() -> dict[str, dict[str, Any]]:
    """Return where the recorded results come from, by study; empty if nothing is recorded."""
    file = paths.RESULTS / PROVENANCE
    if not file.exists():
        return {}
    verify_checksum(file)
    return json.loads(file.read_text(encoding="utf-8"))


def _holds(file: Path, content: str | bytes) -> bool:
    """Return whether the file has this content."""
    encoded = content.encode() if isinstance(content, str) else content
    return file.exists() and file.read_bytes() == encoded


def joined(values: pd.Series) -> str:
    """Return the different values, with "and" between them."""
    return " and ".join(values.unique())


def span(values: pd.Series) -> str:
    """Return "LOW to HIGH" of the values, or the value if all are equal."""
    low, high = values.min(), values.max()
    return str(low) if low == high else f"{low} to {high}"
