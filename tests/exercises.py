"""The exercises of a notebook: their cells, with the solutions that are folded at its end."""

import re

import nbformat

MARKED = re.compile(r"^ *(.*# replace (?:this|these)\b.*)$", re.MULTILINE)
SOLUTION = re.compile(r"^(\d+)\. [^`\n]*`([^`]+)`", re.MULTILINE)


def solved(notebook: nbformat.NotebookNode) -> dict[int, str]:
    """Return the solved source of every code cell of the exercises, by the cell's number."""
    cells = notebook.cells
    start = next(n for n, cell in enumerate(cells) if "## Exercises\n" in cell.source)
    folded = cells[-1].source
    assert "<details><summary>Solutions</summary>\n" in folded and folded.endswith("</details>")
    solutions = SOLUTION.findall(folded)
    sources = {}
    for number, cell in enumerate(cells[start:], start):
        if cell.cell_type == "code":
            sources[number] = cell.source
            for line in MARKED.findall(cell.source):
                exercise, solution = solutions.pop(0)
                sources[number] = cell.source.replace(line, solution)
    assert solutions == [] and int(exercise) > 1
    return sources


def answers(cells: list[nbformat.NotebookNode]) -> list[str]:
    """Return what the exercises among the cells answer."""
    outputs = [output.get("data", {}) for cell in cells for output in cell.outputs]
    texts = [data["text/plain"].strip("'\"") for data in outputs if "text/plain" in data]
    return [text for text in texts if text.startswith(("solved", "not yet: "))]
