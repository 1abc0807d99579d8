"""Exercises answer with a hint as they stand, and "solved" with the folded solutions."""

import nbformat
import pytest
from nbclient import NotebookClient

from smai_lib.core import paths
from tests.exercises import answers, solved

notebooks = pytest.mark.parametrize(
    "file", sorted(paths.NOTEBOOKS.glob("*.ipynb")), ids=lambda file: file.stem
)


@notebooks
def test_an_exercise_answers_with_a_hint(file):
    notebook = nbformat.read(file, as_version=4)
    hints = answers([notebook.cells[number] for number in solved(notebook)])
    assert len(hints) > 1
    assert [hint for hint in hints if not hint.startswith("not yet: ") or len(hint) < 26] == []


@pytest.mark.slow
@notebooks
def test_the_solutions_hold_without_any_data_source(file, monkeypatch):
    """The whole notebook runs on the bundled data; on the full data test_lab.py types them in."""
    monkeypatch.setenv("SMAI_FASHION_MNIST", "sample")
    monkeypatch.setenv("SMAI_COLOR_IMAGES", "sample")
    notebook = nbformat.read(file, as_version=4)
    typed = [nbformat.v4.new_code_cell(source) for source in solved(notebook).values()]
    notebook.cells += typed  # after the hints, as a reader would
    folder = {"metadata": {"path": str(paths.NOTEBOOKS)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=folder).execute()
    results = answers(typed)
    assert len(results) > 1 and set(results) == {"solved"}, results
