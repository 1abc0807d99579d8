import pytest

from smai_lib.core import plotting


@pytest.mark.parametrize("width", [4.0, 9.0])
def test_a_caption_stays_within_its_picture(width):
    figure = plotting.new_axes(width=width)[0, 0].figure
    plotting.caption(
        figure, "recorded profile · epochs 10 · " + "54,000 training images from somewhere · " * 3
    )
    figure.draw_without_rendering()
    box = figure.texts[-1].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0
    assert figure.axes[0].get_tightbbox().y0 >= box.y1  # and below the axes
