import numpy as np
import pandas as pd
import pytest
import torch

from smai_lib.colorization import plots
from smai_lib.colorization.palette import SUPPLIED
from smai_lib.colorization.studies import UNET


def test_pictures_stand_in_their_rows_with_the_titles_of_their_images():
    pixels = torch.arange(32, dtype=torch.uint8).view(2, 1, 4, 4)
    axes = plots.plot_colorizations({"a": pixels, "b": pixels + 1}, ["x", "y"]).axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["x", "y"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "b"]
    shown = axes.images[0].get_array()
    assert np.array_equal(shown[7:11, 7:11, 0], pixels[1, 0] + 1)
    assert (shown[5:7] == 255).all()  # a gap


def test_every_model_is_drawn_over_the_colours_the_most_frequent_first():
    models = pd.DataFrame({"name": ["x", "y"], "accuracy": [0.1, 0.2]})
    colors = models.merge(pd.DataFrame({"color": range(24), "pixels": range(24)}), how="cross")
    axes = plots.plot_by_color(colors, SUPPLIED, ["y", "x"]).axes[0]
    assert [line.get_ydata()[0] for line in axes.lines] == [0.2, 0.1]
    assert axes.patches[1].get_facecolor()[:3] == pytest.approx((SUPPLIED[22] / 255).tolist())


def test_the_sweep_has_a_panel_for_every_run():
    rows = [
        {"name": f"run {run}", "epoch": epoch, "train_nll": 2.0, "val_nll": run}
        for run in range(8)
        for epoch in (1, 2)
    ]
    figure = plots.plot_sweep(pd.DataFrame(rows), 0.9)
    assert [axes.get_title() for axes in figure.axes] == [f"run {run}" for run in range(8)]
    assert figure.axes[1].lines[1].get_ydata().tolist() == [1, 1]


def test_the_diagram_of_the_unet_has_the_shapes_of_its_maps():
    texts = [text.get_text() for text in plots.plot_unet(UNET.build_network()).axes[0].texts]
    for shape in ("16 × 32 × 32", "48 × 16 × 16", "96 × 8 × 8", "128 × 4 × 4", "24 × 32 × 32"):
        assert any(shape in text for text in texts)
