"""The report says what the recorded results say, and is refused where they say something else."""

import re
import shutil

import pandas as pd
import pytest

from smai_lib import claims, cli, formats, notebooks, report
from smai_lib.core import paths
from smai_lib.core.errors import IntegrityError, ReportError
from smai_lib.core.files import record_checksum

CLAIM = "lookup_table_beats_published_networks"
SOURCE = f"""---
title: "A report"
pagetitle: "A report"
---

# Found {{#found}}

[The table has {{q2.table:.2%}} of the pixels right.]{{claim={CLAIM}}}
Config 3 has 10 classes, since 2017.

{{table:q1.runs}}

: The runs.

![The ladder.](../figures/q1_ladder.svg)

See [Found](#found), and [the data](../notebooks/q1_multitask.ipynb#The-data).
"""
FACTS = {"q2.table": 0.6184, "q1.runs": pd.DataFrame({"Run": ["config 1"], "Test": ["88.77 %"]})}
README = "Before\n<!-- result: written -->\nold\n<!-- /result -->\nAfter\n"


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A folder with a small report: one fact, one claim, one table and one figure."""
    monkeypatch.setattr(report, "load_facts", lambda: FACTS)
    claim = claims.find(CLAIM)
    monkeypatch.setattr(claims, "all_claims", lambda: {CLAIM: claim})
    monkeypatch.setattr(paths, "FIGURES", tmp_path / "figures")
    monkeypatch.setattr(report, "PAGE", tmp_path / "report.html")
    sources = {"SOURCE": SOURCE, "README": README, "README_SOURCE": README.replace("old", "new")}
    for name, text in sources.items():
        file = tmp_path / f"{name.lower()}.md"
        file.write_text(text, encoding="utf-8")
        monkeypatch.setattr(report, name, file)
    (tmp_path / "figures").mkdir()
    shutil.copy(paths.ROOT / "figures" / "q1_ladder.svg", tmp_path / "figures")
    return tmp_path


@pytest.fixture
def results(small, monkeypatch):
    """A copy of the recorded tables, which a test may change."""
    monkeypatch.setattr(paths, "RESULTS", shutil.copytree(paths.RESULTS, small / "results"))
    return paths.RESULTS


def edit(file, old, new):
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def test_a_small_report_is_written_and_current(small):
    page = report.write().read_text(encoding="utf-8")
    report.check()
    assert "61.84\u00a0% of the pixels" in page and "88.77 %" in page
    assert page.count("<figure") == page.count("data:image/svg+xml") == page.count("<caption") == 1
    assert report.README.read_text(encoding="utf-8") == README.replace("old", "new")


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("{q2.table:.2%}", "94.67 %", "line 8: typed number '94.67 %'"),
        ("10 classes", "3 seeds", "line 9: typed number '3'"),
        ("{q2.table:.2%}", "{q2.tabel:.2%}", "line 8: unknown fact .* 'q2.tabel'.*: q2.table"),
        ("{q2.table:.2%}", "{q2.table:.2x}", "line 8: fact 'q2.table': .*'.2x'"),
        ("q1.runs", "q1.walks", "line 11: unknown .*table 'q1.walks'"),
        ("=lookup", "=look", "line 8: unknown claim 'look_table_beats_published_networks'"),
        ("q1_ladder.svg", "q1_leiter.svg", "line 15: missing figure q1_leiter.svg"),
        ("(#found)", "(#lost)", "line 17: dead link #lost"),
        ("#The-data", "#No-data", r"line 17: dead link \.\./notebooks/q1_multitask.ipynb#No-data"),
        (" has ", " has 94.67 ", "line 8: typed number '94.67'.*\nsource.md, line 9: typed"),
        (f"{{claim={CLAIM}}}", "", f"claim '{CLAIM}' is never cited: A lookup table"),
    ],
)
def test_a_line_that_results_do_not_support_is_named(small, old, new, message):
    edit(report.SOURCE, old, new)
    with pytest.raises(ReportError, match=message):
        report.write()


def test_a_figure_that_is_cited_nowhere_is_named(small):
    (paths.FIGURES / "extra.svg").write_text("<svg/>", encoding="utf-8")
    with pytest.raises(ReportError, match="figures/extra.svg is cited nowhere"):
        report.write()


def test_a_changed_cell_makes_the_sentence_false(results):
    """The change is found at first; then someone also mends the checksum."""
    file = results / "q2_sweep_baselines.csv"
    table = pd.read_csv(file)
    table.loc[table["name"] == "luminance table", "val_accuracy"] = 0.55
    table.to_csv(file, index=False)
    with pytest.raises(IntegrityError, match="q2_sweep_baselines.csv"):
        report.write()
    record_checksum(file)
    with pytest.raises(ReportError, match="line 8: claim .* is false .*: A lookup table from grey"):
        report.write()


def test_a_changed_cell_makes_the_figure_stale(results):
    file = results / "q1_ladder.csv"
    edit(file, "0.88", "0.89")
    record_checksum(file)
    with pytest.raises(ReportError, match=r"stale figure q1_ladder.svg \(q1_ladder.csv changed"):
        report.write()


@pytest.mark.parametrize(
    "file, old, new, message",
    [
        ("figures/q1_ladder.svg", "</svg>", "<g/></svg>", "report.html, report.pdf;"),
        ("source.md", "See", "Read", "report.html, report.pdf;"),
        ("readme.md", "new", "old", "readme.md;"),
    ],
)
def test_files_that_are_out_of_date_are_named(small, file, old, new, message):
    report.write()
    edit(small / file, old, new)
    with pytest.raises(ReportError, match=f"out of date: {message}"):
        report.check()


@pytest.mark.slow
def test_the_committed_report_is_current():
    report.check()


@pytest.fixture(scope="module")
def page():
    """The committed page."""
    return (paths.REPORT / "report.html").read_text(encoding="utf-8")


def test_the_committed_page_needs_nothing_from_outside(page):
    assert not re.search(r'<script|@import|url\(|src="(?!data:)', page)
    assert not re.search(r">[^<]*\bnan\b", page)
    anchors = set(re.findall(r'\bid="([^"]+)"', page))
    links = set(re.findall(r'href="#([^"]*)"', page))
    assert links and not links - anchors


def test_every_picture_of_the_page_is_described_and_every_table_has_a_caption(page):
    pictures = re.findall(r"<img [^>]*>", page)
    assert len(pictures) > 20
    assert [image[:200] for image in pictures if not re.search(r'alt="[^"]{15,}"', image)] == []
    assert page.count("<table") == page.count("<caption")


def test_the_pdf_has_at_most_twelve_pages():
    content = (paths.REPORT / "report.pdf").read_bytes()
    assert int(re.search(rb"/Type ?/Pages/Count (\d+)", content)[1]) <= 12


def test_a_table_aligns_numbers_to_the_right_and_words_to_the_left():
    table = pd.DataFrame({"a": ["Adam", "SGD"], "b": ["1,024", "–"], "c": ["< 0.001", "94.7 %"]})
    assert formats.markdown_table(table).splitlines()[1] == "| :------- | --------: | ----------: |"


def test_a_mean_over_seeds_is_shown_with_its_deviation():
    mean = formats.Mean(0.94674, 0.00061)
    assert f"{mean:.2%}" == "94.67\u00a0±\u00a00.06%" and f"{mean:.3f}" == "0.947\u00a0±\u00a00.001"


@pytest.mark.slow
def test_a_quick_report_shows_what_this_machine_trained(small, monkeypatch, capsys):
    """On the sample, with one study and one notebook; README stays as it is."""
    monkeypatch.setenv("SMAI_FASHION_MNIST", "sample")
    monkeypatch.setenv("SMAI_COLOR_IMAGES", "sample")
    monkeypatch.setattr(notebooks, "NOTEBOOKS", ("q1_multitask",))
    monkeypatch.setattr(cli, "STUDIES", ["q1_published"])
    cli.main(["report", "--profile", "quick", "--seed", "1"])
    page = paths.runs_dir() / "quick" / "report.html"
    assert capsys.readouterr().out.endswith(
        f"11 networks were trained; their accuracy stands beside the recorded one in\n{page}\n"
    )
    text = page.read_text(encoding="utf-8")
    assert "Trained on this machine" in text and "<code>q1_published</code>" in text
    assert 'href="q1_multitask.html"' in text and page.with_name("q1_multitask.html").exists()
    assert report.README.read_text(encoding="utf-8") == README
