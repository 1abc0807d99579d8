"""Compare the speed of our training with that of a textbook loop, in images per second.

    python benchmarks/training.py [--rounds 5] [--record]

Absolute speeds mean little on a shared machine. The arms take turns in every round, and every round
gives one ratio, so a busy minute slows all arms alike.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
import torch.nn.functional as F
from torch import multiprocessing, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

from smai_lib.colorization.config import ColorizationConfig
from smai_lib.colorization.data import ColorizationData, cifar10
from smai_lib.colorization.model import ColorizationCNN, ColorizationUNet
from smai_lib.colorization.studies import REPORT_CNN, UNET
from smai_lib.core import data, files, paths, pool
from smai_lib.core.config import Config
from smai_lib.core.layers import use_torch_deconvolutions
from smai_lib.core.training import choose_precision, cpu_capabilities, fit
from smai_lib.multitask.config import MultiTaskConfig
from smai_lib.multitask.data import FashionMNIST, fashion_mnist
from smai_lib.multitask.studies import TEN_CONFIGS

PRODUCTS = ("convolution", "addmm", "aten::mm", "aten::bmm")  # parts of names of operations
PROFILED_BATCHES = 8
START_SECONDS = 300  # for the other workers of a round to start; one that fails never does


@dataclass(frozen=True)
class Case:
    """One network to train.

    Args:
        name: name in the tables.
        config: config of the network.
        data: an arm's share of a round, some seconds.
        one_by_one: class of a torch data set of single images, decoded and augmented.
        loss: function of (model, batch of that data set) that returns the loss.
    """

    name: str
    config: Config
    data: data.Dataset
    one_by_one: Callable[[data.Dataset, Config], Dataset]
    loss: Callable[[nn.Module, list], torch.Tensor]

    @property
    def images(self) -> int:
        """Number of training images."""
        return len(self.data.train.images)

    def smaller(self) -> data.Dataset:
        """Return a data set of a few batches."""
        return self.data.take(PROFILED_BATCHES * self.config.batch_size, 10, 10)


class SingleGarments(Dataset):
    """Fashion-MNIST as in tutorials: each image is decoded and transformed alone."""

    def __init__(self, data: FashionMNIST, config: MultiTaskConfig):
        self.pictures = data.train.images
        self.labels = data.train.labels.tolist()
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(0.5, 0.5)])

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        image = self.transform(to_pil_image(self.pictures[index]))
        return image, self.labels[index], (image * 0.5 + 0.5).mean()


class SingleColorImages(Dataset):
    """Colour images: each is decoded and augmented alone; its colours were encoded before."""

    def __init__(self, data: ColorizationData, config: ColorizationConfig):
        self.pictures, self.colors = data.train.images, data.train.colors
        self.decode = transforms.ToTensor()
        steps = [transforms.RandomHorizontalFlip()] if config.mirror else []
        if config.shift:
            size = self.pictures.shape[-2:]
            steps.append(transforms.RandomCrop(size, padding=config.shift, padding_mode="reflect"))
        self.augment = transforms.Compose(steps)

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, index):
        grey = self.decode(to_pil_image(self.pictures[index])).mean(0)
        grey, colors = self.augment(torch.stack([grey, self.colors[index].float()]))
        return grey[None], colors.long()


def garment_loss(model: nn.Module, batch: list) -> torch.Tensor:
    """Return the unweighted joint loss of class and ink."""
    images, labels, ink = batch
    output = model(images)
    return F.cross_entropy(output.logits, labels) + F.mse_loss(output.ink, ink.float())


def color_loss(model: nn.Module, batch: list) -> torch.Tensor:
    """Return the mean cross-entropy of the pixels' colours."""
    grey, colors = batch
    return F.cross_entropy(model(grey), colors)


def make_cases() -> list[Case]:
    """Return config 1 of Q1, the reference report's colorization network, and the U-Net."""
    config = TEN_CONFIGS["config 1"]
    garments = fashion_mnist().take(54 * config.batch_size, 10, 10)
    colors = cifar10().take(24 * UNET.batch_size, 10, 10)
    return [
        Case("config 1", config, garments, SingleGarments, garment_loss),
        Case("colorization CNN", REPORT_CNN, colors, SingleColorImages, color_loss),
        Case("U-Net", UNET, colors, SingleColorImages, color_loss),
    ]


def textbook_model(case: Case) -> nn.Module:
    """Return the network as a textbook writes it, in torch's default memory format."""
    _, model = case.config.build(case.data, 0)
    if hasattr(model, "backbone"):
        model.backbone = _textbook_blocks(model.backbone)
    elif isinstance(model.network, ColorizationCNN):
        model.network.encoder = _textbook_blocks(model.network.encoder)
    elif isinstance(model.network, ColorizationUNet):
        model.network.encoder[0].register_forward_pre_hook(_default_memory_format)
    return use_torch_deconvolutions(model)


def _textbook_blocks(blocks: nn.Sequential) -> nn.Sequential:
    """Return Conv - BatchNorm - ReLU - MaxPool; ours pools before the ReLU and works in place."""
    return nn.Sequential(
        *(nn.Sequential(block.conv, block.norm, nn.ReLU(), block.pool) for block in blocks)
    )


def _default_memory_format(module: nn.Module, inputs: tuple) -> torch.Tensor:
    return inputs[0].contiguous(memory_format=torch.contiguous_format)


def run_textbook(case: Case, images: data.Dataset) -> float:
    """Return the seconds of one epoch in a plain float32 loop over a DataLoader."""
    model = textbook_model(case).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=case.config.learning_rate)
    single = case.one_by_one(images, case.config)
    loader = DataLoader(single, batch_size=case.config.batch_size, shuffle=True)
    start = time.perf_counter()
    for batch in loader:
        optimizer.zero_grad()
        case.loss(model, batch).backward()
        optimizer.step()
    return time.perf_counter() - start


def run_ours(case: Case, images: data.Dataset) -> float:
    """Return the seconds of one epoch in this process."""
    config = case.config.replace(epochs=1)
    start = time.perf_counter()
    task, model = config.build(images, 0)
    fit(model, task, images.train, images.validation, config, seed=0, device="cpu")
    return time.perf_counter() - start


def run_processes(case: Case, count: int) -> float:
    """Return the seconds of `count` runs at once, from their common start to the end of all."""
    with multiprocessing.get_context("spawn").Manager() as manager:
        shared = (case, manager.Barrier(count, timeout=START_SECONDS))
        return max(pool.run_tasks(_timed_run, range(count), shared, workers=count))


def _timed_run(worker: int, shared, report) -> float:
    case, start = shared
    run_ours(case, case.smaller())  # the first batches choose kernels
    start.wait()
    return run_ours(case, case.data)


def product_share(run: Callable[[Case, data.Dataset], float], case: Case, threads: int) -> float:
    """Return the share of an arm's time that is convolution and matrix product.

    The rest is decoding, augmentation, other layers, the optimizer and Python.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        run(case, case.smaller())  # the first batches choose kernels
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            seconds = run(case, case.smaller())
    finally:
        torch.set_num_threads(before)
    products = 0.0
    for operation in profiler.key_averages():
        if any(part in operation.key for part in PRODUCTS):
            products += operation.self_cpu_time_total / 1e6
    return products / seconds


def peak_flops(precision: str, size: int = 1024, repeats: int = 10) -> float:
    """Return FLOP per second of a matrix product on all threads, 2 * size^3 each."""
    left, right = torch.randn(2, size, size, dtype=getattr(torch, precision))
    left @ right
    start = time.perf_counter()
    for _ in range(repeats):
        left @ right
    return repeats * 2 * size**3 / (time.perf_counter() - start)


def training_flops(case: Case) -> float:
    """Return FLOP of forward and backward pass for one image, by torch's counter."""
    _, model = case.config.build(case.data, 0)
    with FlopCounterMode(display=False) as counter:
        output = model(torch.zeros(2, 1, *case.data.train.images.shape[-2:]))
        outputs = output if isinstance(output, tuple) else (output,)
        sum(values.sum() for values in outputs if values is not None).backward()
    return counter.get_total_flops() / 2


def processor() -> str:
    """Return the name of the processor, and those of its instructions that torch uses."""
    able = cpu_capabilities()
    kinds = [able.get("cpu_name", "unknown"), torch.backends.cpu.get_cpu_capability()]
    bfloat16 = {"AVX512-BF16": "avx512_bf16", "AMX": "amx_bf16"}
    return ", ".join(kinds + [kind for kind, key in bfloat16.items() if able.get(key)])


def compare(case: Case, rounds: int) -> pd.DataFrame:
    """Print and return speeds, ratios and shares of one network, a row an arm."""
    cores, threads = pool.cores(), torch.get_num_threads()
    ours = choose_precision("auto", torch.device("cpu"))
    names = (
        f"(a) textbook loop, {threads} threads",
        f"(b) ours, one process, {threads} threads",
        f"(c) ours, {cores} processes of one thread",
    )
    precision = pd.Series(["float32", ours, ours], names)
    rows = []
    for _ in range(rounds):
        seconds = [run_textbook(case, case.data), run_ours(case, case.data)]
        seconds.append(run_processes(case, cores) / cores)
        row = {name: case.images / taken for name, taken in zip(names, seconds, strict=True)}
        print("  ".join(f"{name[:3]} {speed:,.0f}" for name, speed in row.items()), "images/s")
        rows.append(row | {kind: peak_flops(kind) for kind in precision.unique()})
    measured = pd.DataFrame(rows)
    speeds, flops = measured[list(names)], training_flops(case)
    peaks = measured[precision].set_axis(list(names), axis=1)
    table = pd.DataFrame(
        {
            "images a second": speeds.median(),
            "ratio to (a)": speeds.div(speeds[names[0]], axis=0).median(),
            "precision": precision,
            "share of its matmul peak": (speeds * flops / peaks).median(),
            "convolution and matrix product": [
                product_share(run_textbook, case, threads),
                product_share(run_ours, case, threads),
                product_share(run_ours, case, 1),
            ],
        }
    )
    print(
        f"\n{case.name} on {processor()}: medians of {rounds} rounds, {flops / 1e6:.1f} MFLOP an "
        f"image, matrix product at {peaks.iloc[:, -1].median() / 1e9:.0f} GFLOP/s in {ours}\n"
        f"{table.round(3).to_string()}\n"
    )
    return table


def record(table: pd.DataFrame) -> None:
    """Put the rows into report/results/speed.csv, in place of those of the same processor."""
    file = paths.RESULTS / "speed.csv"
    earlier = pd.read_csv(file)
    others = earlier[~earlier["cpu"].isin(table["cpu"])]
    files.write(file, pd.concat([others, table]).to_csv(index=False))
    files.record_checksum(file)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare all networks, and record the table on request.

    Args:
        arguments: of the command line, by default those of this process.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds of all arms (default: 5)")
    parser.add_argument(
        "--record", action="store_true", help="keep them in report/results/speed.csv"
    )
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error(f"argument --rounds: found {options.rounds}, expected at least 1")
    tables = {case.name: compare(case, options.rounds) for case in make_cases()}
    if options.record:
        table = pd.concat(tables, names=["network", "arm"]).reset_index()
        record(table.assign(cpu=processor(), torch=torch.__version__, rounds=options.rounds))


if __name__ == "__main__":
    main()
