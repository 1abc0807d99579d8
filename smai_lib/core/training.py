"""The training loop: one for every task, bit-identical on the same machine, also after a resume.

All randomness of an epoch (augmentation, order of images, dropout) is derived from the seed and the
epoch's number. A resumed run therefore has no generator state to restore.
"""

import hashlib
import itertools
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
from .errors import ConfigError, NonFiniteLossError
from .muon import Muon
from .pool import keep_freed_memory

CPU = torch.device("cpu")
EVALUATION_BATCH = 500  # images; larger batches fall out of the cache and are no faster


class Fitted(NamedTuple):
    """Result of `fit`."""

    rows: list[dict[str, float]]  # metrics, a row an epoch
    seconds: float  # of training and validation, the epochs before a resume included
    best: dict[str, torch.Tensor]  # weights of the (first) epoch with the lowest validation loss


class Task(Protocol):
    """What a run needs to know of a task; a split is a NamedTuple of tensors, a row an image."""

    def augment(self, train):
        """Return the training images of one epoch, randomly augmented."""

    def inputs(self, split, index) -> torch.Tensor:
        """Return the network's input for the images at `index`, (B, C, H, W) float32."""

    def loss(self, output, split, index) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss of a batch, and the sums over its images that `metrics` needs."""

    def metrics(self, sums: torch.Tensor) -> dict[str, float]:
        """Return the metrics of a whole split, with `loss` and `accuracy` among them.

        They are computed from the sums over all its batches.
        """

    def epoch_diagnostics(self, model, train) -> dict[str, float]:
        """Return further columns of an epoch's row."""

    def final_metrics(self, model, data) -> dict[str, Any]:
        """Return the trained network's "metrics" on the test split, and "nested" values."""

    def figures(self, final, model, data) -> dict[str, Any]:
        """Return figures by name, for the tracking in wandb."""


def choose_device(device: str = "auto") -> torch.device:
    """Return the device to train on; "auto" is a CUDA GPU where torch reports one, else the CPU.

    Apple's GPU is not offered: metrics are summed in float64, which it lacks.

    Raises:
        ConfigError: the device is unknown, or this machine does not have it.
    """
    available = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    if device == "auto":
        device = available[-1]
    if device not in available:
        options = ", ".join(available)
        raise ConfigError(f"device: found {device!r}, but this machine has {options}; use 'auto'")
    return torch.device(device)


def choose_precision(precision: str, device: torch.device) -> str:
    """Return the precision to train in; "auto" is bfloat16 where it is faster than float32.

    Raises:
        ConfigError: the precision is unknown.
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise ConfigError(f"precision: found {precision!r}, expected auto, float32 or bfloat16")
    if precision != "auto":
        return precision
    if device.type == "cuda":  # older GPUs emulate it
        faster = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        faster = has_fast_bfloat16()
    return "bfloat16" if faster else "float32"


def cpu_capabilities() -> dict[str, Any]:
    """Return torch's description of this CPU; nothing in older versions of torch."""
    return dict(getattr(torch.cpu, "get_capabilities", dict)())


def has_fast_bfloat16() -> bool:
    """Return whether this CPU multiplies bfloat16 faster than float32.

    That is so with AMX, and with AVX512-BF16 unless Intel made it: on the one such processor that
    was tried, without AMX, products of matrices took nearly twice as long as in float32.
    """
    able = cpu_capabilities()
    by_intel = "Intel" in able.get("cpu_name", "")
    return able.get("amx_bf16", False) or (able.get("avx512_bf16", False) and not by_intel)


def derive_seed(*parts: Any) -> int:
    """Return a 63-bit seed made of `parts`; streams of different purpose never coincide."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@contextmanager
def seeded(*parts: Any, device: torch.device = CPU):
    """Seed torch's global generators within the block; dropout and initialisation read them.

    Args:
        parts: parts of the seed, see `derive_seed`.
        device: whose generator is seeded beside the CPU's; no other GPU is touched.
    """
    gpus = [device] if device.type == "cuda" else []
    seed = derive_seed(*parts)
    with torch.random.fork_rng(devices=gpus):
        torch.default_generator.manual_seed(seed)
        if gpus:
            torch.cuda.manual_seed(seed)
        yield


def build_optimizer(model: nn.Module, config: Config) -> torch.optim.Optimizer:
    """Return the config's optimizer for the parameters of `model`."""
    if config.optimizer == "Muon":
        return Muon(model.parameters(), config.learning_rate, config.weight_decay)
    options = {"lr": config.learning_rate, "fused": True}
    if config.optimizer == "AdamW":
        options["weight_decay"] = config.weight_decay
    if config.optimizer == "SGD":
        options["momentum"] = config.momentum
    return getattr(torch.optim, config.optimizer)(model.parameters(), **options)


@torch.inference_mode()
def evaluate(
    model: nn.Module, task: Task, split, *, precision: str = "float32"
) -> dict[str, float]:
    """Return the metrics of `model` on the whole of `split`, in evaluation mode."""
    device = next(model.parameters()).device
    model.eval()
    total = 0
    for start in range(0, len(split[0]), EVALUATION_BATCH):
        index = slice(start, start + EVALUATION_BATCH)
        with _autocast(device, precision):
            output = model(task.inputs(split, index))
        _, sums = task.loss(output, split, index)
        total = total + sums
    return task.metrics(total)


def fit(
    model: nn.Module,
    task: Task,
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

    Training metrics are means over an epoch, in training mode, while the weights change. Validation
    metrics are of the weights at the epoch's end, or of their moving average if the config asks for
    one; `model` then holds the average at the end.

    Args:
        model: the untrained network.
        task: the task, see `Task`.
        train: training split.
        validation: validation split.
        config: what to train.
        seed: seed of augmentation, order of images and dropout.
        device: "auto", "cpu" or "cuda".
        precision: "auto", "float32" or "bfloat16".
        checkpoint: what `save` was given last, to continue an interrupted run.
        save: called with a checkpoint after every epoch.
        on_epoch: called with the row of metrics of every epoch, resumed ones included.
        on_batch: called with the number of images of every batch.

    Raises:
        ConfigError: the device or precision is unknown, or this machine lacks the device.
        NonFiniteLossError: a loss is infinite or NaN, found at its epoch's end.
    """
    device = choose_device(device)
    precision = choose_precision(precision, device)
    train, validation = _to(train, device), _to(validation, device)
    model.to(device, memory_format=torch.channels_last)
    optimizer = build_optimizer(model, config)
    parts = {"model": model, "optimizer": optimizer}
    evaluated = model
    if config.average_decay:
        parts["averaged"] = AveragedModel(model)
        evaluated = parts["averaged"].module
    rows, seconds, best = [], 0.0, {}
    if checkpoint:
        for name, part in parts.items():
            part.load_state_dict(checkpoint[name])
        rows, seconds, best = checkpoint["rows"], checkpoint["seconds"], checkpoint["best"]
        for row in rows:
            on_epoch(row)
            on_batch(len(train[0]))
    if config.average_decay:
        update = _average_update(parts["averaged"], model, config.average_decay)
        optimizer.register_step_post_hook(lambda *_: update())
    with keep_freed_memory(), _deterministic(device):
        for epoch in range(len(rows) + 1, config.epochs + 1):
            start = time.perf_counter()
            with seeded(seed, "epoch", epoch, device=device):
                sums = _train_epoch(
                    model, task, train, optimizer, config, epoch, precision, on_batch
                )
            row = {"epoch": epoch, "learning_rate": optimizer.param_groups[0]["lr"]}
            row |= _prefixed("train", task.metrics(sums))
            row |= _prefixed("val", evaluate(evaluated, task, validation, precision=precision))
            row |= task.epoch_diagnostics(evaluated, train)
            if all(row["val_loss"] < earlier["val_loss"] for earlier in rows):
                best = {name: value.clone() for name, value in evaluated.state_dict().items()}
            rows.append(row)
            seconds += time.perf_counter() - start
            states = {name: part.state_dict() for name, part in parts.items()}
            save(states | {"rows": rows, "seconds": seconds, "best": best})
            on_epoch(row)
    if config.average_decay:
        model.load_state_dict(evaluated.state_dict())
    return Fitted(rows, seconds, best)


def _average_update(average: AveragedModel, model: nn.Module, decay: float) -> Callable[[], None]:
    """Return a function that moves the averaged weights and buffers towards the model's.

    It computes what `update_parameters` of an `AveragedModel` with exponential weights and
    `use_buffers` does. That method copies its count of steps to the GPU in every step, and the
    host waits for it.
    """
    groups = {}  # dtype -> averaged tensors, the model's tensors
    pairs = zip(_tensors(average.module), _tensors(model), strict=True)
    for averaged, current in pairs:
        columns = groups.setdefault(current.dtype, ([], []))
        columns[0].append(averaged)
        columns[1].append(current)
    ema = get_ema_multi_avg_fn(decay)
    steps = itertools.count(int(average.n_averaged))

    def update() -> None:
        step = next(steps)
        for averaged, current in groups.values():
            if step:
                ema(averaged, current, None)
            else:
                torch._foreach_copy_(averaged, current)
        average.n_averaged.fill_(step + 1)

    return update


def _tensors(model: nn.Module) -> list[torch.Tensor]:
    """Return the weights and buffers of a model, without gradients."""
    return [tensor.detach() for tensor in [*model.parameters(), *model.buffers()]]


def _train_epoch(
    model, task: Task, train, optimizer, config: Config, epoch, precision, on_batch
) -> torch.Tensor:
    """Train for one epoch, and return the sums over all its images.

    Losses are checked at the epoch's end: to check each one, the host would have to wait for the
    device after every batch.
    """
    device = train[0].device
    model.train()
    train = task.augment(train)
    order = torch.randperm(len(train[0])).to(device)
    batches = order.split(config.batch_size)
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches = batches[:-1]  # BatchNorm cannot normalise a single image
    total, losses = 0, []
    for number, index in enumerate(batches, start=1):
        progress = (epoch - 1 + number / len(batches)) / config.epochs
        optimizer.param_groups[0]["lr"] = config.learning_rate_at(progress)
        with _autocast(device, precision):
            output = model(task.inputs(train, index))
        loss, sums = task.loss(output, train, index)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        total = total + sums
        on_batch(len(index))
    for number, loss in enumerate(torch.stack(losses).tolist(), start=1):
        if not math.isfinite(loss):
            raise NonFiniteLossError(
                f"the loss is {loss} at epoch {epoch}, batch {number} of {len(batches)}. Earlier "
                "epochs are kept. Try a smaller learning_rate"
            )
    return total


def _to(split, device: torch.device):
    return split._make(column.to(device) for column in split)


def _autocast(device: torch.device, precision: str):
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def _prefixed(prefix: str, metrics: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}_{key}": value for key, value in metrics.items()}


@contextmanager
def _deterministic(device: torch.device):
    """Let CUDA add in a fixed order within the block, and convolve float32 in float32.

    The caller's modes are restored afterwards. Operations without a deterministic version warn.
    cuBLAS reads its variable when it starts.
    """
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    mode, tf32 = torch.get_deterministic_debug_mode(), torch.backends.cudnn.allow_tf32
    torch.set_deterministic_debug_mode("warn")
    torch.backends.cudnn.allow_tf32 = False  # it would round float32 to 10 bits of mantissa
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        torch.backends.cudnn.allow_tf32 = tf32
