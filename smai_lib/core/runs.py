"""One folder per run on disk: the record that everything else is made from.

A run is a pure function of (config, data fingerprint, seed), and its folder is named by a hash of those. `result.json`
is written last and atomically: it exists only if the run finished. It names the digests of the other files, and what
is not as it was written is refused. A finished run is never trained again, an interrupted one is continued from its
last whole epoch, and on the device, in the precision and with the threads that it began with.
"""

import hashlib
import json
import platform
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from .. import __version__
from . import engines, tracking
from .config import Config
from .folders import RunError, RunFolder, exclusive, write
from .layers import parameter_count
from .sources import Dataset
from .training import Fitted, choose_device, choose_precision, fit


@dataclass(frozen=True)
class RunSpec:
    """Everything that determines a run, and the names it is known by."""

    name: str
    study: str
    config: Config
    seed: int
    data_fingerprint: str
    root: Path  # the folder that holds this run's folder
    profile: str = "own"  # of the study, for the mirror

    @property
    def run_id(self) -> str:
        """A hash of no key that is at its default, so that a key that is added later renames no old run."""
        identity = [
            type(self.config).__name__,
            self.config.changed(),
            self.seed,
            self.data_fingerprint,
        ]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def folder(self) -> "RunFolder":
        return RunFolder(self.root / self.run_id)

    @property
    def weights_file(self) -> Path:
        """The weights that the run's test figures belong to."""
        return self.folder.weights_files[self.config.keep]


def execute(
    spec: RunSpec,
    data: Dataset,
    on_batch: Callable[[int], None] = lambda images: None,
    *,
    device: str = "auto",
    precision: str = "auto",
) -> dict[str, Any]:
    """Train, or continue, or merely look up the run of `spec`, and return its result.

    Raises:
        RunError: the folder is in use, damaged or cannot be written; `data` is not what `spec` names; or the run
            began on another device or in another precision than asked for.
        NonFiniteLossError: from `training.fit`; the epochs before it stay on disk.
    """
    if data.fingerprint != spec.data_fingerprint:
        raise RunError(
            f"run {spec.name}: the data's fingerprint is {data.fingerprint[:12]}, expected "
            f"{spec.data_fingerprint[:12]}; another source served it"
        )
    folder = spec.folder
    with exclusive(folder.path, RunError), ExitStack() as after:
        result = folder.result()
        checkpoint = None if result else folder.load_checkpoint()
        how = _conditions(spec, result or checkpoint, device=device, precision=precision)
        if result:
            on_batch(len(data.train.images) * spec.config.epochs)
            return result
        identity = {
            "name": spec.name,
            "study": spec.study,
            "seed": spec.seed,
            **spec.config.to_dict(),
            **how,
        }
        write(folder.config_file, json.dumps(identity, indent=1) + "\n")
        after.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(how["threads"])
        objective, model = spec.config.build(data, spec.seed)
        facts = {"parameters": parameter_count(model), **how}
        with tracking.start(spec, data, facts) as tell:
            fitted = fit(
                model,
                objective,
                data.train,
                data.validation,
                spec.config,
                seed=spec.seed,
                device=how["device"],
                precision=how["precision"],
                checkpoint=checkpoint,
                save=lambda state: folder.save_epoch(state | how),
                on_batch=on_batch,
                on_epoch=lambda row: tell(lambda run: run.log(row)),
            )
            last = {name: value.clone() for name, value in model.cpu().state_dict().items()}
            states = {"last": last, "best": fitted.best}
            model.load_state_dict(states[spec.config.keep])
            examined = objective.examine(model, data)
            result = _result(spec, data, fitted, examined) | facts
            folder.finish(result, states)
            pictures = objective.pictures(examined, model, data)
            tell(lambda run: tracking.finish(run, result["metrics"], pictures, spec.weights_file))
        return folder.result()


def _conditions(spec: RunSpec, began: dict[str, Any] | None, **asked: str) -> dict[str, Any]:
    """What a run's bits depend on beside its id: as it `began`, else as asked for; RunError if the two disagree."""
    if began is None:
        device = choose_device(asked["device"])
        began = {
            "device": device.type,
            "precision": choose_precision(asked["precision"], device),
            "threads": torch.get_num_threads(),
        }
    for key, value in asked.items():
        if value not in ("auto", began[key]):
            raise RunError(
                f"run {spec.name}: {key}: found {value!r}, expected {began[key]!r}, as it began; leave it "
                f"at 'auto', or delete {spec.folder.path} to train it again"
            )
    return {key: began[key] for key in ("device", "precision", "threads")}


def _result(
    spec: RunSpec, data: Dataset, fitted: Fitted, examined: dict[str, Any]
) -> dict[str, Any]:
    """What result.json says: training and validation metrics of the last epoch, test metrics of the one kept."""
    last, best = fitted.rows[-1], min(fitted.rows, key=lambda row: row["val_loss"])
    metrics = {key: value for key, value in last.items() if key not in ("epoch", "learning_rate")}
    return {
        "run_id": spec.run_id,
        "name": spec.name,
        "study": spec.study,
        "seed": spec.seed,
        "config": spec.config.to_dict(),
        "metrics": metrics
        | examined["metrics"]
        | {
            "best_val_accuracy": max(row["val_accuracy"] for row in fitted.rows),
            "best_val_loss": best["val_loss"],
            "best_epoch": best["epoch"],
            "tested_epoch": (best if spec.config.keep == "best" else last)["epoch"],
        },
        "nested": examined.get("nested", {}),
        "seconds": round(fitted.seconds, 1),
        "train_images": len(data.train[0]),
        "data_source": data.source,
        "data_fingerprint": data.fingerprint,
        "torch": torch.__version__,
        "smai_lib": __version__,
        "python": platform.python_version(),
    }


def run_all(specs: list[RunSpec], data: Dataset, *, device: str = "auto", **where) -> None:
    """Finish every run of `specs`, showing one bar over all images; `where` and failures as in `engines.work`."""
    todo = []
    for spec in specs:
        with suppress(RunError):  # which `execute` will raise, while the others go on
            if spec.folder.result():
                continue
        todo.append(spec)
    engines.work(
        partial(execute, device=device),
        todo,
        data,
        **where,
        unit="img",
        title=todo[0].study if todo else "",
        total=len(data.train[0]) * sum(spec.config.epochs for spec in todo),
        way_out=lambda spec: (
            f"in run {spec.name!r} ({spec.folder.path}); finished runs are kept, and starting "
            "again continues the others"
        ),
    )


def table(results: list[dict[str, Any]]) -> pd.DataFrame:
    """One row a run, tidy: name, the config's own keys, seed, metrics, provenance."""
    apart = ("name", "config", "seed", "metrics", "nested", "files", "sha256")
    return pd.DataFrame(
        {
            "name": result["name"],
            **result["config"],
            "seed": result["seed"],
            **result["metrics"],
            **{key: value for key, value in result.items() if key not in apart},
        }
        for result in results
    )
