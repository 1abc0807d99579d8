import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from smai_lib.colorization import images
from smai_lib.colorization.images import color_images, open_picture, read_image
from smai_lib.core.errors import DataError, ImageError

pytestmark = pytest.mark.usefixtures("web")


def write_images(folder, count, size=(32, 32)):
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(len(str(folder)))
    for number in range(count):
        pixels = generator.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path / "pictures/train/horse", 20)
    write_images(tmp_path / "pictures/test/horse", 5)
    return tmp_path / "pictures"


def test_a_folder_is_split_the_same_every_time(folder):
    found = color_images(folder, verbose=False)
    together = torch.cat([found.train.images, found.validation.images])
    assert len(together.unique(dim=0)) == 20 and len(found.validation.images) == 2
    file = folder / "test/horse/003.png"
    pixels = np.array(Image.open(file))
    assert np.array_equal(found.test.images[3].permute(1, 2, 0).numpy(), pixels)
    assert found.fingerprint == color_images(folder, verbose=False).fingerprint
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(file)
    assert found.fingerprint != color_images(folder, verbose=False).fingerprint


def test_classes_are_labelled_by_name_and_validation_is_stratified(folder):
    write_images(folder / "train/cat", 10)
    found = color_images(folder, verbose=False)
    assert found.names == ("cat", "horse") and found.test.labels.tolist() == [1] * 5
    assert found.train.labels.bincount().tolist() == [9, 18]
    assert found.validation.labels.bincount().tolist() == [1, 2]


def test_other_labels_are_other_data(folder):
    """Two classes of equal size: the same pictures in the same splits, and classes exchanged."""
    write_images(folder / "train/cat", 20)
    before = color_images(folder, verbose=False)
    (folder / "test/cat").mkdir()
    (folder / "test/horse/000.png").rename(folder / "test/cat/000.png")
    after = color_images(folder, verbose=False)
    assert torch.equal(before.test.images, after.test.images)
    assert before.fingerprint != after.fingerprint


def test_hidden_and_system_files_are_no_pictures_and_no_classes(folder):
    before = color_images(folder, verbose=False)
    for part in ("train", "test"):
        for name in (".ipynb_checkpoints", "__MACOSX", ".git"):
            write_images(folder / part / name, 1)
        for name in ("._000.png", ".DS_Store", "Thumbs.db", "desktop.ini"):
            (folder / part / "horse" / name).write_bytes(b"junk")
    after = color_images(folder, verbose=False)
    assert (after.names, after.skipped) == (("horse",), ())
    assert after.fingerprint == before.fingerprint


def test_what_cannot_be_used_is_skipped_by_name(folder, capfd):
    train = folder / "train/horse"
    (train / "notes.txt").write_text("no picture")
    Image.new("RGB", (40, 31)).save(train / "thumbnail.png")
    (train / os.fsdecode(b"caf\xe9.png")).write_bytes(b"")  # a name that is not UTF-8
    found = color_images(folder)
    assert len(found.train.images) + len(found.validation.images) == 20
    printed = capfd.readouterr().out
    assert "skipped 3 files" in printed
    assert "thumbnail.png cannot be used: found 40 x 31 pixels, expected at least 32" in printed
    assert "notes.txt cannot be used: cannot identify" in printed
    assert "caf\\udce9.png cannot be used" in printed


@pytest.mark.parametrize("place", ["train", "test", "train/horse/more"])
def test_pictures_beside_or_below_the_classes_are_named(place, folder):
    before = color_images(folder, verbose=False)
    write_images(folder / place, 1)
    (folder / place / ".DS_Store").touch()
    after = color_images(folder, verbose=False)
    part = place.split("/")[0]
    assert after.skipped == (f"{folder / place / '000.png'} is not in {part}/<class>/",)
    assert after.fingerprint == before.fingerprint


def test_pictures_without_classes_are_named(folder):
    for part in ("train", "test"):
        (folder / part / "horse").rename(folder / f"{part}_horse")
        (folder / part).rmdir()
        (folder / f"{part}_horse").rename(folder / part)
    with pytest.raises(DataError, match="found 0 usable .*skipped 20 .* is not in train/<class>/"):
        color_images(folder)


def test_no_decoder_of_another_format_sees_a_file(folder, monkeypatch):
    """Pillow hands EPS to Ghostscript; here, opening one at all would fail the test."""

    def accept(prefix):
        pytest.fail("a decoder of another format has looked at a file")

    Image.init()
    for name, (factory, _) in list(Image.OPEN.items()):
        if name not in images.FORMATS:
            monkeypatch.setitem(Image.OPEN, name, (factory, accept))
    file = folder / "test/horse/000.png"
    file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\n")
    assert len(color_images(folder, verbose=False).skipped) == 1
    with pytest.raises(ImageError, match="000.png cannot be used: .*PNG, JPEG"):
        open_picture(file)


def test_whatever_a_decoder_raises_is_an_image_error(folder, monkeypatch):
    def fail(image):
        raise MemoryError

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)
    with pytest.raises(ImageError, match="001.png cannot be used"):
        open_picture(folder / "test/horse/001.png")


@pytest.mark.parametrize("part, count, least", [("train", 1, 2), ("test", 0, 1)])
def test_too_few_usable_pictures_are_a_data_error(part, count, least, folder):
    for file in sorted((folder / part / "horse").iterdir())[count:]:
        file.write_bytes(file.read_bytes()[:60])
    expected = f"{part}.*found {count} usable .*at least {least}; skipped .* cannot be used"
    with pytest.raises(DataError, match=expected):
        color_images(folder)


def test_a_folder_of_another_layout_is_refused(tmp_path, monkeypatch):
    (tmp_path / "train").mkdir()
    (tmp_path / "test").touch()
    monkeypatch.setenv("SMAI_COLOR_IMAGES", str(tmp_path))
    with pytest.raises(DataError, match="neither cifar-10-batches-py/ nor .*train/<class>"):
        color_images()


def test_the_environment_comes_before_the_data_folder(folder, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    folder.rename(tmp_path / "data/cifar10")
    assert color_images(verbose=False).source == "data folder"
    write_images(tmp_path / "other/train/horse", 2)
    write_images(tmp_path / "other/test/horse", 1)
    monkeypatch.setenv("SMAI_COLOR_IMAGES", str(tmp_path / "other"))
    found = color_images(verbose=False)
    assert found.directory == tmp_path / "other"


def test_without_any_source_photo_patches_serve_with_a_warning(capsys):
    found = color_images()
    assert found.is_stand_in
    assert min(len(found.train.images), len(found.validation.images), len(found.test.images)) > 400
    assert found.train.images.float().std(1).mean() > 10  # they are colourful
    printed = capsys.readouterr().out
    assert "*** PHOTO PATCHES" in printed and "npm package: npm is not installed" in printed


def test_a_wide_picture_is_resized_and_centre_cropped(tmp_path):
    wide = Image.new("RGB", (192, 64))
    wide.paste((10, 200, 30), (64, 0, 128, 64))
    wide.save(tmp_path / "wide.png")
    image = read_image(tmp_path / "wide.png")
    assert image.shape == (3, 32, 32)
    assert image[:, :, 2:-2].flatten(1).unique(dim=1).flatten().tolist() == [10, 200, 30]


@pytest.fixture(params=["png", "jpg"])
def turned(request, tmp_path):
    """A function that saves a picture, white on the left, with EXIF data."""
    picture = Image.new("RGB", (96, 64))
    picture.paste("white", (0, 0, 48, 64))

    def save(exif):
        file = tmp_path / f"turned.{request.param}"
        picture.save(file, exif=exif)
        return file

    return save


def test_a_picture_is_upright_as_its_exif_data_say(turned):
    exif = Image.Exif()
    exif[0x0112] = 6  # the left side belongs up
    for picture in (open_picture(turned(exif)), read_image(turned(exif))):
        assert picture[:, :10].float().mean() > 250 and picture[:, -10:].float().mean() < 5


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01"])
def test_a_picture_with_damaged_exif_data_stays_as_it_is(exif, turned, recwarn):
    file = turned(exif)
    recwarn.clear()
    picture = open_picture(file)
    assert picture.shape == (3, 64, 96) and picture[:, :, :40].float().mean() > 250
    assert not recwarn.list


def png(file, levels, bits, transparent=b"", size=None):
    """Write a PNG of grey levels (H, W) or RGB (H, W, 3), one colour of which is transparent."""
    height, width, *channels = levels.shape
    rows = levels.astype(">u2" if bits == 16 else np.uint8)
    if bits < 8:
        width *= 8 // bits
    header = struct.pack(">IIBBBBB", *size or (width, height), bits, len(channels) * 2, 0, 0, 0)
    with open(file, "wb") as out:
        out.write(b"\x89PNG\r\n\x1a\n")
        PngImagePlugin.putchunk(out, b"IHDR", header)
        if transparent:
            PngImagePlugin.putchunk(out, b"tRNS", transparent)
        packed = b"".join(b"\0" + row.tobytes() for row in rows)
        PngImagePlugin.putchunk(out, b"IDAT", zlib.compress(packed))
    return file


def test_sixteen_bits_of_grey_are_scaled_not_clipped(tmp_path):
    levels = np.arange(0, 65536, 16).reshape(64, 64)
    expected = (levels / 257).round()
    file = png(tmp_path / "grey.png", levels, 16)
    assert np.array_equal(open_picture(file)[0], expected)


@pytest.mark.parametrize(
    "bits, color, transparent",
    [
        (16, 1000, [1000]),
        (16, (1000, 2000, 3000), [1000, 2000, 3000]),
        (8, (10, 20, 30), [10, 20, 30]),
        (4, 0x33, [3]),  # two pixels a byte
        (2, 0x55, [1]),  # four
    ],
)
def test_the_transparent_colour_of_a_png_is_white(bits, color, transparent, tmp_path):
    levels = np.zeros((40, 40, *np.shape(color)), int)
    levels[:20] = color
    file = png(tmp_path / "clear.png", levels, bits, np.array(transparent, ">u2").tobytes())
    picture = open_picture(file)
    assert picture[:, :20].min() == 255 and picture[:, 20:].max() == 0


@pytest.mark.parametrize(
    "mode, color, expected",
    [
        ("RGBA", (255, 0, 0, 0), [255, 255, 255]),
        ("1", 1, [255, 255, 255]),
        ("P", 0, [10, 200, 30]),
    ],
)
def test_pictures_of_every_mode_train_as_they_are_coloured(mode, color, expected, tmp_path):
    image = Image.new(mode, (40, 40), color)
    if mode == "P":
        image.putpalette([10, 200, 30])
    image.save(tmp_path / "picture.png")
    for picture in (open_picture(tmp_path / "picture.png"), read_image(tmp_path / "picture.png")):
        assert picture[:, 0, 0].tolist() == expected


@pytest.mark.parametrize("size", [(20_000, 20_000), (1, 2**26)])
def test_a_picture_too_large_to_decode_is_refused_first(size, tmp_path, monkeypatch):
    """Narrow pictures of as many pixels take several times the memory and the time."""
    file = png(tmp_path / "huge.png", np.zeros((1, 1)), 8, size=size)
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda image: pytest.fail("decoded"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # Pillow's own limit is another
    with pytest.raises(ImageError, match="huge.png .*found {} x {} pixels, .*most".format(*size)):
        open_picture(file)


@pytest.mark.parametrize("name, reason", [("x.ppm", "cannot identify"), ("none.png", "No such")])
def test_what_is_no_picture_is_refused_by_name(name, reason, tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "x.ppm")
    with pytest.raises(ImageError, match=f"{name} cannot be used: .*{reason}.*PNG, JPEG"):
        open_picture(tmp_path / name)
