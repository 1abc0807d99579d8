import numpy as np
import pandas as pd
import torch

from smai_lib.colorization import figures


def test_figures_draw_what_they_are_given():
    rows = pd.DataFrame(
        {
            "name": ["x", "y"],
            "metric": "nll",
            "difference": [1.0, -1.0],
            "difference_low": [0.5, -2.0],
            "difference_high": [1.5, 0.0],
        }
    )
    panel = figures.differences(rows, {"nll": "NLL"}, "the table")[0, 0]
    assert [list(line.get_xdata()) for line in panel.lines[:4]] == [
        [0.5, 1.5],
        [1.0],
        [-2.0, 0.0],
        [-1.0],
    ]
    grid = figures.pictures({"a": torch.zeros(2, 1, 4, 4, dtype=torch.uint8)}, np.array(["x", "y"]))
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["x", "y"]
