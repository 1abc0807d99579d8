"""Data sets in memory, and where they come from.

Every data set has several sources. The first that has all of it serves it: an explicit directory,
the repository's `data/`, a copy on the system, or what can be downloaded. What is downloaded is
verified before it is kept in `data/`. Where no source answers, a stand-in ships with the library.
"""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from filelock import FileLock

from . import paths
from .config import whole_number
from .errors import DataError

SAMPLE = "sample"
PATCH_SOURCE = "bundled photo patches"
# data that stand in where no source answers, with the warning for every result on them
STAND_INS = {SAMPLE: "SAMPLE DATA", PATCH_SOURCE: "PHOTO PATCHES, NOT THE STUDY'S IMAGES"}
FETCH = "`python -m smai_lib fetch`"
SPLIT_SEED = 2017  # of the split into training and validation images, the same for every run
VALIDATION_SHARE = 0.1
CONNECT_SECONDS = 5  # for a host to answer
DOWNLOAD_SECONDS = 900
COMMAND_SECONDS = 120  # for apt-get and the like
LARGEST = 500_000_000  # bytes of a download; the largest archive has 170 million
# gives up when less than 100 kB a second arrive for 10 seconds
CURL = f"curl -fsSL --connect-timeout {CONNECT_SECONDS} --speed-time 10 --speed-limit 100000"
# where curl is missing; a process of its own, since name look-up ignores the timeouts of sockets
URLLIB = f"""import shutil, sys, urllib.request
sys.tracebacklimit = 0
with urllib.request.urlopen(sys.argv[1], timeout={CONNECT_SECONDS}) as response:
    shutil.copyfileobj(response, sys.stdout.buffer)"""
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
        sixth = max(train // 6, 1) if train else 0
        sizes = {
            "train": train,
            "validation": sixth if validation is None else validation,
            "test": sixth if test is None else test,
        }
        splits, fingerprint = {}, self.fingerprint
        for name, size in sizes.items():
            size = whole_number(name, size)
            split = getattr(self, name)
            splits[name] = split._make(column[: size or None] for column in split)
            fingerprint += f":{size}"
        return replace(self, **splits, fingerprint=fingerprint) if any(sizes.values()) else self

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
                f"comparable with published ones. {FETCH} tries to download it."
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
    # a folder `part` means that a download is under way or was killed: wait for its lock
    if not (cache / "part").exists() and not missing(cache):
        return _cached(cache, fetchers)
    for name, folder in local.items():
        if not missing(folder):
            return name, folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{cache}.lock"):  # two notebooks that start at once download once
            shutil.rmtree(cache / "part", ignore_errors=True)
            if not missing(cache) or any(_fetch(*source, cache) for source in fetchers.items()):
                return _cached(cache, fetchers)
    except OSError as error:
        print(DataError(f"{cache} cannot be written ({error}); set SMAI_DATA to another folder"))
        if not missing(cache):
            return _cached(cache, fetchers)
    return None


def _cached(cache: Path, fetchers: Mapping[str, Fetcher]) -> tuple[str, Path]:
    """Return the source that a complete folder in `data/` came from, and the folder."""
    name = ""
    with suppress(OSError):
        name = (cache / "SOURCE").read_text(encoding="utf-8", errors="replace").strip()
    return name if name in fetchers else "data folder", cache


def _fetch(name: str, fetch: Fetcher, cache: Path) -> bool:
    """Download a data set into its folder; if the source fails, print why and return False."""
    scratch = cache / "part"
    try:
        scratch.mkdir()
        marker = scratch / "SOURCE"
        marker.write_text(name, encoding="utf-8")
        for file in (marker, *fetch(scratch)):
            os.replace(file, cache / file.name)
    except Exception as error:  # noqa: BLE001  whatever is wrong with a source, there is another
        reason = " ".join(str(error).split()) or type(error).__name__
        print(DataError(f"{name}: {reason}"))
        return False
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return True


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
    command = [sys.executable, "-I", "-c", URLLIB]
    if shutil.which("curl"):
        command = CURL.split()
    reasons = []
    for url in urls:
        try:
            content = run(*command, url, deadline=DOWNLOAD_SECONDS)
        except DataError as error:
            reasons.append(f"{url}: {error}")
            continue
        found = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
        if found == checksum:
            file.write_bytes(content)
            return
        reasons.append(f"{url}: found {algorithm} {found}, expected {checksum}")
    raise DataError("; ".join(reasons))


def run(*command: str, folder: Path | None = None, deadline: float = COMMAND_SECONDS) -> bytes:
    """Run a command and return what it prints; kill it at the deadline with all it started.

    Raises:
        DataError: it is not installed, fails, is too slow or prints more than LARGEST bytes.
    """
    program = shutil.which(command[0])
    if not program:
        raise DataError(f"{command[0]} is not installed")
    # curl ignores HTTP_PROXY in capitals and the system's settings
    proxies = {f"{scheme}_proxy": proxy for scheme, proxy in urllib.request.getproxies().items()}
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            [program, *command[1:]],
            cwd=folder,
            env=os.environ | proxies,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        ) as process,
    ):
        timer = threading.Timer(deadline, _kill, [process])
        timer.start()
        try:
            output = process.stdout.read(LARGEST + 1)
            failed = len(output) > LARGEST or process.wait()
        finally:
            timer.cancel()
            _kill(process)
        if failed:
            errors.seek(0)
            limits = f"{deadline:g} s and {LARGEST:,} bytes"
            lines = errors.read().decode(errors="replace").split("\n")
            lines.insert(0, f"{command[0]} failed or exceeded its limits, {limits}")
            raise DataError([line for line in lines if line.strip()][-1][-200:])
    return output


def _kill(process: subprocess.Popen) -> None:
    """Kill a process with all that it started (on Windows, the process alone)."""
    with suppress(OSError):  # all have ended
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def reachable(url: str) -> bool:
    """Return whether the host of a URL, or the proxy that serves it, accepts a connection."""
    opened = threading.Event()

    def connect():
        with suppress(OSError, ValueError):  # ValueError: no port or no host name
            parts = urllib.parse.urlsplit(url)
            proxies = urllib.request.getproxies()
            proxy = proxies.get(parts.scheme) or proxies.get("all")
            if proxy and parts.scheme and not urllib.request.proxy_bypass(parts.netloc):
                parts = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}")
            port = parts.port or (443 if parts.scheme == "https" else 80)
            socket.create_connection((parts.hostname, port), CONNECT_SECONDS).close()
            opened.set()

    thread = threading.Thread(target=connect, daemon=True)  # a name look-up that hangs outlives it
    thread.start()
    thread.join(CONNECT_SECONDS)
    return opened.is_set()
