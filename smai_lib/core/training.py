"""Train and evaluate: one loop for every task, the same bits every time.

The randomness of an epoch (augmentation, shuffling, dropout) is derived from (seed, epoch) alone, so a run that
is killed and resumed at an epoch's start needs no generator state to end in the same bits.
"""

import ctypes
import hashlib
import math
import os
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from .config import Config

EVALUATION_BATCH = 500  # bounded by cache, not by memory


class NonFiniteLossError(ArithmeticError):
    """The loss became infinite or NaN; training stopped there."""


class Fitted(NamedTuple):
    """What came of training."""

    rows: list[dict[str, float]]  # metrics, one row an epoch
    seconds: float  # resumed epochs included
    best: dict[str, torch.Tensor]  # of the epoch of lowest validation loss, the first of equals


class Objective(Protocol):
    """What a run needs to know of a task; see `multitask` and `colorization`."""

    def augment(self, train): ...  # the training images of one epoch, drawn anew each time
    def inputs(self, split, index) -> torch.Tensor: ...
    def loss(self, output, split, index) -> tuple[torch.Tensor, torch.Tensor]: ...
    def metrics(self, sums: torch.Tensor) -> dict[str, float]: ...
    def diagnose(self, model, train) -> dict[str, float]: ...  # more columns for an epoch's row
    def examine(
        self, model, data
    ) -> dict[str, Any]: ...  # a result's "metrics" on the test split, and more
    def pictures(self, examined, model, data) -> dict[str, Any]: ...  # figures by name


def choose_device(device: str = "auto") -> torch.device:
    """`"auto"` is CUDA where there is one, else the CPU; ValueError for CUDA where there is none."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "device: found 'cuda', expected 'cpu' or 'auto', since torch sees no GPU here"
        )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def choose_precision(precision: str, device: torch.device) -> str:
    """`"auto"` is bfloat16 on CUDA and on CPUs that multiply it in hardware, else float32."""
    if precision not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"precision: found {precision!r}, expected auto, float32 or bfloat16")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16"
    # emulated bfloat16 is ten times slower than float32, so ask; the question is private in torch
    ask = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bfloat16" if ask() else "float32"


def derive_seed(*parts: Any) -> int:
    """A 63-bit seed from any parts, so that streams of different purpose never coincide."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@contextmanager
def seeded(*parts: Any):
    """torch's global generator, which dropout and initialisation read, seeded within the block."""
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(*parts))
        yield


def build_optimizer(model: nn.Module, config: Config) -> torch.optim.Optimizer:
    """torch's optimizer of that name, with the config's keys that are its own."""
    own = {"AdamW": {"weight_decay": config.weight_decay}, "SGD": {"momentum": config.momentum}}
    kind = getattr(torch.optim, config.optimizer)
    return kind(
        model.parameters(), lr=config.learning_rate, fused=True, **own.get(config.optimizer, {})
    )


@torch.inference_mode()
def evaluate(
    model: nn.Module, objective: Objective, split, *, precision: str = "float32"
) -> dict[str, float]:
    """Metrics of `model` over the whole of `split`, in evaluation mode."""
    device = next(model.parameters()).device
    model.eval()
    total = 0
    for start in range(0, len(split[0]), EVALUATION_BATCH):
        index = slice(start, start + EVALUATION_BATCH)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            output = model(objective.inputs(split, index))
        total = total + objective.loss(output, split, index)[1]
    return objective.metrics(total)


def fit(
    model: nn.Module,
    objective: Objective,
    train,
    validation,
    config: Config,
    *,
    seed: int,
    device: str = "auto",
    precision: str = "auto",
    checkpoint: dict[str, Any] | None = None,
    save: Callable[[dict[str, Any]], None] = lambda checkpoint: None,
    on_epoch: Callable[[dict[str, float]], None] = lambda row: None,
    on_batch: Callable[[int], None] = lambda images: None,
) -> Fitted:
    """Train `model` in place.

    Training metrics are means over the epoch while the weights move and dropout is on; validation metrics are those of
    the weights at its end, or of their moving average where the config asks for one, which then is what `model` holds
    at the end. `save` is given a checkpoint an epoch; with the last one, an interrupted run is continued. `on_batch`
    is told how many images were done.

    Raises:
        NonFiniteLossError: with the epoch and the batch; epochs already saved stay.
    """
    device = choose_device(device)
    precision = choose_precision(precision, device)
    _keep_memory()
    if device.type == "cuda":  # else it adds in any order; what cannot do otherwise warns
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        torch.use_deterministic_algorithms(True, warn_only=True)
    train, validation = (
        type(split)(*(x.to(device) for x in split)) for split in (train, validation)
    )
    model.to(device, memory_format=torch.channels_last)
    optimizer = build_optimizer(model, config)
    averaged = None
    if config.average_decay:  # of BatchNorm's statistics, too
        averaged = AveragedModel(
            model, multi_avg_fn=get_ema_multi_avg_fn(config.average_decay), use_buffers=True
        )
    stateful = {"model": model, "optimizer": optimizer} | (
        {"averaged": averaged} if averaged else {}
    )
    rows, seconds, best = [], 0.0, {}
    if checkpoint:
        for name, part in stateful.items():
            part.load_state_dict(checkpoint[name])
        rows, seconds, best = checkpoint["rows"], checkpoint["seconds"], checkpoint["best"]
        for row in rows:
            on_epoch(row)
            on_batch(len(train[0]))
    for epoch in range(len(rows) + 1, config.epochs + 1):
        started = time.perf_counter()
        with seeded(seed, "epoch", epoch):
            sums = _train_epoch(
                model, averaged, objective, train, optimizer, config, epoch, precision, on_batch
            )
        row = {"epoch": epoch, "learning_rate": optimizer.param_groups[0]["lr"]}
        row |= {f"train_{key}": value for key, value in objective.metrics(sums).items()}
        current = averaged.module if averaged else model
        measured = evaluate(current, objective, validation, precision=precision)
        row |= {f"val_{key}": value for key, value in measured.items()}
        row |= objective.diagnose(current, train)
        if all(row["val_loss"] < earlier["val_loss"] for earlier in rows):
            best = {name: value.clone() for name, value in current.state_dict().items()}
        rows.append(row)
        seconds += time.perf_counter() - started
        states = {name: part.state_dict() for name, part in stateful.items()}
        save(states | {"rows": rows, "seconds": seconds, "best": best})
        on_epoch(row)
    if averaged:
        model.load_state_dict(averaged.module.state_dict())
    return Fitted(rows, seconds, best)


def _keep_memory() -> None:
    """Ask glibc to keep freed buffers of some MB: faulting their pages in anew costs 10 to 25 % of a step."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt:
        for parameter in (-3, -1):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
            mallopt(parameter, 1 << 30)


def _train_epoch(model, averaged, objective, train, optimizer, config, epoch, precision, on_batch):
    device = train[0].device
    model.train()
    train = objective.augment(train)
    order = torch.randperm(len(train[0])).to(device)
    batches = order.split(config.batch_size)
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches = batches[:-1]  # BatchNorm cannot normalise one image
    total = 0
    for number, index in enumerate(batches, start=1):
        progress = (epoch - 1 + number / len(batches)) / config.epochs
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate_at(progress)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            output = model(objective.inputs(train, index))
        loss, sums = objective.loss(output, train, index)
        if not math.isfinite(loss.item()):
            raise NonFiniteLossError(
                f"the loss is {loss.item()} at epoch {epoch}, batch {number} of {len(batches)}; "
                "earlier epochs are kept. A smaller learning_rate is the usual way out"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if averaged:
            averaged.update_parameters(model)
        total = total + sums
        on_batch(len(index))
    return total
