"""Search for hyper-parameters with Optuna, by one worker process a core.

A trial trains a network for a few epochs, and its objective is the validation NLL. A trial whose
NLL is above the median of the others at the same epoch is pruned. Trials are stored in a database,
SQLite by default, so a stopped search continues, and trials that were cut off are tried again.

Every trial seeds its sampler by its own place in the search. Workers see each other's trials, so
which points are tried depends on their timing; with one worker it does not.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import optuna
import pandas as pd
import torch
from filelock import FileLock
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from ..core import paths, pool
from ..core.config import whole_number
from ..core.errors import NonFiniteLossError, RunError
from ..core.files import exclusive
from ..core.layers import parameter_count
from ..core.study import BaseStudy, loader
from ..core.training import choose_device, choose_precision, derive_seed, fit
from .config import ColorizationConfig
from .data import ColorizationData
from .studies import REPORT_CNN, UNET, load_data

SEARCHED = ("learning_rate", "batch_size", "num_filters", "kernel_size", "optimizer")
DONE = (TrialState.COMPLETE, TrialState.PRUNED)
RANDOM_TRIALS = 8  # before the sampler learns from earlier trials
UNPRUNED_TRIALS = 5  # complete trials before the median counts
WARM_UP_EPOCHS = 2  # before a trial may be pruned
LOCK_SECONDS = 60  # a worker waits for the database

TRIALS = {"quick": 4, "full": 30}
EPOCHS = {"cnn": 4, "unet": 3}  # of a trial
IMAGES = {"quick": (1000, 300, 100), "full": (6000, 2000, 100)}


@dataclass(frozen=True, kw_only=True)
class Space:
    """Ranges of the hyper-parameters around a base config, which is the first trial."""

    base: ColorizationConfig
    learning_rate: tuple[float, float]  # a logarithmic range
    batch_size: tuple[int, ...]
    num_filters: tuple[int, ...]
    kernel_size: tuple[int, ...]
    optimizer: tuple[str, ...] = ("Adam", "AdamW")

    def suggest(self, trial: Trial) -> ColorizationConfig:
        """Return the config of a trial."""
        chosen = {
            "learning_rate": trial.suggest_float("learning_rate", *self.learning_rate, log=True)
        }
        for key in SEARCHED[1:]:
            chosen[key] = trial.suggest_categorical(key, getattr(self, key))
        return self.base.replace(**chosen)

    def to_optuna(self, results: pd.DataFrame) -> optuna.Study:
        """Return the complete trials as an Optuna study in memory, for its plots and importances.

        Args:
            results: rows of one model of a search's results.
        """
        ranges = {
            "learning_rate": optuna.distributions.FloatDistribution(*self.learning_rate, log=True)
        }
        for key in SEARCHED[1:]:
            ranges[key] = optuna.distributions.CategoricalDistribution(getattr(self, key))
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study()
        for _, row in results[results["state"] == "complete"].iterrows():
            params = {key: row[key] for key in SEARCHED}
            study.add_trial(
                optuna.trial.create_trial(params=params, distributions=ranges, value=row["val_nll"])
            )
        return study


def search_spaces(profile: str) -> dict[str, Space]:
    """Return the spaces of the report's network and of the U-Net; smaller under "quick"."""
    quick = profile == "quick"
    cnn = REPORT_CNN.replace(keep="last", epochs=2 if quick else EPOCHS["cnn"])
    unet = UNET.replace(dropout_rate=0.1, keep="last", epochs=2 if quick else EPOCHS["unet"])
    return {
        "cnn": Space(
            base=cnn,
            learning_rate=(3e-4, 1e-2),
            batch_size=(16, 32, 64, 128),
            num_filters=(16, 32) if quick else (8, 16, 32),
            kernel_size=(3, 5) if quick else (3, 5, 7),
        ),
        "unet": Space(
            base=unet,
            learning_rate=(5e-4, 2e-2),
            batch_size=(32, 64, 128),
            num_filters=(8, 12, 16),
            kernel_size=(3,) if quick else (3, 5),
        ),
    }


def color_search(
    profile: str = "recorded", seed: int = 0, data: ColorizationData | None = None
) -> "ColorSearch":
    """Return the search over the reference report's five hyper-parameters, for two networks.

    Args:
        profile: "recorded", "quick" or "full".
        seed: seed of the sampler and of the networks.
        data: data set, by default CIFAR-10 in the supplied colours.
    """
    seed = whole_number("seed", seed)
    return ColorSearch(
        "q2_search",
        profile,
        loader(profile, lambda: load_data("full", data).take(*IMAGES[profile])),
        search_spaces(profile),
        TRIALS.get(profile, 0),
        seed,
        paths.runs_dir() / profile / "q2_search",
    )


class ColorSearch(BaseStudy):
    """One search for each space, under one profile, in one database.

    Args:
        name: name of the study.
        profile: one of `study.PROFILES`.
        load_data: returns the data set.
        spaces: space by the name of its network.
        trials: number of trials for each space, pruned ones included.
        seed: seed of the sampler and of the networks.
        root: folder of the database, unless the environment variable SMAI_OPTUNA has its URL.
    """

    def __init__(
        self,
        name: str,
        profile: str,
        load_data: Callable[[], ColorizationData],
        spaces: dict[str, Space],
        trials: int,
        seed: int,
        root: Path,
    ):
        super().__init__(name, profile, load_data)
        self.spaces, self.trials, self.seed, self.root = spaces, trials, seed, root
        self.url = os.environ.get("SMAI_OPTUNA") or f"sqlite:///{root / 'search.db'}"

    def run(self, *, engine: str = "processes", workers: int = 0, device: str = "auto", **where):
        """Finish every search; `full` also publishes the results.

        Args:
            engine: as in `pool.run_tasks`; a single worker process runs in this one.
            workers: number of processes, 0: one a core.
            device: as in `runs.train`.
            where: further arguments of `pool.run_tasks`.

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
                todo += [(model, place) for place in self._missing_places(model)]
            if engine == "processes" and min(workers or pool.cores(), len(todo)) == 1:
                engine = "serial"
            shared = (self.url, self.spaces, self.seed, self.data)
            pool.run_tasks(
                partial(_run_trial, device=device),
                todo,
                shared,
                engine=engine,
                workers=workers,
                **where,
                total=len(todo),
                unit="trial",
                title=self.name,
                hint=lambda item: f"in {self.url}; the same command continues the search",
            )
        self._tables.clear()
        if self.profile == "full":
            self.publish(trials=len(self.results))

    def optuna_study(self, model: str) -> optuna.Study:
        """Return Optuna's own view of the search for a network, for its plots and importances.

        Raises:
            RunError: the database is damaged or cannot be opened.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        return open_study(self.url, self.spaces[model], model, self.seed, self.data)

    def _missing_places(self, model: str) -> list[int]:
        """Return the places of the trials that are not done yet."""
        done = self.optuna_study(model).get_trials(deepcopy=False, states=DONE)
        taken = {trial.user_attrs.get("place", trial.number) for trial in done}
        missing = [place for place in range(self.trials) if place not in taken]
        return missing[: max(0, self.trials - len(done))]

    def compute_results(self) -> pd.DataFrame:
        """Return one row a trial, complete or pruned, with the validation metrics of its end.

        Raises:
            RunError: no trial has finished, or the database cannot be used.
        """
        provenance = {
            "seed": self.seed,
            "train_images": len(self.data.train.images),
            "data_source": self.data.source,
            "data_fingerprint": self.data.fingerprint,
        }
        rows = []
        for model, trial in self._done_trials():
            rows.append(
                {
                    "model": model,
                    "trial": trial.number,
                    "state": trial.state.name.lower(),
                    **trial.params,
                    "epochs": len(trial.intermediate_values),
                    "val_nll": trial.value,
                    **{key: trial.user_attrs[key] for key in ("parameters", "val_accuracy")},
                    "seconds": round(trial.duration.total_seconds(), 1),
                    **provenance,
                    **{key: trial.user_attrs[key] for key in ("device", "precision", "torch")},
                }
            )
        return pd.DataFrame(rows)

    def compute_history(self) -> pd.DataFrame:
        """Return one row a trial and epoch: model, trial, epoch, val_nll."""
        rows = []
        for model, trial in self._done_trials():
            for epoch, value in trial.intermediate_values.items():
                row = {"model": model, "trial": trial.number, "epoch": epoch, "val_nll": value}
                rows.append(row)
        return pd.DataFrame(rows)

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
            raise RunError(f"{self.name} has no finished trial ({self.url}); run it first")
        return trials


def open_study(
    url: str, space: Space, model: str, seed: int, data: ColorizationData, place: int = 0
) -> optuna.Study:
    """Return a new or continued Optuna study, with the sampler of the trial at `place`.

    Args:
        url: URL of the database.
        space: the space.
        model: name of the network.
        seed: seed of the search.
        data: the data; another set is another search.
        place: place of a trial in the search.

    Raises:
        RunError: the database is damaged, not supported or cannot be opened.
    """
    identity = json.dumps([repr(space), seed, data.fingerprint])
    name = f"{model}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"
    sampler = optuna.samplers.TPESampler(
        n_startup_trials=RANDOM_TRIALS, seed=derive_seed(seed, model, place) % 2**32
    )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options = {"connect_args": {"timeout": LOCK_SECONDS}} if url.startswith("sqlite") else {}
    with _storage_errors(url, ImportError, ValueError, RuntimeError):
        storage = optuna.storages.RDBStorage(url, engine_kwargs=options)
        study = optuna.create_study(
            study_name=name,
            storage=storage,
            load_if_exists=True,
            sampler=sampler,
            pruner=optuna.pruners.MedianPruner(UNPRUNED_TRIALS, WARM_UP_EPOCHS),
        )
        study.get_trials(deepcopy=False)
    return study


@contextmanager
def _storage_errors(url: str, *further: type[Exception]) -> Iterator[None]:
    """Turn errors of the database, and `further` ones, into a `RunError` that names it."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError, *further) as error:
        cause = " ".join(str(error.__cause__ or error).split())[:200]
        raise RunError(
            f"the search's database {url} cannot be used ({type(error).__name__}: {cause}). Make "
            "room if the disk is full. Otherwise restore it, or move it away to start a new "
            "search; for another database, check SMAI_OPTUNA and install its driver"
        ) from error


def _run_trial(item: tuple[str, int], shared, report: pool.Report, *, device: str) -> None:
    """Train the trial of a network at a place in the search; the first one is the base config."""
    model_name, place = item
    url, spaces, seed, data = shared
    with _storage_errors(url):
        study = open_study(url, spaces[model_name], model_name, seed, data, place)
        # without the lock, two workers may take the same trial from SQLite's queue
        with FileLock(paths.lock_file(Path(url))):
            if place == 0:
                base = spaces[model_name].base.to_dict()
                study.enqueue_trial({key: base[key] for key in SEARCHED})
            trial = study.ask()
        config = spaces[model_name].suggest(trial)
        _train(study, trial, config, place, data, seed, choose_device(device))
    report(1)


def _train(
    study: optuna.Study,
    trial: Trial,
    config: ColorizationConfig,
    place: int,
    data: ColorizationData,
    seed: int,
    device: torch.device,
) -> None:
    """Train the config of a trial, and store what results need."""
    task, model = config.build(data, seed)
    facts = {
        "place": place,
        "parameters": parameter_count(model),
        "device": device.type,
        "precision": choose_precision("auto", device),
        "torch": torch.__version__,
    }
    for key, value in facts.items():
        trial.set_user_attr(key, value)

    def on_epoch(row: dict[str, float]) -> None:
        trial.report(row["val_nll"], row["epoch"])
        trial.set_user_attr("val_accuracy", row["val_accuracy"])
        if trial.should_prune():
            raise optuna.TrialPruned

    try:
        fitted = fit(
            model, task, data.train, data.validation, config,
            seed=seed, device=device.type, on_epoch=on_epoch,
        )  # fmt: skip
        study.tell(trial, fitted.rows[-1]["val_nll"])
    except (optuna.TrialPruned, NonFiniteLossError):
        study.tell(trial, state=TrialState.PRUNED)
