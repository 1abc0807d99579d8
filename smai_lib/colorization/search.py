"""Search for hyper-parameters: Optuna trials in one journal file, by as many workers as there are cores.

A trial trains a network for a few epochs and is judged by its validation NLL; one that lies above
the median of the others at the same epoch is pruned. Every finished epoch is a line in the journal,
so a search that was stopped goes on, and trials that were cut off are tried again. Workers see each
other's trials, so which points are tried depends on their timing; with one worker it does not.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import optuna
import pandas as pd
import torch
from optuna.study import MaxTrialsCallback
from optuna.trial import FrozenTrial, Trial, TrialState

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

    @property
    def journal(self) -> Path:
        return self.root / "journal.log"

    def run(self, *, workers: int = 0) -> None:
        """Finish every search, with `workers` processes of one thread, 0 being one a core.

        One worker runs here, without a further process.

        Raises:
            SearchError: the journal is damaged, in use by another process or cannot be written.
        """
        if self.profile == "recorded":
            return
        with runs.exclusive(self.root, SearchError):
            if todo := sum(self._prepare(model) for model in self.spaces):
                workers = min(workers or engines.cores(), todo)
                engines.work(_optimize, range(workers), self, engine="processes" if workers > 1 else "serial",
                             total=todo, unit="trial", title=self.name,
                             way_out=lambda worker: f"in {self.journal}; starting again continues")
        if self.profile == "full":
            study.ship(self.name, self.data, self.tables(), {}, trials=len(self.results()))

    def optuna_study(self, model: str, worker: int = 0) -> optuna.Study:
        """Optuna's own view of the search for `model`, new or continued, for its plots and importances.

        Raises:
            SearchError: the journal is damaged. It is left as it is.
        """
        # a search is named by what it is a function of, so other data or epochs mean another search
        identity = [repr(self.spaces[model]), self.seed, self.data.fingerprint]
        digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]
        seed = derive_seed(self.seed, model, worker) % 2**32
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        check_journal(self.journal)
        try:
            storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(self.journal)))
            return optuna.create_study(
                study_name=f"{model}-{digest}", storage=storage, load_if_exists=True,
                sampler=optuna.samplers.TPESampler(n_startup_trials=RANDOM_TRIALS, seed=seed),
                pruner=optuna.pruners.MedianPruner(UNPRUNED_TRIALS, WARM_UP_EPOCHS))
        except (ValueError, KeyError, TypeError, AssertionError, IndexError) as error:
            raise SearchError(f"{self.journal} cannot be replayed ({type(error).__name__}: {error}); restore it, or "
                              "move it away to start a new search") from error

    def _prepare(self, model: str) -> int:
        """Queue the base and what a stopped search cut off; return how many trials are to be done."""
        found = self.optuna_study(model)
        for trial in found.get_trials(states=(TrialState.RUNNING,)):
            found.tell(trial.number, state=TrialState.FAIL)
            if len(trial.params) == len(SEARCHED):
                found.enqueue_trial(trial.params)
        base = self.spaces[model].base.to_dict()
        found.enqueue_trial({key: base[key] for key in SEARCHED}, skip_if_exists=True)
        return self._left(model)

    def _left(self, model: str) -> int:
        """How many trials are to be done yet."""
        if not self.journal.exists():
            return self.trials
        return max(0, self.trials - len(self.optuna_study(model).get_trials(deepcopy=False, states=DONE)))

    def results(self) -> pd.DataFrame:
        """One row a trial, complete or pruned, in the order of their start, and where it comes from.

        Validation metrics are those of a trial's last epoch; `epochs` says which that was.
        """
        return self.table("", self._results)

    def _results(self) -> pd.DataFrame:
        device = choose_device()
        where = {"seed": self.seed, "train_images": len(self.data.train.images), "data_source": self.data.source,
                 "data_fingerprint": self.data.fingerprint, "device": device.type,
                 "precision": choose_precision("auto", device), "torch": torch.__version__}
        return pd.DataFrame(
            {"model": model, "trial": trial.number, "state": trial.state.name.lower(), **trial.params,
             "epochs": len(trial.intermediate_values), "val_nll": trial.value, **trial.user_attrs,
             "seconds": round(trial.duration.total_seconds(), 1), **where}
            for model in self.spaces for trial in self._trials(model))

    def history(self) -> pd.DataFrame:
        """One row a trial and epoch: model, trial, epoch, val_nll."""
        return self.table("_history", lambda: pd.DataFrame(
            {"model": model, "trial": trial.number, "epoch": epoch, "val_nll": value}
            for model in self.spaces for trial in self._trials(model)
            for epoch, value in trial.intermediate_values.items()))

    def extent(self, results: pd.DataFrame) -> str:
        return f"{len(results)} trials, {(results['state'] == 'pruned').sum()} of them pruned"

    def best(self, model: str) -> dict:
        """The searched keys of the complete trial with the lowest validation NLL."""
        if self.profile != "recorded" and self._left(model):
            raise SearchError(f"the search for {model!r} in {self.journal} has not finished; call search.run() first")
        results = self.results()
        complete = results[(results["model"] == model) & (results["state"] == "complete")]
        if complete.empty:
            raise SearchError(f"no trial of {model!r} is complete in {self.journal}; ask for more trials")
        row = complete.loc[complete["val_nll"].idxmin()]
        return {key: getattr(row[key], "item", lambda key=key: row[key])() for key in SEARCHED}

    def _trials(self, model: str) -> list[FrozenTrial]:
        # pruned by a loss that is not finite: no epoch, no value
        return [trial for trial in self.optuna_study(model).get_trials(states=DONE) if trial.intermediate_values]


def _optimize(worker: int, search: ColorSearch, report: engines.Report) -> None:
    # a trial that another worker still runs is one of the number, or each worker would add one
    limit = MaxTrialsCallback(search.trials, states=(*DONE, TrialState.RUNNING))
    for model, space in search.spaces.items():
        found = search.optuna_study(model, worker)
        if len(found.get_trials(deepcopy=False, states=limit._states)) < search.trials:
            found.optimize(lambda trial, space=space: _trial(trial, space, search, report),
                           callbacks=[lambda *_: report(1), limit])


def _trial(trial: Trial, space: Space, search: ColorSearch, report: engines.Report) -> float:
    """Train one suggestion and return its validation NLL after the last epoch."""
    config = space.suggest(trial)
    objective, model = config.build(search.data, search.seed)
    trial.set_user_attr("parameters", parameter_count(model))

    def on_epoch(row: dict[str, float]) -> None:
        trial.report(row["val_nll"], row["epoch"])
        trial.set_user_attr("val_accuracy", row["val_accuracy"])
        if trial.should_prune():
            raise optuna.TrialPruned

    try:
        rows = fit(model, objective, search.data.train, search.data.validation, config, seed=search.seed,
                   on_epoch=on_epoch, on_batch=lambda images: report(0)).rows
    except NonFiniteLossError as error:
        raise optuna.TrialPruned from error
    return rows[-1]["val_nll"]


def check_journal(file: Path) -> None:
    """SearchError, with the line and the way out, unless every line of `file` is a whole record.

    Optuna passes over a last line that was cut off, and the next record would be glued to it.
    """
    if not file.exists():
        return
    lines = file.read_bytes().split(b"\n")
    torn = lines.pop()  # what follows the last line's end
    for number, line in enumerate(lines, start=1):
        try:
            valid = "op_code" in json.loads(line)
        except (ValueError, TypeError):
            valid = False
        if not valid:
            raise SearchError(f"{file}, line {number}: found {line[:40]!r}, expected a JSON record of Optuna; "
                              "restore the file, or move it away to start a new search. Nothing was changed")
    if torn:
        raise SearchError(f"{file}, line {len(lines) + 1}: found {torn[:40]!r} without an end, a record that "
                          "was cut off; delete that line and the search goes on. Nothing was changed")
