import torch
from torch import nn

from smai_lib.costs import figures


def test_taps_figure_colours_the_pixels_that_reach_the_chosen_ones():
    layer = nn.Conv2d(1, 1, 3, padding=1)
    reached = (
        (torch.func.jacrev(layer)(torch.zeros(1, 4, 4)).squeeze() != 0).int().numpy()
    )  # (4, 4) outputs x (4, 4) inputs
    grid = figures.taps({"conv": reached}, {"conv": [(1, 2), (0, 0)]})
    inputs, outputs = grid[0]
    assert len(inputs.patches) == 9 + 4
    assert {patch.get_xy() for patch in inputs.patches[9:]} == {
        (u - 0.5, v - 0.5) for u in (0, 1) for v in (0, 1)
    }
    assert [int(text.get_text()) for text in outputs.texts[:5]] == [4, 6, 6, 4, 6]
