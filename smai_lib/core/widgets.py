"""Figures with controls, to explore in a live notebook."""

import base64
import html
import io
from collections.abc import Callable, Iterable
from inspect import signature

import ipywidgets
from matplotlib.figure import Figure

from .plots import style

DPI = 200  # twice that of a display


class Explorer(ipywidgets.VBox):
    """Controls above a picture. Without a kernel, a stored notebook shows the picture alone.

    Args:
        controls: the widgets.
        picture: what they change.
        problem: the reason why a value of theirs has no picture.
    """

    def __init__(
        self,
        controls: Iterable[ipywidgets.Widget],
        picture: ipywidgets.Image,
        problem: ipywidgets.HTML,
    ):
        super().__init__([*controls, picture, problem])
        self.picture, self.problem = picture, problem

    def _repr_mimebundle_(self, **options):
        bundle = super()._repr_mimebundle_(**options)
        bundle["image/png"] = base64.b64encode(self.picture.value).decode()
        return bundle, {"image/png": {"width": int(self.picture.width)}}


def explore(draw: Callable[..., Figure], **controls) -> Explorer:
    """Return controls above the figure of `draw`, which is drawn anew when one of them moves.

    `ipywidgets.interact` keeps the figure in an Output widget. For it nbclient, and so papermill,
    sends messages while a cell runs, and can then wait for ever (its issue 312).

    Args:
        draw: its arguments are the values of the controls, its defaults are where they start.
        controls: a widget or an abbreviation, as of `interact`, for each argument that needs one.
    """
    picture, problem = ipywidgets.Image(), ipywidgets.HTML()
    picture.layout.max_width = "100%"
    widgets = {}
    for name, parameter in signature(draw).parameters.items():
        abbreviation = controls.get(name, parameter.default)
        widget = ipywidgets.interactive.widget_from_abbrev(abbreviation, parameter.default)
        widget.description = name
        if isinstance(widget, ipywidgets.Text):
            widget.continuous_update = False  # half a file name is none
        widgets[name] = widget

    def show() -> None:
        figure = draw(**{name: widget.value for name, widget in widgets.items()})
        picture.width = f"{figure.get_figwidth() * DPI / 2:.0f}"
        picture.value, problem.value = to_png(figure), ""

    def update(change) -> None:
        try:
            show()
        except Exception as error:  # noqa: BLE001, Jupyter would hide it in a log
            problem.value = html.escape(f"{type(error).__name__}: {error}")

    show()
    for widget in widgets.values():
        widget.observe(update, "value")
    return Explorer(widgets.values(), picture, problem)


def to_png(figure: Figure) -> bytes:
    """Return a figure as PNG, with twice the resolution of a display."""
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, dpi=DPI)
    return buffer.getvalue()
