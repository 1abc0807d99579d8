"""What must not change unless an issue says so: the ids of recorded runs, and the shipped files."""

import hashlib
import json
from pathlib import Path

import pytest

from smai_lib import studies
from smai_lib.core import paths
from smai_lib.core.runs import RunSpec

GOLDEN = json.loads(Path(__file__).with_name("golden.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", GOLDEN["run_ids"])
def test_a_recorded_run_keeps_its_id_so_that_its_folder_is_found_again(name):
    study = studies.STUDIES[name]("recorded")
    fingerprint = study.results()["data_fingerprint"].iloc[0]
    found = {}
    for spec in study.specs:
        run = RunSpec(spec.name, spec.study, spec.config, spec.seed, fingerprint, spec.root)
        found[f"{spec.name}/{spec.seed}"] = run.run_id
    assert found == GOLDEN["run_ids"][name]


@pytest.mark.parametrize("file", GOLDEN["files"])
def test_a_shipped_file_keeps_every_byte(file):
    content = (paths.ROOT / file).read_bytes()
    assert hashlib.sha256(content).hexdigest() == GOLDEN["files"][file]
