"""Search for hyper-parameters: Optuna trials in one journal file, by as many workers as there are cores.

A trial trains a network for a few epochs and is judged by its validation NLL; one that lies above
the median of the others at the same epoch is pruned. Every finished epoch is a line in the journal,
so a search that was stopped goes on, and trials that were cut off are tried again. Every trial seeds the
sampler by its own place in the search. Workers see each other's trials, so which points are tried
depends on their timing; with one worker it does not, nor on where the search was stopped.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import optuna
import pandas as pd
import torch
from filelock import FileLock
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from ..core import engines, runs, study
from ..core.layers import parameter_count
from ..core.training import NonFiniteLossError, choose_device, choose_precision, derive_seed, fit
from .data import ColorizationData
from .space import SEARCHED, Space

DONE = (TrialState.COMPLETE, TrialState.PRUNED)
RANDOM_TRIALS = 8  # before the sampler learns from them
UNPRUNED_TRIALS = 5  # complete ones, before there is a median to speak of
WARM_UP_EPOCHS = 2  # a trial may be pruned from this one on


class SearchError(runs.RunError):
    """A journal that cannot be used."""


class Journal(JournalFileBackend):
    """Optuna's journal, under a lock that ends with its holder; a record that was cut off is removed, and said."""

    def __init__(self, file: Path):
        self.file, self.lock = file, FileLock(file.with_name(".journal.lock"))
        super().__init__(str(file), self.lock)

    def append_logs(self, logs: list[dict]) -> None:
        """SearchError if there is no room."""
        with self.lock:
            whole, end, torn = self.file.read_bytes().rpartition(b"\n")
            if torn:
                print(
                    f"{self.file}: removed its last line {torn[:40]!r}, a record that was cut off"
                )
                os.truncate(self.file, len(whole + end))
            try:
                super().append_logs([log | {"sha256": _digest(log)} for log in logs])
            except OSError as error:
                raise SearchError(
                    f"cannot write {self.file} ({error.strerror}); make room there, and starting again "
                    "continues the search"
                ) from error


@dataclass(frozen=True)
class ColorSearch(study.Recorded):
    """One search for each of `spaces`, under one profile, all in the journal under `root`."""

    name: str
    profile: str
    spaces: dict[str, Space]  # by the name of the network
    trials: int  # for each, pruned ones included
    seed: int
    load: Callable[[], ColorizationData]
    root: Path
    storage: str = field(
        default_factory=lambda: os.environ.get("SMAI_OPTUNA", "")
    )  # a database's URL; else the journal

    @property
    def journal(self) -> Path:
        return self.root / "journal.log"

    def run(
        self, *, engine: str = "processes", workers: int = 0, device: str = "auto", **where
    ) -> None:
        """Finish every search, with `workers` processes of one thread, 0 being one a core; else as `engines.work`.

        One worker process runs here, without a further process.

        Raises:
            SearchError: the journal is damaged, in use by another process or cannot be written.
        """
        if self.profile == "recorded":
            return
        with runs.exclusive(self.root, SearchError):
            for model in self.spaces:
                found = self.optuna_study(model)
                for trial in found.get_trials(states=(TrialState.RUNNING,)):  # cut off
                    found.tell(trial.number, state=TrialState.FAIL)
            todo = [(model, place) for model in self.spaces for place in self._left(model)]
            if engine == "processes" and min(workers or engines.cores(), len(todo)) == 1:
                engine = "serial"
            engines.work(
                partial(_trial, device=device),
                todo,
                self,
                engine=engine,
                workers=workers,
                **where,
                total=len(todo),
                unit="trial",
                title=self.name,
                way_out=lambda item: f"in {self.journal}; starting again continues",
            )
        if self.profile == "full":
            study.ship(self.name, self.data, self.tables(), {}, trials=len(self.results()))

    def optuna_study(self, model: str, place: int = 0) -> optuna.Study:
        """Optuna's own view of the search for `model`, new or continued, for its plots and importances.

        Its sampler is that of the trial at `place`; the first one is the base.

        Raises:
            SearchError: the journal is damaged. It is left as it is.
        """
        # a search is named by what it is a function of, so other data or epochs mean another search
        identity = [repr(self.spaces[model]), self.seed, self.data.fingerprint]
        digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=RANDOM_TRIALS, seed=derive_seed(self.seed, model, place) % 2**32
        )
        if place == 0:
            base = self.spaces[model].base.to_dict()
            with warnings.catch_warnings(
                category=optuna.exceptions.ExperimentalWarning, action="ignore"
            ):
                sampler = optuna.samplers.PartialFixedSampler(
                    {key: base[key] for key in SEARCHED}, sampler
                )
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        check_journal(self.journal)
        try:
            return optuna.create_study(
                study_name=f"{model}-{digest}",
                storage=self.storage or optuna.storages.JournalStorage(Journal(self.journal)),
                load_if_exists=True,
                sampler=sampler,
                pruner=optuna.pruners.MedianPruner(UNPRUNED_TRIALS, WARM_UP_EPOCHS),
            )
        except (ValueError, KeyError, TypeError, AssertionError, IndexError) as error:
            raise SearchError(
                f"{self.journal} cannot be replayed ({type(error).__name__}: {error}); restore it, or "
                "move it away to start a new search"
            ) from error

    def _left(self, model: str) -> list[int]:
        """Places of the trials that are to be done yet."""
        done = self.optuna_study(model).get_trials(deepcopy=False, states=DONE)
        taken = {trial.user_attrs.get("place", trial.number) for trial in done}
        return [place for place in range(self.trials) if place not in taken][
            : max(0, self.trials - len(done))
        ]

    def results(self) -> pd.DataFrame:
        """One row a trial, complete or pruned, in the order of their start, and where it comes from.

        Validation metrics are those of a trial's last epoch; `epochs` says which that was.
        """
        return self.table("", self._results)

    def _results(self) -> pd.DataFrame:
        where = {
            "seed": self.seed,
            "train_images": len(self.data.train.images),
            "data_source": self.data.source,
            "data_fingerprint": self.data.fingerprint,
        }
        return pd.DataFrame(
            {
                "model": model,
                "trial": trial.number,
                "state": trial.state.name.lower(),
                **trial.params,
                "epochs": len(trial.intermediate_values),
                "val_nll": trial.value,
                **{key: trial.user_attrs[key] for key in ("parameters", "val_accuracy")},
                "seconds": round(trial.duration.total_seconds(), 1),
                **where,
                **_device(trial),
                "torch": torch.__version__,
            }
            for model in self.spaces
            for trial in self._trials(model)
        )

    def history(self) -> pd.DataFrame:
        """One row a trial and epoch: model, trial, epoch, val_nll."""
        return self.table(
            "_history",
            lambda: pd.DataFrame(
                {"model": model, "trial": trial.number, "epoch": epoch, "val_nll": value}
                for model in self.spaces
                for trial in self._trials(model)
                for epoch, value in trial.intermediate_values.items()
            ),
        )

    def extent(self, results: pd.DataFrame) -> str:
        return f"{len(results)} trials, {(results['state'] == 'pruned').sum()} of them pruned"

    def _trials(self, model: str) -> list[FrozenTrial]:
        # pruned by a loss that is not finite: no epoch, no value
        return [
            trial
            for trial in self.optuna_study(model).get_trials(states=DONE)
            if trial.intermediate_values
        ]


def _device(trial: FrozenTrial) -> dict[str, str]:
    device = choose_device(
        trial.user_attrs.get("device", "auto")
    )  # one of an older journal does not say
    return {"device": device.type, "precision": choose_precision("auto", device)}


def _trial(
    item: tuple[str, int], search: ColorSearch, report: engines.Report, *, device: str
) -> None:
    """One trial of the search for a model, at a place in it: train a suggestion, to its validation NLL at the end."""
    name, place = item
    found = search.optuna_study(name, place)
    trial = found.ask()
    trial.set_user_attr("place", place)
    trial.set_user_attr("device", choose_device(device).type)
    config = search.spaces[name].suggest(trial)
    objective, model = config.build(search.data, search.seed)
    trial.set_user_attr("parameters", parameter_count(model))

    def on_epoch(row: dict[str, float]) -> None:
        trial.report(row["val_nll"], row["epoch"])
        trial.set_user_attr("val_accuracy", row["val_accuracy"])
        if trial.should_prune():
            raise optuna.TrialPruned

    try:
        fitted = fit(
            model,
            objective,
            search.data.train,
            search.data.validation,
            config,
            seed=search.seed,
            device=device,
            on_epoch=on_epoch,
        )
        found.tell(trial, fitted.rows[-1]["val_nll"])
    except (optuna.TrialPruned, NonFiniteLossError):
        found.tell(trial, state=TrialState.PRUNED)
    report(1)


def _digest(record: dict) -> str:
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()[:16]


def check_journal(file: Path) -> None:
    """SearchError, with the line and the way out, unless every line of `file` is a record as it was written."""
    if not file.exists():
        return
    lines = file.read_bytes().split(b"\n")[:-1]  # Optuna passes over a last line without an end
    sealed = any(
        b'"sha256"' in line for line in lines[:2]
    )  # else it was begun before there were digests
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            found = record.pop("sha256", "" if sealed else _digest(record))
            valid = "op_code" in record and found == _digest(record)
        except (ValueError, TypeError, AttributeError):
            valid = False
        if not valid:
            raise SearchError(
                f"{file}, line {number}: found {line[:40]!r}, expected a record of Optuna's with its SHA-256; "
                "restore the file, or move it away to start a new search. Nothing was changed"
            )
