import numpy as np
import pandas as pd
import pytest
import torch

from smai_lib.colorization import plots
from smai_lib.colorization.palette import SUPPLIED
from smai_lib.colorization.studies import UNET


def xy_of(axes):
    return [tuple(line.get_xydata().flatten().round(4)) for line in axes.lines]


def test_pictures_stand_in_their_columns_with_the_titles_of_their_rows():
    pixels = torch.arange(32, dtype=torch.uint8).view(2, 1, 4, 4)
    grid = plots.plot_pictures({"a": pixels, "b": pixels + 1}, ["x", "y"])
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["x", "y"]
    assert [axes.get_title() for axes in grid[0]] == ["a", "b"]
    assert np.array_equal(grid[1, 1].images[0].get_array()[..., 0], pixels[1, 0] + 1)
    with pytest.raises(ValueError, match="zip"):
        plots.plot_pictures({"a": pixels}, ["x", "y", "z"])


def test_colorizations_stand_in_their_rows_with_the_titles_of_their_images():
    pixels = torch.arange(32, dtype=torch.uint8).view(2, 1, 4, 4)
    figure = plots.plot_colorizations({"a": pixels, "b": pixels + 1}, ["x", "y"])
    assert [axes.get_title() for axes in figure.axes[:2]] == ["x", "y"]
    assert np.array_equal(figure.axes[3].images[0].get_array()[..., 0], pixels[1, 0] + 1)


def test_differences_are_drawn_with_their_intervals():
    rows = pd.DataFrame(
        {
            "name": ["x", "y"],
            "metric": "nll",
            "difference": [1.0, -1.0],
            "difference_low": [0.5, -2.0],
            "difference_high": [1.5, 0.0],
        }
    )
    axes = plots.plot_differences(rows, {"nll": "NLL"}, "the table")[0, 0]
    segments = axes.collections[0].get_segments()
    assert [segment[:, 0].tolist() for segment in segments] == [[0.5, 1.5], [-2.0, 0.0]]
    assert axes.lines[0].get_xdata().tolist() == [1.0, -1.0]


def test_every_model_is_drawn_by_colour():
    models = range(len(plots.MARKERS) + 1)
    rows = [
        {"name": f"model {model}", "color": color, "pixels": 10, "accuracy": model / 10}
        for model in models
        for color in range(24)
    ]
    colors = pd.DataFrame(rows)
    axes = plots.plot_by_color(colors, SUPPLIED, colors["name"].unique())
    assert [line.get_ydata()[0] for line in axes.lines] == [model / 10 for model in models]


def test_published_and_retrained_runs_are_points_of_the_same_figure():
    table = pd.DataFrame(
        {"optimizer": ["Adam", "SGD"], "published_nll": [1.3, 2.7], "nll": [1.31, 1.75]}
    )
    axes = plots.plot_published(table, {"nll": "NLL"}).axes[0]
    assert xy_of(axes) == [(1.3, 1.3, 2.7, 2.7), (1.3, 1.31), (2.7, 1.75)]


@pytest.mark.parametrize("runs", [2, 8])
def test_the_sweep_has_a_panel_for_every_run(runs):
    rows = [
        {"name": f"run {run}", "epoch": epoch, "train_nll": 2.0, "val_nll": run}
        for run in range(runs)
        for epoch in (1, 2)
    ]
    figure = plots.plot_sweep(pd.DataFrame(rows), 0.9)
    assert [axes.get_title() for axes in figure.axes] == [f"run {run}" for run in range(runs)]
    assert figure.axes[1].lines[1].get_ydata().tolist() == [1, 1]


def test_the_diagram_of_the_unet_has_the_shapes_of_its_maps():
    texts = [text.get_text() for text in plots.plot_unet(UNET.build_network()).axes[0].texts]
    for shape in ("16 × 32 × 32", "48 × 16 × 16", "96 × 8 × 8", "128 × 4 × 4", "24 × 32 × 32"):
        assert any(shape in text for text in texts)
