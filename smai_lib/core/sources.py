"""Where data sets come from: what every source is asked, how long it may take, and what only stands in for the data."""

import os
import socket
import threading
import urllib.parse
from collections.abc import Sequence

SAMPLE = "sample"  # the source of last resort, inside the package
PATCH_SOURCE = "bundled photo patches"
SAMPLES = {SAMPLE: "SAMPLE DATA", PATCH_SOURCE: "PHOTO PATCHES, NOT THE STUDY'S IMAGES"}
SPLIT_SEED = 2017  # of the train/validation split, which is the same for every run
VALIDATION_SHARE = 0.1
PATIENCE_SECONDS = 4  # how long a source may keep silent before the next is tried


class DataError(RuntimeError):
    """A data file that is missing, unreadable or not what it should be."""


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
