"""Search for hyper-parameters with Optuna, by one worker process a core.

A trial trains a network for a few epochs, and its objective is the validation NLL. A trial whose
NLL is above the median of the others at the same epoch is pruned. Trials are stored in a database,
SQLite by default, so a stopped search continues, and trials that were cut off are tried again.

Every trial seeds its sampler by its own place in the search. Workers see each other's trials, so
which points are tried depends on their timing; with one worker it does not.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import optuna
import pandas as pd
import torch
from filelock import FileLock
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from ..core import paths, pool
from ..core.errors import NonFiniteLossError, RunError
from ..core.files import exclusive
from ..core.layers import parameter_count
from ..core.study import Study
from ..core.training import choose_device, choose_precision, derive_seed, fit
from .config import ColorizationConfig
from .data import ColorizationData
from .studies import REPORT_CNN, UNET, default_data

DONE = (TrialState.COMPLETE, TrialState.PRUNED)
RANDOM_TRIALS = 8  # before the sampler learns from earlier trials
UNPRUNED_TRIALS = 5  # complete trials before the median counts
WARM_UP_EPOCHS = 2  # before a trial may be pruned
LOCK_SECONDS = 60  # a worker waits for the database

TRIALS = {"quick": 3, "full": 30}  # of each network, pruned ones included
IMAGES = {"quick": (1000, 300, 100), "full": (6000, 2000, 100)}


class Space(NamedTuple):
    """A base config, which is the first trial, and the values of the hyper-parameters around it."""

    base: ColorizationConfig
    ranges: dict[str, BaseDistribution]


SPACES = {
    "cnn": Space(
        REPORT_CNN.replace(keep="last", epochs=4),
        {
            "learning_rate": FloatDistribution(3e-4, 1e-2, log=True),
            "batch_size": CategoricalDistribution((16, 32, 64, 128)),
            "num_filters": CategoricalDistribution((8, 16, 32)),
            "kernel_size": CategoricalDistribution((3, 5, 7)),
            "optimizer": CategoricalDistribution(("Adam", "AdamW")),
        },
    ),
    "unet": Space(
        UNET.replace(dropout_rate=0.1, keep="last", epochs=3),
        {
            "learning_rate": FloatDistribution(5e-4, 2e-2, log=True),
            "batch_size": CategoricalDistribution((32, 64, 128)),
            "num_filters": CategoricalDistribution((8, 12, 16)),
            "kernel_size": CategoricalDistribution((3, 5)),
            "optimizer": CategoricalDistribution(("Adam", "AdamW")),
        },
    ),
}
SEARCHED = tuple(SPACES["cnn"].ranges)


class ColorSearch(Study):
    """The search over the reference report's five hyper-parameters, for two networks.

    Its database is in the study's folder, unless the environment variable SMAI_OPTUNA has a URL.

    Args:
        profile: "recorded", "quick" or "full".
        seed: seed of the sampler and of the networks.
        data: data set, by default CIFAR-10 in the supplied colours.
    """

    def __init__(
        self, profile: str = "recorded", seed: int = 0, data: ColorizationData | None = None
    ):
        super().__init__("q2_search", profile, [], partial(_load_data, profile, data))
        self.trials, self.seed, self.spaces = TRIALS.get(profile, 0), seed, SPACES
        self.url = os.environ.get("SMAI_OPTUNA") or f"sqlite:///{self.root / 'search.db'}"

    def run(self, *, device: str = "auto", **where) -> None:
        """Finish every search; `full` also publishes the results.

        Args:
            device: as in `runs.train`.
            where: engine, workers and the like, as in `pool.run_tasks`.

        Raises:
            RunError: the database is damaged, in use by another search or cannot be written.
        """
        if self.profile == "recorded":
            return
        with exclusive(self.root):
            todo = []
            for model in self.spaces:
                study = self.optuna_study(model)
                for trial in study.get_trials(states=(TrialState.RUNNING,)):  # cut off
                    study.tell(trial.number, state=TrialState.FAIL)
                places = {trial.user_attrs["place"] for trial in study.get_trials(states=DONE)}
                todo += [(model, n) for n in range(self.trials) if n not in places]
            pool.run_tasks(
                partial(_run_trial, device=device),
                todo,
                self,
                **where,
                total=len(todo),
                unit="trial",
                title=self.name,
                hint=lambda item: (
                    f"in {_hide_password(self.url)}; the same command continues the search"
                ),
            )
        self._tables.clear()
        if self.profile == "full":
            self.publish(trials=len(self.results))

    def optuna_study(self, model: str, place: int = 0) -> optuna.Study:
        """Return Optuna's own view of the search for a network, for its plots and importances.

        Args:
            model: name of the network.
            place: place of the trial in the search that the sampler is for.

        Raises:
            RunError: the database is damaged, not supported or cannot be opened, or the profile is
                "recorded", which has none.
        """
        if self.profile == "recorded":
            raise RunError(f"{self.name}: recorded results have no database; use 'quick' or 'full'")
        self.root.mkdir(parents=True, exist_ok=True)
        identity = repr((self.spaces[model], self.seed, self.data.fingerprint))
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=RANDOM_TRIALS, seed=derive_seed(self.seed, model, place) % 2**32
        )
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        lock = {"connect_args": {"timeout": LOCK_SECONDS}} if self.url.startswith("sqlite") else {}
        with _storage_errors(self.url, ImportError, ValueError, RuntimeError):
            study = optuna.create_study(
                study_name=f"{model}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}",
                storage=optuna.storages.RDBStorage(self.url, engine_kwargs=lock),
                load_if_exists=True,
                sampler=sampler,
                pruner=optuna.pruners.MedianPruner(UNPRUNED_TRIALS, WARM_UP_EPOCHS),
            )
            study.get_trials(deepcopy=False)  # reads all of them, so that damage is noticed
        return study

    def compute_results(self) -> pd.DataFrame:
        """Return one row a trial, complete or pruned, with the validation metrics of its end.

        Raises:
            RunError: no trial has finished, or the database cannot be used.
        """
        rows = []
        for model, trial in self._done_trials():
            row = {"model": model, "trial": trial.number, "state": trial.state.name.lower()}
            row |= {**trial.params, "epochs": trial.last_step, "val_nll": trial.value}
            row["val_accuracy"] = trial.user_attrs["val_accuracy"]
            row["seconds"] = round(trial.duration.total_seconds(), 1)
            rows.append(row | trial.user_attrs["facts"])
        return pd.DataFrame(rows)

    def compute_history(self) -> pd.DataFrame:
        """Return one row a trial and epoch: model, trial, epoch, val_nll."""
        rows = [
            (model, trial.number, epoch, value)
            for model, trial in self._done_trials()
            for epoch, value in trial.intermediate_values.items()
        ]
        return pd.DataFrame(rows, columns=["model", "trial", "epoch", "val_nll"])

    def extent(self) -> str:
        """Return the number of trials, for the caption."""
        pruned = (self.results["state"] == "pruned").sum()
        return f"{len(self.results)} trials, {pruned} of them pruned"

    def _done_trials(self) -> list[tuple[str, FrozenTrial]]:
        """Return the trials with at least one epoch; a loss that is not finite leaves none."""
        trials = [
            (model, trial)
            for model in self.spaces
            for trial in self.optuna_study(model).get_trials(states=DONE)
            if trial.intermediate_values
        ]
        if not trials:
            database = _hide_password(self.url)
            raise RunError(f"{self.name} has no finished trial ({database}); run it first")
        return trials


def _load_data(profile: str, data: ColorizationData | None) -> ColorizationData:
    return (data or default_data(profile)).take(*IMAGES[profile])


def _hide_password(url: str) -> str:
    """Return the URL of a database as messages and logs show it."""
    return re.sub(r"(://[^:/@]*):.*@", r"\1:***@", url)


@contextmanager
def _storage_errors(url: str, *further: type[Exception]) -> Iterator[None]:
    """Turn errors of the database, and `further` ones, into a `RunError` that names it."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError, *further) as error:
        cause = " ".join(str(error.__cause__ or error).split())[:200]
        raise RunError(
            f"the search's database {_hide_password(url)} cannot be used "
            f"({type(error).__name__}: {cause}). Make room if the disk is full. Otherwise restore "
            "it, or move it away to start a new search; for another database, check SMAI_OPTUNA "
            "and install its driver"
        ) from error


def _run_trial(
    item: tuple[str, int], search: ColorSearch, report: pool.Report, *, device: str
) -> None:
    """Train the trial of a network at a place in the search; the first one is the base config."""
    model, place = item
    base, ranges = search.spaces[model]
    with _storage_errors(search.url):
        study = search.optuna_study(model, place)
        # without the lock, two workers may take the same trial from SQLite's queue
        with FileLock(paths.lock_file(Path(search.url))):
            if place == 0:
                study.enqueue_trial({key: getattr(base, key) for key in ranges})
            trial = study.ask(ranges)
        trial.set_user_attr("place", place)
        try:
            value = _train(trial, base.replace(**trial.params), search, choose_device(device))
            study.tell(trial, value)
        except (optuna.TrialPruned, NonFiniteLossError):
            study.tell(trial, state=TrialState.PRUNED)
    report(1)


def _train(
    trial: optuna.Trial, config: ColorizationConfig, search: ColorSearch, device: torch.device
) -> float:
    """Train the config of a trial, store what results need, and return the validation NLL."""
    data = search.data
    task, model = config.build(data, search.seed)
    facts = {
        "parameters": parameter_count(model),
        "seed": search.seed,
        "train_images": len(data.train.images),
        "data_source": data.source,
        "data_fingerprint": data.fingerprint,
        "device": device.type,
        "precision": choose_precision("auto", device),
        "torch": torch.__version__,
    }
    trial.set_user_attr("facts", facts)

    def on_epoch(row: dict[str, float]) -> None:
        trial.report(row["val_nll"], row["epoch"])
        trial.set_user_attr("val_accuracy", row["val_accuracy"])
        if trial.should_prune():
            raise optuna.TrialPruned

    fitted = fit(
        model,
        task,
        data.train,
        data.validation,
        config,
        seed=search.seed,
        device=device.type,
        on_epoch=on_epoch,
    )
    return fitted.rows[-1]["val_nll"]
