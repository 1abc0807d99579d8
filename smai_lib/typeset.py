"""Markdown as one HTML page that needs nothing from outside (pandoc), and as PDF (typst)."""

import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import pypandoc

from .core import paths

READER = "markdown-smart+pipe_tables"  # quotes and dashes stay as they are typed
FIGURE = re.compile(r"!\[(.*)\]\((?:\.\./)?figures/([\w.]+)\)")
TABLE = re.compile(r"<table.*?</table>", re.DOTALL)
ROW = re.compile(r"(?:^!\[.*\n){2,}", re.MULTILINE)  # figures in lines that follow each other


def html(text: str, digest: str) -> str:
    """Return the report's Markdown as one HTML page, with a digest among its metadata."""
    options = ["--number-sections", f"--variable=digest:{digest}"]
    return page(_place_figures(text), paths.FIGURES, options=options)


def page(source: str, folder: Path, *, reader: str = READER, options: Sequence[str] = ()) -> str:
    """Return text in one of pandoc's formats as one HTML page.

    Args:
        source: the text.
        folder: folder of its figures.
        reader: pandoc's format.
        options: further options of pandoc.
    """
    layout = [
        "--standalone",
        "--mathml",
        "--embed-resources",
        "--toc",
        "--toc-depth=3",
        "--wrap=preserve",
        f"--template={paths.REPORT / 'page.html'}",
        f"--css={paths.REPORT / 'style.css'}",
    ]
    text = pypandoc.convert_text(
        source, "html5", format=reader, cworkdir=str(folder), extra_args=[*layout, *options]
    )
    # a table that is wider than the screen scrolls, also by the keyboard
    return TABLE.sub(r'<div class="scroll" tabindex="0">\g<0></div>', text)


def pdf(text: str, digest: str) -> bytes:
    """Return the report's Markdown as PDF, with a digest among its keywords."""
    import typst  # 40 MB, which only the PDF needs

    template = f"--template={paths.REPORT / 'report.typ'}"
    source = pypandoc.convert_text(
        _place_figures(text),
        "typst",
        format=READER,
        extra_args=["--standalone", template, f"--variable=digest:{digest}"],
    )
    fonts = Path(matplotlib.get_data_path(), "fonts", "ttf")  # the typeface of the figures
    return typst.compile(source.encode(), root=paths.FIGURES, font_paths=[fonts])


def _place_figures(text: str) -> str:
    """Return the text with figures by name, and those that follow each other side by side."""
    return ROW.sub(_row, FIGURE.sub(r"![\1](\2)", text))


def _row(match: re.Match) -> str:
    """Return figures side by side: a grid in typst, and a div in HTML."""
    figures = match[0].splitlines()
    columns = ", ".join(["1fr"] * len(figures))
    start = f"```{{=typst}}\n#grid(columns: ({columns}), [\n```"
    between = "\n\n```{=typst}\n], [\n```\n\n"
    return f"::: row\n\n{start}\n\n{between.join(figures)}\n\n```{{=typst}}\n])\n```\n\n:::\n"
