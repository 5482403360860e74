"""Images from files that nobody vouches for: PNG, JPEG, TIFF, BMP and WebP.

The content says which format a file has, its name does not. What has one reading is read: 8 and 16
bit, palettes, alpha channels that hide nothing, EXIF rotation. What has several (CMYK, transparent
pixels, several pictures in one file, floating point) is refused with what to do, since two readers
would give two data sets. What was done to the pixels is in :attr:`Picture.notes`. Size is judged
from the header. Only pixels leave this module, no text chunk and no EXIF. Memory and time are
bounded by whoever calls (:mod:`medaug.data.sandbox`).
"""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from medaug.data.files import BadFile, check_format, open_regular

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".jpe", ".jfif")
"""File name endings, in lower case, of what is taken for an image."""

_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"BM": "BMP",
}
_OTHERS = {
    b"SIMPLE  =": "FITS",
    b"GIF8": "GIF",
    b"II+\x00": "BigTIFF",
    b"MM\x00+": "BigTIFF",
    b"\x00\x00\x00\x0cjP": "JPEG 2000",
    b"8BPS": "Photoshop",
    b"%PDF": "PDF",
}
_NAMED = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
}
_DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, KeyError, TypeError, struct.error, zlib.error,
)  # fmt: skip
DEPTHS = (10, 12, 14)
"""Bits a pixel that scanners give, and that files of 16 bits then hold."""
_ROUNDED = {"u1": 2, "u2": 2 * 257}
"""Levels between the colours of a grey pixel that was in another colour space (all WebP was)."""
_GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")
_ORIENTATION = 0x0112  # EXIF tag


@dataclass(frozen=True)
class ImageLimits:
    max_pixels: int = 40_000_000
    """Pillow itself warns above 89 million and refuses above 179 million."""
    max_ratio: float = 1100.0
    """Raster bytes per byte of a PNG or TIFF; deflate cannot exceed 1032."""


DEFAULT_IMAGE_LIMITS = ImageLimits()


@dataclass(frozen=True)
class Picture:
    """What is in an image file."""

    raster: NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32]
    """(H, W), or (H, W, 3) where it is RGB. Floating point has units of its own (DICOM)."""
    notes: tuple[str, ...] = ()
    """What was done to read it, each in a few words that fit many files."""

    @property
    def has_colour(self) -> bool:
        """Whether any pixel is not grey, but for what rounding leaves of it."""
        if self.raster.ndim == 2:
            return False
        apart = self.raster.max(-1) - self.raster.min(-1)
        return bool((apart > _ROUNDED.get(self.raster.dtype.str[1:], 0)).any())

    def channels(self, n: int) -> NDArray[np.float32]:
        """(n, H, W) float32, integers in [0, 1]: for one channel the luma (ITU-R 601) of what is
        coloured, for three the colours, or grey three times."""
        assert n in (1, 3)
        scale = np.float32({"u1": 0xFF, "u2": 0xFFFF}.get(self.raster.dtype.str[1:], 1))
        if n == 1:
            return (self._grey().astype(np.float32) / scale)[None]
        rgb = self.raster if self.raster.ndim == 3 else np.stack([self.raster] * 3, axis=-1)
        return np.ascontiguousarray((rgb.astype(np.float32) / scale).transpose(2, 0, 1))

    def _grey(self) -> NDArray[Any]:
        if self.raster.ndim == 2:
            return self.raster
        return np.asarray(Image.fromarray(self.raster, "RGB").convert("L"))


def bits_used(highest: int) -> int:
    """How many bits pixels up to ``highest`` need: one of :data:`DEPTHS`, else 16."""
    return next((bits for bits in DEPTHS if highest < 2**bits), 16)


def is_image(path: Path) -> bool:
    """Whether the name is one of an image that :func:`read_picture` may read."""
    return path.suffix.lower() in SUFFIXES


def is_grey_by_header(path: Path) -> bool:
    """Whether the file's header already says that no pixel is coloured.

    Raises:
        BadFile: the header cannot be read.
    """
    with open_regular(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        found = _format_of(file.read(33))
        file.seek(0)
        try:
            with Image.open(file, formats=(found,)) as image:
                return image.mode in _GREY_MODES
        except (*_DAMAGE, Image.DecompressionBombError):
            raise BadFile(f"damaged {found} data; copy the file again") from None


def read_picture(path: Path, limits: ImageLimits = DEFAULT_IMAGE_LIMITS) -> Picture:
    """Read an image file.

    Raises:
        BadFile: the file is not a regular file, no image, too large, damaged, or has more than one
            reading (see above).
    """
    check_format(path)
    if not is_image(path):
        raise BadFile(f"is no image by its name; use {', '.join(SUFFIXES)}")
    with open_regular(path) as file:
        head = file.read(33)
        file.seek(0)
        found = _format_of(head)
        notes = []
        named = _NAMED.get(path.suffix.lower(), path.suffix[1:].upper())
        if found != named:
            notes.append(f"is {found} and named as {named}: read by its content")
        if found == "PNG":
            _check_png_header(head, os.fstat(file.fileno()).st_size, limits)
        try:
            raster, more = _decode(file, found, limits)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise BadFile(f"more than {limits.max_pixels} pixels; crop or shrink it") from None
        # What Pillow raises on damaged files; its texts may quote the file.
        except _DAMAGE as error:
            kind = "truncated" if "truncated" in str(error) else "damaged"
            raise BadFile(f"{kind} {found} data; copy the file again") from None
    return Picture(raster, (*notes, *more))


def read_image(path: Path, limits: ImageLimits = DEFAULT_IMAGE_LIMITS) -> NDArray[np.float32]:
    """Read an image file as greyscale (H, W) float32 in [0, 1]; colours by their luma.

    Raises:
        BadFile: as :func:`read_picture`.
    """
    return read_picture(path, limits).channels(1)[0]


def read_image_mask(
    path: Path, shape: tuple[int, ...], limits: ImageLimits = DEFAULT_IMAGE_LIMITS
) -> NDArray[np.uint8]:
    """Read a two-valued image as a mask (H, W) of 0 and 1, for an image of ``shape``.

    Raises:
        BadFile: as :func:`read_picture`, or the mask is not one of such an image.
    """
    picture = read_picture(path, limits)
    if picture.has_colour:
        raise BadFile("a mask in colour; store 0 outside and one other grey value inside")
    raster = picture.raster if picture.raster.ndim == 2 else picture.raster[..., 0]
    if raster.shape != shape:
        raise BadFile(
            f"mask is {raster.shape[1]}x{raster.shape[0]}, its image {shape[1]}x{shape[0]}; "
            "export both at one size"
        )
    values = np.unique(raster)
    if len(values) > 2 or (len(values) == 2 and values[0] != 0):
        with path.open("rb") as file:
            lossy = _format_of(file.read(33)) == "JPEG"
        if lossy:
            raise BadFile("a mask in JPEG, which blurs its border; store masks as PNG")
        raise BadFile(f"mask has {len(values)} grey values; want 0 and one other")
    return (raster > 0).astype(np.uint8)


def _format_of(head: bytes) -> str:
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if found := next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None):
        return found
    other = next((name for magic, name in _OTHERS.items() if head.startswith(magic)), None)
    starts = f"is {other}" if other else f"starts {head[:4].hex(' ')}"
    raise BadFile(f"no image that is read here ({starts}); convert it to PNG")


def _check_png_header(head: bytes, file_bytes: int, limits: ImageLimits) -> None:
    """Judge the IHDR chunk. Pillow reads 16-bit colours as 8-bit in silence, so it is done here."""
    if len(head) < 33 or head[12:16] != b"IHDR":
        raise BadFile("truncated PNG data; copy the file again")
    width, height, depth, colour = struct.unpack(">IIBB", head[16:26])
    _check_size(width, height, limits)
    if depth > 8 and colour in (2, 4, 6):
        raise BadFile(f"{depth}-bit colour; convert it to 8 bit, or to 16-bit greyscale")
    bands = {2: 3, 4: 2, 6: 4}.get(colour, 1)
    _check_ratio(width * height * bands * depth / 8, file_bytes, limits)


def _check_ratio(raster_bytes: float, file_bytes: int, limits: ImageLimits) -> None:
    if raster_bytes > limits.max_ratio * file_bytes:
        raise BadFile(
            f"header promises {raster_bytes:.0f} bytes, the file has {file_bytes}: more than "
            f"{limits.max_ratio:g} to 1; export it again"
        )


def _check_size(width: int, height: int, limits: ImageLimits) -> None:
    if width * height > limits.max_pixels:
        raise BadFile(
            f"{width}x{height} is more than {limits.max_pixels} pixels; crop or shrink it"
        )


def _decode(
    file: BinaryIO, found: str, limits: ImageLimits
) -> tuple[NDArray[np.uint8] | NDArray[np.uint16], list[str]]:
    """The raster, (H, W) or (H, W, 3), and what was done to it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image = Image.open(file, formats=(found,))
    with image:
        _check_size(*image.size, limits)
        if found == "TIFF":  # other lossless formats are bounded by their size alone
            bands = len(image.getbands()) * (2 if "16" in image.mode else 1)
            file_bytes = os.fstat(file.fileno()).st_size
            _check_ratio(image.size[0] * image.size[1] * bands, file_bytes, limits)
        # A JPEG with several pictures in it opens as another format, an animated PNG as this one.
        if image.format != found or getattr(image, "n_frames", 1) > 1:
            raise BadFile("holds several pictures; export one picture per file")
        if image.format == "PNG" and image.get_format_mimetype() == "image/apng":
            raise BadFile("holds several pictures; export one picture per file")
        image.load()
        upright, notes = _upright(image)
        return _raster(upright, notes)


def _upright(image: Image.Image) -> tuple[Image.Image, list[str]]:
    if image.getexif().get(_ORIENTATION) in (None, 1):
        return image, []
    turned = ImageOps.exif_transpose(image)
    return turned, ["was stored rotated or mirrored (EXIF): turned upright"]


def _raster(
    image: Image.Image, notes: list[str]
) -> tuple[NDArray[np.uint8] | NDArray[np.uint16], list[str]]:
    mode = image.mode
    if mode == "P" or "transparency" in image.info:
        notes = [*notes, "has a palette or a transparent colour: applied"]
        image = image.convert("RGBA" if mode in ("P", "RGB") else "LA")
    if image.mode in ("LA", "RGBA", "La", "RGBa"):
        alpha = np.asarray(image.getchannel(image.getbands()[-1]))
        if (alpha != 255).any():
            raise BadFile(
                "has transparent pixels (alpha channel), which look different on every "
                "background; flatten it onto the one that is meant"
            )
        if mode not in ("P",) and "transparency" not in image.info:
            notes = [*notes, "has an alpha channel that hides nothing: dropped"]
        image = image.convert("L" if image.mode.startswith("L") else "RGB")
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > np.iinfo(np.uint16).max:
            raise BadFile("holds more than 16 bits a pixel; convert it to 16-bit greyscale")
        bits = bits_used(int(values.max()))
        of = f", of which it uses {bits} bits" * (bits < 16)
        return values.astype(np.uint16), [*notes, f"is 16-bit: read from 0 to 65535{of}"]
    if image.mode == "1":
        image = image.convert("L")
    if image.mode in ("L", "RGB"):
        raster = np.asarray(image)
        if raster.ndim == 3 and not (raster != raster[..., :1]).any():
            return np.ascontiguousarray(raster[..., 0]), notes
        return raster, notes
    advice = {
        "CMYK": "CMYK, made for print; convert it to RGB with the profile that it was made with",
        "YCbCr": "YCbCr; convert it to RGB",
        "LAB": "LAB; convert it to RGB",
        "F": "floating point; choose a range and convert it to 16-bit greyscale",
    }
    raise BadFile(f"colour mode {advice.get(image.mode, image.mode + '; convert it to RGB')}")
