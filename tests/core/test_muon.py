"""Muon's updates: torch's own for convolutions, those of AdamW for everything else."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from smai_lib.core.muon import Muon, orthogonalize

KEYS = {"lr": 0.01, "weight_decay": 0.1}


def steps(weight, optimizer, seeds):
    """Update `weight` by random gradients (12, 36), which a convolution gets in its own shape."""
    for seed in seeds:
        gradient = torch.randn(12, 36, generator=torch.Generator().manual_seed(seed))
        weight.grad = gradient.view_as(weight)
        optimizer.step()
    return weight.detach().flatten(1)


def parameter(*shape):
    torch.manual_seed(0)
    return nn.Parameter(torch.randn(shape))


@pytest.mark.parametrize("shape", [(12, 36), (36, 12)])
def test_singular_values_become_nearly_equal_and_directions_stay(shape):
    torch.manual_seed(0)
    left, values, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    found = left.T @ orthogonalize(left * values @ right) @ right.T
    assert found.diag().min() > 0.6 and found.diag().max() < 1.3
    assert (found - found.diag().diag()).abs().max() < 1e-4


def test_a_convolution_moves_as_a_matrix_does_under_torchs_muon():
    """Torch's takes matrices only, and computes in bfloat16."""
    convolution, matrix = parameter(12, 4, 3, 3), parameter(12, 36)
    before = matrix.detach().clone()
    torchs = torch.optim.Muon([matrix], **KEYS, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    moved = steps(convolution, Muon([convolution], **KEYS), range(5)) - before
    expected = steps(matrix, torchs, range(5)) - before
    assert (moved - expected).norm() < 0.03 * expected.norm()


def test_other_parameters_move_as_under_adamw():
    ours, expected = parameter(12, 36), parameter(12, 36)
    found = steps(ours, Muon([ours], **KEYS), range(5))
    torch.testing.assert_close(
        found, steps(expected, torch.optim.AdamW([expected], **KEYS), range(5))
    )


@pytest.mark.parametrize("shape", [(12, 4, 3, 3), (12, 36)])
def test_a_restored_optimizer_goes_on_with_the_same_bits(shape):
    straight = parameter(*shape)
    optimizer = Muon([straight], **KEYS)
    resumed = nn.Parameter(steps(straight, optimizer, [1]).view(shape).clone())
    again = Muon([resumed], **KEYS)
    again.load_state_dict(deepcopy(optimizer.state_dict()))
    assert torch.equal(steps(resumed, again, [2]), steps(straight, optimizer, [2]))
