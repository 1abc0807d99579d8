"""Data sets in memory, and where they come from.

Every data set has several sources. The first that has all of it serves it: an explicit directory,
the repository's `data/`, a copy on the system, or what can be downloaded. What is downloaded is
verified before it is kept in `data/`. If no source has it, a stand-in from the library serves.
"""

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten
from typing import Any, Self

import numpy as np
import requests
from filelock import FileLock

from . import paths
from .config import whole_number
from .errors import DataError

SAMPLE = "sample"
PATCH_SOURCE = "bundled photo patches"
# sources that ship with the library, with the warning for every result on them
STAND_INS = {SAMPLE: "SAMPLE DATA", PATCH_SOURCE: "PHOTO PATCHES, NOT THE STUDY'S IMAGES"}
FETCH = "`smai fetch`"
UNVERIFIED = "unverified"  # folder in which a download is unpacked and verified
SPLIT_SEED = 2017  # seed of the split into training and validation images
VALIDATION_SHARE = 0.1  # share of the training files
CONNECT_SECONDS = 5  # for a host to answer, or to send more
COMMAND_SECONDS = 120  # for apt-get and the like
MOST_BYTES = 500_000_000  # of a download; the largest archive has 170 million
LEAST_SPEED = 100_000  # bytes a second on average, after the first SLOW_SECONDS
SLOW_SECONDS = 10
Fetcher = Callable[[Path], Iterable[Path]]


@dataclass(frozen=True)
class Dataset:
    """Three splits, each a NamedTuple of tensors with one row per image, and their source."""

    train: Any
    validation: Any
    test: Any
    source: str
    directory: Path | None  # None if the images ship inside a package
    fingerprint: str  # SHA-256 of the content, however it was packed

    @property
    def is_stand_in(self) -> bool:
        """Return whether these are the images that ship with the library, not the full data set."""
        return self.source in STAND_INS

    def take(self, train: int, validation: int | None = None, test: int | None = None) -> Self:
        """Return a smaller data set of the first images of each split; 0 keeps a whole split.

        Args:
            train: number of training images.
            validation: number of validation images (default: a sixth of `train`).
            test: number of test images (default: a sixth of `train`).

        Raises:
            ConfigError: a number is negative, or no whole number.
        """
        train = whole_number("train", train)
        if not (train or validation or test):
            return self
        sixth = max(train // 6, 1) if train else 0
        splits, fingerprint = {}, self.fingerprint
        for name, size in {"train": train, "validation": validation, "test": test}.items():
            size = whole_number(name, sixth if size is None else size)
            split = getattr(self, name)
            splits[name] = split._make(column[: size or None] for column in split)
            fingerprint += f":{size}"
        return replace(self, **splits, fingerprint=fingerprint)

    def counts(self) -> str:
        """Return the sizes of the splits in words."""
        sizes = [f"{len(split[0]):,}" for split in (self.train, self.validation, self.test)]
        return f"{' / '.join(sizes)} train / validation / test images"

    def announce(self) -> None:
        """Print the source and the sizes, with a warning if this is a stand-in."""
        print(self)
        if self.is_stand_in:
            print(
                f"*** {STAND_INS[self.source]} *** This is not the full data set: results are not "
                f"comparable with published ones. With a network, {FETCH} downloads it."
            )


def split_off_validation(development) -> tuple:
    """Split training files into a training and a validation split, the same for every run.

    A seeded tenth validates. The split is stratified by class if every class is large enough.

    Args:
        development: a NamedTuple of tensors with one row per image, one of them `labels`.
    """
    from sklearn.model_selection import train_test_split  # slow to import

    labels = development.labels.numpy()
    counts = np.unique(labels, return_counts=True)[1]
    stratified = counts.min() > 1 and 1 < len(counts) <= VALIDATION_SHARE * len(labels)
    parts = train_test_split(
        np.arange(len(labels)),
        test_size=VALIDATION_SHARE,
        stratify=labels if stratified else None,
        random_state=SPLIT_SEED,
    )
    return tuple(
        development._make(column[np.sort(part)] for column in development) for part in parts
    )


def repair_hint(file: Path) -> str:
    """Return what helps against a damaged file: only one in `data/` is downloaded again."""
    if UNVERIFIED in file.parts:
        return "it is not kept"
    if file.resolve().is_relative_to(paths.data_dir()):
        return f"delete {file} and run {FETCH}"
    return "replace it by an unaltered copy"


def find_source(
    cache: Path,
    missing: Callable[[Path], str],
    fetchers: Mapping[str, Fetcher],
    *,
    explicit: str | os.PathLike | None = None,
    local: Mapping[str, Path],
) -> tuple[str, Path] | None:
    """Return name and folder of the first source that has a data set, or None.

    Args:
        cache: folder of the data set in `data/`.
        missing: returns what a folder lacks, with the fix; empty if the data set is complete.
        fetchers: functions by source that download into an empty folder, verify, and return the
            files to keep.
        explicit: folder given by the user; "sample" asks for the stand-in.
        local: folders by source of further copies on this machine.

    Raises:
        DataError: the explicit folder is incomplete.
    """
    if explicit == SAMPLE:
        return None
    if explicit:
        folder = Path(os.path.expanduser(explicit))
        problem = missing(folder)
        if problem:
            raise DataError(problem)
        return "explicit directory", folder
    if missing(cache):
        for name, folder in local.items():
            if not missing(folder):
                return name, folder
        _fetch_first(cache, missing, fetchers)
    if missing(cache):
        return None
    marker = cache / "SOURCE"
    name = marker.read_text(encoding="utf-8", errors="replace") if marker.is_file() else ""
    return name if name in fetchers else "data folder", cache


def _fetch_first(
    cache: Path, missing: Callable[[Path], str], fetchers: Mapping[str, Fetcher]
) -> None:
    """Download a data set from the first source that has it; print what is wrong with others."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{cache}.lock"):  # two notebooks that start at once download once
            for name, fetch in fetchers.items():
                if missing(cache):
                    _fetch(name, fetch, cache)
    except OSError as error:
        print(DataError(f"cannot write {cache} ({error}); set SMAI_DATA to another folder"))


def _fetch(name: str, fetch: Fetcher, cache: Path) -> None:
    """Download a data set into its folder; if the source fails, print why."""
    scratch = cache / UNVERIFIED
    shutil.rmtree(scratch, ignore_errors=True)  # what a killed download left
    try:
        scratch.mkdir()
        marker = scratch / "SOURCE"
        marker.write_text(name, encoding="utf-8")
        for file in (marker, *fetch(scratch)):
            os.replace(file, cache / file.name)
    except Exception as error:  # noqa: BLE001  whatever is wrong with a source, there is another
        reason = " ".join(str(error).split()) or type(error).__name__
        print(DataError(f"{name}: {reason}"))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def download(urls: Iterable[str], file: Path, checksum: str) -> None:
    """Download a file from the first URL that has the right content.

    Proxies are honoured. A host that does not answer, stalls or never ends is given up.

    Args:
        urls: mirrors of the file.
        file: where to write it.
        checksum: MD5 or SHA-256 of the content, in hexadecimal digits.

    Raises:
        DataError: no URL has it; the message says what each has instead.
    """
    algorithm = "md5" if len(checksum) == 32 else "sha256"
    reasons = []
    for url in urls:
        try:
            content = _read_url(url)
            found = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
            if found != checksum:
                raise DataError(f"found {algorithm} {found}, expected {checksum}")
        except Exception as error:  # noqa: BLE001  whatever is wrong with a URL, there is another
            reasons.append(f"{url}: {shorten(str(error), 200)}")
        else:
            file.write_bytes(content)
            return
    raise DataError("; ".join(reasons))


def _read_url(url: str) -> bytearray:
    """Return the body of a URL as sent, without decompressing it."""
    content = bytearray()
    start = time.monotonic()
    with requests.get(
        url, headers={"Accept-Encoding": "identity"}, stream=True, timeout=CONNECT_SECONDS
    ) as response:
        response.raise_for_status()
        for chunk in response.raw.stream(1 << 12, decode_content=False):
            content += chunk
            seconds = time.monotonic() - start
            if len(content) > MOST_BYTES or len(content) < LEAST_SPEED * (seconds - SLOW_SECONDS):
                raise DataError(f"given up after {len(content):,} bytes in {seconds:.0f} s")
    return content


def run_command(
    *command: str, folder: Path | None = None, deadline: float = COMMAND_SECONDS
) -> bytes:
    """Run a command and return what it prints; kill it at the deadline.

    Raises:
        DataError: it is not installed, fails or is too slow.
    """
    program = shutil.which(command[0])
    if not program:
        raise DataError(f"{command[0]} is not installed")
    try:
        done = subprocess.run(
            [program, *command[1:]],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=deadline,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(f"{command[0]} took longer than {deadline:g} s") from error
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines()
        raise DataError(f"{command[0]} failed: {''.join(lines[-1:])}") from error
    return done.stdout
