import zlib

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from smai_lib.colorization import images as color_images
from smai_lib.colorization import palette
from smai_lib.colorization.images import UnusableImageError, open_picture
from smai_lib.core.sources import DataError


@pytest.fixture(autouse=True)
def no_other_source(tmp_path, monkeypatch):
    monkeypatch.delenv("SMAI_COLOR_IMAGES", raising=False)
    monkeypatch.setenv("SMAI_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("smai_lib.core.sources.reachable", lambda url: False)
    monkeypatch.setenv("PATH", "")  # no npm


def write_images(folder, count, size=(32, 32), mode="RGB"):
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(len(str(folder)))
    for number in range(count):
        pixels = generator.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / f"{number:03}.png")


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path / "pictures/train/horse", 20)
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


def test_classes_are_labelled_by_name_wherever_they_occur(folder):
    write_images(folder / "train/cat", 10)
    images = color_images.color_images(folder, verbose=False)
    assert images.names == ("cat", "horse") and images.test.labels.tolist() == [1] * 5
    assert torch.cat([images.train.labels, images.validation.labels]).bincount().tolist() == [
        10,
        20,
    ]
    assert images.validation.labels.bincount().tolist() == [1, 2]  # stratified


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
    image = color_images.read_image(tmp_path / "wide.png")
    assert image.shape == (3, 32, 32)
    assert image[:, :, 2:-2].flatten(1).unique(dim=1).flatten().tolist() == [10, 200, 30]


def test_unusable_files_are_skipped_and_counted(folder, capsys):
    (folder / "train/horse/notes.txt").write_text("no picture")
    write_images(folder / "train/horse/more", 1, mode="L")
    (folder / "train/horse/more/000.png").rename(folder / "train/horse/grey.png")
    images = color_images.color_images(folder)
    assert [
        reason.split(": ")[0].split(" cannot")[0].split("/")[-1] for reason in images.skipped
    ] == ["grey.png", "notes.txt"]
    assert len(images.train.images) + len(images.validation.images) == 20
    printed = capsys.readouterr().out
    assert (
        "skipped 2 files" in printed
        and "grey.png: found mode L" in printed
        and "notes.txt cannot be read" in printed
    )


def test_no_decoder_is_let_near_a_file_of_another_format(folder, monkeypatch):
    """Pillow hands EPS to Ghostscript; here, opening one at all would fail the test."""

    def accept(prefix):
        pytest.fail("a decoder that is not promised has looked at a file")

    Image.init()
    for name, (factory, _) in list(Image.OPEN.items()):
        if name not in color_images.FORMATS:
            monkeypatch.setitem(Image.OPEN, name, (factory, accept))
    (folder / "test/horse/000.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\n"
    )
    images = color_images.color_images(folder, verbose=False)
    assert (
        len(images.skipped) == 1
        and "000.png cannot be read as PNG, JPEG, WEBP, BMP" in images.skipped[0]
    )
    with pytest.raises(DataError, match="000.png cannot be read"):
        palette.color_picture(None, folder / "test/horse/000.png")


@pytest.mark.parametrize(
    "failure", [IndexError("x"), MemoryError(), RuntimeError("decoder"), OverflowError()]
)
def test_whatever_a_decoder_raises_skips_the_file(failure, folder, monkeypatch):
    load = PngImagePlugin.PngImageFile.load

    def fails(image):
        if "001.png" in str(image.filename):
            raise failure
        return load(image)

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fails)
    images = color_images.color_images(folder, verbose=False)
    assert len(images.skipped) == 2 and all(
        "horse/001.png cannot be read" in reason for reason in images.skipped
    )


def test_an_image_too_large_to_decode_is_refused_by_name_before_it_is_decoded(
    tmp_path, monkeypatch
):
    header = b"IHDR" + (20_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    file = tmp_path / "huge.png"
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + (13).to_bytes(4, "big")
        + header
        + zlib.crc32(header).to_bytes(4, "big")
        + bytes(4)
        + b"IDAT"
        + zlib.crc32(b"IDAT").to_bytes(4, "big")
    )
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda image: pytest.fail("decoded"))
    monkeypatch.setattr(
        Image, "MAX_IMAGE_PIXELS", None
    )  # Pillow's own limit is another, of 179 million
    with pytest.raises(
        DataError,
        match="huge.png cannot be read .*found 20000 x 20000 pixels, expected at most 67,108,864",
    ):
        color_images.read_image(file)


def test_stops_when_no_usable_image_is_left(folder):
    for file in (folder / "test/horse").iterdir():
        file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(DataError, match="no usable image among 5 .*read"):
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
    with pytest.raises(DataError, match="found 1 usable image, expected at least 2"):
        color_images.color_images(tmp_path / "p")


def test_a_folder_of_another_layout_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("SMAI_COLOR_IMAGES", str(tmp_path))
    with pytest.raises(DataError, match="neither cifar-10-batches-py/ nor .*train/<class>"):
        color_images.color_images()


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
    assert images.is_stand_in
    assert (
        min(len(images.train.images) / 8, len(images.validation.images), len(images.test.images))
        > 400
    )
    assert "PHOTO PATCHES" in capsys.readouterr().out
    assert images.train.images.float().std(1).mean() > 10  # they are colourful
    few = images.subset(5, 4, 3)
    assert [len(few.train.images), len(few.validation.images), len(few.test.images)] == [5, 4, 3]
    assert few.fingerprint != images.fingerprint


def test_a_picture_is_turned_upright_as_its_exif_says(tmp_path):
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :30] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera turned left: the left side belongs up
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    picture = open_picture(tmp_path / "turned.png")
    assert (
        picture.shape == (3, 60, 40) and picture[:, :30].min() == 255 and picture[:, 30:].max() == 0
    )


def test_sixteen_bits_of_grey_are_scaled_not_clipped(tmp_path):
    name = "grey.png"
    levels = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    Image.fromarray(levels).save(tmp_path / name)
    assert torch.equal(
        open_picture(tmp_path / name)[0], torch.from_numpy((levels / 257).round().astype(np.uint8))
    )


def test_what_is_transparent_is_white_and_a_palette_is_resolved(tmp_path):
    Image.new("RGBA", (40, 40), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("RGB", (40, 40), (10, 200, 30)).quantize(4).save(tmp_path / "few.png")
    assert open_picture(tmp_path / "clear.png").unique().tolist() == [255]
    assert open_picture(tmp_path / "few.png")[:, 0, 0].tolist() == [10, 200, 30]


@pytest.mark.parametrize(
    "name, limit, said",
    [
        ("picture.ppm", 10**6, "cannot identify image file"),
        ("large.png", 1000, "found 40 x 40 pixels, expected at most 1,000"),
        ("none.png", 10**6, "No such file"),
    ],
)
def test_what_cannot_be_coloured_is_refused_by_name(tmp_path, monkeypatch, name, limit, said):
    if name != "none.png":
        Image.new("RGB", (40, 40)).save(tmp_path / name)
    monkeypatch.setattr(color_images, "MOST_PIXELS", limit)
    with pytest.raises(UnusableImageError, match=f"{name} cannot be read .*{said}"):
        open_picture(tmp_path / name)
