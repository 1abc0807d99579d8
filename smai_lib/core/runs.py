"""One folder per run on disk: the record that everything else is made from.

A run is a pure function of (config, data fingerprint, seed), and its folder is named by a hash of
those. `result.json` is written last and atomically: it exists only if the run finished. A finished
run is never trained again, an interrupted one is continued from its last whole epoch.
"""

import hashlib
import io
import json
import os
import platform
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from filelock import FileLock, Timeout
from safetensors.torch import save_file

from .. import __version__
from . import engines, tracking
from .config import EPOCHS_KEPT, Config
from .layers import parameter_count
from .sources import Dataset
from .training import Fitted, choose_device, choose_precision, fit


class RunError(RuntimeError):
    """A run folder that cannot be used."""


@contextmanager
def exclusive(folder: Path, error: type[Exception]):
    """Sole use of `folder`, which is made if need be; `error` if another process has it, or it is not writable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        lock.acquire()
    except Timeout as cause:
        raise error(f"{folder} is in use by another process; wait for it, or stop it") from cause
    except OSError as cause:
        raise error(f"cannot write to {folder} ({cause}); set SMAI_RUNS to a folder that you may write") from cause
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class RunSpec:
    """Everything that determines a run, and the names it is known by.

    Its id is a hash of the config's class and the keys that are not at their default, so that a key
    that is added later renames no old run.
    """

    name: str
    study: str
    config: Config
    seed: int
    data_fingerprint: str
    root: Path  # the folder that holds this run's folder

    @property
    def run_id(self) -> str:
        identity = [type(self.config).__name__, self.config.changed(), self.seed, self.data_fingerprint]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def folder(self) -> "RunFolder":
        return RunFolder(self.root / self.run_id)

    @property
    def weights_file(self) -> Path:
        """The weights that the run's test figures belong to."""
        return self.folder.weights_files[self.config.keep]


class RunFolder:
    """The files of one run: config.json, history.csv, checkpoint.pt, last and best .safetensors, result.json."""

    def __init__(self, path: Path):
        self.path = Path(path)
        self.history_file = self.path / "history.csv"
        self.checkpoint_file = self.path / "checkpoint.pt"
        self.result_file = self.path / "result.json"
        self.weights_files = {epoch: self.path / f"{epoch}.safetensors" for epoch in EPOCHS_KEPT}

    def result(self) -> dict[str, Any] | None:
        """What the run found, or None if it has not finished."""
        return json.loads(self.result_file.read_text()) if self.result_file.exists() else None

    def history(self) -> pd.DataFrame:
        """One row an epoch."""
        return pd.read_csv(self.history_file)

    def load_checkpoint(self) -> dict[str, Any] | None:
        if not self.checkpoint_file.exists():
            self._write(self.history_file, "")  # rows of an epoch that no checkpoint confirms
            return None
        try:
            checkpoint = torch.load(self.checkpoint_file, weights_only=True)
        except Exception as error:  # torch raises many kinds for a damaged file
            raise RunError(f"{self.checkpoint_file} cannot be read ({type(error).__name__}); delete it "
                           "to train this run again from the start") from error
        self._write(self.history_file, pd.DataFrame(checkpoint["rows"]).to_csv(index=False))
        return checkpoint

    def save_epoch(self, row: dict[str, float], checkpoint: dict[str, Any]) -> None:
        """Append to the history, every digit of it, then replace the checkpoint: a kill loses no whole epoch."""
        with open(self.history_file, "a", newline="") as file:
            file.write(pd.DataFrame([row]).to_csv(index=False, header=row["epoch"] == 1))
            file.flush()
            os.fsync(file.fileno())
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        self._write(self.checkpoint_file, buffer.getvalue())

    def finish(self, result: dict[str, Any], states: dict[str, dict[str, torch.Tensor]]) -> None:
        """Leave the weights of `states`, by epoch kept, then the result."""
        for epoch, state in states.items():
            save_file({name: value.cpu().contiguous() for name, value in state.items()}, self.weights_files[epoch])
        self._write(self.result_file, json.dumps(result, indent=1) + "\n")
        self.checkpoint_file.unlink(missing_ok=True)

    @staticmethod
    def _write(file: Path, content: str | bytes) -> None:
        """Replace `file` in one step: a reader sees the old content or the new, never a part."""
        part = file.with_name(file.name + ".part")
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(part, file)


def execute(spec: RunSpec, data: Dataset, on_batch: Callable[[int], None] = lambda images: None) -> dict[str, Any]:
    """Train, or continue, or merely look up the run of `spec`, and return its result.

    Raises:
        RunError: the folder is in use, cannot be written, or `data` is not what `spec` names.
        NonFiniteLossError: from `training.fit`; the epochs before it stay on disk.
    """
    if data.fingerprint != spec.data_fingerprint:
        raise RunError(f"run {spec.name}: the data's fingerprint is {data.fingerprint[:12]}, expected "
                       f"{spec.data_fingerprint[:12]}; another source served it")
    folder = spec.folder
    with exclusive(folder.path, RunError):
        if result := folder.result():
            on_batch(len(data.train.images) * spec.config.epochs)
            return result
        identity = {"name": spec.name, "study": spec.study, "seed": spec.seed, **spec.config.to_dict()}
        folder._write(folder.path / "config.json", json.dumps(identity, indent=1) + "\n")
        objective, model = spec.config.build(data, spec.seed)
        device = choose_device()
        precision = choose_precision("auto", device)
        with tracking.start(spec, data) as mirror:
            fitted = fit(model, objective, data.train, data.validation, spec.config, seed=spec.seed, device=device.type,
                         precision=precision, record=folder, on_epoch=mirror.log, on_batch=on_batch)
            last = {name: value.clone() for name, value in model.cpu().state_dict().items()}
            states = {"last": last, "best": fitted.best}
            model.load_state_dict(states[spec.config.keep])
            examined = objective.examine(model, data)
            result = _result(spec, data, fitted, examined) | {
                "parameters": parameter_count(model), "device": device.type, "precision": precision,
                "threads": torch.get_num_threads()}
            folder.finish(result, states)  # before the mirror, whose troubles are not the run's
            tracking.finish(mirror, result["metrics"], objective.pictures(examined, model, data))
        return result


def _result(spec: RunSpec, data: Dataset, fitted: Fitted, examined: dict[str, Any]) -> dict[str, Any]:
    """What result.json says: training and validation metrics of the last epoch, test metrics of the one kept."""
    last, best = fitted.rows[-1], fitted.best_row
    metrics = {key: value for key, value in last.items() if key not in ("epoch", "learning_rate")}
    return {
        "run_id": spec.run_id, "name": spec.name, "study": spec.study, "seed": spec.seed,
        "config": spec.config.to_dict(),
        "metrics": metrics | examined["metrics"] | {
            "best_val_accuracy": max(row["val_accuracy"] for row in fitted.rows),
            "best_val_loss": best["val_loss"], "best_epoch": best["epoch"],
            "tested_epoch": (best if spec.config.keep == "best" else last)["epoch"]},
        "nested": examined.get("nested", {}),
        "seconds": round(fitted.seconds, 1),
        "train_images": len(data.train[0]),
        "data_source": data.source, "data_fingerprint": data.fingerprint,
        "torch": torch.__version__, "smai_lib": __version__, "python": platform.python_version(),
    }


def run_all(specs: list[RunSpec], data: Dataset, *, engine: str = "processes", workers: int = 0) -> None:
    """Finish every run of `specs`, showing one bar over all images; engine and workers as in `engines.work`.

    One run that fails does not stop the others; the first failure is raised when all are done.
    """
    todo = [spec for spec in specs if spec.folder.result() is None]
    engines.work(
        execute, todo, data, engine=engine, workers=workers, unit="img", title=todo[0].study if todo else "",
        total=len(data.train[0]) * sum(spec.config.epochs for spec in todo),
        way_out=lambda spec: f"in run {spec.name!r} ({spec.folder.path}); finished runs are kept, and starting "
                             "again continues the others")


def table(results: list[dict[str, Any]]) -> pd.DataFrame:
    """One row a run, tidy: name, the config's own keys, seed, metrics, provenance."""
    apart = ("name", "config", "seed", "metrics", "nested")
    return pd.DataFrame(
        {"name": result["name"], **result["config"], "seed": result["seed"], **result["metrics"],
         **{key: value for key, value in result.items() if key not in apart}} for result in results)
