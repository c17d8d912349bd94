"""Decoding against Pillow itself, arrays written by hand, and files that are broken on purpose."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from iqa_robust.datasets import decode
from iqa_robust.datasets.decode import header_size, read_rgb
from iqa_robust.errors import DataError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (11, 17, 3), dtype=np.uint8)


def save(path: Path, pixels: NDArray[np.uint8] | Image.Image, **options: object) -> Path:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


def read(path: Path, *, exif: bool = False, resize: int | None = None, crop: int | None = None) -> NDArray[np.uint8]:
    """Decode, and check on the way that the header alone announced the same size."""
    pixels = read_rgb(path, exif, resize, crop)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (*header_size(path, exif, resize, crop), 3)
    return pixels


def refusal(path: Path, **options: object) -> str:
    with pytest.raises(DataError) as error:
        read(path, **options)  # type: ignore[arg-type]
    return str(error.value)


def png(color_type: int, channels: int, bits: int = 16, size: tuple[int, int] = (3, 2)) -> bytes:
    """A PNG written by hand, since Pillow writes no 16-bit RGB and no huge headers."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    width, height = size
    rows = b"".join(b"\0" + bytes(width * channels * bits // 8) for _ in range(min(height, 2)))
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("ending", ["png", "bmp", "webp"])
def test_lossless_files_come_back_exactly(tmp_path: Path, ending: str) -> None:
    options = {"lossless": True} if ending == "webp" else {}
    np.testing.assert_array_equal(read(save(tmp_path / f"a.{ending}", RGB, **options)), RGB)


def test_jpeg_is_what_pillow_decodes(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", RGB, quality=90)
    np.testing.assert_array_equal(read(path), np.asarray(Image.open(path)))


def test_the_ending_says_nothing(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", RGB)
    np.testing.assert_array_equal(read(path.rename(tmp_path / "a.jpg")), RGB)


def test_grayscale_is_repeated(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(save(tmp_path / "a.png", RGB[..., 0])), RGB[..., :1].repeat(3, axis=2))


def test_palette_and_bilevel(tmp_path: Path) -> None:
    palette = Image.fromarray(RGB).quantize(16)
    np.testing.assert_array_equal(read(save(tmp_path / "p.png", palette)), np.asarray(palette.convert("RGB")))
    bits = RGB[..., 0] > 127
    np.testing.assert_array_equal(
        read(save(tmp_path / "1.png", Image.fromarray(bits))), bits[..., None] * np.uint8([255] * 3)
    )


def test_opaque_alpha_is_dropped_and_transparency_refused(tmp_path: Path) -> None:
    alpha = np.full((11, 17, 1), 255, np.uint8)
    np.testing.assert_array_equal(read(save(tmp_path / "a.png", np.concatenate([RGB, alpha], 2))), RGB)
    alpha[3, 5] = 254
    path = save(tmp_path / "b.png", np.concatenate([RGB, alpha], 2))
    assert refusal(path) == f"{path}: expected opaque pixels, got transparency; put it on the study's background."


def test_a_transparent_color_is_transparency(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8), transparency=(0, 0, 0))
    assert refusal(path) == f"{path}: expected opaque pixels, got transparency; put it on the study's background."


@pytest.mark.parametrize(("color_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_are_refused(tmp_path: Path, color_type: int, channels: int) -> None:
    path = tmp_path / "deep.png"
    path.write_bytes(png(color_type, channels))
    message = refusal(path)
    assert message.startswith(f"{path}: expected 8 bits per channel in RGB or grayscale, got mode ")
    assert message.endswith(" from 16 bits; convert it the way the study showed it.")


def test_cmyk_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", Image.fromarray(RGB).convert("CMYK"))
    assert refusal(path) == (
        f"{path}: expected 8 bits per channel in RGB or grayscale, got mode CMYK;"
        " convert it the way the study showed it."
    )


def test_other_formats_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tiff", RGB)
    message = refusal(path)
    assert message.startswith(
        f"{path}: expected a whole BMP, JPEG, PNG or WEBP file, got one that cannot be read (UnidentifiedImageError: "
    )
    assert message.endswith("); fetch it again.")


@pytest.mark.parametrize("ending", ["png", "webp"])
def test_animations_are_refused(tmp_path: Path, ending: str) -> None:
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    path = save(tmp_path / f"a.{ending}", frames[0], save_all=True, append_images=frames[1:], duration=10)
    assert refusal(path) == f"{path}: expected one image, got an animation; store the frame that was rated."


def test_a_multi_picture_jpeg_is_its_first_picture(tmp_path: Path) -> None:
    first = Image.fromarray(RGB)
    path = save(tmp_path / "a.jpg", first, format="MPO", save_all=True, append_images=[Image.fromarray(255 - RGB)])
    with Image.open(path) as image:
        assert (image.format, getattr(image, "n_frames", 1)) == ("MPO", 2)
        expected = np.asarray(image)
    np.testing.assert_array_equal(read(path), expected)


@pytest.mark.parametrize("ending", ["png", "bmp", "jpg", "webp"])
@pytest.mark.parametrize("kept", [0.97, 0.5, 0.1, 0.0])
def test_truncated_files_are_errors(tmp_path: Path, ending: str, kept: float) -> None:
    whole = save(tmp_path / f"whole.{ending}", RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).read_bytes()
    path = tmp_path / f"cut.{ending}"
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(DataError) as error:
        read_rgb(path, False, None, None)
    assert str(error.value).startswith(f"{path}: expected a whole BMP, JPEG, PNG or WEBP file, got one that cannot be")


def test_any_broken_byte_is_an_image_or_a_data_error(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "PNG")
    whole = bytearray(buffer.getvalue())
    path = tmp_path / "a.png"
    for i in range(len(whole)):
        broken = whole.copy()
        broken[i] ^= 0xFF
        path.write_bytes(broken)
        try:
            assert read_rgb(path, False, None, None).ndim == 3
        except DataError as error:
            assert str(error).startswith(str(path))


def test_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    assert refusal(path) == f"{path}: the image file is missing; restore it or list the dataset again."


def test_too_many_pixels_are_refused_from_the_header(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(png(2, 3, bits=8, size=(8192, 8193)))  # one row above 64 Mi pixels, and no pixels to decode
    assert decode.MAX_PIXELS == 8192 * 8192
    assert refusal(path) == (
        f"{path}: 8192x8193 pixels (resized: 8192x8193) exceed the 67108864 allowed; leave it out or store it smaller."
    )


def test_far_too_many_pixels_are_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(2, 3, bits=8, size=(60000, 60000)))
    assert refusal(path) == f"{path}: has far more than the 67108864 pixels allowed; leave it out."


def test_resizing_cannot_explode_a_thin_image(tmp_path: Path) -> None:
    path = save(tmp_path / "thin.png", np.zeros((1, 5000), np.uint8))
    assert refusal(path, resize=512) == (
        f"{path}: 5000x1 pixels (resized: 2560000x512) exceed the 67108864 allowed; leave it out or store it smaller."
    )


@pytest.mark.parametrize(("resize", "size"), [(5, (5, 8)), (11, (11, 17)), (30, (30, 46))])
def test_resize_is_pillows_bicubic_of_the_short_side(tmp_path: Path, resize: int, size: tuple[int, int]) -> None:
    height, width = size  # 17 * 5 / 11 = 7.7, 17 * 30 / 11 = 46.4
    expected = np.asarray(Image.fromarray(RGB).resize((width, height), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(read(save(tmp_path / "a.png", RGB), resize=resize), expected)


def test_resize_of_an_upright_image(tmp_path: Path) -> None:
    assert read(save(tmp_path / "a.png", RGB.transpose(1, 0, 2)), resize=5).shape == (8, 5, 3)


def test_crop_is_central(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", RGB)
    np.testing.assert_array_equal(read(path, crop=5), RGB[3:8, 6:11])
    np.testing.assert_array_equal(read(path, crop=4), RGB[3:7, 6:10])  # the odd line stays below and right
    np.testing.assert_array_equal(read(path, crop=11), RGB[:, 3:14])


def test_crop_comes_after_resize(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", RGB)
    np.testing.assert_array_equal(read(path, resize=22, crop=20), read(path, resize=22)[1:21, 7:27])


def test_crop_larger_than_the_image(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", RGB)
    assert refusal(path, crop=12) == (
        f"{path}: 17x11 pixels are too few for crop=12; choose a smaller crop or a resize."
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", RGB, exif=exif)
    # Orientation k says where row 0 and column 0 of the stored array lie; written out from the EXIF table.
    upright = {
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.transpose(1, 0, 2),
        6: RGB.transpose(1, 0, 2)[:, ::-1],
        7: RGB.transpose(1, 0, 2)[::-1, ::-1],
        8: RGB.transpose(1, 0, 2)[::-1],
    }[orientation]
    np.testing.assert_array_equal(read(path, exif=True), upright)
    np.testing.assert_array_equal(read(path, exif=False), RGB)
