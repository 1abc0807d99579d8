"""Files that must be intact: written in one step, verified by checksum, weights without code.

Each folder of shipped files has a `SHA256SUMS` in the format of the command of that name, so
`sha256sum --check SHA256SUMS` in that folder does the same check as `verify_checksum`.
"""

import hashlib
import os
import re
from contextlib import contextmanager, suppress
from pathlib import Path
from textwrap import shorten

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file

from . import paths
from .errors import IntegrityError, RunError

SUMS = "SHA256SUMS"


def write(file: Path, content: str | bytes) -> None:
    """Replace `file` in one step, so that readers see the old content or the new, never a part.

    Raises:
        RunError: the file cannot be written; the old one is left as it was.
    """
    part = file.with_name(file.name + ".part")
    try:
        with open(part, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, file)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise RunError(
            f"cannot write {file} ({error.strerror}). Make room there, or make it writable. Then "
            "repeat the command: what was finished is kept"
        ) from error


@contextmanager
def exclusive(folder: Path):
    """Hold the only lock on `folder`, which is created if need be.

    Raises:
        RunError: another process holds it, or the folder is not writable or no folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock").acquire(timeout=0)
    except Timeout as error:
        message = f"{folder} is in use by another process; wait for it, or stop it"
        raise RunError(message) from error
    except FileExistsError as error:
        raise RunError(f"{folder} is no folder; delete it") from error
    except OSError as error:
        message = f"cannot write to {folder} ({error}); set SMAI_RUNS to a folder you may write to"
        raise RunError(message) from error
    with lock:
        yield


def sha256(file: str | os.PathLike) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def record_checksum(file: Path) -> None:
    """Write the SHA-256 of `file` into the `SHA256SUMS` beside it.

    A lock makes two processes that record at once keep both entries.
    """
    sums = file.with_name(SUMS)
    with FileLock(paths.lock_file(sums)):
        known = _read_sums(file.parent) | {file.name: sha256(file)}
        write(sums, "".join(f"{known[name]}  {name}\n" for name in sorted(known)))


def verify_checksum(file: Path) -> None:
    """Check that `file` is what `SHA256SUMS` beside it says.

    Raises:
        IntegrityError: the file is missing or altered, or has no recorded checksum.
    """
    if not file.parent.is_dir():
        raise IntegrityError(
            f"no recorded results: there is no folder {file.parent}. Start Python, or smai, in a "
            "clone of the repository"
        )
    expected = _read_sums(file.parent).get(file.name, "nothing")
    if not file.is_file():
        problem = "is missing"
    elif sha256(file) != expected:
        problem = f"is truncated or altered: its SHA-256 is {sha256(file)}, {SUMS} says {expected}"
    else:
        return
    raise IntegrityError(
        f"{file} {problem}. `git checkout -- {file.parent}` restores shipped files"
    )


def read_weights(file: str | os.PathLike) -> dict[str, torch.Tensor]:
    """Return the tensors of a safetensors file by name; no code in it is run.

    The checksum of a shipped file is verified. A run's own file is verified by its run.

    Raises:
        IntegrityError: the file is missing, altered or no safetensors file.
    """
    file = Path(file)
    if file.resolve().parent == paths.WEIGHTS or file.with_name(SUMS).exists():
        verify_checksum(file)
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        message = f"{file} cannot be read as safetensors ({error}); train it again"
        raise IntegrityError(message) from error


def load_into(
    model: torch.nn.Module, state: dict[str, torch.Tensor], file: str | os.PathLike
) -> torch.nn.Module:
    """Return `model` with exactly the tensors `state`, in evaluation mode, channels last.

    Args:
        model: network of the same config as the weights.
        state: tensors by name, from `read_weights(file)`.
        file: where they came from, for the error message.

    Raises:
        IntegrityError: names or shapes differ from the model's; the first ones are listed.
    """
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        message = f"{file} does not fit this config's network: {shorten(str(error), 400)}"
        raise IntegrityError(message) from error
    return model.eval().to(memory_format=torch.channels_last)


def _read_sums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file in the folder's `SHA256SUMS`; other lines are skipped."""
    sums = folder / SUMS
    text = sums.read_text(encoding="utf-8", errors="replace") if sums.exists() else ""
    entries = re.findall(r"^([0-9a-f]{64}) [ *](.+)$", text, re.MULTILINE)
    return {name: checksum for checksum, name in entries}
