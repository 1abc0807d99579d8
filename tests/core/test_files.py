"""Shipped files are what was recorded, and weights run no code."""

import os
import pickle

import pandas as pd
import pytest
from safetensors.torch import save_file

from smai_lib.core import paths
from smai_lib.core.errors import IntegrityError
from smai_lib.core.files import SUMS, read_weights, record_checksum, verify_checksum, write
from smai_lib.core.study import read_table


@pytest.fixture
def weights(config, data, report):
    file = report / "weights" / "toy.safetensors"
    save_file(config.build(data, 0)[1].state_dict(), file)
    record_checksum(file)
    return file


@pytest.fixture(params=["table", "weights"])
def shipped(request, report, weights):
    if request.param == "weights":
        return weights
    file = report / "results" / "numbers.csv"
    pd.DataFrame({"x": range(50)}).to_csv(file, index=False)
    record_checksum(file)
    return file


def read(file):
    return read_table(file.name) if file.suffix == ".csv" else read_weights(file)


@pytest.mark.parametrize("folder", [paths.RESULTS, paths.WEIGHTS], ids=lambda folder: folder.name)
def test_every_file_of_the_repository_is_what_was_recorded(folder):
    recorded = [line.split()[1] for line in (folder / SUMS).read_text("utf-8").splitlines()]
    assert recorded == sorted(file.name for file in folder.iterdir() if file.name != SUMS)
    for name in recorded:
        verify_checksum(folder / name)


def test_a_damaged_file_is_refused(shipped):
    content = shipped.read_bytes()
    assert read(shipped) is not None
    for damaged in (b"", content[:-1], content[:-2] + b"8\n"):
        shipped.write_bytes(damaged)
        with pytest.raises(IntegrityError, match=f"{shipped.name} is truncated or.*git checkout"):
            read(shipped)


def test_a_file_without_its_checksum_is_refused(shipped):
    shipped.with_name(SUMS).write_text("0" * 64 + "  other\n", "utf-8")
    with pytest.raises(IntegrityError, match=f"{shipped.name} .*SHA256SUMS says nothing"):
        read(shipped)


def test_a_missing_file_is_named(shipped):
    shipped.unlink()
    with pytest.raises(IntegrityError, match=f"{shipped.name} is missing.*git checkout"):
        read(shipped)


def test_a_file_reaches_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    calls = []
    replace, fsync = os.replace, os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (calls.append("fsync"), fsync(number)))
    monkeypatch.setattr(os, "replace", lambda *names: (calls.append("replace"), replace(*names)))
    write(tmp_path / "file", "é")
    assert calls == ["fsync", "replace"] and (tmp_path / "file").read_text("utf-8") == "é"


def test_what_is_no_weights_file_is_refused_and_runs_no_code(tmp_path, hostile):
    file = tmp_path / "own.safetensors"
    with pytest.raises(IntegrityError, match=f"{file} cannot be read as safetensors"):
        read_weights(file)
    file.write_bytes(pickle.dumps(hostile))
    with pytest.raises(IntegrityError, match=f"{file} cannot be read as safetensors"):
        read_weights(file)


def test_weights_of_another_config_are_refused_by_tensor(config, weights):
    with pytest.raises(IntegrityError, match="toy.safetensors does not fit.*Unexpected.*1.bias"):
        config.replace(bias=False).load_model(weights)
