import gzip
import os
import shutil
import tracemalloc

import pytest
import torch

from smai_lib.core import paths
from smai_lib.core.errors import DataError
from smai_lib.multitask import data
from smai_lib.multitask.data import fashion_mnist
from tests.conftest import output_of


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """No source: an empty data folder, no copy on the system, no network."""

    def fail(*arguments, **keywords):
        raise DataError("no network")

    monkeypatch.delenv("SMAI_FASHION_MNIST", raising=False)
    monkeypatch.setenv("SMAI_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(data, "SYSTEM_DIR", tmp_path / "nowhere")
    monkeypatch.setattr(data, "download", fail)
    monkeypatch.setenv("PATH", str(tmp_path))  # no apt-get
    return tmp_path / "data"


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A folder with the sample's files, accepted as if it were the full data set."""
    monkeypatch.setattr(data, "CHECKSUMS", data.SAMPLE_CHECKSUMS)
    return shutil.copytree(paths.SAMPLE, tmp_path / "copy")


def test_ink_is_the_mean_intensity():
    images = torch.tensor([[0, 255], [255, 0], [51, 51]], dtype=torch.uint8).reshape(3, 1, 1, 2)
    assert torch.allclose(data.ink_of(images), torch.tensor([0.5, 0.5, 0.2]))


def test_splits_are_disjoint_stratified_and_always_the_same(sample):
    assert torch.bincount(sample.train.labels).tolist() == [540] * 10
    assert torch.bincount(sample.validation.labels).tolist() == [60] * 10
    assert torch.bincount(sample.test.labels).tolist() == [100] * 10
    images = torch.cat([split.images for split in (sample.train, sample.validation, sample.test)])
    assert len(images.unique(dim=0)) == len(images)
    again = fashion_mnist("sample", verbose=False)
    assert torch.equal(again.validation.images, sample.validation.images)
    assert again.fingerprint == sample.fingerprint


@pytest.mark.parametrize(
    "folder, rename, pack",
    [
        # unpacked, in torchvision's default folder
        ("FashionMNIST/raw", lambda name: name, gzip.decompress),
        # unpacked by a browser that kept the name
        ("raw", lambda name: f"{name}.gz", gzip.decompress),
        # packed under a plain name
        (".", lambda name: name, bytes),
        # unpacked by 7-zip
        (".", lambda name: name.replace("-idx", ".idx"), gzip.decompress),
    ],
)
def test_the_files_are_found_however_they_were_unpacked(folder, rename, pack, copy, alone, sample):
    target = alone / folder
    target.mkdir(parents=True)
    for name in data.CHECKSUMS:
        (target / rename(name)).write_bytes(pack((copy / f"{name}.gz").read_bytes()))
    for directory, source in ((alone, "explicit directory"), (None, "torchvision's folder")):
        dataset = fashion_mnist(directory, verbose=False)
        assert dataset.source == source
        assert torch.equal(dataset.test.images, sample.test.images)


@pytest.mark.parametrize(
    "place, damage, message",
    [
        ("elsewhere", lambda content: content[:-100], "cannot be read .*; replace it"),
        (
            "data/fashion-mnist",
            lambda content: gzip.compress(gzip.decompress(content)[:-1] + b"\xff"),
            "altered: .*expected .*; delete {file} and run .*fetch",
        ),
    ],
)
def test_a_damaged_file_is_named_with_a_fix_that_works(place, damage, message, copy, alone):
    folder = shutil.copytree(copy, alone.parent / place)
    file = folder / "t10k-images-idx3-ubyte.gz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=f"{file}.*{message.format(file=file)}"):
        fashion_mnist(None if "data" in place else folder)


def test_a_small_file_that_unpacks_without_end_is_not_unpacked(copy):
    file = copy / "train-images-idx3-ubyte.gz"
    file.write_bytes(gzip.compress(bytes(200_000_000), compresslevel=1))
    tracemalloc.start()
    with pytest.raises(DataError, match="train-images.*altered"):
        fashion_mnist(copy)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 150_000_000  # Python's buffer doubles as it grows


def test_a_folder_that_lacks_a_file_is_refused(copy):
    (copy / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="has no t10k-labels-idx1-ubyte"):
        fashion_mnist(copy)


def test_without_any_source_the_sample_serves_with_a_warning(alone, capsys):
    assert fashion_mnist().is_stand_in
    printed = capsys.readouterr().out
    assert "*** SAMPLE DATA ***" in printed
    assert "torchvision download: no network" in printed
    assert "dataset-fashion-mnist: apt-get is not installed" in printed


def test_torchvisions_files_are_fetched_once_and_kept(copy, alone, monkeypatch, sample):
    from torchvision.datasets import FashionMNIST as Torchvision

    resources = [(file.name, "its MD5 sum") for file in copy.glob("*.gz")]
    monkeypatch.setattr(Torchvision, "resources", resources)
    monkeypatch.setattr(
        data, "download", lambda urls, file, md5: shutil.copy(copy / file.name, file)
    )
    assert fashion_mnist(verbose=False).source == "torchvision download"
    monkeypatch.setattr(data, "download", pytest.fail)
    again = fashion_mnist()
    assert (again.source, again.directory) == ("torchvision download", alone / "fashion-mnist")
    assert again.fingerprint == sample.fingerprint


def test_debians_package_is_unpacked_without_root(copy, alone, tmp_path, monkeypatch):
    """The package is made here, and apt-get is a script that serves it."""
    if not shutil.which("dpkg-deb", path=os.defpath):
        pytest.skip("dpkg-deb is not on this machine")
    tree, package, apt = tmp_path / "tree", tmp_path / "made.deb", tmp_path / "apt-get"
    shutil.copytree(copy, tree / data.SYSTEM_DIR.relative_to("/"))
    (tree / "DEBIAN").mkdir()
    fields = ["Package: x", "Version: 0", "Architecture: all", "Maintainer: x", "Description: x"]
    (tree / "DEBIAN/control").write_text("\n".join([*fields, ""]))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.defpath}")
    output_of("dpkg-deb", "-b", tree, package)
    apt.write_text(f'#!/bin/sh\ncase "$*" in *"download dataset"*) cp {package} . ;; esac\n')
    apt.chmod(0o755)
    assert fashion_mnist(verbose=False).source == "Debian package dataset-fashion-mnist"
    kept = [*(f"{name}.gz" for name in data.CHECKSUMS), "SOURCE"]
    assert sorted(file.name for file in (alone / "fashion-mnist").iterdir()) == sorted(kept)


def test_the_source_is_described_with_checksums_and_sizes(monkeypatch, capsys):
    monkeypatch.setenv("SMAI_FASHION_MNIST", "sample")
    data.describe()
    printed = capsys.readouterr().out
    size = (paths.SAMPLE / "t10k-images-idx3-ubyte.gz").stat().st_size
    assert f"{size:,} bytes" in printed
    assert data.SAMPLE_CHECKSUMS["t10k-images-idx3-ubyte"] in printed
