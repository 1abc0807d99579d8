"""Exercises answer with a hint as they stand, and "solved" with the folded solutions only."""

import nbformat
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from nbclient import NotebookClient

from smai_lib.colorization import palette
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


def weighted(weights, images="images"):
    """Return the source of a weighted sum of the channels, not yet rounded."""
    return f"({images} * torch.tensor([{weights}]).view(3, 1, 1)).sum(1, keepdim=True)"


TELEVISION = "0.299, 0.587, 0.114"
RIGHT_GREYS = [
    f"{weighted(TELEVISION)}.round().to(torch.uint8)",
    f"{weighted(TELEVISION)}.byte()",  # truncated
]
WRONG_GREYS = {
    "mean": "palette.grey_of(images)",
    "one channel": "images[:, 1:2]",
    "maximum": "images.amax(1, keepdim=True)",
    "lightness": "(images.amax(1, True) / 2 + images.amin(1, True) / 2).byte()",
    "channels reversed": f"{weighted(TELEVISION, 'images.flip(1)')}.byte()",
    "weights of HDTV": f"{weighted('0.2126, 0.7152, 0.0722')}.byte()",
    "rough weights": f"{weighted('0.3, 0.6, 0.1')}.byte()",
    "linear light": f"(255 * {weighted(TELEVISION, '(images / 255) ** 2.2')} ** (1 / 2.2)).byte()",
    "from 0 to 1": f"({weighted(TELEVISION)} / 255).byte()",
    "not whole numbers": weighted(TELEVISION),
    "without the axis of channels": f"{weighted(TELEVISION)}[:, 0].byte()",
}


def answer_to_grey(grey):
    """Return what the first exercise of Q2 answers to an expression of the grey values."""
    notebook = nbformat.read(paths.NOTEBOOKS / "q2_colorization.ipynb", as_version=4)
    source = next(cell.source for cell in notebook.cells if "def my_grey" in cell.source)
    marked = "return palette.grey_of(images)  # replace this line"
    assert marked in source
    shell = InteractiveShell(user_ns={"palette": palette, "torch": torch})
    return shell.run_cell(source.replace(marked, f"return {grey}")).result


@pytest.mark.parametrize("grey", RIGHT_GREYS)
def test_the_grey_of_television_solves_its_exercise(grey):
    assert answer_to_grey(grey) == "solved"


@pytest.mark.parametrize("grey", WRONG_GREYS.values(), ids=WRONG_GREYS)
def test_any_other_grey_gets_a_hint(grey):
    assert answer_to_grey(grey).startswith("not yet: red, green, blue and white")
