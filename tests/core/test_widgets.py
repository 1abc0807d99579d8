"""Figures with controls."""

import base64

import pytest

from smai_lib.core.errors import ConfigError
from smai_lib.core.plots import new_axes
from smai_lib.core.widgets import explore


@pytest.fixture
def explorer():
    """An explorer of a line whose slope cannot be 3."""

    def draw(slope=2, name="line"):
        if slope == 3:
            raise ConfigError("slope: found 3, expected < 3")
        axes = new_axes()[0, 0]
        axes.plot([0, slope])
        axes.set_title(name)
        return axes.figure

    return explore(draw, slope=(1, 4))


def test_a_picture_follows_its_controls(explorer):
    slope, name = explorer.children[:2]
    assert (slope.value, slope.min, slope.max, name.value) == (2, 1, 4, "line")
    first = explorer.picture.value
    slope.value = 4
    second = explorer.picture.value
    name.value = "steep"
    assert len({first, second, explorer.picture.value}) == 3


def test_a_bad_value_is_told_and_leaves_the_picture(explorer):
    before = explorer.picture.value
    explorer.children[0].value = 3
    assert explorer.problem.value == "ConfigError: slope: found 3, expected &lt; 3"
    assert explorer.picture.value == before
    explorer.children[0].value = 4
    assert not explorer.problem.value


def test_a_stored_notebook_shows_the_picture_without_a_kernel(explorer):
    bundle, metadata = explorer._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]) == explorer.picture.value
    assert bytes(explorer.picture.value).startswith(b"\x89PNG")
    assert metadata == {"image/png": {"width": 500}}  # half its pixels
