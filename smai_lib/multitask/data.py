"""Fashion-MNIST in memory, with the ink of every image.

Fashion-MNIST (Xiao, Rasul, Vollgraf 2017, MIT licence). *Ink* is the mean pixel intensity of the
raw image, in [0, 1]. A file is verified by the SHA-256 of its decompressed content, because its
sources pack the same images differently.
"""

import gzip
import hashlib
import os
import zlib
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ..core import paths
from ..core.data import (
    CONNECT_SECONDS,
    SAMPLE,
    Dataset,
    download,
    find_source,
    repair_hint,
    run_command,
    split_off_validation,
)
from ..core.errors import DataError

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
TRAIN_IMAGES = "train-images-idx3-ubyte"
TRAIN_LABELS = "train-labels-idx1-ubyte"
TEST_IMAGES = "t10k-images-idx3-ubyte"
TEST_LABELS = "t10k-labels-idx1-ubyte"
CHECKSUMS = {
    TRAIN_IMAGES: "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    TRAIN_LABELS: "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    TEST_IMAGES: "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    TEST_LABELS: "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
SAMPLE_CHECKSUMS = {
    TRAIN_IMAGES: "31d9353985a268ffa6acd0db936b5e5eb78d0be85e21a63d6f551abc3cd96f34",
    TRAIN_LABELS: "cd10004b6267f1cadf0991c11eb73f886275a70d4a715722e821c08253f61e2f",
    TEST_IMAGES: "579394ae4bbe37a8837170a7311d0d4eae0f3efb6ef742d246ed865981aee5ca",
    TEST_LABELS: "3615c4cd2ff1d16a782d179cf46d0c888c86ea2e3c411c2ec736e91009bcd7be",
}
# of the training images' pixels in [0, 1], as they are usually given
PIXEL_MEAN, PIXEL_DEVIATION = 0.2860, 0.3530
SYSTEM_DIR = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist
LARGEST_CONTENT = 1 << 26  # bytes to decompress of a file; the largest has 47 MB


class Split(NamedTuple):
    """images (N, 1, 28, 28) uint8, labels (N,) int64, ink (N,) float32 in [0, 1]."""

    images: torch.Tensor
    labels: torch.Tensor
    ink: torch.Tensor


@dataclass(frozen=True)
class FashionMNIST(Dataset):
    """The three splits, each a `Split`, and their source."""

    def __str__(self) -> str:
        return f"Fashion-MNIST from {self.source}: {self.counts()}"


def ink_of(images: torch.Tensor) -> torch.Tensor:
    """Return the mean pixel intensity of raw images.

    Args:
        images: (N, 1, H, W) uint8.

    Returns:
        (N,) float32 in [0, 1].
    """
    total = images.flatten(1).sum(1, dtype=torch.int64).double()
    return (total / (images[0].numel() * 255)).float()


def fashion_mnist(
    directory: str | os.PathLike | None = None, *, verbose: bool = True
) -> FashionMNIST:
    """Load Fashion-MNIST from the first source that has it, verified.

    The sources, in order: `directory`; the repository's `data/`; the system's copy; torchvision's
    download; Debian's package, unpacked without root; the sample that ships with the library.
    A stratified, seeded tenth of the training images is the validation split.

    Args:
        directory: folder of the four files; "sample" asks for the sample (default: the
            environment variable SMAI_FASHION_MNIST).
        verbose: whether to print the source.

    Raises:
        DataError: `directory` lacks a file, or a file is truncated or altered.
    """
    source, folder = find_source(
        paths.data_dir() / "fashion-mnist",
        _missing,
        {
            "torchvision download": _fetch_torchvision,
            "Debian package dataset-fashion-mnist": _fetch_debian,
        },
        explicit=directory or os.environ.get("SMAI_FASHION_MNIST"),
        local={
            "torchvision's folder": paths.data_dir(),
            "system copy of Debian's dataset-fashion-mnist": SYSTEM_DIR,
        },
    ) or (SAMPLE, paths.SAMPLE)
    checksums = SAMPLE_CHECKSUMS if source == SAMPLE else CHECKSUMS
    arrays = _read(folder, checksums)
    train, validation = split_off_validation(_split(arrays[TRAIN_IMAGES], arrays[TRAIN_LABELS]))
    dataset = FashionMNIST(
        train,
        validation,
        _split(arrays[TEST_IMAGES], arrays[TEST_LABELS]),
        source,
        folder,
        fingerprint=hashlib.sha256("".join(checksums.values()).encode()).hexdigest(),
    )
    if verbose:
        dataset.announce()
    return dataset


def describe() -> None:
    """Print the source of Fashion-MNIST, with the checksum and the size of each file."""
    dataset = fashion_mnist()
    checksums = SAMPLE_CHECKSUMS if dataset.is_stand_in else CHECKSUMS
    print(f"folder: {dataset.directory}")
    for name, checksum in checksums.items():
        file = _locate(dataset.directory, name)
        size = file.stat().st_size
        print(f"  {file.name}: {size:,} bytes, SHA-256 of the content {checksum} verified")


def _fetch_torchvision(scratch: Path) -> list[Path]:
    """Download the files from torchvision's mirrors."""
    from torchvision.datasets import FashionMNIST as Torchvision

    for name, md5 in Torchvision.resources:
        download([mirror + name for mirror in Torchvision.mirrors], scratch / name, md5)
    return _verified(scratch)


def _fetch_debian(scratch: Path) -> list[Path]:
    """Download and unpack Debian's package with an apt state in `scratch`, which needs no root."""
    for folder in ("lists/partial", "cache/archives/partial"):
        (scratch / folder).mkdir(parents=True)
    settings = {
        "Dir::State::Lists": scratch / "lists",
        "Dir::Cache": scratch / "cache",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Acquire::Retries": 0,
        "Acquire::http::Timeout": CONNECT_SECONDS,
        "Acquire::https::Timeout": CONNECT_SECONDS,
    }
    apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in settings.items())]
    run_command(*apt, "update", folder=scratch)
    run_command(*apt, "download", "dataset-fashion-mnist", folder=scratch)
    for package in scratch.glob("*.deb"):
        run_command("dpkg-deb", "-x", str(package), "out", folder=scratch)
    return _verified(scratch / "out" / SYSTEM_DIR.relative_to("/"))


def _verified(folder: Path) -> list[Path]:
    """Return the four files of a download.

    Raises:
        DataError: one is missing, truncated or altered.
    """
    problem = _missing(folder)
    if problem:
        raise DataError(problem)
    _read(folder, CHECKSUMS)
    return [_locate(folder, name) for name in CHECKSUMS]


def _locate(folder: Path, name: str) -> Path | None:
    """Return the file in a folder, with or without .gz, under torchvision's or 7-zip's name."""
    stems = (name, name.replace("-idx", ".idx"))
    for subfolder, stem, suffix in product(("", "FashionMNIST/raw", "raw"), stems, ("", ".gz")):
        file = folder / subfolder / f"{stem}{suffix}"
        if os.path.isfile(file):
            return file
    return None


def _missing(folder: Path) -> str:
    """Return which of the four files a folder lacks; empty if it has all."""
    for name in CHECKSUMS:
        if _locate(folder, name) is None:
            return (
                f"{folder} has no {name} or {name}.gz, also not in FashionMNIST/raw; "
                "give the folder that holds the four files, or none"
            )
    return ""


def _read(folder: Path, checksums: dict[str, str]) -> dict[str, np.ndarray]:
    """Return the arrays in IDX files of bytes, gzipped or not, after verifying their checksums."""
    arrays = {}
    for name, checksum in checksums.items():
        file = _locate(folder, name)
        try:
            content = _decompress(file)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{file} cannot be read ({error}); {repair_hint(file)}") from error
        found = hashlib.sha256(content).hexdigest()
        if found != checksum:
            raise DataError(
                f"{file} is truncated or altered: the SHA-256 of its content is {found}, "
                f"expected {checksum}; {repair_hint(file)}"
            )
        dimensions = content[3]
        shape = np.frombuffer(content, ">u4", count=dimensions, offset=4)
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
        arrays[name] = values.reshape(shape)
    return arrays


def _decompress(file: Path) -> bytes:
    """Return the content of a file, gzipped or not, whatever its name says."""
    with open(file, "rb") as stream:
        is_gzip = stream.read(2) == b"\x1f\x8b"
        stream.seek(0)
        return (gzip.open(stream) if is_gzip else stream).read(LARGEST_CONTENT)


def _split(images: np.ndarray, labels: np.ndarray) -> Split:
    images = torch.from_numpy(images.copy()).unsqueeze(1)  # (N, 28, 28) -> (N, 1, 28, 28)
    return Split(images, torch.from_numpy(labels.astype(np.int64)), ink_of(images))
