"""Images a second: the textbook loop against ours, side by side in one run.

    python benchmarks/training.py [--rounds 5] [--record]

Absolute times mean little on shared machines. The arms take turns within every round, and each
round gives one ratio, so a busy minute slows all arms alike.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import pandas as pd
import torch
import torch.nn.functional as F
from torch import multiprocessing, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

from smai_lib.colorization.config import ColorizationConfig
from smai_lib.colorization.data import ColorizationData
from smai_lib.colorization.model import ColorizationCNN, ColorizationUNet
from smai_lib.colorization.studies import REPORT_CNN, UNET
from smai_lib.colorization.sweep import sweep_data
from smai_lib.core import checksums, engines, paths, sources
from smai_lib.core.config import Config
from smai_lib.core.layers import textbook
from smai_lib.core.training import choose_precision, fit
from smai_lib.multitask.config import MultiTaskConfig
from smai_lib.multitask.fashion_mnist import FashionMNIST, fashion_mnist
from smai_lib.multitask.studies import TEN_CONFIGS


@dataclass(frozen=True)
class Task:
    """One network to train, on `data`, an arm's share of a round: some seconds.

    `dataset(data, config)` gives one decoded and transformed image at a time, with the augmentation
    that `config` asks for; `loss(model, batch)` is that of a batch of them.
    """

    name: str
    config: Config
    data: sources.Dataset
    dataset: Callable[[sources.Dataset, Config], Dataset]
    loss: Callable[[nn.Module, list], torch.Tensor]

    def textbook_model(self) -> nn.Module:
        """The network as a textbook writes it: Conv - BatchNorm - ReLU - MaxPool, torch's own memory format."""
        _, model = self.config.build(self.data, 0)
        if hasattr(model, "backbone"):
            model.backbone = _textbook_blocks(model.backbone)
        elif isinstance(model.network, ColorizationCNN):
            model.network.encoder = _textbook_blocks(model.network.encoder)
        elif isinstance(model.network, ColorizationUNet):
            model.network.memory_format = torch.contiguous_format
        return textbook(model)


def _textbook_blocks(blocks: nn.Sequential) -> nn.Sequential:
    # ours pools before the ReLU, and works in place
    return nn.Sequential(
        *(nn.Sequential(block.conv, block.norm, nn.ReLU(), block.pool) for block in blocks)
    )


class GarmentOneByOne(Dataset):
    """Decodes and transforms one image at a time, as torchvision's data set and tutorials do."""

    def __init__(self, data: FashionMNIST, config: MultiTaskConfig):
        self.pictures = data.train.images
        self.labels = data.train.labels.tolist()
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(0.5, 0.5)])

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        image = self.transform(to_pil_image(self.pictures[index]))
        return image, self.labels[index], (image * 0.5 + 0.5).mean()


class ColorOneByOne(Dataset):
    """One picture at a time: decoded, grey, moved as `config` says; its colours were encoded before."""

    def __init__(self, data: ColorizationData, config: ColorizationConfig):
        self.pictures, self.colors = data.train.images, data.train.colors
        self.decode = transforms.ToTensor()
        moves = [transforms.RandomHorizontalFlip()] if config.mirror else []
        if config.shift:
            size = self.pictures.shape[-2:]
            moves.append(transforms.RandomCrop(size, padding=config.shift, padding_mode="reflect"))
        self.move = transforms.Compose(moves)

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, index):
        grey = self.decode(to_pil_image(self.pictures[index])).mean(0)
        grey, colors = self.move(torch.stack([grey, self.colors[index].float()]))
        return grey[None], colors.long()


def garment_loss(model: nn.Module, batch: list) -> torch.Tensor:
    images, labels, ink = batch
    output = model(images)
    return F.cross_entropy(output.logits, labels) + F.mse_loss(output.ink, ink.float())


def color_loss(model: nn.Module, batch: list) -> torch.Tensor:
    grey, colors = batch
    return F.cross_entropy(model(grey), colors)


def tasks() -> list[Task]:
    """Config 1 of Q1, the report's colorization network, and the U-Net."""
    config = TEN_CONFIGS["config 1"]
    garments = fashion_mnist().subset(54 * config.batch_size, 10, 10)
    colors = sweep_data().subset(24 * UNET.batch_size, 10, 10)
    return [
        Task("config 1", config, garments, GarmentOneByOne, garment_loss),
        Task("colorization CNN", REPORT_CNN, colors, ColorOneByOne, color_loss),
        Task("U-Net", UNET, colors, ColorOneByOne, color_loss),
    ]


def _textbook(task: Task) -> float:
    """Images a second of a plain float32 DataLoader loop, with torch's own choice of threads."""
    model = task.textbook_model().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=task.config.learning_rate)
    loader = DataLoader(
        task.dataset(task.data, task.config), batch_size=task.config.batch_size, shuffle=True
    )
    started = time.perf_counter()
    for batch in loader:
        optimizer.zero_grad()
        task.loss(model, batch).backward()
        optimizer.step()
    return len(task.data.train.images) / (time.perf_counter() - started)


def _ours(config, data) -> float:
    """Seconds of one epoch in this process."""
    started = time.perf_counter()
    objective, model = config.build(data, 0)
    fit(
        model,
        objective,
        data.train,
        data.validation,
        replace(config, epochs=1),
        seed=0,
        device="cpu",
    )
    return time.perf_counter() - started


def _timed(worker: int, shared, report) -> float:
    config, data, start = shared
    _ours(
        config, data.subset(2 * config.batch_size, 10, 10)
    )  # first batches pay for kernel selection
    start.wait()
    return _ours(config, data)


def _one_process_a_core(task: Task, count: int) -> float:
    """Images a second of `count` runs at once, from their common start to the slowest one's end."""
    start = multiprocessing.get_context("spawn").Barrier(count)
    seconds = engines.work(_timed, range(count), (task.config, task.data, start), workers=count)
    return count * len(task.data.train.images) / max(seconds)


def peak_flops(precision: str, size: int = 1024, repeats: int = 10) -> float:
    """FLOP a second of a matrix multiplication on all threads, 2 * size^3 each."""
    left, right = torch.randn(2, size, size, dtype=getattr(torch, precision))
    left @ right
    started = time.perf_counter()
    for _ in range(repeats):
        left @ right
    return repeats * 2 * size**3 / (time.perf_counter() - started)


def training_flops(model: nn.Module, size: tuple[int, ...]) -> float:
    """FLOP of forward and backward for one image, by torch's own counter."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        output = model(torch.zeros(2, *size))
        outputs = output if isinstance(output, tuple) else (output,)
        sum(x.sum() for x in outputs if x is not None).backward()
    return counter.get_total_flops() / 2


def bench(rounds: int) -> pd.DataFrame:
    """Print and return, per network and arm: images a second, ratio to the textbook loop, share of the peak."""
    return pd.concat(
        {task.name: _bench(task, rounds) for task in tasks()}, names=["network", "arm"]
    )


def _bench(task: Task, rounds: int) -> pd.DataFrame:
    count = engines.cores()
    precision = choose_precision("auto", torch.device("cpu"))  # of ours; the textbook's is float32
    arms = {
        f"(a) textbook loop, {torch.get_num_threads()} threads": _textbook,
        f"(b) ours, one process, {torch.get_num_threads()} threads": lambda task: (
            len(task.data.train.images) / _ours(task.config, task.data)
        ),
        f"(c) ours, {count} processes of one thread": lambda task: _one_process_a_core(task, count),
    }
    used = dict(zip(arms, ("float32", precision, precision), strict=True))
    rows = []
    for _ in range(rounds):
        peaks = {kind: peak_flops(kind) for kind in used.values()}
        rows.append({name: arm(task) for name, arm in arms.items()} | peaks)
        print("  ".join(f"{name.split()[0]} {rows[-1][name]:,.0f}" for name in arms), "images/s")
    speeds = pd.DataFrame(rows)
    flops = training_flops(
        task.config.build(task.data, 0)[1], (1, *task.data.train.images.shape[-2:])
    )
    base = speeds[next(iter(arms))]
    summary = pd.DataFrame(
        {
            "images a second": speeds[list(arms)].median(),
            "ratio to (a)": {name: (speeds[name] / base).median() for name in arms},
            "precision": used,
            "share of its matmul peak": {
                name: (speeds[name] * flops / speeds[kind]).median() for name, kind in used.items()
            },
        }
    )
    peaks = ", ".join(
        f"{speeds[kind].median() / 1e9:.0f} in {kind}" for kind in dict.fromkeys(used.values())
    )
    print(
        f"\n{task.name}, medians of {rounds} rounds, {flops / 1e6:.1f} MFLOP an image, measured peak of a "
        f"matrix multiplication in GFLOP/s: {peaks}\n{summary.round(3).to_string()}\n"
    )
    return summary


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--record",
        action="store_true",
        help="write report/results/speed.csv, which the report quotes",
    )
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error(f"argument --rounds: found {arguments.rounds}, expected at least 1")
    table = bench(arguments.rounds)
    if arguments.record:
        table["cpu"], table["torch"], table["rounds"] = (
            torch.backends.cpu.get_cpu_capability(),
            torch.__version__,
            arguments.rounds,
        )
        table.to_csv(file := paths.RESULTS / "speed.csv")
        checksums.record(file)
