import pytest
from torch import nn

from smai_lib.colorization.model import ColorizationCNN
from smai_lib.core.study import read_table
from smai_lib.costs import formulas, plots


def test_the_diagram_has_a_shape_on_every_arrow():
    axes = plots.plot_network(ColorizationCNN(num_filters=5, num_colors=7), (1, 64, 32))
    texts = [text.get_text() for text in axes.texts]
    shapes = [text for text in texts if text and text[0].isdigit()]
    sides = ["32 × 16", "16 × 8", "8 × 4", "16 × 8", "32 × 16", "64 × 32", "64 × 32", "64 × 32"]
    channels = [5, 10, 20, 10, 5, 7, 7, 1]  # the input is drawn last
    assert shapes == [f"{c}\n{side}" for c, side in zip(channels, sides, strict=True)]


def test_the_inputs_of_two_outputs_are_coloured():
    layer = nn.Conv2d(1, 1, 3, padding=1)
    ((inputs, outputs),) = plots.plot_connected(layer, 4, [(1, 2), (0, 0)])
    corner = {patch.get_xy() for patch in inputs.patches[9:]}
    assert len(inputs.patches) == 9 + 4
    assert corner == {(-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5), (0.5, 0.5)}
    assert [text.get_text() for text in outputs.texts[:5]] == ["4", "6", "6", "4", "6"]


def test_costs_are_bars_with_the_total_above():
    ((axes,),) = plots.plot_costs(formulas.evaluate(), {"weights": "Weights"})
    assert axes.get_title() == "Weights: 137,056"
    assert [bar.get_width() for bar in axes.patches][-1] == 24 * 24


@pytest.mark.parametrize(("count", "explained"), [("macs", 0.88), ("macs+prepool_outputs", 0.98)])
def test_a_panel_says_how_much_of_the_time_its_count_explains(count, explained):
    grid = plots.plot_timing(read_table("cost_timing.csv"), {count: "x"}, columns=1)
    assert grid[0, 0].get_title() == f"R² = {explained}"
    assert len(grid[0, 0].lines) == 4  # k = 1, 3, 5, 7
