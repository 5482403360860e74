"""Images from strangers: plain rasters are read exactly, everything else is refused by name."""

import io
import os
import socket
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from medaug.data.files import BadFile
from medaug.data.images import (
    ImageLimits,
    is_image,
    read_image,
    read_image_mask,
    read_picture,
)

pytestmark = pytest.mark.filterwarnings("error")  # Pillow's bomb warning would reach the user

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def save(path: Path, array=GREY, mode=None, **options) -> Path:
    Image.fromarray(array, mode).save(path, **options)
    return path


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int = 8, colour: int = 0, rows: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def test_greyscale_png_is_read_exactly(tmp_path):
    image = read_image(save(tmp_path / "a.png"))
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, GREY.astype(np.float32) / np.float32(255))


def test_rgb_becomes_luma(tmp_path):
    rgb = np.zeros((4, 4, 3), np.uint8)
    rgb[..., 0], rgb[..., 1], rgb[..., 2] = 200, 100, 50
    image = read_image(save(tmp_path / "a.png", rgb))
    np.testing.assert_allclose(image * 255, 0.299 * 200 + 0.587 * 100 + 0.114 * 50, atol=1)
    np.testing.assert_allclose(read_image(save(tmp_path / "a.JPEG", rgb)), image, atol=0.02)


def test_one_bit_png_spans_the_range(tmp_path):
    save(tmp_path / "a.png", np.eye(8, dtype=bool))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.eye(8))


def test_an_upright_exif_tag_is_accepted(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 1
    read_image(save(tmp_path / "a.jpg", exif=exif))


def bmp_bomb(path: Path) -> None:
    small = io.BytesIO()
    Image.fromarray(GREY).save(small, "BMP")
    data = bytearray(small.getvalue())
    data[18:26] = struct.pack("<ii", 60_000, 60_000)
    path.write_bytes(data)


def tiff_bomb(path: Path, side: int) -> None:
    """A TIFF of one deflated strip of zeros whose header promises ``side`` x ``side`` pixels."""
    strip = zlib.compress(bytes(1000))
    entries = [
        (256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1),
        (273, 4, 1, 200), (277, 3, 1, 1), (278, 4, 1, side), (279, 4, 1, len(strip)),
    ]  # fmt: skip
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    path.write_bytes((head + body).ljust(200, b"\0") + strip)


def webp_bomb(path: Path) -> None:
    """A lossless WebP whose header promises 16,383 x 16,383 pixels."""
    size = (16382 | 16382 << 14).to_bytes(4, "little")
    body = b"VP8L" + struct.pack("<I", 10) + b"\x2f" + size + bytes(5)
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body)


def test_content_decides_whatever_the_name(tmp_path):
    for written in ("PNG", "TIFF", "BMP", "WEBP"):
        options = {"lossless": True} if written == "WEBP" else {}
        for ending in ("png", "jpg", "tif", "bmp", "webp"):
            path = tmp_path / f"{written}.{ending}"
            Image.fromarray(GREY).save(path, written, **options)
            picture = read_picture(path)
            np.testing.assert_array_equal(picture.raster, GREY)
            right = written.lower()[:3] == ending[:3]
            assert any("read by its content" in note for note in picture.notes) != right


def test_sixteen_bits_are_kept(tmp_path):
    deep = np.linspace(0, 65_535, 48).astype(np.uint16).reshape(6, 8)
    for name in ("a.png", "a.tif"):
        Image.fromarray(deep).save(tmp_path / name)
        picture = read_picture(tmp_path / name)
        assert picture.raster.dtype == np.uint16
        np.testing.assert_array_equal(picture.raster, deep)
        np.testing.assert_allclose(picture.channels(1)[0], deep / 65_535, rtol=1e-6)
        assert picture.channels(3).shape == (3, 6, 8)


def test_colour_stays_colour_and_grey_in_three_channels_is_grey(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    picture = read_picture(save(tmp_path / "a.png", rgb))
    assert picture.has_colour
    np.testing.assert_allclose(picture.channels(3), rgb.transpose(2, 0, 1) / 255, rtol=1e-6)
    grey = read_picture(save(tmp_path / "b.png", np.stack([GREY] * 3, -1)))
    assert not grey.has_colour
    np.testing.assert_array_equal(grey.raster, GREY)


def test_palettes_and_alpha_that_hides_nothing_are_read(tmp_path):
    rgb = np.zeros((6, 8, 3), np.uint8)
    rgb[:3] = (200, 30, 40)
    Image.fromarray(rgb).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "p.png")
    picture = read_picture(tmp_path / "p.png")
    np.testing.assert_allclose(picture.raster.astype(int), rgb, atol=3)
    assert picture.notes
    opaque = np.dstack([rgb, np.full((6, 8), 255, np.uint8)])
    picture = read_picture(save(tmp_path / "a.png", opaque))
    np.testing.assert_array_equal(picture.raster, rgb)
    assert picture.notes == ("has an alpha channel that hides nothing: dropped",)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_rotation_is_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = read_picture(save(tmp_path / "a.png", exif=exif))
    stored = Image.open(tmp_path / "a.png")
    upright = np.asarray(ImageOps.exif_transpose(stored))
    np.testing.assert_array_equal(picture.raster, upright)
    assert "turned upright" in picture.notes[0]


def bad_files() -> dict:
    """Name -> (file name, how to write it, what the message says)."""
    alpha = np.zeros((4, 4, 4), np.uint8)
    cmyk = Image.new("CMYK", (8, 8))
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)).save(
        whole, "PNG"
    )
    rgb16 = (b"\0" + b"\x12\x34" * 12) * 4
    return {
        "16-bit RGB": ("a.png", lambda p: p.write_bytes(png(4, 4, 16, 2, rgb16)), "16-bit colour"),
        "alpha": ("a.png", lambda p: save(p, alpha), "transparent pixels"),
        "grey and alpha": ("a.png", lambda p: Image.new("LA", (4, 4)).save(p), "transparent pix"),
        "colour key": ("a.png", lambda p: save(p, transparency=0), "transparent pixels"),
        "animated": (
            "a.png",
            lambda p: Image.fromarray(GREY).save(
                p, save_all=True, append_images=[Image.fromarray(255 - GREY)]
            ),
            "several pictures",
        ),
        "CMYK": ("a.jpg", lambda p: cmyk.save(p), "CMYK"),
        "multi-picture": (
            "a.jpg",
            lambda p: Image.fromarray(GREY).save(
                p, "MPO", save_all=True, append_images=[Image.fromarray(255 - GREY)]
            ),
            "several pictures",
        ),
        "two pages": (
            "a.tif",
            lambda p: Image.fromarray(GREY).save(
                p, save_all=True, append_images=[Image.fromarray(255 - GREY)]
            ),
            "several pictures",
        ),
        "moving WebP": (
            "a.webp",
            lambda p: Image.fromarray(GREY).save(
                p, save_all=True, append_images=[Image.fromarray(255 - GREY)], lossless=True
            ),
            "several pictures",
        ),
        "float TIFF": (
            "a.tif",
            lambda p: Image.fromarray(np.ones((4, 4), np.float32)).save(p),
            "floating point",
        ),
        "CMYK TIFF": ("a.tif", lambda p: cmyk.save(p), "CMYK, made for print"),
        "BMP bomb": ("a.bmp", bmp_bomb, "more than"),
        "TIFF bomb": ("a.tif", lambda p: tiff_bomb(p, 60_000), "more than"),
        "thin TIFF bomb": ("a.tif", lambda p: tiff_bomb(p, 6_000), "1100 to 1"),
        "WebP bomb": ("a.webp", webp_bomb, "more than|damaged|truncated"),
        "GIF": ("a.png", lambda p: save(p, format="GIF"), "is GIF"),
        "PDF": ("a.jpg", lambda p: p.write_bytes(b"%PDF-1.7 " + bytes(64)), "is PDF"),
        "FITS": ("a.png", lambda p: p.write_bytes(b"SIMPLE  =" + b" " * 2871), "is FITS"),
        "text": ("a.jpg", lambda p: p.write_text("hello world"), "starts 68 65 6c 6c"),
        "empty": ("a.png", lambda p: p.touch(), "empty"),
        "other ending": ("a.gif", lambda p: save(p), "no image by its name"),
        "truncated PNG": ("a.png", lambda p: p.write_bytes(whole.getvalue()[:2000]), "truncated"),
        "header only": ("a.png", lambda p: p.write_bytes(whole.getvalue()[:20]), "truncated"),
        "bit flip": (
            "a.png",
            lambda p: p.write_bytes(
                whole.getvalue()[:900] + b"\xff\x00\xff" + whole.getvalue()[903:]
            ),
            "damaged|truncated",
        ),
        "zero size": ("a.png", lambda p: p.write_bytes(png(0, 0)), "damaged|truncated"),
        "bomb": ("a.png", lambda p: p.write_bytes(png(60_000, 60_000)), "60000x60000 is more"),
        "thin bomb": ("a.png", lambda p: p.write_bytes(png(6000, 6000)), "1100 to 1"),
        "text bomb": (
            "a.png",
            lambda p: p.write_bytes(
                png(1, 1, rows=b"\0\0")[:33]
                + chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(90_000_000)))
                + png(1, 1, rows=b"\0\0")[33:]
            ),
            "damaged",
        ),
    }


@pytest.mark.parametrize("kind", bad_files())
def test_bad_images_are_refused_quickly(tmp_path, kind):
    name, write, message = bad_files()[kind]
    write(tmp_path / name)
    start = time.process_time()
    with pytest.raises(BadFile, match=message) as error:
        read_image(tmp_path / name)
    assert time.process_time() - start < 5
    assert "\n" not in str(error.value)
    assert str(tmp_path) not in str(error.value)


def jpeg_bomb(path: Path) -> None:
    """A small file whose frame header promises 65,000 x 65,000 pixels."""
    small = io.BytesIO()
    Image.fromarray(GREY).save(small, "JPEG")
    data = bytearray(small.getvalue())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65_000, 65_000)
    path.write_bytes(data)


@pytest.mark.parametrize("limit", [1000, 10**8, 10**10])
def test_jpeg_bomb_is_refused_from_its_header(tmp_path, limit):
    jpeg_bomb(tmp_path / "a.jpg")
    with pytest.raises(BadFile, match="pixels; crop or shrink"):
        read_image(tmp_path / "a.jpg", ImageLimits(max_pixels=limit))


def test_special_files_are_refused_without_opening_them(tmp_path):
    real = save(tmp_path / "real.png")
    (tmp_path / "link.png").symlink_to(real)
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "fifo.png")
    for name, message in (("link", "symbolic link"), ("folder", "folder"), ("fifo", "FIFO")):
        with pytest.raises(BadFile, match=message):
            read_image(tmp_path / f"{name}.png")
    with pytest.raises(BadFile, match="missing"):
        read_image(tmp_path / "none.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.png"))
        with pytest.raises(BadFile, match="device or socket"):
            read_image(tmp_path / "socket.png")


@pytest.mark.parametrize("name", ["a\nb.png", "x" * 251 + ".png", "a\udcff.png"])
def test_odd_names_are_refused(tmp_path, name):
    with pytest.raises(BadFile, match="file name"):
        read_image(tmp_path / name)


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png")
    decode = Image.open

    def open_and_append(file, **options):
        with path.open("ab") as other:
            other.write(b"more")
        return decode(file, **options)

    monkeypatch.setattr(Image, "open", open_and_append)
    with pytest.raises(BadFile, match="changed during ingest"):
        read_image(path)


def test_masks(tmp_path):
    disc = np.zeros((6, 8), bool)
    disc[2:4, 3:6] = True
    for name, array in (("a", disc), ("b", disc * np.uint8(255)), ("c", disc * np.uint8(1))):
        mask = read_image_mask(save(tmp_path / f"{name}.png", array), (6, 8))
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, disc)
    empty = save(tmp_path / "d.png", np.zeros((6, 8), np.uint8))
    assert not read_image_mask(empty, (6, 8)).any()
    with pytest.raises(BadFile, match="mask is 8x6, its image 9x6"):
        read_image_mask(empty, (6, 9))
    with pytest.raises(BadFile, match="48 grey values"):
        read_image_mask(save(tmp_path / "e.png"), (6, 8))
    with pytest.raises(BadFile, match="store masks as PNG"):
        read_image_mask(save(tmp_path / "f.jpg"), (6, 8))


def test_is_image():
    names = ("a.png", "b.JPG", "c.jpeg", "d.dcm", "png", "e.TIFF", "f.webp")
    assert [name for name in names if is_image(Path(name))] == [
        *("a.png", "b.JPG", "c.jpeg", "e.TIFF", "f.webp")
    ]
