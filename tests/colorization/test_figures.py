import numpy as np
import pandas as pd
import torch

from smai_lib.colorization import figures


def test_figures_draw_what_they_are_given():
    trials = pd.DataFrame({"state": ["complete", "complete", "pruned"], "learning_rate": [0.001, 0.01, 0.1],
                           "kernel_size": [3, 5, 3], "optimizer": ["Adam", "AdamW", "Adam"],
                           "val_nll": [2.0, 1.5, 1.0]})
    axes = figures.parallel_coordinates(trials, ["learning_rate", "kernel_size", "optimizer"], "val_nll", "NLL")
    lines = [line for line in axes.lines if len(line.get_xdata()) == 3]
    thick = [line for line in lines if line.get_linewidth() > 2]
    assert len(lines) == 2 and len(thick) == 1  # not the pruned one, low as it is
    assert np.allclose(thick[0].get_ydata(), [1, 1, 1])
    bars = figures.reliability({"a": np.array([[0.0, 0], [80.0, 40.0]])})
    assert np.allclose(bars.lines[1].get_xydata(), [[0.75, 0.375]])
    rows = pd.DataFrame({"name": ["x", "y"], "metric": "nll", "difference": [1.0, -1.0],
                         "difference_low": [0.5, -2.0], "difference_high": [1.5, 0.0]})
    panel = figures.differences(rows, {"nll": "NLL"}, "the table")[0, 0]
    assert [list(line.get_xdata()) for line in panel.lines[:4]] == [[0.5, 1.5], [1.0], [-2.0, 0.0], [-1.0]]
    grid = figures.pictures({"a": torch.zeros(2, 1, 4, 4, dtype=torch.uint8)}, np.array(["x", "y"]))
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["x", "y"]
    shown = figures.importances({"x": {"p": 0.2, "q": 0.8}})[0, 0]
    assert [patch.get_width() for patch in shown.patches] == [0.2, 0.8]
