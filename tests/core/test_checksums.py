import json

import pandas as pd
import pytest

from smai_lib.core import checksums, paths, study
from smai_lib.core.checksums import ChecksumError

SHIPPED = [
    file
    for folder in (paths.RESULTS, paths.WEIGHTS)
    for file in sorted(folder.iterdir())
    if file.name != checksums.SUMS
]


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Folders in place of those that ship, with one table."""
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(paths, "WEIGHTS", tmp_path / "weights")
    paths.RESULTS.mkdir()
    pd.DataFrame({"x": range(50)}).to_csv(paths.RESULTS / "made.csv", index=False)
    checksums.record(paths.RESULTS / "made.csv")
    return paths.RESULTS


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_what_ships_is_what_was_recorded(file):
    assert checksums.verify(file)


@pytest.mark.parametrize("folder", ["RESULTS", "WEIGHTS"])
def test_no_checksum_is_of_a_file_that_is_gone(folder):
    folder = getattr(paths, folder)
    lines = (folder / checksums.SUMS).read_text().splitlines()
    assert [line.split("  ")[1] for line in lines] == [
        file.name for file in SHIPPED if file.parent == folder
    ]


def test_a_shipped_table_reads(results):
    assert study.shipped("made.csv")["x"].tolist() == list(range(50))


@pytest.mark.parametrize("keep", [0, 1, 60, 138, 139])
def test_a_cut_table_is_refused_by_name(results, keep):
    file = results / "made.csv"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ChecksumError, match=r"made.csv is truncated or altered: .*git checkout"):
        study.shipped("made.csv")


@pytest.mark.parametrize(
    "sums", [None, "", "garbage", "\0\xff", "0" * 64 + "  other.csv\n", "0" * 63 + "  made.csv\n"]
)
def test_a_shipped_table_without_its_line_is_refused(results, sums):
    if sums is None:
        (results / checksums.SUMS).unlink()
    else:
        (results / checksums.SUMS).write_text(sums)
    with pytest.raises(
        ChecksumError,
        match=r"made.csv has no checksum, expected a line in SHA256SUMS .*git checkout",
    ):
        study.shipped("made.csv")


def test_a_wrong_line_is_an_altered_file(results):
    (results / checksums.SUMS).write_text("0" * 64 + "  made.csv\n")
    with pytest.raises(ChecksumError, match="expected 0{64}"):
        study.shipped("made.csv")


def test_a_missing_table_is_answered_with_those_that_are_there(results):
    with pytest.raises(ChecksumError, match=r"gone.csv is missing; .* has made.csv"):
        study.shipped("gone.csv")


def test_all_that_is_published_has_its_line_and_nothing_is_added_to_a_damaged_record(results, tiny):
    study.ship("new", tiny, {"": pd.DataFrame({"y": [1]})}, {})
    assert study.shipped("new.csv")["y"].tolist() == [1] and study.shipped("made.csv") is not None
    provenance = results / "provenance.json"
    assert checksums.verify(provenance) and list(json.loads(provenance.read_text())) == ["new"]
    provenance.write_text(provenance.read_text()[:-5])
    with pytest.raises(ChecksumError, match="provenance.json is truncated or altered"):
        study.ship("newer", tiny, {"": pd.DataFrame({"y": [1]})}, {})
    assert not (results / "newer.csv").exists()
