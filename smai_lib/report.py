"""The report and README's results: Markdown filled with facts, claims, tables and figures.

`report/report.md` is plain Markdown. Only these stand in it beside Markdown:

- `{name:format}`: a fact of `report/facts.py`, in Python's format
- `[sentence]{claim=name}`: a sentence that a claim supports (several names with commas)
- `{table:name}`: a table of `report/facts.py`
- `![caption](../figures/NAME.svg)`: a figure; lines that follow each other make one row

The build fails on anything that the recorded results do not support; `render` lists what.
"""

import functools
import hashlib
import json
import re
import runpy
import urllib.parse
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from . import claims, typeset
from .core import paths, plots
from .core.errors import ConfigError, ReportError
from .core.files import write as write_file
from .formats import markdown_table, show_value

REPORT, README = paths.REPORT, paths.ROOT / "README.md"
SOURCE, README_SOURCE = REPORT / "report.md", REPORT / "readme.md"
LOCAL_SOURCE = REPORT / "here.md"  # a chapter about what this machine trained
PAGE = REPORT / "report.html"
LAYOUT = ("page.html", "style.css", "report.typ")

FACT = re.compile(r"\{([a-z]\w*(?:\.\w+)+)(?::([^{}]*))?\}")
CLAIM = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\{claim=([\w,]+)\}")
TABLE = re.compile(r"\{table:([\w.]+)\}")
LINK = re.compile(r"\]\(([^)\s]+)\)")
RELATIVE = re.compile(r"(?<!!)(\[[^\[\]]*\]\()\.\./")  # a link, but no figure
ANCHOR = re.compile(r"\{#([\w-]+)\}")
BLOCK = re.compile(r"<!-- (\w+):.*?<!-- /\1 -->", re.DOTALL)  # of README
# what the rule about typed numbers does not read: code, math, targets of links, attributes
UNREAD = re.compile(r"`[^`]*`|\$[^$]*\$|\]\([^)]*\)|\{[^{}]*\}|<!--.*?-->|<[^>]*>")
NUMBER = re.compile(r"(?<![\w.,-])\d[\d.,]*(?:\s?%)?")
# constants of the tasks: classes, colours, runs, epochs, sides of images, pixels, the confidence
CONSTANTS = {"0", "1", "10", "20", "21", "24", "28", "30", "32", "64", "255", "95 %"}
# names, as "config 3" and "configs 1 to 3", and years
NAMED = re.compile(r"\b(?:[Cc]onfigs?|[Rr]uns?) \d+(?:(?:,| to| and) \d+)*|\b(?:19|20)\d\d\b")
TAKEN_BY_HAND = "wandb_leet.png"  # a picture of a terminal


@functools.cache
def load_facts() -> Mapping[str, object]:
    """Return the facts of the recorded results: values and tables by name."""
    return runpy.run_path(str(REPORT / "facts.py"))["facts"]()


def render(source: Path, facts: Mapping[str, object] | None = None) -> str:
    """Return the Markdown of a source with facts, claims and tables filled in.

    Args:
        source: the file.
        facts: values and tables by name; default: those of the recorded results.

    Raises:
        ReportError: one line for each line of the source that has a problem: an unknown fact, table
            or claim, a claim that does not hold, a typed number, a figure that is missing or stale,
            a dead link.
    """
    facts = load_facts() if facts is None else facts
    text = source.read_text(encoding="utf-8")
    anchors = set(ANCHOR.findall(text))
    lines, problems = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            lines.append(_fill(line, facts, anchors))
        except (ConfigError, ReportError) as error:
            problems.append(f"{source.name}, line {number}: {error}")
    if problems:
        raise ReportError("\n".join(problems))
    return "\n".join(lines) + "\n"


def _fill(line: str, facts: Mapping[str, object], anchors: set[str]) -> str:
    """Return a line with claims, tables and facts filled in; raise its first problem."""
    _check_numbers(line)
    line = CLAIM.sub(_show_claim, line)
    line = TABLE.sub(lambda table: markdown_table(_find(table[1], facts)), line)
    line = FACT.sub(lambda fact: _show_fact(fact[1], fact[2] or "", facts), line)
    for _, name in typeset.FIGURE.findall(line):
        _check_figure(paths.FIGURES / name)
    for link in LINK.findall(line):
        if _is_dead(link, anchors):
            raise ReportError(f"dead link {link}")
    return line


def _check_numbers(line: str) -> None:
    """Raise ReportError if a measured number is typed into a line of prose."""
    prose = NAMED.sub("", UNREAD.sub("", CLAIM.sub(r"\1", line)))
    for number in NUMBER.findall(prose):
        if number.rstrip(".,") not in CONSTANTS:
            raise ReportError(f"typed number {number.rstrip('.,')!r}; cite a fact, {{name:format}}")


def _show_claim(match: re.Match) -> str:
    """Return the sentence of the report, if all claims that it cites hold."""
    for name in match[2].split(","):
        claims.check(name)
    return match[1]


def _find(name: str, facts: Mapping[str, object]) -> object:
    if name not in facts:
        similar = ", ".join(get_close_matches(name, facts)) or "see report/facts.py"
        raise ReportError(f"unknown fact or table {name!r}; similar names: {similar}")
    return facts[name]


def _show_fact(name: str, form: str, facts: Mapping[str, object]) -> str:
    try:
        return show_value(_find(name, facts), form)
    except (TypeError, ValueError) as error:
        raise ReportError(f"fact {name!r}: {error} ({form!r})") from None


def _check_figure(file: Path) -> None:
    """Raise ReportError if a figure is missing, or a table that it shows has changed."""
    if not file.exists():
        raise ReportError(f"missing figure {file.name}; run `smai notebooks`")
    changed = [] if file.name == TAKEN_BY_HAND else plots.stale_tables(file)
    if changed:
        tables = ", ".join(changed)
        raise ReportError(f"stale figure {file.name} ({tables} changed); run `smai notebooks`")


def _is_dead(link: str, anchors: set[str]) -> bool:
    """Return whether a link leads nowhere; addresses on the web are not tried."""
    target, _, anchor = urllib.parse.unquote(link).partition("#")
    if target.startswith("http") or target.endswith(".html"):  # a notebook's page, in runs/
        return False
    if not target:
        return anchor not in anchors
    file = paths.ROOT / target.removeprefix("../")
    if not file.exists():
        return True
    return file.suffix == ".ipynb" and anchor not in {"", *_headings(file)}


@functools.cache
def _headings(notebook: Path) -> set[str]:
    """Return the anchors of a notebook's headings, as JupyterLab and GitHub make them."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    headings = re.findall(r"^#+ (.+)$", "\n".join(texts), re.MULTILINE)
    return {heading.strip().replace(" ", "-") for heading in headings}


def check_citations() -> None:
    """Check that the report cites every claim, and that report or README show every figure.

    Raises:
        ReportError: a line for each claim or figure that is cited nowhere.
    """
    report = SOURCE.read_text(encoding="utf-8")
    cited = ",".join(names for _, names in CLAIM.findall(report)).split(",")
    uncited = [name for name in claims.all_claims() if name not in cited]
    problems = [
        f"{SOURCE.name}: claim {name!r} is never cited: {claims.sentence(name)}" for name in uncited
    ]
    shown = report + README.read_text(encoding="utf-8")
    for file in sorted(paths.FIGURES.glob("*.*")):
        if f"figures/{file.name}" not in shown:
            problems.append(f"figures/{file.name} is cited nowhere; cite or delete it")
    if problems:
        raise ReportError("\n".join(problems))


def refreshed_readme() -> str:
    """Return README's text, with the blocks of `report/readme.md` filled in."""
    blocks = {block[1]: block[0] for block in BLOCK.finditer(render(README_SOURCE))}
    text = README.read_text(encoding="utf-8")
    return BLOCK.sub(lambda block: blocks.get(block[1], block[0]), text)


def write(profile: str = "recorded", seed: int = 0, pages: Sequence[str] = ()) -> Path:
    """Write the report as HTML and PDF, and README's results; return the page.

    Args:
        profile: "recorded" writes the committed report; another one writes to runs/PROFILE, with a
            chapter about what this machine trained, and leaves README as it is.
        seed: seed of the studies that this machine trained.
        pages: names of the notebooks that have a page in that folder.

    Raises:
        ReportError: see `render` and `check_citations`.
    """
    text = render(SOURCE)
    page = PAGE
    if profile == "recorded":
        check_citations()
        write_file(README, refreshed_readme())
    else:
        local = runpy.run_path(str(REPORT / "local_facts.py"))["facts"](profile, seed, pages)
        header, body = text.split("\n---\n", 1)
        text = f"{header}\n---\n\n{render(LOCAL_SOURCE, local)}\n{body}"
        text = RELATIVE.sub(rf"\1{paths.ROOT.as_uri()}/", text)
        page = paths.runs_dir() / profile / PAGE.name
    digest = _digest(text)
    write_file(page, typeset.html(text, digest))
    write_file(page.with_suffix(".pdf"), typeset.pdf(text, digest))
    return page


def check() -> None:
    """Check that the committed report, its PDF and README are what would be written now.

    Raises:
        ReportError: the files that are out of date; or see `write`.
    """
    check_citations()
    digest = _digest(render(SOURCE)).encode()
    written = (PAGE, PAGE.with_suffix(".pdf"))
    outdated = [file.name for file in written if digest not in file.read_bytes()]
    if refreshed_readme() != README.read_text(encoding="utf-8"):
        outdated.append(README.name)
    if outdated:
        raise ReportError(f"out of date: {', '.join(outdated)}; run `smai report`")


def _digest(text: str) -> str:
    """Return the SHA-256 of the report's text, figures and layout; HTML and PDF contain it."""
    figures = [paths.FIGURES / name for _, name in typeset.FIGURE.findall(text)]
    layout = [REPORT / name for name in LAYOUT]
    parts = [text.encode(), *(file.read_bytes() for file in figures + layout)]
    return hashlib.sha256(b"".join(parts)).hexdigest()
