"""Weights files: verified, and loaded only into the network they fit."""

import os

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from .checksums import ChecksumError, verify
from .layers import Network

LISTED = 4  # tensors that differ, in an error


class WeightsError(ChecksumError):
    """A weights file that is missing, altered, unreadable, or of another network."""


def read(file: str | os.PathLike) -> dict[str, torch.Tensor]:
    """The verified file's tensors by name; WeightsError from `verify`, or if it is no safetensors file."""
    verify(file, WeightsError)
    try:
        return load_file(file)
    except SafetensorError as error:
        raise WeightsError(
            f"{file} cannot be read as safetensors ({error}); train it again"
        ) from error


def fill(model: Network, state: dict[str, torch.Tensor], file: str | os.PathLike) -> Network:
    """`model` with exactly the tensors `state`, which came from `file`, in evaluation mode.

    WeightsError if the tensors are not the model's; those that differ are listed.
    """
    expected, found = (
        {name: tuple(value.shape) for name, value in tensors.items()}
        for tensors in (model.state_dict(), state)
    )
    differ = [
        f"{name}: found {found.get(name, 'nothing')}, expected {expected.get(name, 'nothing')}"
        for name in sorted(found.keys() | expected.keys())
        if found.get(name) != expected.get(name)
    ]
    if differ:
        more = f" and {len(differ) - LISTED} more" if len(differ) > LISTED else ""
        raise WeightsError(
            f"{file} does not fit the network of this config: {'; '.join(differ[:LISTED])}{more}; "
            "load it with its own run's config"
        )
    model.load_state_dict(state)
    return model.eval().to(memory_format=torch.channels_last)  # in which a CPU convolves faster
