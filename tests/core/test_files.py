"""Shipped files are what was recorded, and weights run no code."""

import os
import pickle
import runpy
import shutil
import subprocess

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
    for damaged in (b"", content[:60], content[:-1], content[:-2] + b"8\n"):
        shipped.write_bytes(damaged)
        with pytest.raises(IntegrityError, match=f"{shipped.name} is truncated or.*git checkout"):
            read(shipped)


@pytest.mark.parametrize("line", ["", "\0\xff", "0" * 64 + "  other", "0" * 63 + "  {}"])
def test_a_file_without_its_checksum_is_refused(shipped, line):
    shipped.with_name(SUMS).write_text(line.format(shipped.name), "utf-8")
    with pytest.raises(
        IntegrityError, match=f"{shipped.name} .*SHA256SUMS says nothing.*git checkout"
    ):
        read(shipped)


def test_a_missing_file_is_named(shipped):
    shipped.unlink()
    with pytest.raises(IntegrityError, match=f"{shipped.name} is missing.*git checkout"):
        read(shipped)


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="needs the command sha256sum")
def test_sha256sum_agrees_with_recorded_checksums(weights):
    other = weights.with_name("other")
    for content in ("first", "second"):
        write(other, content)
        record_checksum(other)
    command = ["sha256sum", "--check", "--strict", SUMS]
    done = subprocess.run(command, cwd=weights.parent, capture_output=True, text=True, check=True)
    assert done.stdout.count(": OK") == 2


def test_a_file_reaches_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    calls = []
    replace, fsync = os.replace, os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (calls.append("fsync"), fsync(number)))
    monkeypatch.setattr(os, "replace", lambda *names: (calls.append("replace"), replace(*names)))
    write(tmp_path / "file", "é")
    assert calls == ["fsync", "replace"] and (tmp_path / "file").read_text("utf-8") == "é"


def test_loaded_weights_give_the_same_logits(config, data, weights):
    model = config.load_model(weights)
    assert not model.training
    expected = config.build(data, 0)[1].eval()
    assert model(data.test.images).equal(expected(data.test.images))


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("was run",)


@pytest.mark.parametrize("content", [None, b"", b"not weights", pickle.dumps(Hostile())])
def test_what_is_no_weights_file_is_refused_and_runs_no_code(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "own.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(IntegrityError, match=f"{file} cannot be read as safetensors"):
        read_weights(file)
    assert not (tmp_path / "was run").exists()


def test_weights_of_another_config_are_refused_by_tensor(config, weights):
    with pytest.raises(IntegrityError, match="toy.safetensors does not fit.*Unexpected.*1.bias"):
        config.replace(bias=False).load_model(weights)
    with pytest.raises(IntegrityError, match=r"does not fit.*1.weight.*\[4, 16\].*\[5, 16\]"):
        config.replace(width=5).load_model(weights)


def test_an_installed_package_finds_the_repository_around_the_current_folder(tmp_path, monkeypatch):
    installed = tmp_path / "site-packages" / "smai_lib" / "core"
    results = tmp_path / "repository" / "report" / "results"
    installed.mkdir(parents=True)
    results.mkdir(parents=True)
    module = shutil.copy(paths.__file__, installed)
    monkeypatch.chdir(results.parent)
    assert runpy.run_path(module)["RESULTS"] == results
    monkeypatch.chdir(tmp_path)
    assert runpy.run_path(module)["ROOT"] == tmp_path
