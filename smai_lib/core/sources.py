"""Where a data set comes from: its splits, its fingerprint, and the first source that can serve it.

The sources of a data set, in order: an explicit directory; the repository's `data/`; a copy on the
system; what can be fetched, verified before it is kept in `data/`; a stand-in that ships inside a package.
"""

import os
import shutil
import socket
import subprocess
import threading
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from filelock import FileLock

SAMPLE = "sample"
PATCH_SOURCE = "bundled photo patches"
# what stands in where no source answers, and what is said of every result on it
STAND_INS = {SAMPLE: "SAMPLE DATA", PATCH_SOURCE: "PHOTO PATCHES, NOT THE STUDY'S IMAGES"}
SPLIT_SEED = 2017  # of the train/validation split, which is the same for every run
VALIDATION_SHARE = 0.1
PATIENCE_SECONDS = 4  # how long a source may keep silent before the next is tried


class DataError(RuntimeError):
    """A data file that is missing, unreadable or not what it should be."""


@dataclass(frozen=True)
class Dataset:
    """Three splits, each a NamedTuple of tensors with one row an image, and where they came from."""

    train: Any
    validation: Any
    test: Any
    source: str
    directory: Path | None  # None where the images ship inside a package
    fingerprint: str  # SHA-256 of the content, whatever it was packed in

    @property
    def is_stand_in(self) -> bool:
        return self.source in STAND_INS

    def subset(self, train: int, validation: int, test: int) -> Self:
        """The first images of each split, for demonstrations and tests."""
        sizes = {"train": train, "validation": validation, "test": test}
        splits = {name: type(split := getattr(self, name))(*(column[:n] for column in split))
                  for name, n in sizes.items()}
        return replace(self, **splits, fingerprint=f"{self.fingerprint}:{train}:{validation}:{test}")

    def counts(self) -> str:
        sizes = (f"{len(split[0]):,}" for split in (self.train, self.validation, self.test))
        return f"{' / '.join(sizes)} train / validation / test images"


def find(cache: Path, complete: Callable[[Path], bool], fetchers: Mapping[str, Callable[[Path], bool]], *,
         explicit: str | os.PathLike | None = None, missing: Callable[[Path], str] = str,
         system: Mapping[str, Path] | None = None) -> tuple[str, Path] | None:
    """Name and folder of the first source that has a data set, fetching it if need be; None if none has.

    Args:
        cache: its folder in `data/`.
        complete: whether a folder holds all of it.
        fetchers: name of a source -> what fills `cache` from it, and answers whether it did.
        explicit: a folder that is asked for by name.
        missing: what is wrong with an explicit folder that is not complete, and the way out.
        system: name -> folder of copies on this machine.

    Raises:
        DataError: `explicit` is not complete.
    """
    if explicit:
        folder = Path(explicit).expanduser()
        if not complete(folder):
            raise DataError(missing(folder))
        return "explicit directory", folder
    marker = cache / "SOURCE"

    def kept() -> tuple[str, Path] | None:
        """What `data/` has, by the source it came from; a fetch killed at its very end has left no marker."""
        return ((marker.read_text().strip() if marker.exists() else "data folder"), cache) if complete(cache) else None

    if here := kept():
        return here
    for name, folder in (system or {}).items():
        if complete(folder):
            return name, folder
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(str(cache) + ".lock"):  # two notebooks started at once fetch once
            if here := kept():
                return here
            for name, fetch in fetchers.items():
                try:
                    if fetch(cache):
                        marker.write_text(name + "\n")
                        return name, cache
                except DataError as error:  # what this source has is not the data set
                    print(f"{name}: {error}")
    except PermissionError as error:
        print(f"cannot write {cache.parent} ({error}); nothing can be fetched, set SMAI_DATA to a "
              "folder that you may write")
    return None


def download(dataset: type, urls: Sequence[str], folder: str | os.PathLike) -> bool:
    """Let a torchvision data set download into `folder`; False if no host of `urls` serves it."""
    if not any(reachable(url) for url in urls):
        return False
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE_SECONDS)
    try:
        dataset(folder, download=True)
    except (OSError, RuntimeError) as error:  # URLError is an OSError
        print(f"torchvision's download failed ({error})")
        return False
    finally:
        socket.setdefaulttimeout(before)
    return True


def reachable(url: str) -> bool:
    """Whether a connection to the host of `url` opens within a few seconds.

    Name look-up ignores socket timeouts, hence the thread that is left behind when it hangs.
    """
    parts = urllib.parse.urlsplit(url)
    opened = threading.Event()

    def attempt():
        try:
            port = parts.port or (443 if parts.scheme == "https" else 80)
            socket.create_connection((parts.hostname, port), PATIENCE_SECONDS).close()
            opened.set()
        except OSError:
            pass

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    return opened.is_set()


def package_of(what: str, programs: Sequence[str], commands: Sequence[Sequence[str]], folder: Path) -> bool:
    """Run a package manager's `commands` in `folder`; False, and one line that says why, if that fails."""
    if absent := [program for program in programs if not shutil.which(program)]:
        print(f"{what} could not be had: {absent[0]} is not installed")
        return False
    try:
        for command in commands:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)
    except (subprocess.SubprocessError, OSError) as error:
        detail = getattr(error, "stderr", None) or str(error).encode()
        print(f"{what} could not be had:", detail.decode(errors="replace").strip()[-200:])
        return False
    return True
