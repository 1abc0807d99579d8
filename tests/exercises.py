"""A notebook's exercises, as its reader meets them, and as the solutions folded at its end would have them answered."""

import re

import nbformat

MARKED = re.compile(r"^ *(.*# replace (?:this|these)\b.*)$", re.MULTILINE)
SOLUTION = re.compile(r"^(\d+)\. [^`\n]*`([^`]+)`", re.MULTILINE)


def solved(notebook: nbformat.NotebookNode) -> dict[int, str]:
    """Number of a code cell of the exercises -> its source, a marked line replaced by what the solutions say."""
    (start,) = (
        number
        for number, cell in enumerate(notebook.cells)
        if cell.source.startswith("## Exercises\n")
    )
    folded = notebook.cells[-1].source
    assert folded.startswith("<details><summary>Solutions</summary>\n") and folded.endswith(
        "</details>"
    )
    solutions = iter(SOLUTION.findall(folded))
    sources, exercises = {}, 0
    for number, cell in enumerate(notebook.cells[start:], start):
        if cell.cell_type == "code":
            lines = MARKED.findall(cell.source)
            assert len(lines) <= 1
            for line in lines:
                exercises += 1
                expected, solution = next(solutions)
                assert int(expected) == exercises
                sources[number] = cell.source.replace(line, solution)
            sources.setdefault(number, cell.source)
    assert exercises > 1 and next(solutions, None) is None
    return sources


def answers(cells: list[nbformat.NotebookNode]) -> list[str]:
    """What the exercises among the cells say."""
    said = [
        output.data["text/plain"].strip("'\"")
        for cell in cells
        for output in cell.outputs
        if "text/plain" in output.get("data", {})
    ]
    return [text for text in said if text.startswith(("solved", "not yet: "))]
