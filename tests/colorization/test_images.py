import numpy as np
import pytest
import torch
from PIL import Image

from smai_lib.colorization import images as color_images
from smai_lib.core.sources import DataError


@pytest.fixture(autouse=True)
def no_other_source(tmp_path, monkeypatch):
    monkeypatch.delenv("SMAI_COLOR_IMAGES", raising=False)
    monkeypatch.setenv("SMAI_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("smai_lib.core.sources.reachable", lambda url: False)
    monkeypatch.setattr("smai_lib.colorization.cifar10.fetch_npm", lambda cache: False)


def write_images(folder, count, size=(32, 32), mode="RGB"):
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(len(str(folder)))
    for number in range(count):
        pixels = generator.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / f"{number:03}.png")


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path / "pictures/train/horse", 20)
    write_images(tmp_path / "pictures/train/cat", 10)
    write_images(tmp_path / "pictures/test/horse", 5)
    return tmp_path / "pictures"


def test_folder_is_split_once_and_for_all(folder):
    images = color_images.color_images(folder, verbose=False)
    assert images.train.images.shape == (18, 3, 32, 32)
    assert images.validation.images.shape == (2, 3, 32, 32)
    assert images.test.images.shape == (5, 3, 32, 32)
    assert images.train.images.dtype == torch.uint8
    together = torch.cat([images.train.images, images.validation.images])
    assert len(together.flatten(1).unique(dim=0)) == 20
    again = color_images.color_images(folder, verbose=False)
    assert torch.equal(images.validation.images, again.validation.images)
    assert images.fingerprint == again.fingerprint
    assert images.source == "explicit directory" and not images.is_stand_in


def test_pixels_are_those_of_the_file(folder):
    with Image.open(folder / "test/horse/003.png") as image:
        expected = np.array(image)
    found = color_images.color_images(folder, verbose=False).test.images[3]
    assert np.array_equal(found.permute(1, 2, 0).numpy(), expected)


def test_class_choice(folder):
    write_images(folder / "test/cat", 1)
    everything = color_images.color_images(folder, classes="all", verbose=False)
    assert len(everything.train.images) + len(everything.validation.images) == 30
    cats = color_images.color_images(folder, classes="cat", verbose=False)
    assert len(cats.train.images) + len(cats.validation.images) == 10
    with pytest.raises(DataError, match="classes cat, horse, expected 'frog'.*all"):
        color_images.color_images(folder, classes="frog")


def test_a_changed_pixel_changes_the_fingerprint(folder):
    before = color_images.color_images(folder, verbose=False).fingerprint
    file = folder / "test/horse/000.png"
    pixels = np.array(Image.open(file))
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(file)
    assert color_images.color_images(folder, verbose=False).fingerprint != before


def test_any_size_is_resized_and_centre_cropped(tmp_path):
    pixels = np.zeros((64, 192, 3), np.uint8)
    pixels[:, 64:128] = (10, 200, 30)  # the centre of a wide picture
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    image = color_images.read_image(tmp_path / "wide.png", 32)
    assert image.shape == (3, 32, 32)
    assert image[:, :, 2:-2].flatten(1).unique(dim=1).flatten().tolist() == [10, 200, 30]
    assert color_images.read_image(tmp_path / "wide.png", 64).shape == (3, 64, 64)


def test_unusable_files_are_skipped_and_counted(folder, capsys):
    (folder / "train/horse/notes.txt").write_text("no picture")
    write_images(folder / "train/horse/more", 1, mode="L")
    (folder / "train/horse/more/000.png").rename(folder / "train/horse/grey.png")
    images = color_images.color_images(folder)
    assert images.skipped == 2
    assert len(images.train.images) + len(images.validation.images) == 20
    assert "skipped 2 files" in capsys.readouterr().out


def test_stops_when_no_usable_image_is_left(folder):
    for file in (folder / "test/horse").iterdir():
        file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(DataError, match="no usable image of class 'horse' among 5 .*read"):
        color_images.color_images(folder)
    for file in (folder / "test/horse").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="among 0 files; give a folder of RGB"):
        color_images.color_images(folder)


def test_too_small_images_are_named(folder):
    write_images(folder / "train/horse", 1, size=(40, 31))
    with pytest.raises(DataError, match="000.png: found 40 x 31 pixels, expected at least 32"):
        color_images.color_images(folder)


def test_one_training_image_cannot_be_split(tmp_path):
    write_images(tmp_path / "p/train/horse", 1)
    write_images(tmp_path / "p/test/horse", 1)
    with pytest.raises(DataError, match="found 1 usable image .* expected at least 2"):
        color_images.color_images(tmp_path / "p")


def test_a_folder_of_another_layout_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("SMAI_COLOR_IMAGES", str(tmp_path))
    with pytest.raises(DataError, match="neither cifar-10-batches-py/ nor .*train/<class>"):
        color_images.color_images()
    with pytest.raises(ValueError, match="size: found 48, expected one of 32, 64"):
        color_images.color_images(size=48)


def test_environment_then_data_folder(folder, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    folder.rename(tmp_path / "data/cifar10")
    assert color_images.color_images(verbose=False).source == "data folder"
    write_images(tmp_path / "other/train/horse", 2)
    write_images(tmp_path / "other/test/horse", 1)
    monkeypatch.setenv("SMAI_COLOR_IMAGES", str(tmp_path / "other"))
    chosen = color_images.color_images(verbose=False)
    assert (chosen.source, chosen.directory) == ("explicit directory", tmp_path / "other")


def test_photographs_are_the_last_resort(capsys):
    images = color_images.color_images()
    assert images.is_stand_in and images.classes == "all"
    assert min(len(images.train.images) / 8, len(images.validation.images), len(images.test.images)) > 400
    assert "PHOTO PATCHES" in capsys.readouterr().out
    assert images.train.images.float().std(1).mean() > 10  # they are colourful
    few = images.subset(5, 4, 3)
    assert [len(few.train.images), len(few.validation.images), len(few.test.images)] == [5, 4, 3]
    assert few.fingerprint != images.fingerprint
