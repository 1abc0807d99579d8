"""Exercises: a hint as they stand, "solved" with the solution that is folded below, on whatever data there is."""

import nbformat
import pytest
from nbclient import NotebookClient

from smai_lib.core import paths
from tests.exercises import answers, solved

NOTEBOOKS = sorted(paths.NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_an_exercise_as_it_stands_answers_with_a_hint(file):
    notebook = nbformat.read(file, as_version=4)
    hints = answers([notebook.cells[number] for number in solved(notebook)])
    assert len(hints) > 1 and all(
        hint.startswith("not yet: ") and len(hint) > 25 for hint in hints
    ), hints


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_the_solutions_hold_on_the_bundled_data(file, monkeypatch):
    """On the data that this machine has they are typed in by `test_lab.py`."""
    monkeypatch.setenv("SMAI_FASHION_MNIST", "sample")
    monkeypatch.setenv("SMAI_COLOR_IMAGES", "sample")
    notebook = nbformat.read(file, as_version=4)
    typed = [nbformat.v4.new_code_cell(source) for source in solved(notebook).values()]
    notebook.cells += typed  # after the hints, as a reader would
    NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(paths.NOTEBOOKS)}},
    ).execute()
    said = answers(typed)
    assert len(said) > 1 and set(said) == {"solved"}, said
