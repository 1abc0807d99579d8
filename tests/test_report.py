"""The report says what the recorded results say, and is refused where they say something else."""

import re
import shutil

import pandas as pd
import pytest

from smai_lib import claims, cli, formats, notebooks, report, studies
from smai_lib.core import paths
from smai_lib.core.errors import IntegrityError, ReportError
from smai_lib.core.files import record_checksum

GOOD = """---
title: "A report"
pagetitle: "A report"
---

# Found {#found}

[The table has {q2.table:.2%} of the pixels right.]{claim=lookup_table_beats_published_networks}
Config 3 has 10 classes, since 2017.

{table:q1.runs}

: The runs.

![The ladder.](../figures/q1_ladder.svg)

See [Found](#found), and [the data](../notebooks/q1_multitask.ipynb#The-data).
"""
FACTS = {"q2.table": 0.6184, "q1.runs": pd.DataFrame({"Run": ["config 1"], "Test": ["88.77 %"]})}
README = "Before\n<!-- result: written -->\nold\n<!-- /result -->\nAfter\n"


@pytest.fixture
def fresh_claims():
    """Forget which claims hold, before and after a test."""
    claims.holds.cache_clear()
    yield
    claims.holds.cache_clear()


@pytest.fixture
def results(tmp_path, monkeypatch, fresh_claims):
    """A copy of the recorded tables, which a test may change."""
    folder = tmp_path / "results"
    shutil.copytree(paths.RESULTS, folder)
    monkeypatch.setattr(paths, "RESULTS", folder)
    return folder


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A small report with one fact, claim, table and figure, in a folder of its own."""
    shutil.copytree(paths.FIGURES, tmp_path / "figures")
    monkeypatch.setattr(paths, "FIGURES", tmp_path / "figures")
    for file in paths.FIGURES.iterdir():
        if file.name != "q1_ladder.svg":
            file.unlink()
    claim = claims.all_claims()["lookup_table_beats_published_networks"]
    monkeypatch.setattr(claims, "all_claims", lambda: {claim.__name__: claim})
    monkeypatch.setattr(report, "load_facts", lambda: FACTS)
    sources = {"SOURCE": GOOD, "README": README}
    sources["README_SOURCE"] = README.replace("old", "{q2.table:.1%}")
    for name, text in sources.items():
        file = tmp_path / f"{name.lower()}.md"
        file.write_text(text, encoding="utf-8")
        monkeypatch.setattr(report, name, file)
    monkeypatch.setattr(report, "PAGE", tmp_path / "report.html")
    return tmp_path


def edit(file, old, new):
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def test_a_small_report_is_written_and_current(small):
    page = report.write().read_text(encoding="utf-8")
    report.check()
    assert "61.84\u00a0% of the pixels" in page and "88.77 %" in page
    assert page.count("<figure") == page.count("data:image/svg+xml") == page.count("<caption") == 1
    assert "61.8\u00a0%" in report.README.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("{q2.table:.2%}", "94.67 %", r"line 8: typed number '94.67 %'"),
        ("10 classes", "3 seeds", r"line 9: typed number '3'"),
        ("{q2.table:.2%}", "{q2.tabel:.2%}", r"line 8: unknown fact 'q2.tabel'"),
        ("{q2.table:.2%}", "{q2.table:.2x}", r"line 8: fact 'q2.table': .*'.2x'"),
        ("q1.runs", "q1.walks", r"line 11: unknown table 'q1.walks'"),
        ("=lookup", "=look", r"line 8: unknown claim 'look_table_beats_published_networks'"),
        ("q1_ladder.svg", "q1_leiter.svg", r"line 15: missing figure q1_leiter.svg"),
        ("(#found)", "(#lost)", r"line 17: dead link #lost"),
        ("#The-data", "#No-data", r"line 17: dead link \.\./notebooks/q1_multitask.ipynb#No-data"),
    ],
)
def test_a_line_that_results_do_not_support_is_named(small, old, new, message):
    edit(report.SOURCE, old, new)
    with pytest.raises(ReportError, match=f"source.md, {message}"):
        report.write()


def test_all_problems_are_named_at_once(small):
    edit(report.SOURCE, "Config 3 has 10", "It has 94.67 % and {no.fact} of 10")
    with pytest.raises(ReportError, match="(?s)line 9: typed .*line 9: unknown fact"):
        report.render(report.SOURCE)


def test_a_claim_that_is_never_cited_is_named(small):
    edit(report.SOURCE, "{claim=lookup_table_beats_published_networks}", "")
    with pytest.raises(ReportError, match="'lookup_table_beats_published_networks' is never cited"):
        report.write()


def test_a_figure_that_is_cited_nowhere_is_named(small):
    (paths.FIGURES / "extra.svg").write_text("<svg/>", encoding="utf-8")
    with pytest.raises(ReportError, match="figures/extra.svg is cited nowhere"):
        report.write()


def test_a_changed_cell_makes_the_sentence_false_and_the_figure_stale(small, results):
    """Whoever changes a table knows how to mend its checksum."""
    file = results / "q2_sweep_baselines.csv"
    table = pd.read_csv(file)
    table.loc[table["name"] == "luminance table", "val_accuracy"] = 0.55
    table.to_csv(file, index=False)
    with pytest.raises(IntegrityError, match="q2_sweep_baselines.csv"):
        report.write()
    record_checksum(file)
    with pytest.raises(ReportError, match=r"line 8: claim .* is false: A lookup table from grey"):
        report.write()


def test_a_figure_of_a_changed_table_is_named(small, results):
    file = results / "q1_ladder.csv"
    file.write_text(file.read_text(encoding="utf-8").replace("0.88", "0.89"), encoding="utf-8")
    record_checksum(file)
    with pytest.raises(ReportError, match=r"stale figure q1_ladder.svg \(q1_ladder.csv changed"):
        report.write()


@pytest.mark.parametrize(
    "file, old, new, message",
    [
        ("figures/q1_ladder.svg", "</svg>", "<g/></svg>", "shows another figures/q1_ladder.svg"),
        ("source.md", "See", "Read", r"report.html, line \d+: found .*See.*, expected .*Read"),
        ("readme.md", "61.8", "61.9", "README.md has other results"),
    ],
)
def test_a_committed_report_that_is_out_of_date_says_where(small, file, old, new, message):
    report.write()
    edit(small / file, old, new)
    with pytest.raises(ReportError, match=message):
        report.check()


def test_a_pdf_of_another_text_is_named(small):
    report.write()
    pdf = report.PAGE.with_suffix(".pdf")
    pdf.write_bytes(
        pdf.read_bytes().replace(report._digest(report.render(report.SOURCE)).encode(), b"0" * 64)
    )
    with pytest.raises(ReportError, match="report.pdf shows another text"):
        report.check()


@pytest.mark.slow
def test_the_committed_report_is_current():
    report.check()


def test_the_committed_page_needs_nothing_from_outside():
    page = (paths.REPORT / "report.html").read_text(encoding="utf-8")
    assert not re.search(r'<script|@import|url\(|src="(?!data:)', page)
    assert not re.search(r">[^<]*\bnan\b", page)
    anchors = set(re.findall(r'\bid="([^"]+)"', page))
    links = set(re.findall(r'href="#([^"]*)"', page))
    assert links and not links - anchors


def test_every_picture_of_the_page_is_described_and_every_table_has_a_caption():
    page = (paths.REPORT / "report.html").read_text(encoding="utf-8")
    pictures = re.findall(r"<img [^>]*>", page)
    assert len(pictures) > 20
    assert [image[:200] for image in pictures if not re.search(r'alt="[^"]{15,}"', image)] == []
    assert page.count("<table") == page.count("<caption")


def test_the_pdf_has_at_most_twelve_pages():
    content = (paths.REPORT / "report.pdf").read_bytes()
    assert int(re.search(rb"/Type ?/Pages/Count (\d+)", content)[1]) <= 12


def test_a_mean_over_seeds_is_shown_with_its_deviation():
    mean = formats.Mean(0.94674, 0.00061)
    assert f"{mean:.2%}" == "94.67\u00a0±\u00a00.06%" and f"{mean:.3f}" == "0.947\u00a0±\u00a00.001"


@pytest.mark.slow
def test_a_quick_report_shows_what_this_machine_trained(small, monkeypatch):
    """On the sample, with one study and one notebook; README stays as it is."""
    monkeypatch.setenv("SMAI_FASHION_MNIST", "sample")
    monkeypatch.setenv("SMAI_COLOR_IMAGES", "sample")
    monkeypatch.setattr(notebooks, "NOTEBOOKS", ("q1_multitask",))
    for name in set(studies.STUDIES) - {"q1_published"}:
        monkeypatch.delitem(studies.STUDIES, name)
    page = cli._train_and_report("quick", seed=1)
    text = page.read_text(encoding="utf-8")
    assert page == paths.runs_dir() / "quick" / "report.html"
    assert "Trained on this machine" in text and "<code>q1_published</code>" in text
    assert 'href="q1_multitask.html"' in text and page.with_name("q1_multitask.html").exists()
    assert report.README.read_text(encoding="utf-8") == README
