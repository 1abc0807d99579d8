"""What every notebook does before its story starts."""

import ast
from collections.abc import Sequence

import pandas as pd
from IPython.display import HTML, Markdown

from .core.config import require_number

INJECTED = "# Parameters"  # how papermill heads the cell that it injects


def check_parameters(cells: Sequence[str], *allowed: str) -> None:
    """Refuse parameters that papermill injected into the executed `cells`, IPython's `In`, beyond those `allowed`.

    papermill itself only warns, and then runs the notebook as if nothing had been asked.

    Raises:
        ValueError: with the unknown name and the known ones; or the seed is no whole number.
    """
    injected = ast.parse("\n".join(source for source in cells if source.startswith(INJECTED)))
    given = {
        node.targets[0].id: node.value for node in injected.body if isinstance(node, ast.Assign)
    }
    for name, value in given.items():
        if name not in allowed:
            raise ValueError(f"unknown parameter {name!r}; this notebook has {', '.join(allowed)}")
        if name == "seed":
            require_number(name, ast.literal_eval(value), int)


def show(frame: pd.DataFrame, **formats: str) -> HTML:
    """A table without its index, floats to four decimals unless `formats` says otherwise."""
    floats = {column: "{:.4f}" for column in frame.select_dtypes("float").columns}
    # no name in a table is a part of the page; no ids and classes: nbval compares the HTML, a third of the size
    return HTML(
        frame.style.hide(axis="index")
        .format(floats | formats, escape="html")
        .format_index(escape="html", axis="columns")
        .to_html(exclude_styles=True)
    )


def conclude(checked: bool, *sentences: str) -> Markdown:
    """What a cell has just asserted, in sentences; where nothing was `checked`, that."""
    return Markdown(
        "\n".join(f"- {sentence}" for sentence in sentences)
        if checked
        else "*Nothing is concluded: too few epochs, images or seeds.*"
    )
