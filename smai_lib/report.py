"""The report and README's results: Markdown filled with facts, claims, tables and figures.

`report/report.md` is plain Markdown. Only these stand in it beside Markdown:

- `{name:format}`: a fact of `report/facts.py`, in Python's format
- `[sentence]{claim=name}`: a sentence that a claim supports (several names with commas)
- `{table:name}`: a table of `report/facts.py`
- `![caption](../figures/NAME.svg)`: a figure; lines that follow each other make one row

The build fails on anything that the recorded results do not support; `render` lists what.
"""

import base64
import functools
import hashlib
import json
import re
import runpy
import urllib.parse
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

import pandas as pd

from . import claims, typeset
from .core import paths, plots
from .core.errors import ReportError
from .core.files import write as write_file
from .formats import markdown_table, show_value

REPORT, README = paths.REPORT, paths.ROOT / "README.md"
SOURCE, README_SOURCE = REPORT / "report.md", REPORT / "readme.md"
LOCAL_SOURCE = REPORT / "here.md"  # a chapter about what this machine trained
PAGE = REPORT / "report.html"

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
TAKEN_BY_HAND = {"wandb_leet.png"}  # a picture of a terminal
# constants of the tasks: classes, colours, runs, epochs, sides of images, pixels, the confidence
CONSTANTS = {"0", "1", "10", "20", "21", "24", "28", "30", "32", "64", "255", "95 %"}
# names, as "config 3" and "configs 1 to 3", and years
NAMED = re.compile(r"\b(?:[Cc]onfigs?|[Rr]uns?) \d+(?:(?:,| to| and) \d+)*|\b(?:19|20)\d\d\b")


@functools.cache
def load_facts() -> Mapping[str, object]:
    """Return the facts of the recorded results: values and tables by name."""
    return runpy.run_path(str(REPORT / "facts.py"))["facts"]()


def render(source: Path, facts: Mapping[str, object] | None = None) -> str:
    """Return the Markdown of a source with facts, claims and tables filled in.

    Raises:
        ReportError: a line for each problem, with file, line and value: an unknown fact, table or
            claim, a claim that does not hold, a typed number, a figure that is missing or stale, a
            dead link.
    """
    facts = load_facts() if facts is None else facts
    text = source.read_text(encoding="utf-8")
    anchors = set(ANCHOR.findall(text))
    lines, problems = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        found: list[str] = _typed_numbers(line)
        line = CLAIM.sub(functools.partial(_fill_claim, problems=found), line)
        line = TABLE.sub(functools.partial(_fill_table, facts=facts, problems=found), line)
        line = FACT.sub(functools.partial(_fill_fact, facts=facts, problems=found), line)
        found += _figure_problems(line)
        found += [f"dead link {link}" for link in LINK.findall(line) if _is_dead(link, anchors)]
        problems += [f"{source.name}, line {number}: {problem}" for problem in found]
        lines.append(line)
    if problems:
        raise ReportError("\n".join(problems))
    return "\n".join(lines) + "\n"


def _typed_numbers(line: str) -> list[str]:
    """Return a problem for each measured number that is typed into a line of prose."""
    text = NAMED.sub("", UNREAD.sub("", CLAIM.sub(r"\1", line)))
    typed = [number.rstrip(".,") for number in NUMBER.findall(text)]
    return [
        f"typed number {number!r}; cite a fact, {{name:format}}"
        for number in typed
        if number not in CONSTANTS
    ]


def _fill_fact(match: re.Match, facts: Mapping[str, object], problems: list[str]) -> str:
    name, form = match[1], match[2] or ""
    if name not in facts:
        problems.append(f"unknown fact {name!r}; report/facts.py has none of that name")
        return ""
    try:
        return show_value(facts[name], form)
    except (TypeError, ValueError) as error:
        problems.append(f"fact {name!r}: {error} ({form!r})")
        return ""


def _fill_claim(match: re.Match, problems: list[str]) -> str:
    for name in match[2].split(","):
        if name not in claims.all_claims():
            problems.append(f"unknown claim {name!r}")
        elif not claims.holds(name):
            problems.append(f"claim {name!r} is false: {claims.sentence(name)}")
    return match[1]


def _fill_table(match: re.Match, facts: Mapping[str, object], problems: list[str]) -> str:
    table = facts.get(match[1])
    if not isinstance(table, pd.DataFrame):
        problems.append(f"unknown table {match[1]!r}; report/facts.py has none of that name")
        return ""
    return markdown_table(table)


def _figure_problems(line: str) -> list[str]:
    problems = []
    for _, name in typeset.FIGURE.findall(line):
        file = paths.FIGURES / name
        if not file.exists():
            problems.append(f"missing figure {name}; run `smai notebooks`")
        elif name not in TAKEN_BY_HAND:
            changed = [f"{table} changed" for table in plots.stale_tables(file)]
            problems += [f"stale figure {name} ({what}); run `smai notebooks`" for what in changed]
    return problems


def _is_dead(link: str, anchors: set[str]) -> bool:
    """Return whether a link leads nowhere; addresses on the web are not tried."""
    if link.startswith(("http:", "https:")):
        return False
    target, _, anchor = urllib.parse.unquote(link).partition("#")
    if not target:
        return anchor not in anchors
    file = paths.ROOT / target.removeprefix("../")
    if target.endswith(".html"):  # the page of a notebook, in the folder of runs
        return False
    if not file.exists():
        return True
    return bool(anchor) and file.suffix == ".ipynb" and anchor not in _headings(file)


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
        ReportError: a claim or figure that is cited nowhere.
    """
    report = SOURCE.read_text(encoding="utf-8")
    cited = {name for _, names in CLAIM.findall(report) for name in names.split(",")}
    problems = [
        f"{SOURCE.name}: claim {name!r} is never cited: {claims.sentence(name)}"
        for name in claims.all_claims()
        if name not in cited
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
    write_file(page, typeset.html(text))
    write_file(page.with_suffix(".pdf"), typeset.pdf(text, _digest(text)))
    return page


def check() -> None:
    """Check that the committed report, its PDF and README are what would be written now.

    Raises:
        ReportError: what is out of date, figures by name; or see `write`.
    """
    check_citations()
    text = render(SOURCE)
    committed = PAGE.read_text(encoding="utf-8")
    problems = []
    for _, name in typeset.FIGURE.findall(text):
        content = base64.b64encode(typeset.for_page(paths.FIGURES / name)).decode()
        if content not in committed:
            problems.append(f"{PAGE.name} shows another figures/{name}")
    old, new = _without_pictures(committed), _without_pictures(typeset.html(text))
    for number, (found, expected) in enumerate(zip_longest(old, new, fillvalue=""), start=1):
        if found != expected:
            problems.append(
                f"{PAGE.name}, line {number}: found {found[:200]!r}, expected {expected[:200]!r}"
            )
            break
    if _digest(text).encode() not in PAGE.with_suffix(".pdf").read_bytes():
        problems.append("report.pdf shows another text or other figures")
    if refreshed_readme() != README.read_text(encoding="utf-8"):
        problems.append("README.md has other results")
    if problems:
        raise ReportError("\n".join(["out of date; write it with `smai report`", *problems]))


def _without_pictures(page: str) -> list[str]:
    return re.sub(r'"data:[^"]*"', "", page).splitlines()


def _digest(text: str) -> str:
    """Return the SHA-256 of the report's text, figures and layout."""
    digest = hashlib.sha256(text.encode())
    for _, name in typeset.FIGURE.findall(text):
        digest.update((paths.FIGURES / name).read_bytes())
    digest.update((REPORT / "report.typ").read_bytes())
    return digest.hexdigest()
