import matplotlib
import numpy as np
import pandas as pd
import pytest

from smai_lib.core import paths, plots
from smai_lib.core.errors import ConfigError
from smai_lib.core.study import read_table


def test_a_readers_matplotlibrc_does_not_leak_into_a_figure():
    with matplotlib.rc_context({"image.origin": "lower", "text.usetex": True, "font.size": 4}):
        with plots.style():
            axes = plots.new_axes()[0, 0]
            image = axes.imshow(np.eye(2))
            assert image.origin == "upper" and not axes.title.get_usetex()
            assert matplotlib.rcParams["font.size"] == plots.STYLE["font.size"]
        assert matplotlib.rcParams["font.size"] == 4  # their settings are as before


def test_a_caption_stays_within_its_figure():
    axes = plots.new_axes(width=4.0)[0, 0]
    figure = plots.caption(axes.figure, "54,000 images of some kind · " * 5)
    figure.draw_without_rendering()
    box = figure.texts[-1].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0
    assert axes.get_tightbbox().y0 >= box.y1  # and below the axes


def test_curves_have_a_line_for_every_run():
    rows = [("a", 1, 4.0), ("b", 1, 9.0), ("a", 2, 3.0), ("b", 2, 8.0)]
    history = pd.DataFrame(rows, columns=["name", "epoch", "loss"])
    (axes,) = plots.plot_curves(history, {"loss": "loss"}, {"a": "red", "b": "blue"}).axes
    first, second = axes.lines
    assert first.get_label() == "a" and first.get_ydata().tolist() == [4.0, 3.0]
    assert second.get_label() == "b" and second.get_ydata().tolist() == [9.0, 8.0]


def test_intervals_reach_from_low_to_high():
    table = pd.DataFrame({"low": [1.0], "mean": [2.0], "high": [4.0]}, index=["a"])
    figure = plots.plot_intervals({"accuracy": table}, reference=3.0, reference_name="baseline")
    (axes,) = figure.axes
    ((start, end),) = axes.collections[0].get_segments()
    assert (start[0], end[0]) == (1.0, 4.0)
    assert axes.get_legend().get_texts()[0].get_text() == "baseline"


@pytest.fixture
def saving(tmp_path, monkeypatch):
    """Figures are saved, to an empty folder."""
    monkeypatch.setenv(plots.SAVE_VARIABLE, "1")
    monkeypatch.setattr(paths, "FIGURES", tmp_path / "figures")
    return tmp_path / "figures"


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_a_saved_figure_is_the_same_every_time_and_knows_its_tables(saving, kind, monkeypatch):
    table = read_table("cost_timing.csv")
    file = saving / f"timing.{kind}"
    contents = []
    for _ in range(2):
        axes = plots.new_axes()[0, 0]
        axes.plot(table["macs"], table["seconds"])
        plots.save(axes.figure, "timing", [table], kind=kind)
        contents.append(file.read_bytes())
    assert contents[0] == contents[1]
    assert plots.stale_tables(file) == []
    monkeypatch.setattr(paths, "RESULTS", saving)
    (saving / "cost_timing.csv").write_text("measured anew", encoding="utf-8")
    assert plots.stale_tables(file) == ["cost_timing.csv"]
    (saving / "cost_timing.csv").unlink()
    assert plots.stale_tables(file) == ["cost_timing.csv"]


def test_a_figure_that_no_notebook_saved_is_stale(saving):
    saving.mkdir()
    (saving / "drawn.svg").write_text("<svg/>", encoding="utf-8")
    assert plots.stale_tables(saving / "drawn.svg")


def test_a_reader_who_runs_a_notebook_saves_nothing(saving, monkeypatch):
    monkeypatch.delenv(plots.SAVE_VARIABLE)
    plots.save(plots.new_axes()[0, 0].figure, "mine", [])
    assert not saving.exists()


def test_a_figure_of_a_table_that_is_not_recorded_is_refused(saving):
    with pytest.raises(ConfigError, match="found a table that is not recorded"):
        plots.save(plots.new_axes()[0, 0].figure, "mine", [pd.DataFrame()])
