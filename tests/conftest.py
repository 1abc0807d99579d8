import socket
import subprocess
from itertools import product

import pytest
import torch

from smai_lib.colorization.data import ColorizationData, prepare
from smai_lib.colorization.images import ColorImages, Photos
from smai_lib.colorization.studies import default_data
from smai_lib.colorization.task import mirror_and_shift
from smai_lib.multitask.data import fashion_mnist
from smai_lib.multitask.studies import all_data

torch.set_num_threads(1)  # small tensors: on a busy machine threads wait for each other


@pytest.fixture(autouse=True)
def private_folders(tmp_path, monkeypatch):
    """Keep runs and wandb files of a test in its own folder, and wandb off by default."""
    monkeypatch.setenv("SMAI_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    for load in (all_data, default_data):
        load.cache_clear()  # a test may choose another source


@pytest.fixture(scope="session")
def sample():
    return fashion_mnist("sample", verbose=False)


@pytest.fixture(scope="session")
def tiny(sample):
    return sample.take(300, 100, 100)


def output_of(*command, **settings) -> str:
    """Run a command that must succeed, and return what it prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **settings)
    assert done.returncode == 0, done.stderr
    return done.stdout


def free_port() -> str:
    """Return a port of this machine that no server uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def every_move(split, *, mirror: int, shift: int):
    """Yield (mirrored, down, right) and the images moved so, for all moves of an augmentation."""
    steps = range(-shift, shift + 1)
    for move in product(range(1 + mirror), steps, steps):
        mirrored, down, right = torch.tensor(move)[:, None].expand(3, len(split.grey))
        yield move, mirror_and_shift(split, mirrored == 1, down, right)


def make_images(
    splits: tuple[int, int, int],
    *,
    side: int = 32,
    source: str = "made up",
    pixels: torch.Tensor | None = None,
) -> ColorImages:
    """Return colour images: random ones, or `pixels` (N, 3, H, W), divided into `splits`."""
    if pixels is None:
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(
            0, 256, (sum(splits), 3, side, side), generator=generator, dtype=torch.uint8
        )
    parts = (Photos(part, torch.arange(len(part)) % 2) for part in pixels.split(list(splits)))
    return ColorImages(*parts, source, None, "f" * 64, ("cat", "horse"))


def make_colors(splits: tuple[int, int, int], num_colors: int = 24, **settings) -> ColorizationData:
    """Return the same in a palette; settings as for `make_images`."""
    return prepare(make_images(splits, **settings), num_colors)


@pytest.fixture(scope="session")
def made_up_images():
    return make_images


@pytest.fixture(scope="session")
def made_up_colors():
    return make_colors
