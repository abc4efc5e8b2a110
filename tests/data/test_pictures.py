"""Image files of any kind become 48 x 48 grey levels, or are refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image


def with_picture(root, content):
    (root / "train" / "a" / "odd").write_bytes(content)
    return root


def odd_one(dataset):
    """What the picture became that `with_picture` put in."""
    return dataset.train.images[dataset.train.sources.index("train/a/odd")]


def solid(mode, colour, size=(60, 80)):
    return Image.new(mode, size, colour)


@pytest.mark.parametrize(
    ("picture", "format", "grey"),
    [
        # luma is .299 R + .587 G + .114 B
        (solid("RGB", (255, 0, 0)), "PNG", 76),
        (solid("RGB", (0, 255, 0)), "BMP", 150),
        (solid("RGB", (0, 0, 255)), "WEBP", 29),
        (solid("RGB", (10, 20, 30)), "PPM", 18),
        (solid("RGBA", (255, 0, 0, 255)), "PNG", 76),
        (solid("P", 5), "GIF", None),
        (solid("1", 1), "PNG", 255),
        (solid("L", 77, (48, 48)), "TIFF", 77),
        (solid("L", 77, (200, 10)), "JPEG", 77),
        (Image.fromarray(np.full((48, 48), 0x8012, np.uint16)), "PNG", 0x80),
        (Image.fromarray(np.full((30, 30), 0x00FF, np.uint16)), "TIFF", 0),
        # PGM of 16 bits
        (Image.fromarray(np.full((48, 48), 0x8012, np.int32)), "PPM", 0x80),
    ],
)
def test_any_picture_becomes_grey_levels(picture, format, grey, small_tree, write, read):
    dataset = read(
        with_picture(small_tree, write.picture(picture, format, **({"lossless": True} if format == "WEBP" else {})))
    )
    image = odd_one(dataset)
    assert image.shape == (48, 48)
    value = np.asarray(picture.convert("L"))[0, 0] if grey is None else grey
    assert np.abs(image.astype(int) - value).max() <= (1 if format in ("JPEG", "WEBP") else 0)


def test_larger_picture_is_shrunk_and_not_cut(small_tree, write, read):
    halves = np.zeros((96, 96), np.uint8)
    halves[:, 48:] = 255
    dataset = read(with_picture(small_tree, write.picture(halves)))
    image = odd_one(dataset)
    assert (image[:, :23] == 0).all()
    assert (image[:, 25:] == 255).all()


def test_picture_is_turned_as_its_camera_says(small_tree, write, read, noise):
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    dataset = read(with_picture(small_tree, write.picture(noise(99)[::-1, ::-1].copy(), exif=exif)))
    np.testing.assert_array_equal(odd_one(dataset), noise(99))


def test_pictures_of_32_bits_are_refused(small_tree, write, refusal):
    picture = Image.fromarray(np.full((48, 48), 70000, np.int32))
    message = refusal(with_picture(small_tree, write.picture(picture, "TIFF")))
    assert "faces/train/a/odd: not readable as an image (32 bits" in message


@pytest.mark.parametrize("keep", [8, 40, 0.5, -30])
@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_cut_picture_is_refused(format, keep, small_tree, write, refusal, noise):
    content = write.picture(noise(99), format)
    root = with_picture(small_tree, content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    assert "faces/train/a/odd: not readable as an image (" in refusal(root)
