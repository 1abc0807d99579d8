"""The report says what the recorded results say, whole, and for everyone."""

import re
import runpy
import shutil

import pandas as pd
import pytest

from smai_lib import document, studies
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


def record(folder, name, table):
    table.to_csv(file := folder / f"{name}.csv", index=False)
    checksums.record(file)


def test_the_committed_report_is_current():
    document.check()


def test_a_cell_that_was_changed_is_named(results):
    table = pd.read_csv(results / "q1_configs.csv")
    table.loc[table["name"] == "config 5", "test_accuracy"] = 0.7654
    table.to_csv(results / "q1_configs.csv", index=False)
    with pytest.raises(checksums.ChecksumError, match="q1_configs.csv is truncated or altered"):
        document.check()
    checksums.record(results / "q1_configs.csv")  # by someone who knows how
    with pytest.raises(document.ReportError, match=r"report.html, line \d+, is stale: .*expected .*76\.54"):
        document.check()


def test_a_claim_that_does_not_hold_is_refused():
    assert document.claim(True, "It rains.") == "It rains." and document.claim(False, "It rains.", "It is dry.") == "It is dry."
    with pytest.raises(document.ReportError, match="do not bear out 'It  ?rains.'"):
        document.claim(False, "It\nrains.")


def test_a_link_to_nothing_is_refused(values):
    for broken, name in ((values["section"], "No such heading"), (values["file"], "no/such/file.py")):
        with pytest.raises(document.ReportError, match=name):
            broken(name)


def test_a_missed_bar_needs_what_was_tried(values, monkeypatch):
    assert values["tried"]()
    monkeypatch.delitem(values["TRIED"], "Q2, U-Net")
    with pytest.raises(document.ReportError, match="nothing about the missed bar 'Q2, U-Net"):
        values["tried"]()


def test_studies_are_spoken_of_as_they_come(results, tmp_path):
    """Some of the published runs, the ladder and the residual network; their figures are made up."""
    ten, best = (pd.read_csv(results / f"{name}.csv") for name in ("q1_configs", "q1_best"))
    recipe = best[best["name"] == "recipe"]
    ladder = pd.concat([recipe.head(3).assign(name=name, test_accuracy=recipe["test_accuracy"].head(3) - 0.005 * (12 - number))
                        for number, name in enumerate(dict.fromkeys(spec.name for spec in studies.recipe_ladder().specs))])
    for name, table in {"q1_published": ten.head(5).assign(test_mistaken_rmse=0.3), "q1_ladder": ladder, "q1_beyond": recipe}.items():
        record(results, name, table)
    text = document.render(tmp_path, drawn=False)
    for heading in ("**As published.**", "**Beyond the assignment's backbone.**", "The rungs are", "(5 of 11)"):
        assert heading in text
    assert "not recorded yet*" not in text and "nan" not in re.findall(r"[a-z]+", text)


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
    assert not re.findall(r"<th[^>]*>[a-z0-9]+_[a-z_]+</th>", page)  # names of columns are for people


def test_the_pdf_is_as_long_as_a_grader_reads():
    pages = int(re.search(rb"/Type/Pages/Count (\d+)", PAGE.with_suffix(".pdf").read_bytes())[1])
    assert 8 <= pages <= 14
