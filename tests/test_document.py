"""The report says what the recorded results say, whole, and for everyone."""

import re
import runpy
import shutil

import pandas as pd
import pytest

from smai_lib import document
from smai_lib.core import checksums, paths

PAGE = document.REPORT / "report.html"
LINK = re.compile(r'(?:src|href)="([^"]*)"')


@pytest.fixture(scope="module")
def page():
    return PAGE.read_text()


@pytest.fixture(scope="module")
def values():
    return runpy.run_path(str(document.REPORT / "values.py"))


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A copy of the recorded tables, which a test may alter."""
    shutil.copytree(paths.RESULTS, folder := tmp_path / "results")
    monkeypatch.setattr(paths, "RESULTS", folder)
    return folder


def test_the_committed_report_is_current():
    document.check()


def test_a_cell_that_was_changed_is_named(results):
    table = pd.read_csv(results / "q1_configs.csv")
    table.loc[table["name"] == "config 5", "test_accuracy"] = 0.7654
    table.to_csv(results / "q1_configs.csv", index=False)
    with pytest.raises(checksums.ChecksumError, match="q1_configs.csv is truncated or altered"):
        document.check()
    checksums.record(results / "q1_configs.csv")  # by someone who knows how
    with pytest.raises(
        document.ReportError, match=r"report.html, line \d+, is stale: .*expected .*76\.54"
    ):
        document.check()


def test_a_claim_that_does_not_hold_is_refused():
    assert (
        document.claim(True, "It rains.") == "It rains."
        and document.claim(False, "It rains.", "It is dry.") == "It is dry."
    )
    with pytest.raises(document.ReportError, match="do not bear out 'It  ?rains.'"):
        document.claim(False, "It\nrains.")


def test_a_link_to_nothing_is_refused(values):
    for broken, name in (
        (values["section"], "No such heading"),
        (values["file"], "no/such/file.py"),
    ):
        with pytest.raises(document.ReportError, match=name):
            broken(name)


def test_a_missed_bar_needs_what_was_tried(values, monkeypatch):
    assert values["tried"]()
    monkeypatch.delitem(values["TRIED"], "Q2, U-Net")
    with pytest.raises(document.ReportError, match="nothing about the missed bar 'Q2, U-Net"):
        values["tried"]()


def test_every_study_is_told_and_no_figure_is_missing(page):
    for told in (
        "As published.",
        "The rungs are",
        "Beyond the assignment&#39;s backbone.",
        "How far could it go?",
    ):
        assert told in page
    assert not re.search(r">[^<]*\bnan\b", page) and "recorded yet" not in page


def test_the_page_needs_nothing_from_outside_and_its_links_lead_somewhere(page):
    assert not re.search(r'<script|@import|url\(|src="(?!data:)', page)
    identifiers = set(re.findall(r'\bid="([^"]+)"', page))
    for target in set(LINK.findall(page)):
        file, _, anchor = target.partition("#")
        if target.startswith("#"):
            assert anchor in identifiers, target
        elif not target.startswith("data:"):
            assert (document.REPORT / file).is_file(), target


def test_every_picture_is_described_and_every_table_has_a_caption(page):
    pictures = re.findall(r"<img [^>]*>", page)
    assert len(pictures) > 8 and all(re.search(r'alt="[^"]{15,}"', picture) for picture in pictures)
    assert page.count("<table") == page.count("<caption") > 8
    assert not re.findall(
        r"<th[^>]*>[a-z0-9]+_[a-z_]+</th>", page
    )  # names of columns are for people


def test_the_pdf_is_as_long_as_a_grader_reads():
    pages = int(re.search(rb"/Type/Pages/Count (\d+)", PAGE.with_suffix(".pdf").read_bytes())[1])
    assert 8 <= pages <= 14
