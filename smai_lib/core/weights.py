"""Weights files: what ships is known by its checksum, and is loaded only into the network it fits.

The checksums stand beside the files, in `SHA256SUMS`, in the format of the command of that name:
`sha256sum --check SHA256SUMS` in that folder does the same check.
"""

import hashlib
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from .layers import Network

SUMS = "SHA256SUMS"
LISTED = 4  # tensors that differ, in an error


class WeightsError(RuntimeError):
    """A weights file that is missing, unreadable, altered, or of another network."""


def record(file: str | os.PathLike) -> str:
    """Write the SHA-256 of `file` into the `SHA256SUMS` beside it, and return it."""
    file = Path(file)
    found = _sha256(file)
    known = _known(file.parent) | {file.name: found}
    part = file.with_name(SUMS + ".part")
    part.write_text("".join(f"{known[name]}  {name}\n" for name in sorted(known)))
    os.replace(part, file.with_name(SUMS))
    return found


def verify(file: str | os.PathLike) -> bool:
    """Whether the checksum of `file` is known; WeightsError if it is, and is not the file's.

    Raises:
        WeightsError: the file is missing; or its content is not what `SHA256SUMS` says.
    """
    file = Path(file)
    if not file.is_file():
        there = sorted(other.name for other in file.parent.glob("*.safetensors"))
        raise WeightsError(f"{file} is missing; {file.parent} has {', '.join(there) or 'no weights'}; {_way_out(file)}")
    expected = _known(file.parent).get(file.name)
    if expected is None:
        return False
    found = _sha256(file)
    if found != expected:
        raise WeightsError(f"{file} is truncated or altered: its SHA-256 is {found}, expected {expected} "
                           f"({SUMS}); {_way_out(file)}")
    return True


def read(file: str | os.PathLike) -> dict[str, torch.Tensor]:
    """The verified file's tensors by name.

    Raises:
        WeightsError: from `verify`; or the file is no safetensors file.
    """
    verify(file)
    try:
        return load_file(file)
    except SafetensorError as error:
        raise WeightsError(f"{file} cannot be read as safetensors ({error}); {_way_out(Path(file))}") from error


def fill(model: Network, state: dict[str, torch.Tensor], file: str | os.PathLike) -> Network:
    """`model` with exactly the tensors `state`, which came from `file`, in evaluation mode.

    Raises:
        WeightsError: the tensors are not the model's; those that differ are listed.
    """
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if found != expected:
        differ = [f"{name}: found {found.get(name, 'nothing')}, expected {expected.get(name, 'nothing')}"
                  for name in sorted(found.keys() | expected.keys()) if found.get(name) != expected.get(name)]
        more = f" and {len(differ) - LISTED} more" if len(differ) > LISTED else ""
        raise WeightsError(f"{file} does not fit the network of this config: {'; '.join(differ[:LISTED])}{more}; "
                           "load it with its own run's config")
    model.load_state_dict(state)
    return model.eval().to(memory_format=torch.channels_last)  # in which a CPU convolves faster


def _known(folder: Path) -> dict[str, str]:
    """Name of a file -> its SHA-256, as `SHA256SUMS` has it."""
    sums = folder / SUMS
    lines = sums.read_text().splitlines() if sums.exists() else []
    return {name.lstrip("*"): checksum for checksum, name in (line.split(maxsplit=1) for line in lines if line)}


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _way_out(file: Path) -> str:
    return f"if it ships with the repository, `git checkout -- {file}` brings it back; else train it again"
