"""What every notebook does before its story starts."""

import ast
from collections.abc import Sequence

import pandas as pd
from IPython.display import HTML

INJECTED = "# Parameters"  # how papermill heads the cell that it injects


def check_parameters(cells: Sequence[str], *allowed: str) -> None:
    """Refuse parameters that papermill injected and the notebook does not know.

    papermill itself only warns, and then runs the notebook as if nothing had been asked.

    Args:
        cells: the notebook's executed cells, IPython's `In`.
        allowed: names in the cell tagged `parameters`.

    Raises:
        ValueError: with the unknown name and the known ones.
    """
    for source in cells:
        if not source.startswith(INJECTED):
            continue
        for node in ast.parse(source).body:
            for target in node.targets if isinstance(node, ast.Assign) else []:
                if target.id not in allowed:
                    raise ValueError(f"unknown parameter {target.id!r}; this notebook has " f"{', '.join(allowed)}")


def show(frame: pd.DataFrame, **formats: str) -> HTML:
    """A table without its index, floats to four decimals unless `formats` says otherwise."""
    floats = {column: "{:.4f}" for column in frame.select_dtypes("float").columns}
    # without ids and classes: nbval compares the HTML, and it is a third of the size
    return HTML(frame.style.hide(axis="index").format(floats | formats).to_html(exclude_styles=True))
