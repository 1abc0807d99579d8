"""What must not change unless an issue says so: the ids of recorded runs, and the shipped files."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

import smai_lib as smai
from smai_lib.core import paths

GOLDEN = json.loads(Path(__file__).with_name("golden.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", GOLDEN["run_ids"])
def test_a_recorded_run_keeps_its_id_so_that_its_folder_is_found_again(name):
    study = smai.load_study(name)
    fingerprint = study.results["data_fingerprint"].iloc[0]
    found = {}
    for planned in study.runs:
        run = replace(planned, data_fingerprint=fingerprint)
        if f"{run.name}/{run.seed}" in GOLDEN["run_ids"][name]:
            found[f"{run.name}/{run.seed}"] = run.run_id
    assert found == GOLDEN["run_ids"][name]


@pytest.mark.parametrize("file", GOLDEN["files"])
def test_a_shipped_file_keeps_every_byte(file):
    content = (paths.ROOT / file).read_bytes()
    assert hashlib.sha256(content).hexdigest() == GOLDEN["files"][file]
