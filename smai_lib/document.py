"""The report: prose in `report/report.md`, filled from recorded results, as a page and as a PDF.

The template holds sentences, `report/values.py` what they speak of. No measured number is typed: each comes out of a
shipped table, and a sentence that concludes is a `claim`, checked whenever the text is made.
"""

import hashlib
import re
import runpy
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

import jinja2
import matplotlib
import numpy as np
import pandas as pd
import pypandoc

from .core import paths, plotting

REPORT, README = paths.ROOT / "report", paths.ROOT / "README.md"
MARKED = re.compile(
    r"<!-- (\w+):.*?<!-- /\1 -->", re.DOTALL
)  # what of README is written from results
READER = "markdown-smart+pipe_tables"  # what is typed is what is read
# pictures show the tables that the text quotes, and their bits depend on the machine's fonts
PICTURE = re.compile(r'src="data:[^"]*"')
UNSEEN = re.compile(r"\]\([^)]*\)|\\[a-z]+|[][`${}*]")  # of a cell: targets of links, markup
WIDEST = 42  # characters that count of a cell


class ReportError(RuntimeError):
    """A sentence that the results do not bear out, a link to nothing, or a committed report that is stale."""


def claim(condition: bool, sentence: str, otherwise: str = "") -> str:
    """`sentence` under `condition`, else `otherwise`; ReportError where there is no other wording."""
    if not condition and not otherwise:
        raise ReportError(
            f"stale claim: the recorded results do not bear out {' '.join(sentence.split())!r}; "
            "correct the sentence in report/report.md"
        )
    return sentence if condition else otherwise


def grid(frame: pd.DataFrame, columns: Mapping[str, str | Sequence[str]]) -> str:
    """A table in markdown.

    Args:
        columns: column of `frame` -> heading, or heading and format; numbers are aligned to the right.
    """
    shown, rules = {}, []
    for column, heading in columns.items():
        heading, form = (heading, "{}") if isinstance(heading, str) else heading
        shown[heading] = [
            "–" if pd.isna(value) else form.format(value).replace("|", "\\|")
            for value in frame[column]
        ]
        widths = [len(UNSEEN.sub("", cell)) for cell in shown[heading]]
        rule = "-" * (
            3 + max(len(heading) // 2, *map(len, heading.split()), min(WIDEST, max(widths)))
        )  # a wide table's shares of the width
        rules.append(rule + ":" if pd.api.types.is_numeric_dtype(frame[column]) else ":" + rule)
    lines = [list(shown), rules, *zip(*shown.values(), strict=True)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def table(frame: pd.DataFrame, columns: Mapping[str, str | Sequence[str]], caption: str) -> str:
    """`grid` with a caption, in a box that scrolls."""
    return f'\n::: {{.scroll tabindex="0"}}\n{grid(frame, columns)}\n\n: {caption}\n:::\n'


def _figure(folder: Path, drawn: bool) -> Callable[..., str]:
    def figure(
        axes, name: str, caption: str, alt: str, *, height: float = 2.7, kind: str = "chart"
    ) -> str:
        """A figure as wide as a page's text, written to `folder`; `kind` is "chart", or "picture" whose colours matter."""
        text = f'\n![{caption}]({name}.svg){{.{kind} alt="{alt}"}}\n'
        if not drawn:
            (folder / f"{name}.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
            return text
        image = np.ravel(axes)[0].figure
        plotting.legible(image, height)
        with matplotlib.rc_context({"svg.hashsalt": name}):
            image.savefig(
                file := folder / f"{name}.svg", metadata={"Date": None}, transparent=kind == "chart"
            )
        if kind == "chart":  # which then has its own look on a dark page
            file.write_text(
                file.read_text().replace(
                    "</svg>", f"<style>{(REPORT / 'dark.css').read_text()}</style></svg>"
                )
            )
        return text

    return figure


def render(folder: Path, template: str = "report.md", *, drawn: bool = True, **context) -> str:
    """The report, or another template of `report/`, in markdown; its figures go to `folder`, blank unless `drawn`.

    Raises:
        ReportError: from `claim`, or from a link of `values.py`. ChecksumError: a table is not what was recorded.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(REPORT),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        comment_start_string="{##",
    )  # {# is a heading's label
    values = runpy.run_path(str(REPORT / "values.py"), {"here": "", **context})
    return environment.get_template(template).render(
        values | {"claim": claim, "grid": grid, "table": table, "figure": _figure(folder, drawn)}
    )


def refreshed(readme: str) -> str:
    """README's text with what stands between its markers as `report/readme.md` makes it from recorded results."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = {block[1]: block[0] for block in MARKED.finditer(render(Path(folder), "readme.md"))}
    return MARKED.sub(lambda block: fresh[block[1]], readme)


def page(source: str, folder: Path, *, reader: str = READER, options: Sequence[str] = ()) -> str:
    """One HTML page that needs nothing from outside, from text in pandoc's format `reader`."""
    return pypandoc.convert_text(
        source,
        "html5",
        format=reader,
        cworkdir=str(folder),
        extra_args=[
            "--standalone",
            "--mathml",
            "--embed-resources",
            "--toc",
            "--toc-depth=3",
            "--wrap=preserve",
            *options,
            f"--resource-path={folder}:{REPORT}",
            f"--template={REPORT / 'page.html'}",
            f"--css={REPORT / 'style.css'}",
        ],
    )


def _pdf(text: str, folder: Path, target: Path) -> None:
    import typst  # 40 MB, which only the PDF needs

    source = folder / "report.typ"
    source.write_text(
        pypandoc.convert_text(
            text,
            "typst",
            format=READER,
            extra_args=[
                "--standalone",
                f"--template={REPORT / 'report.typ'}",
                f"--variable=digest:{_digest(text)}",
            ],
        )
    )
    typst.compile(source, output=target)


def write(target: Path = REPORT / "report.html", **context) -> Path:
    """Write the page, and beside it the PDF; returns the page. The committed report's results stand in README too."""
    if target.parent == REPORT:
        README.write_text(refreshed(README.read_text()))
    with tempfile.TemporaryDirectory() as folder:
        text = render(Path(folder), **context)
        target.write_text(page(text, Path(folder), options=["--number-sections"]))
        _pdf(text, Path(folder), target.with_suffix(".pdf"))
    return target


def check(committed: Path = REPORT / "report.html") -> None:
    """ReportError, naming the first line that differs, unless the committed report is what would be written now."""
    with tempfile.TemporaryDirectory() as folder:
        text = render(Path(folder), drawn=False)
        fresh = page(text, Path(folder), options=["--number-sections"])
    old, new = (
        [PICTURE.sub("", line) for line in each.splitlines()]
        for each in (committed.read_text(), fresh)
    )
    for number, (found, expected) in enumerate(zip_longest(old, new, fillvalue=""), start=1):
        if found != expected:
            start = next(
                (i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), 0
            )
            cut = slice(max(0, start - 60), start + 60)
            raise ReportError(
                f"{committed}, line {number}, is stale: found {found[cut]!r}, expected {expected[cut]!r}; "
                "write it anew with `python -m smai_lib report`"
            )
    if _digest(text).encode() not in (pdf := committed.with_suffix(".pdf")).read_bytes():
        raise ReportError(
            f"{pdf} is of another text than the page; write both anew with `python -m smai_lib report`"
        )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
