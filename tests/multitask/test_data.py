import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tracemalloc

import pytest
import torch

from smai_lib.core import paths, sources
from smai_lib.multitask import fashion_mnist


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A folder with the sample's files, accepted as if it were the full data set."""
    monkeypatch.setattr(fashion_mnist, "CHECKSUMS", fashion_mnist.SAMPLE_CHECKSUMS)
    return shutil.copytree(paths.SAMPLE, tmp_path / "copy")


def test_ink_is_the_mean_intensity():
    images = torch.tensor([[0, 255], [255, 0], [51, 51]], dtype=torch.uint8).reshape(3, 1, 1, 2)
    assert torch.allclose(fashion_mnist.ink_of(images), torch.tensor([0.5, 0.5, 0.2]))


def test_splits_are_disjoint_and_stratified(sample):
    assert [len(split.labels) for split in (sample.train, sample.validation, sample.test)] == [
        5400,
        600,
        1000,
    ]
    assert torch.bincount(sample.train.labels).tolist() == [540] * 10
    assert torch.bincount(sample.validation.labels).tolist() == [60] * 10
    seen = {image.numpy().tobytes() for image in sample.train.images}
    assert not any(image.numpy().tobytes() in seen for image in sample.validation.images)


def test_the_split_is_the_same_every_time(sample):
    again = fashion_mnist.fashion_mnist("sample", verbose=False)
    assert torch.equal(again.validation.images, sample.validation.images)
    assert again.fingerprint == sample.fingerprint


def test_the_full_data_set_where_it_is_had():
    full = fashion_mnist.fashion_mnist(verbose=False)
    if full.is_stand_in:
        pytest.skip("no source of the full data set on this machine")
    assert [len(split.labels) for split in (full.train, full.validation, full.test)] == [
        54000,
        6000,
        10000,
    ]
    assert torch.bincount(full.validation.labels).tolist() == [600] * 10


def test_plain_and_gzipped_files_in_torchvisions_layout(copy, sample):
    raw = copy / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name in fashion_mnist.CHECKSUMS:
        (raw / name).write_bytes(gzip.decompress((copy / f"{name}.gz").read_bytes()))
        (copy / f"{name}.gz").unlink()
    dataset = fashion_mnist.fashion_mnist(copy, verbose=False)
    assert dataset.source == "explicit directory"
    assert torch.equal(dataset.test.images, sample.test.images)


def test_a_truncated_file_is_named_with_the_way_out(copy):
    file = copy / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(sources.DataError, match=r"train-images.*cannot be read.*smai_lib fetch"):
        fashion_mnist.fashion_mnist(copy)


def test_an_altered_file_is_named_with_both_checksums(copy):
    file = copy / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(gzip.decompress(file.read_bytes()))
    content[-1] ^= 1
    file.write_bytes(gzip.compress(bytes(content)))
    expected = fashion_mnist.CHECKSUMS["t10k-labels-idx1-ubyte"]
    with pytest.raises(
        sources.DataError, match=rf"t10k-labels.*altered.*[0-9a-f]{{64}}.*{expected}.*fetch"
    ):
        fashion_mnist.fashion_mnist(copy)


def test_a_small_file_that_unpacks_without_end_is_altered_not_unpacked(copy):
    """What is read of it is bounded: 200 MB of zeros here, which pack to 1 MB."""
    file = copy / "train-images-idx3-ubyte.gz"
    file.write_bytes(gzip.compress(bytes(200_000_000), compresslevel=1))
    tracemalloc.start()
    with pytest.raises(sources.DataError, match="train-images.*altered"):
        fashion_mnist.fashion_mnist(copy)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 150_000_000  # Python's buffer doubles as it grows


def test_torchvisions_files_are_fetched_from_the_mirror_that_has_them(copy, tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "SYSTEM_DIR", tmp_path / "nowhere")
    monkeypatch.setattr(sources, "reachable", lambda url: True)
    monkeypatch.setenv("SMAI_DATA", str(tmp_path / "data"))
    from torchvision.datasets import FashionMNIST as Torchvision

    sums = [(file.name, hashlib.md5(file.read_bytes()).hexdigest()) for file in copy.glob("*.gz")]
    monkeypatch.setattr(Torchvision, "resources", sums)
    monkeypatch.setattr(
        Torchvision, "mirrors", [f"{tmp_path.as_uri()}/nowhere/", f"{copy.as_uri()}/"]
    )
    assert fashion_mnist.fashion_mnist(verbose=False).source == "torchvision download"


def test_a_package_without_the_files_is_one_line(copy, tmp_path):
    (copy / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(sources.DataError, match="has no t10k-labels-idx1-ubyte"):
        fashion_mnist._verified(copy)


def test_a_directory_that_lacks_a_file_is_refused(tmp_path):
    with pytest.raises(sources.DataError, match="has no train-images"):
        fashion_mnist.fashion_mnist(tmp_path)


def test_the_data_folder_comes_before_any_download(copy, tmp_path, monkeypatch):
    monkeypatch.setenv("SMAI_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(sources, "reachable", lambda url: pytest.fail("asked the network"))
    shutil.copytree(copy, tmp_path / "data" / "fashion-mnist")
    dataset = fashion_mnist.fashion_mnist()
    assert (dataset.source, dataset.directory) == (
        "data folder",
        tmp_path / "data" / "fashion-mnist",
    )


def test_without_any_source_the_sample_serves_loudly(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SMAI_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(fashion_mnist, "SYSTEM_DIR", tmp_path / "nowhere")
    monkeypatch.setattr(sources, "reachable", lambda url: False)
    monkeypatch.setenv("PATH", str(tmp_path))  # no apt-get
    dataset = fashion_mnist.fashion_mnist()
    assert dataset.is_stand_in
    assert "SAMPLE DATA" in capsys.readouterr().out


def test_debians_package_is_fetched_by_an_apt_that_needs_no_root(copy, tmp_path, monkeypatch):
    """The commands and the unpacking, with an apt-get that serves a package made here."""
    monkeypatch.setattr(fashion_mnist, "SYSTEM_DIR", tmp_path / "nowhere")
    monkeypatch.setattr(sources, "reachable", lambda url: False)
    monkeypatch.setenv("SMAI_DATA", str(tmp_path / "data"))
    tree = tmp_path / "package"
    shutil.copytree(copy, tree / fashion_mnist.SYSTEM_DIR.relative_to("/"))
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN" / "control").write_text(
        "Package: dataset-fashion-mnist\nVersion: 0\nArchitecture: all\nMaintainer: nobody\nDescription: test\n"
    )
    if not shutil.which("dpkg-deb"):
        pytest.skip("dpkg-deb is not on this machine")
    subprocess.run(["dpkg-deb", "-b", tree, tmp_path / "made.deb"], check=True, capture_output=True)
    apt = tmp_path / "bin" / "apt-get"
    apt.parent.mkdir()
    apt.write_text(
        "#!/bin/sh\nfor last; do :; done\n"
        f'if [ "$last" = dataset-fashion-mnist ]; then cp {tmp_path}/made.deb .; fi\n'
    )
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{apt.parent}{os.pathsep}{os.environ['PATH']}")
    cache = tmp_path / "data" / "fashion-mnist"
    assert (
        fashion_mnist.fashion_mnist(verbose=False).source == "Debian package dataset-fashion-mnist"
    )
    kept = [*(f"{name}.gz" for name in fashion_mnist.CHECKSUMS), "SOURCE"]
    assert sorted(file.name for file in cache.iterdir()) == sorted(kept)


def test_fetch_reports_source_checksum_and_size():
    environment = os.environ | {"SMAI_FASHION_MNIST": "sample", "SMAI_COLOR_IMAGES": "sample"}
    done = subprocess.run(
        [sys.executable, "-m", "smai_lib", "fetch"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    checksum = fashion_mnist.SAMPLE_CHECKSUMS["t10k-images-idx3-ubyte"]
    size = (paths.SAMPLE / "t10k-images-idx3-ubyte.gz").stat().st_size
    assert (
        f"{size:,} bytes" in done.stdout
        and checksum in done.stdout
        and "sample" in done.stdout
        and "PHOTO PATCHES" in done.stdout
    )
