import pandas as pd
import pytest

from smai_lib.costs import figures, formulas


@pytest.mark.parametrize("transposed", [False, True])
def test_reach_sums_to_the_connections(loop_count, transposed):
    options = {"stride": 2, "padding": 1, "transposed": transposed}
    table = formulas.pixel_taps(3, 4, **options)
    assert table.sum() == loop_count(1, 1, 3, 4, 4, 2, 1, transposed)
    assert table.shape == ((7, 7, 4, 4) if transposed else (2, 2, 4, 4))


def test_taps_figure_colours_the_pixels_that_reach_the_chosen_ones():
    reached = formulas.pixel_taps(3, 4, padding=1)
    grid = figures.taps({"conv": reached}, {"conv": [(1, 2), (0, 0)]})
    inputs, outputs = grid[0]
    assert len(inputs.patches) == 9 + 4
    assert {patch.get_xy() for patch in inputs.patches[9:]} == {(u - 0.5, v - 0.5) for u in (0, 1) for v in (0, 1)}
    assert [int(text.get_text()) for text in outputs.texts[:5]] == [4, 6, 6, 4, 6]


def test_timing_figure_draws_milliseconds_over_the_count():
    table = pd.DataFrame({"NF": [8, 16, 8, 16], "k": [1, 1, 3, 3], "macs": [10, 400, 20, 900],
                          "seconds": [0.001, 0.002, 0.003, 0.004]})
    (axes,) = figures.time_against_counts(table, {"macs": "MACs"}, {"macs": 0.5})[0]
    assert [line.get_label() for line in axes.lines] == ["k = 1", "k = 3"]
    assert axes.lines[1].get_xydata().tolist() == [[20, 3], [900, 4]]
    assert axes.get_title() == "R² = 0.50"
