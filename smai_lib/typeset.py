"""Markdown to one HTML page that needs nothing from outside (pandoc), and to PDF (typst)."""

import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from .core import paths

READER = "markdown-smart+pipe_tables"  # what is typed is what is read
FIGURE = re.compile(r"!\[(.*)\]\((?:\.\./)?figures/([\w.]+)\)")
TABLE = re.compile(r"<table.*?</table>", re.DOTALL)
ROW = re.compile(r"(?:^!\[.*\)\n){2,}", re.MULTILINE)  # figures in lines that follow each other


def html(text: str) -> str:
    """Return the report's Markdown as one HTML page."""
    with tempfile.TemporaryDirectory() as folder:
        text = _place_figures(text, Path(folder), for_page)
        return page(text, Path(folder), options=["--number-sections"])


def page(source: str, folder: Path, *, reader: str = READER, options: Sequence[str] = ()) -> str:
    """Return text in one of pandoc's formats as one HTML page.

    Args:
        source: the text.
        folder: folder of its figures.
        reader: pandoc's format.
        options: further options of pandoc.
    """
    import pypandoc

    layout = ["--standalone", "--mathml", "--embed-resources", "--toc", "--toc-depth=3"]
    layout += ["--wrap=preserve", f"--template={paths.REPORT / 'page.html'}"]
    layout += [f"--css={paths.REPORT / 'style.css'}", f"--resource-path={folder}:{paths.REPORT}"]
    text = pypandoc.convert_text(
        source, "html5", format=reader, cworkdir=str(folder), extra_args=[*layout, *options]
    )
    # a table that is wider than the screen scrolls, also by the keyboard
    return TABLE.sub(r'<div class="scroll" tabindex="0">\g<0></div>', text)


def pdf(text: str, digest: str) -> bytes:
    """Return the report's Markdown as PDF, with a digest among its keywords."""
    import matplotlib
    import pypandoc
    import typst  # 40 MB, which only the PDF needs

    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"  # the typeface of the figures
    options = ["--standalone", f"--template={paths.REPORT / 'report.typ'}"]
    options.append(f"--variable=digest:{digest}")
    with tempfile.TemporaryDirectory() as folder:
        text = _place_figures(text, Path(folder), Path.read_bytes)
        source = Path(folder) / "report.typ"
        typeset = pypandoc.convert_text(text, "typst", format=READER, extra_args=options)
        source.write_text(typeset, encoding="utf-8")
        return typst.compile(source, font_paths=[fonts])


def for_page(file: Path) -> bytes:
    """Return the content of a figure; a chart with its look on a dark page."""
    content = file.read_bytes()
    if file.suffix == ".svg":
        style = (paths.REPORT / "dark.css").read_bytes()
        content = content.replace(b"</svg>", b"<style>" + style + b"</style></svg>")
    return content


def _place_figures(text: str, folder: Path, read: Callable[[Path], bytes]) -> str:
    """Write a text's figures to `folder`, and return the text with their new names and rows."""
    for _, name in FIGURE.findall(text):
        (folder / name).write_bytes(read(paths.FIGURES / name))
    return ROW.sub(_row, FIGURE.sub(r"![\1](\2)", text))


def _row(match: re.Match) -> str:
    """Return figures side by side: a grid in typst, and a div in HTML."""
    figures = match[0].splitlines()
    between = "\n\n```{=typst}\n], [\n```\n\n"
    columns = ", ".join(["1fr"] * len(figures))
    start = f"```{{=typst}}\n#grid(columns: ({columns}), column-gutter: 1.2em, [\n```\n\n"
    return f"::: row\n\n{start}{between.join(figures)}\n\n```{{=typst}}\n])\n```\n\n:::\n"
