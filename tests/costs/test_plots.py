from torch import nn

from smai_lib.colorization.model import ColorizationCNN
from smai_lib.core.study import read_table
from smai_lib.costs import formulas, plots


def test_the_diagram_has_a_shape_on_every_arrow():
    figure = plots.plot_network(ColorizationCNN(num_filters=5, num_colors=7), (1, 64, 32))
    texts = [text.get_text() for text in figure.axes[0].texts]
    shapes = [text.replace("\n", " × ") for text in texts if text[:1].isdigit()]
    assert shapes == [
        "1 × 64 × 32",
        "5 × 32 × 16",
        "10 × 16 × 8",
        "20 × 8 × 4",
        "10 × 16 × 8",
        "5 × 32 × 16",
        "7 × 64 × 32",
        "7 × 64 × 32",
    ]


def test_the_inputs_of_two_outputs_are_coloured():
    layer = nn.Conv2d(1, 1, 3, padding=1)
    inputs, outputs = plots.plot_connected(layer, 4, [(1, 3), (0, 0)]).axes
    colors = inputs.collections[0].get_array()
    assert colors.tolist() == [[2, 2, 1, 1], [2, 2, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0]]
    assert [text.get_text() for text in outputs.texts[:5]] == ["4", "6", "6", "4", "6"]


def test_costs_are_bars_with_the_total_above():
    (axes,) = plots.plot_costs(formulas.evaluate(), {"weights": "Weights"}).axes
    assert axes.get_title() == "Weights: 137,056"
    assert [bar.get_width() for bar in axes.patches][-1] == 24 * 24


def test_a_panel_says_how_much_of_the_time_its_count_explains():
    counts = {"a": ["macs"], "b": ["macs", "prepool_outputs"]}
    left, right = plots.plot_timing(read_table("cost_timing.csv"), counts).axes
    assert [axes.get_title() for axes in (left, right)] == ["R² = 0.88", "R² = 0.98"]
    assert len(left.lines) == 4  # k = 1, 3, 5, 7
