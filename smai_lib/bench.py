"""Images a second: the textbook loop against ours, side by side in one run.

Absolute times mean little on shared machines. The arms take turns within every round, and each
round gives one ratio, so a busy minute slows all arms alike.
"""

import time
from concurrent.futures import ProcessPoolExecutor

import pandas as pd
import torch
import torch.nn.functional as F
from torch import multiprocessing, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

from . import engines
from .data import FashionMNIST, fashion_mnist
from .runs import build
from .studies import TEN_CONFIGS
from .training import choose_precision, fit

CONFIG = TEN_CONFIGS["config 1"]
IMAGES = 54 * CONFIG.batch_size  # an arm's share of a round, some seconds


class _OneByOne(Dataset):
    """Decodes and transforms one image at a time, as torchvision's data set and tutorials do."""

    def __init__(self, data: FashionMNIST):
        self.pictures = data.train.images
        self.labels = data.train.labels.tolist()
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(0.5, 0.5)])

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        image = self.transform(to_pil_image(self.pictures[index]))
        return image, self.labels[index], (image * 0.5 + 0.5).mean()


def _textbook(data: FashionMNIST) -> float:
    """Images a second of a plain float32 DataLoader loop, with torch's own choice of threads."""
    _, model = build(CONFIG, seed=0)
    # the order and the ReLU of the textbook: ours pools first and works in place
    model.backbone = nn.Sequential(
        *(nn.Sequential(block.conv, block.norm, nn.ReLU(), block.pool) for block in model.backbone))
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=CONFIG.learning_rate)
    loader = DataLoader(_OneByOne(data), batch_size=CONFIG.batch_size, shuffle=True)
    started = time.perf_counter()
    for images, labels, ink in loader:
        optimizer.zero_grad()
        output = model(images)
        loss = F.cross_entropy(output.logits, labels) + F.mse_loss(output.ink, ink.float())
        loss.backward()
        optimizer.step()
    return len(data.train.labels) / (time.perf_counter() - started)


def _ours(data: FashionMNIST) -> None:
    objective, model = build(CONFIG, seed=0)
    config = type(CONFIG).from_dict(CONFIG.to_dict() | {"epochs": 1})
    fit(model, objective, data.train, data.validation, config, seed=0, device="cpu")


def _worker(data: FashionMNIST, ready, go) -> float:
    torch.set_num_threads(1)
    _ours(data.subset(2 * CONFIG.batch_size, 10, 10))  # first batches pay for kernel selection
    ready.release()
    go.wait()
    started = time.perf_counter()
    _ours(data)
    return time.perf_counter() - started


def _one_process(data: FashionMNIST) -> float:
    started = time.perf_counter()
    _ours(data)
    return len(data.train.labels) / (time.perf_counter() - started)


def _one_process_a_core(data: FashionMNIST, count: int) -> float:
    """Images a second of `count` runs at once, from their common start to the slowest one's end."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(count, context) as pool:
        ready, go = manager.Semaphore(0), manager.Event()
        futures = [pool.submit(_worker, data, ready, go) for _ in range(count)]
        for _ in range(count):
            ready.acquire()
        go.set()
        return count * len(data.train.labels) / max(future.result() for future in futures)


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
        (output.logits.sum() + output.ink.sum()).backward()
    return counter.get_total_flops() / 2


def bench(rounds: int = 5) -> pd.DataFrame:
    """Print and return, per arm: images a second, ratio to the textbook loop, share of the peak."""
    count = engines.cores()
    precision = choose_precision("auto", torch.device("cpu"))  # of ours; the textbook's is float32
    data = fashion_mnist().subset(IMAGES, 10, 10)
    arms = {
        f"(a) textbook loop, {torch.get_num_threads()} threads": _textbook,
        f"(b) ours, one process, {torch.get_num_threads()} threads": _one_process,
        f"(c) ours, {count} processes of one thread": lambda data: _one_process_a_core(data, count),
    }
    used = dict(zip(arms, ("float32", precision, precision), strict=True))
    rows = []
    for _ in range(rounds):
        rows.append({name: arm(data) for name, arm in arms.items()}
                    | {kind: peak_flops(kind) for kind in used.values()})
        print("  ".join(f"{name.split()[0]} {rows[-1][name]:,.0f}" for name in arms), "images/s")
    speeds = pd.DataFrame(rows)
    _, model = build(CONFIG, seed=0)
    flops = training_flops(model, (1, 28, 28))
    base = speeds[next(iter(arms))]
    summary = pd.DataFrame({
        "images a second": speeds[list(arms)].median(),
        "ratio to (a)": {name: (speeds[name] / base).median() for name in arms},
        "precision": used,
        "share of its matmul peak": {name: (speeds[name] * flops / speeds[kind]).median()
                                     for name, kind in used.items()},
    })  # fmt: skip
    peaks = ", ".join(f"{speeds[kind].median() / 1e9:.0f} in {kind}" for kind in dict.fromkeys(used.values()))
    print(f"\nconfig 1, medians of {rounds} rounds, {flops / 1e6:.1f} MFLOP an image, measured peak of a "
          f"matrix multiplication in GFLOP/s: {peaks}\n{summary.round(3).to_string()}")
    return summary
