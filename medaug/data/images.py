"""PNG and JPEG images from files that nobody vouches for.

An image is a plain 8-bit greyscale or RGB raster or it is refused: 16-bit, palette, transparent,
animated and rotated files all have more than one reading, and two readers would give two data
sets. Size is judged from the header. Only pixels leave this module, no text chunk and no EXIF.
Memory and time are bounded by whoever calls (:mod:`medaug.data.sandbox`).
"""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medaug.data.files import BadFile, open_regular

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
"""File name ending (in lower case) -> the only format that it may hold."""

_MAGIC = {"PNG": b"\x89PNG\r\n\x1a\n", "JPEG": b"\xff\xd8\xff"}
_OTHERS = {
    b"SIMPLE  =": "FITS",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"RIFF": "WebP",
    **{magic: name for name, magic in _MAGIC.items()},
}
_PNG_COLOUR = {3: "a palette", 4: "an alpha channel", 6: "an alpha channel"}
_ORIENTATION = 0x0112  # EXIF tag
_UNROTATED = (None, 1)


@dataclass(frozen=True)
class ImageLimits:
    max_pixels: int = 40_000_000
    """Pillow itself warns above 89 million and refuses above 179 million."""
    max_ratio: float = 1100.0
    """Raster bytes per byte of a PNG; deflate cannot exceed 1032."""


DEFAULT_IMAGE_LIMITS = ImageLimits()


def is_image(path: Path) -> bool:
    """Whether the name is one of an image that :func:`read_image` may read."""
    return path.suffix.lower() in FORMATS


def read_image(path: Path, limits: ImageLimits = DEFAULT_IMAGE_LIMITS) -> NDArray[np.float32]:
    """Read a PNG or JPEG as greyscale (H, W) float32 in [0, 1]; RGB by its luma (ITU-R 601).

    Raises:
        BadFile: the file is not a regular file, not what its name says, too large, damaged, or
            has more than one reading (see above).
    """
    return _read(path, limits).astype(np.float32) / np.float32(255)


def read_image_mask(
    path: Path, shape: tuple[int, ...], limits: ImageLimits = DEFAULT_IMAGE_LIMITS
) -> NDArray[np.uint8]:
    """Read a two-valued PNG as a mask (H, W) of 0 and 1, for an image of ``shape``.

    Raises:
        BadFile: as :func:`read_image`, or the mask is not one of such an image.
    """
    if FORMATS.get(path.suffix.lower()) == "JPEG":
        raise BadFile("a mask in JPEG, which blurs its border; store masks as PNG")
    raster = _read(path, limits)
    if raster.shape != shape:
        raise BadFile(
            f"mask is {raster.shape[1]}x{raster.shape[0]}, its image {shape[1]}x{shape[0]}; "
            "export both at one size"
        )
    values = np.unique(raster)
    if len(values) > 2 or (len(values) == 2 and values[0] != 0):
        raise BadFile(f"mask has {len(values)} grey values; want 0 and one other")
    return (raster > 0).astype(np.uint8)


def _read(path: Path, limits: ImageLimits) -> NDArray[np.uint8]:
    wanted = FORMATS.get(path.suffix.lower())
    if wanted is None:
        raise BadFile(f"is no image by its name; use {', '.join(FORMATS)}")
    with open_regular(path) as file:
        head = file.read(33)
        file.seek(0)
        _check_magic(head, wanted)
        if wanted == "PNG":
            _check_png_header(head, os.fstat(file.fileno()).st_size, limits)
        try:
            return _decode(file, wanted, limits)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise BadFile(f"more than {limits.max_pixels} pixels; crop or shrink it") from None
        # What Pillow raises on damaged files; its texts may quote the file.
        except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
            kind = "truncated" if "truncated" in str(error) else "damaged"
            raise BadFile(f"{kind} {wanted} data; copy the file again") from None


def _check_magic(head: bytes, wanted: str) -> None:
    if head.startswith(_MAGIC[wanted]):
        return
    found = next((name for magic, name in _OTHERS.items() if head.startswith(magic)), None)
    starts = f"is {found}" if found else f"starts {head[:4].hex(' ')}"
    raise BadFile(f"not {wanted} as its name says ({starts}); convert it to {wanted}")


def _check_png_header(head: bytes, file_bytes: int, limits: ImageLimits) -> None:
    """Judge the IHDR chunk. Pillow reads 16-bit RGB as 8-bit in silence, so it is done here."""
    if len(head) < 33 or head[12:16] != b"IHDR":
        raise BadFile("truncated PNG data; copy the file again")
    width, height, depth, colour = struct.unpack(">IIBB", head[16:26])
    _check_size(width, height, limits)
    if colour in _PNG_COLOUR:
        raise BadFile(f"has {_PNG_COLOUR[colour]}; convert it to 8-bit greyscale")
    if depth > 8:
        raise BadFile(f"{depth}-bit; choose a window and convert it to 8-bit greyscale")
    raster_bytes = width * height * (3 if colour == 2 else 1) * depth / 8
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


def _decode(file: BinaryIO, wanted: str, limits: ImageLimits) -> NDArray[np.uint8]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image = Image.open(file, formats=(wanted,))
    with image:
        _check_size(*image.size, limits)
        # A JPEG with several pictures in it opens as another format, an animated PNG as this one.
        if image.format != wanted or image.get_format_mimetype() == "image/apng":
            raise BadFile("holds several pictures; export one picture per file")
        if image.mode not in ("1", "L", "RGB"):
            raise BadFile(f"colour mode {image.mode}; convert it to 8-bit greyscale")
        image.load()
        if "transparency" in image.info:
            raise BadFile("has a transparent colour; convert it to 8-bit greyscale")
        orientation = image.getexif().get(_ORIENTATION)
        if orientation not in _UNROTATED:
            raise BadFile("is stored rotated or mirrored (EXIF); export it upright")
        return np.asarray(image.convert("L"))
