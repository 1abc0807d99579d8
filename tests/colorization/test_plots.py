import numpy as np
import pandas as pd
import pytest
import torch

from smai_lib.colorization import plots
from smai_lib.colorization.palette import SUPPLIED
from smai_lib.colorization.studies import UNET


def test_pictures_stand_in_their_rows_with_the_titles_of_their_images():
    pixels = torch.arange(32, dtype=torch.uint8).view(2, 1, 4, 4)
    figure = plots.plot_colorizations({"a": pixels, "b": pixels + 1}, ["x", "y"])
    assert [axes.get_title() for axes in figure.axes[:2]] == ["x", "y"]
    assert [axes.get_ylabel() for axes in figure.axes[::2]] == ["a", "b"]
    assert np.array_equal(figure.axes[3].images[0].get_array()[..., 0], pixels[1, 0] + 1)
    with pytest.raises(ValueError, match="zip"):
        plots.plot_colorizations({"a": pixels}, ["x", "y", "z"])


def test_differences_are_drawn_with_their_intervals():
    rows = pd.DataFrame(
        [("x", "nll", 1.0, 0.5, 1.5), ("y", "nll", -1.0, -2.0, 0.0)],
        columns=["name", "metric", "difference", "difference_low", "difference_high"],
    )
    axes = plots.plot_differences(rows, {"nll": "NLL"}).axes[0]
    segments = axes.collections[0].get_segments()
    assert [segment[:, 0].tolist() for segment in segments] == [[0.5, 1.5], [-2.0, 0.0]]
    assert axes.lines[0].get_xdata().tolist() == [1.0, -1.0]


def test_every_model_is_drawn_over_the_colours_the_most_frequent_first():
    models = pd.DataFrame({"name": ["x", "y"], "accuracy": [0.1, 0.2]})
    colors = models.merge(pd.DataFrame({"color": range(24), "pixels": range(24)}), how="cross")
    axes = plots.plot_by_color(colors, SUPPLIED, ["y", "x"]).axes[0]
    assert [line.get_ydata()[0] for line in axes.lines] == [0.2, 0.1]
    assert axes.patches[1].get_facecolor()[:3] == pytest.approx((SUPPLIED[22] / 255).tolist())


def test_published_and_retrained_runs_are_points_of_the_same_figure():
    table = pd.DataFrame(
        {"optimizer": ["Adam", "SGD"], "published_nll": [1.3, 2.7], "nll": [1.31, 1.75]}
    )
    equal, *runs = plots.plot_published(table, {"nll": "NLL"}).axes[0].lines
    assert equal.get_xydata().tolist() == [[1.3, 1.3], [2.7, 2.7]]
    assert [run.get_xydata().tolist() for run in runs] == [[[1.3, 1.31]], [[2.7, 1.75]]]


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
