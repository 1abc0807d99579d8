"""A run is a config, a data set and a seed; it lives in a folder that is named by a hash of them.

`result.json` is written last, so it exists only if the run has finished. It holds the SHA-256 of
the run's other files, and a damaged file is refused. A finished run is looked up, not trained.
An interrupted run continues from its last epoch, on the device, in the precision and with the
number of threads of its start, because the bits of the result depend on them.
"""

import hashlib
import io
import json
import platform
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import save

from . import paths, pool, tracking
from .config import Config, whole_number
from .data import Dataset
from .errors import ConfigError, RunError
from .files import exclusive, sha256, write
from .layers import parameter_count
from .training import Fitted, choose_device, choose_precision, fit

RUNS_ON_A_GPU = 4  # at a time, unless the caller says how many; each has its own copy of the data
SETTINGS = ("device", "precision", "threads")  # of a run's start; a resumed run keeps them


@dataclass(frozen=True)
class Run:
    """One run and the files that it leaves.

    Files in `folder`: config.json, history.csv (a row an epoch), checkpoint.pt (until the run has
    finished), last.safetensors and best.safetensors (weights), result.json.
    """

    config: Config
    seed: int
    data_fingerprint: str
    root: Path  # the folder that holds the run's folder
    name: str = ""
    study: str = ""
    profile: str = "own"

    def __post_init__(self):
        object.__setattr__(self, "seed", whole_number("seed", self.seed))

    @property
    def run_id(self) -> str:
        """Hash of the changed config keys, the seed and the data, 12 hexadecimal digits."""
        identity = [self.config.kind, self.config.changed(), self.seed, self.data_fingerprint]
        return _checksum(json.dumps(identity, sort_keys=True).encode())[:12]

    @property
    def folder(self) -> Path:
        """The folder of the run's files."""
        return self.root / self.run_id

    @property
    def history_file(self) -> Path:
        """Metrics, a row an epoch."""
        return self.folder / "history.csv"

    @property
    def result_file(self) -> Path:
        """Final metrics and the SHA-256 of the other files; exists once the run has finished."""
        return self.folder / "result.json"

    @property
    def checkpoint_file(self) -> Path:
        """State after the last whole epoch of an unfinished run."""
        return self.folder / "checkpoint.pt"

    @property
    def weights_files(self) -> dict[str, Path]:
        """Weights of the `last` epoch and of the `best` one, by validation loss."""
        return {epoch: self.folder / f"{epoch}.safetensors" for epoch in ("last", "best")}

    @property
    def weights_file(self) -> Path:
        """The weights that the test metrics belong to."""
        return self.weights_files[self.config.keep]

    @property
    def finished(self) -> bool:
        """Whether the run has finished; `result` also verifies its files."""
        return self.result_file.exists()

    def result(self) -> dict[str, Any]:
        """Return the content of result.json.

        Raises:
            RunError: the run has not finished, or a file is missing, altered or of another run.
        """
        if not self.finished:
            raise RunError(f"{self.name} has not finished ({self.folder}); train it first")
        damaged = [self.result_file.name]
        with suppress(ValueError, LookupError, TypeError):  # not what `finish` writes
            result = json.loads(self.result_file.read_bytes())
            if result["run_id"] == self.run_id and result["sha256"] == _own_checksum(result):
                checksums = self._checksums()
                recorded = result["files"]
                damaged = [name for name in recorded if recorded[name] != checksums.get(name)]
        if damaged:
            raise RunError(
                f"{self.folder / damaged[0]} is damaged, missing or of another run, by the SHA-256 "
                f"in result.json; delete {self.folder} to train this run again"
            )
        return result

    @property
    def metrics(self) -> dict[str, float]:
        """Final metrics.

        `train_*` and `val_*` are of the last epoch, in the precision of training. `test_*` and
        columns with `mirror` are of the epoch kept, in float32 on the CPU.
        """
        return self.result()["metrics"]

    @property
    def history(self) -> pd.DataFrame:
        """Metrics of every epoch so far, a row an epoch."""
        return pd.read_csv(self.history_file) if self.history_file.exists() else pd.DataFrame()

    def load_model(self) -> torch.nn.Module:
        """Return the trained network that the test metrics belong to, in evaluation mode.

        Raises:
            RunError: the run has not finished, or a file is damaged.
        """
        self.result()
        return self.config.load_model(self.weights_file)

    def _checksums(self) -> dict[str, str]:
        """Return the SHA-256 of the run's files by name."""
        files = (self.folder / "config.json", self.history_file, *self.weights_files.values())
        return {file.name: sha256(file) for file in files if file.exists()}

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Return the last checkpoint, and make the history agree with it.

        Raises:
            RunError: the checkpoint is damaged or of another run.
        """
        if not self.checkpoint_file.exists():
            self.history_file.unlink(missing_ok=True)
            return None
        try:
            digest, content = self.checkpoint_file.read_bytes().split(b"\n", 1)
            if digest.decode() != _checksum(content):
                raise ValueError("its SHA-256 is not the one in its first line")
            checkpoint = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
            if checkpoint["run_id"] != self.run_id:
                raise ValueError(f"it is of run {checkpoint['run_id']!r}, expected {self.run_id}")
        except Exception as error:  # torch raises many kinds
            raise RunError(
                f"{self.checkpoint_file} cannot be read ({type(error).__name__}: {error}); "
                "delete it to train this run again from the start"
            ) from error
        self._write_history(checkpoint["rows"])
        return checkpoint

    def save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Replace the checkpoint, then the history, so that a kill loses no whole epoch."""
        buffer = io.BytesIO()
        torch.save(checkpoint | {"run_id": self.run_id}, buffer)
        content = buffer.getvalue()
        write(self.checkpoint_file, _checksum(content).encode() + b"\n" + content)
        self._write_history(checkpoint["rows"])

    def _write_history(self, rows: list[dict[str, float]]) -> None:
        write(self.history_file, pd.DataFrame(rows).to_csv(index=False))  # every digit

    def finish(self, result: dict[str, Any], states: dict[str, dict[str, torch.Tensor]]) -> None:
        """Write the weights of `states` (by epoch: last, best), then the result with checksums."""
        for epoch, state in states.items():
            tensors = {name: value.cpu().contiguous() for name, value in state.items()}
            write(self.weights_files[epoch], save(tensors))
        result = result | {"files": self._checksums()}
        result["sha256"] = _own_checksum(result)
        write(self.result_file, json.dumps(result, indent=1) + "\n")
        self.checkpoint_file.unlink(missing_ok=True)


def _own_checksum(result: dict[str, Any]) -> str:
    """Return the SHA-256 of a result, apart from its entry `sha256`."""
    return _checksum(json.dumps(result | {"sha256": ""}).encode())


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def train(
    config: Config,
    data: Dataset,
    seed: int = 0,
    *,
    device: str = "auto",
    precision: str = "auto",
) -> Run:
    """Train a run, resume it, or look it up, with a progress bar over all images.

    Args:
        config: what to train.
        data: what to train on; `data.take(2000)` is a smaller set for a quick try.
        seed: seed of the initial weights, the order of images, augmentation and dropout.
        device: "auto" (a CUDA GPU where there is one), "cpu" or "cuda".
        precision: "auto" (bfloat16 where it is faster), "float32" or "bfloat16".

    Raises:
        ConfigError: the device or precision is unknown, or this machine lacks the device.
        RunError: the run's folder is damaged, in use or not writable, or the run was started on
            another device or in another precision.
        NonFiniteLossError: the loss became infinite or NaN; finished epochs are kept.
    """
    root = paths.runs_dir() / "own" / config.task
    changes = [f"{key} {value}" for key, value in config.changed().items()]
    name = ", ".join(changes) or "defaults"
    run = Run(config, seed, data.fingerprint, root, name, f"{config.task}_own")
    run_all([run], data, device=device, precision=precision, engine="serial")
    return run


def run_all(
    runs: Sequence[Run],
    *datasets: Dataset,
    device: str = "auto",
    precision: str = "auto",
    **where,
) -> None:
    """Finish every run, with one progress bar over all images.

    Args:
        runs: the runs; finished ones are only verified, with their device and precision.
        datasets: the data sets of the runs.
        device: as in `train`.
        precision: as in `train`.
        where: engine, workers and the like, as in `pool.run_tasks`.

    Raises:
        RunError: a run cannot be trained, is damaged, or has another device or precision than
            asked for; the others are finished.
        NonFiniteLossError: as in `train`.
    """
    shared = {data.fingerprint: data for data in datasets}
    if where.get("engine", "processes") == "processes" and choose_device(device).type == "cuda":
        where["workers"] = where.get("workers") or min(pool.cores(), RUNS_ON_A_GPU)
    todo = [run for run in runs if not run.finished]
    pool.run_tasks(
        partial(_execute_one, device=device, precision=precision),
        todo,
        shared,
        **where,
        unit="img",
        title=", ".join(dict.fromkeys(run.study for run in todo)),
        total=sum(len(shared[run.data_fingerprint].train[0]) * run.config.epochs for run in todo),
        hint=lambda run: (
            f"in run {run.name!r} ({run.folder}); finished runs are kept, and the same command "
            "continues the others"
        ),
    )
    for run in runs:
        _check_settings(run, run.result(), device, precision)  # `result` refuses a damaged one


def _execute_one(run: Run, datasets: dict[str, Dataset], on_batch, **settings) -> None:
    execute(run, datasets[run.data_fingerprint], on_batch, **settings)


def execute(
    run: Run,
    data: Dataset,
    on_batch: Callable[[int], None] = lambda images: None,
    *,
    device: str = "auto",
    precision: str = "auto",
) -> dict[str, Any]:
    """Train, resume or look up one run in this process, and return its result.

    Args:
        run: the run.
        data: its data set.
        on_batch: called with the number of images of every finished batch.
        device: as in `train`.
        precision: as in `train`.

    Raises:
        RunError: the folder is in use, damaged or not writable; `data` is not the run's data set;
            or the run was started with another device or precision, or on a device that this
            machine lacks.
        ConfigError: the device or precision is unknown, or this machine lacks the device.
        NonFiniteLossError: see `training.fit`; finished epochs stay on disk.
    """
    if data.fingerprint != run.data_fingerprint:
        raise RunError(
            f"run {run.name}: the data's fingerprint is {data.fingerprint[:12]}, expected "
            f"{run.data_fingerprint[:12]}; the data come from another source"
        )
    if not run.finished:
        with exclusive(run.folder):
            if not run.finished:  # another process may have finished it meanwhile
                _train(run, data, on_batch, device, precision)
                return run.result()
    result = run.result()
    _check_settings(run, result, device, precision)
    on_batch(len(data.train[0]) * run.config.epochs)
    return result


def _train(run: Run, data: Dataset, on_batch, device: str, precision: str) -> None:
    """Train or resume a run whose folder this process has locked."""
    checkpoint = run.load_checkpoint()
    if checkpoint:
        _check_settings(run, checkpoint, device, precision)
        settings = {key: checkpoint[key] for key in SETTINGS}
        _check_device(run, settings["device"])
    else:
        chosen = choose_device(device)
        settings = {
            "device": chosen.type,
            "precision": choose_precision(precision, chosen),
            "threads": torch.get_num_threads(),
        }
    labels = {"name": run.name, "study": run.study, "seed": run.seed}
    identity = labels | run.config.to_dict() | settings
    write(run.folder / "config.json", json.dumps(identity, indent=1) + "\n")
    with _threads(settings["threads"]):
        task, model = run.config.build(data, run.seed)
        facts = {"parameters": parameter_count(model), **settings}
        with tracking.start(run, data, facts) as track:
            fitted = fit(
                model,
                task,
                data.train,
                data.validation,
                run.config,
                seed=run.seed,
                device=settings["device"],
                precision=settings["precision"],
                checkpoint=checkpoint,
                save=lambda state: run.save_checkpoint(state | settings),
                on_batch=on_batch,
                on_epoch=lambda row: track(lambda wandb_run: wandb_run.log(row)),
            )
            model.cpu()
            last = {name: value.clone() for name, value in model.state_dict().items()}
            states = {"last": last, "best": fitted.best}
            model.load_state_dict(states[run.config.keep])
            final = task.final_metrics(model, data)
            result = _result(run, data, fitted, final) | facts
            run.finish(result, states)
            figures = task.figures(final, model, data)
            metrics, weights = result["metrics"], run.weights_file
            track(lambda wandb_run: tracking.finish(wandb_run, metrics, figures, weights))


def _check_device(run: Run, device: str) -> None:
    """Check that this machine has the device on which an interrupted run was started.

    Raises:
        RunError: it has not.
    """
    try:
        choose_device(device)
    except ConfigError as error:
        raise RunError(
            f"run {run.name} was started on {device!r}, which this machine lacks; continue it on "
            f"a machine that has it, or delete {run.folder} to train it again"
        ) from error


def _check_settings(run: Run, settings: dict[str, Any], device: str, precision: str) -> None:
    """Check that the device and precision asked for are those that the run was started with.

    Raises:
        RunError: they differ.
    """
    for key, value in {"device": device, "precision": precision}.items():
        if value not in ("auto", settings[key]):
            raise RunError(
                f"run {run.name}: {key}: found {value!r}, but the run was started with "
                f"{settings[key]!r}; use 'auto', or delete {run.folder} to train it again"
            )


@contextmanager
def _threads(count: int):
    """Let torch use `count` threads within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _result(run: Run, data: Dataset, fitted: Fitted, final: dict[str, Any]) -> dict[str, Any]:
    """Return the content of result.json, without what `finish` adds."""
    last = fitted.rows[-1]
    best = min(fitted.rows, key=lambda row: row["val_loss"])
    metrics = {key: last[key] for key in last if key not in ("epoch", "learning_rate")}
    metrics |= final["metrics"]
    metrics["best_val_accuracy"] = max(row["val_accuracy"] for row in fitted.rows)
    metrics["best_val_loss"] = best["val_loss"]
    metrics["best_epoch"] = best["epoch"]
    metrics["tested_epoch"] = best["epoch"] if run.config.keep == "best" else last["epoch"]
    return {
        "run_id": run.run_id,
        "name": run.name,
        "study": run.study,
        "seed": run.seed,
        "config": run.config.to_dict(),
        "metrics": metrics,
        "nested": final.get("nested", {}),
        "seconds": round(fitted.seconds, 1),
        "train_images": len(data.train[0]),
        "data_source": data.source,
        "data_fingerprint": data.fingerprint,
        "torch": torch.__version__,
        "smai_lib": version("smai-lib"),
        "python": platform.python_version(),
    }


def results_table(results: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return one row a result: name, config keys, seed, metrics, provenance."""
    elsewhere = ("name", "config", "seed", "metrics", "nested", "files", "sha256")
    rows = []
    for result in results:
        provenance = {key: result[key] for key in result if key not in elsewhere}
        row = {"name": result["name"], **result["config"], "seed": result["seed"]}
        rows.append(row | result["metrics"] | provenance)
    return pd.DataFrame(rows)
