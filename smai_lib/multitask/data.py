"""Fashion-MNIST in memory, from the first source that can serve it.

Fashion-MNIST (Xiao, Rasul, Vollgraf 2017, MIT licence), with *ink*: the mean pixel intensity of the raw image, in
[0, 1]. A file is trusted by the SHA-256 of its decompressed content, because different hands pack the same images.
"""

import gzip
import hashlib
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.model_selection import train_test_split

from ..core import paths, sources
from ..core.sources import (
    PATIENCE_SECONDS,
    SAMPLE,
    SPLIT_SEED,
    VALIDATION_SHARE,
    DataError,
    Dataset,
)

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
CHECKSUMS = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
SAMPLE_CHECKSUMS = {
    "train-images-idx3-ubyte": "31d9353985a268ffa6acd0db936b5e5eb78d0be85e21a63d6f551abc3cd96f34",
    "train-labels-idx1-ubyte": "cd10004b6267f1cadf0991c11eb73f886275a70d4a715722e821c08253f61e2f",
    "t10k-images-idx3-ubyte": "579394ae4bbe37a8837170a7311d0d4eae0f3efb6ef742d246ed865981aee5ca",
    "t10k-labels-idx1-ubyte": "3615c4cd2ff1d16a782d179cf46d0c888c86ea2e3c411c2ec736e91009bcd7be",
}
PIXEL_MEAN, PIXEL_DEVIATION = (
    0.2860,
    0.3530,
)  # of the training images' pixels in [0, 1], as they are usually given
SYSTEM_DIR = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist


class Split(NamedTuple):
    """images (N, 1, 28, 28) uint8, labels (N,) int64, ink (N,) float32 in [0, 1]."""

    images: torch.Tensor
    labels: torch.Tensor
    ink: torch.Tensor


@dataclass(frozen=True)
class FashionMNIST(Dataset):
    """The three splits, each a `Split`, and where they came from."""

    def __str__(self) -> str:
        return f"Fashion-MNIST from {self.source}: {self.counts()}"


def ink_of(images: torch.Tensor) -> torch.Tensor:
    """Mean pixel intensity of raw uint8 images: (N, 1, H, W) -> (N,) float32 in [0, 1]."""
    return (
        images.flatten(1).sum(1, dtype=torch.int64).double() / (images[0].numel() * 255)
    ).float()


def fashion_mnist(
    directory: str | os.PathLike | None = None, *, verbose: bool = True
) -> FashionMNIST:
    """Fashion-MNIST from the first source that serves it, verified; a stratified, seeded tenth of its training files validates.

    The sources, in order: `directory` (default: the environment variable SMAI_FASHION_MNIST), where "sample" asks for
    the sample; the repository's `data/`; the system's copy; torchvision's download; Debian's package, unpacked without
    root; the sample that ships with this library.

    Raises:
        DataError: a file is truncated or altered, or `directory` lacks one.
    """
    directory = directory or os.environ.get("SMAI_FASHION_MNIST")
    found = (
        None
        if directory == SAMPLE
        else sources.find(
            paths.data_dir() / "fashion-mnist",
            _complete,
            {
                "torchvision download": _fetch_torchvision,
                "Debian package dataset-fashion-mnist": _fetch_debian,
            },
            explicit=directory,
            missing=_missing,
            system={"system copy of Debian's dataset-fashion-mnist": SYSTEM_DIR},
        )
    )
    source, folder = found or (SAMPLE, paths.SAMPLE)
    checksums = SAMPLE_CHECKSUMS if source == SAMPLE else CHECKSUMS
    arrays = {
        name: _read_idx(_locate(folder, name), checksum) for name, checksum in checksums.items()
    }
    labels = arrays["train-labels-idx1-ubyte"]
    development = _split(arrays["train-images-idx3-ubyte"], labels)
    chosen = train_test_split(
        np.arange(len(labels)), test_size=VALIDATION_SHARE, stratify=labels, random_state=SPLIT_SEED
    )
    train, validation = (
        Split(*(column[np.sort(index)] for column in development)) for index in chosen
    )
    dataset = FashionMNIST(
        train,
        validation,
        _split(arrays["t10k-images-idx3-ubyte"], arrays["t10k-labels-idx1-ubyte"]),
        source,
        folder,
        fingerprint=hashlib.sha256("".join(checksums.values()).encode()).hexdigest(),
    )
    if verbose:
        print(dataset)
        if dataset.is_stand_in:
            print(
                "*** SAMPLE DATA *** No source of the full data set answered: results are not "
                "comparable with published ones. `python -m smai_lib fetch` tries again."
            )
    return dataset


def _fetch_torchvision(scratch: Path) -> list[Path]:
    from torchvision.datasets import FashionMNIST as Torchvision

    for name, md5 in Torchvision.resources:
        sources.download([mirror + name for mirror in Torchvision.mirrors], scratch / name, md5)
    return _verified(scratch)


def _fetch_debian(scratch: Path) -> list[Path]:
    """Download and unpack the package with an apt state of our own, which needs no root."""
    for folder in ("lists/partial", "cache/archives/partial"):
        (scratch / folder).mkdir(parents=True)
    apt = [
        "apt-get",
        "-qq",
        "-o",
        f"Dir::State::Lists={scratch}/lists",
        "-o",
        f"Dir::Cache={scratch}/cache",
        "-o",
        "APT::Sandbox::User=",
        "-o",
        "Acquire::Retries=0",
        "-o",
        f"Acquire::http::Timeout={PATIENCE_SECONDS}",
        "-o",
        f"Acquire::https::Timeout={PATIENCE_SECONDS}",
    ]
    for command in (
        [*apt, "update"],
        [*apt, "download", "dataset-fashion-mnist"],
        ["sh", "-c", "dpkg-deb -x *.deb out"],
    ):
        sources.run_in(scratch, *command)
    return _verified(scratch / "out" / SYSTEM_DIR.relative_to("/"))


def _verified(folder: Path) -> list[Path]:
    """The four files in `folder`; DataError if one is missing, truncated or altered."""
    if not _complete(folder):
        raise DataError(_missing(folder))
    for name, checksum in CHECKSUMS.items():
        _read_idx(_locate(folder, name), checksum)
    return [_locate(folder, name) for name in CHECKSUMS]


def _locate(folder: Path, name: str) -> Path | None:
    files = (
        folder / raw / file
        for raw in ("", "FashionMNIST/raw", "raw")
        for file in (name, f"{name}.gz")
    )
    return next((file for file in files if file.is_file()), None)


def _complete(folder: Path) -> bool:
    return all(_locate(folder, name) for name in CHECKSUMS)


def _missing(folder: Path) -> str:
    name = next(name for name in CHECKSUMS if _locate(folder, name) is None)
    return (
        f"{folder} has no {name} or {name}.gz (looked there and in FashionMNIST/raw); give the folder "
        "that holds the four files, or none"
    )


def _read_idx(file: Path, checksum: str) -> np.ndarray:
    """Array in an IDX file of bytes, gzipped or not, after its content's checksum was verified."""
    repair = f"delete {file} and run `python -m smai_lib fetch`"
    try:
        with (gzip.open if file.suffix == ".gz" else open)(file, "rb") as stream:
            content = stream.read(1 << 26)  # none has more than 47 MB; what packs better is altered
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} cannot be read ({error}); {repair}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != checksum:
        raise DataError(
            f"{file} is truncated or altered: the SHA-256 of its content is {found}, "
            f"expected {checksum}; {repair}"
        )
    shape = np.frombuffer(content, ">u4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape)


def _split(images: np.ndarray, labels: np.ndarray) -> Split:
    images = torch.from_numpy(images.copy()).unsqueeze(1)  # (N, 28, 28) -> (N, 1, 28, 28)
    return Split(images, torch.from_numpy(labels.astype(np.int64)), ink_of(images))


def describe() -> None:
    """Print which source serves Fashion-MNIST, with each file's checksum and size."""
    dataset = fashion_mnist()
    checksums = SAMPLE_CHECKSUMS if dataset.is_stand_in else CHECKSUMS
    print(f"folder: {dataset.directory}")
    for name, checksum in checksums.items():
        file = _locate(dataset.directory, name)
        print(
            f"  {file.name}: {file.stat().st_size:,} bytes, SHA-256 of the content {checksum} verified"
        )
