"""Where a data set comes from: its splits, its fingerprint, and the first source that can serve it.

The sources of a data set, in order: an explicit directory; the repository's `data/`; a copy on the
system; what can be fetched, verified before it is kept in `data/`; a stand-in that ships inside a package.
"""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
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
PATIENCE_SECONDS = 5  # how long a host may keep silent before the next source is tried
START_SECONDS = 20  # how long a source may bring nothing, whatever keeps it; a package manager has much to read first
SLOWEST = 100_000  # bytes a second on average that it must bring after that
LARGEST = 500_000_000  # bytes that a source may put on the disk; an archive and its content have 350 million
# a program of its own, because name look-up ignores socket timeouts; it ends even where nobody is left to end it
DOWNLOAD = f"""import sys, urllib.request; sys.tracebacklimit = 0
with urllib.request.urlopen(sys.argv[1], timeout={PATIENCE_SECONDS}) as answer, open(sys.argv[2], "wb", 0) as file:
    while file.tell() <= {LARGEST} and (piece := answer.read1(65536)):
        file.write(piece)"""


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
        splits = {
            name: type(split := getattr(self, name))(*(column[:n] for column in split))
            for name, n in sizes.items()
        }
        return replace(
            self, **splits, fingerprint=f"{self.fingerprint}:{train}:{validation}:{test}"
        )

    def counts(self) -> str:
        sizes = (f"{len(split[0]):,}" for split in (self.train, self.validation, self.test))
        return f"{' / '.join(sizes)} train / validation / test images"


def find(
    cache: Path,
    complete: Callable[[Path], bool],
    fetchers: Mapping[str, Callable[[Path], Iterable[Path]]],
    *,
    explicit: str | os.PathLike | None = None,
    missing: Callable[[Path], str] = str,
    system: Mapping[str, Path] | None = None,
) -> tuple[str, Path] | None:
    """Name and folder of the first source that has a data set, fetching it if need be; None if none has.

    Args:
        cache: its folder in `data/`.
        complete: whether a folder holds all of it.
        fetchers: name of a source -> what fetches into an empty folder, and returns the verified files to keep.
        explicit: a folder that is asked for by name; DataError if it is not complete.
        missing: what is wrong with an explicit folder that is not complete, and the way out.
        system: name -> folder of copies on this machine.
    """
    if explicit:
        folder = Path(explicit).expanduser()
        if not complete(folder):
            raise DataError(missing(folder))
        return "explicit directory", folder
    marker, scratch = cache / "SOURCE", cache / "part"

    def kept() -> tuple[str, Path] | None:
        """What `data/` has; its marker is believed only where it names a source."""
        said = marker.read_text(errors="replace").strip() if marker.is_file() else ""
        return (said if said in fetchers else "data folder", cache) if complete(cache) else None

    # the scratch folder means that a fetch is under way, or was killed: then the lock is waited for
    if not scratch.exists() and (here := kept()):
        return here
    for name, folder in (system or {}).items():
        if complete(folder):
            return name, folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(str(cache) + ".lock"):  # two notebooks started at once fetch once
            shutil.rmtree(scratch, ignore_errors=True)
            fetched = (
                (name, cache) for name in fetchers if _fetched(name, fetchers[name], scratch)
            )
            return kept() or next(fetched, None)
    except OSError as error:
        print(
            f"cannot write {cache} ({error}); nothing can be fetched, set SMAI_DATA to a folder that you may write"
        )
        return kept()


def _fetched(name: str, fetch: Callable[[Path], Iterable[Path]], scratch: Path) -> bool:
    """Whether the source `name` served: its name, then its files, are put beside `scratch`; else one line says why."""
    try:
        scratch.mkdir()
        (scratch / "SOURCE").write_text(name + "\n")
        for file in (scratch / "SOURCE", *fetch(scratch)):
            os.replace(file, scratch.parent / file.name)
        return True
    except Exception as error:  # noqa: BLE001  whatever is wrong with a source, there is another
        print(f"{name}: {' '.join(str(error).split()) or type(error).__name__}")
        return False
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def download(urls: Iterable[str], file: Path, md5: str) -> None:
    """Fill `file` from the first of `urls` with the content of that MD5 sum; DataError says what each has instead."""
    reasons = []
    for url in urls:
        file.unlink(missing_ok=True)
        try:
            if not reachable(url):
                raise DataError("does not answer")
            run_in(file.parent, sys.executable, "-I", "-c", DOWNLOAD, url, file.name)
            if (found := hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()) == md5:
                return
            reasons.append(f"{url}: found the MD5 sum {found}, expected {md5}")
        except DataError as error:
            reasons.append(f"{url}: {error}")
    raise DataError("; ".join(reasons))


def reachable(url: str) -> bool:
    """Whether a connection to the host of `url` opens within a few seconds."""
    parts, opened = urllib.parse.urlsplit(url), []

    def attempt():
        with suppress(OSError, ValueError):  # ValueError: no port
            port = parts.port or (443 if parts.scheme == "https" else 80)
            opened.append(
                socket.create_connection((parts.hostname, port), PATIENCE_SECONDS).close()
            )

    thread = threading.Thread(
        target=attempt, daemon=True
    )  # left behind when the name look-up hangs
    thread.start()
    thread.join(PATIENCE_SECONDS)
    return bool(opened)


def run_in(folder: Path, *command: str) -> None:
    """Run `command` in `folder`, as long as what it writes there grows.

    A source that hangs, drips or never ends is killed with all that it started, once that is less than SLOWEST
    bytes a second after START_SECONDS, or more than LARGEST in all. DataError says so, or why the command failed.
    """
    if not shutil.which(command[0]):
        raise DataError(f"{command[0]} is not installed")

    def size() -> int:
        return sum(file.lstat().st_size for file in folder.rglob("*"))

    start, before, written = time.monotonic(), size(), 0
    with open(folder / "said", "w+b") as said:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                with suppress(OSError):  # a file vanished meanwhile
                    written = size() - before
                seconds = time.monotonic() - start
                if not SLOWEST * (seconds - START_SECONDS) <= written <= LARGEST:
                    raise DataError(f"given up after {seconds:.0f} s and {written:,} bytes")
                time.sleep(0.05)
        finally:
            with suppress(OSError):  # all have ended
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.returncode:
            said.seek(0)
            raise DataError(
                said.read().decode(errors="replace").strip()[-200:] or f"{command[0]} failed"
            )
