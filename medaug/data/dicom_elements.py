"""The elements of a DICOM file by their headers: tag, length and place, no value (PS3.5 chapter 7,
PS3.10 chapter 7)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from medaug.data.files import BadFile

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
BIG_ENDIAN, DEFLATED = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
_LONG_VR = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
"""Value representations with a four-byte length (PS3.5 table 7.1-1)."""
UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXEL_DATA, _TRANSFER_SYNTAX = 0x7FE00010, 0x00020010


def begins(head: bytes) -> int | None:
    """Where the elements of a file with these first 132 bytes begin: after the preamble, or at
    once, as older programs write it; None where it is no DICOM."""
    if head[128:132] == b"DICM":
        return 132
    if len(head) < 16 or head[:2] not in (b"\x08\x00", b"\x02\x00"):
        return None
    element, vr = int.from_bytes(head[2:4], "little"), head[4:6]
    explicit = vr.isalpha() and vr.isupper()
    length = int.from_bytes(head[6:8] if explicit else head[4:8], "little")
    known = element in (0, 1, 5, 8, 0x12, 0x16, 0x18)
    return 0 if known and length <= 128 else None


def elements(file: BinaryIO) -> Iterator[tuple[int, int, str]]:
    """(tag, length, byte order) of the outermost elements of a DICOM file in their order; at each
    the file stands at its value. It ends where the pixel data begin, or anything cannot be."""
    file_bytes = file.seek(0, 2)
    file.seek(0)
    try:
        syntax = begin(file, file_bytes)
        if syntax is None or syntax == DEFLATED:
            return
        order = ">" if syntax == BIG_ENDIAN else "<"
        explicit = syntax != IMPLICIT
        depth = 0
        while len(start := file.read(8)) == 8:
            tag, length = element_at(file, start, order, explicit)
            if tag == PIXEL_DATA and not depth:
                return
            if tag == SEQUENCE_END:
                depth -= 1
            elif tag in (ITEM, ITEM_END):
                continue
            elif length == UNDEFINED:
                depth += 1
            elif not depth:
                yield tag, length, order
                skip(file, length, file_bytes)
            else:
                skip(file, length, file_bytes)
    except (BadFile, struct.error):
        return


def begin(file: BinaryIO, file_bytes: int) -> str | None:
    """Go to the data set; return its transfer syntax, None where there is none."""
    file.seek(0)
    place = begins(file.read(132))
    if place is None:
        return None
    file.seek(place)
    if place == 0 and file.read(2) != b"\x02\x00":
        file.seek(0)
        vr = file.read(6)[4:]
        file.seek(0)
        explicit = vr.isalpha() and vr.isupper()
        return EXPLICIT if explicit else IMPLICIT
    file.seek(place)
    return _walk_meta(file, file_bytes)


def _walk_meta(file: BinaryIO, file_bytes: int) -> str | None:
    """Go through group 2, which is always explicit little endian; return the transfer syntax."""
    syntax = None
    while (start := file.read(8)) and start[:2] == b"\x02\x00":
        tag, length = element_at(file, start, "<", explicit=True)
        if tag == _TRANSFER_SYNTAX and length <= 64:
            syntax = file.read(length).rstrip(b"\0 ").decode("ascii", "replace")
        else:
            skip(file, length, file_bytes)
    file.seek(-len(start), 1)
    return syntax


def element_at(file: BinaryIO, start: bytes, order: str, explicit: bool) -> tuple[int, int]:
    """(tag, length) of the element whose first eight bytes are ``start``."""
    group, element, length = struct.unpack(f"{order}HHL", start)
    tag = group << 16 | element
    if explicit and group != 0xFFFE:
        vr = start[4:6]
        if vr in _LONG_VR:
            length = int.from_bytes(file.read(4), "big" if order == ">" else "little")
        else:
            (length,) = struct.unpack(f"{order}H", start[6:])
    return tag, length


def skip(file: BinaryIO, length: int, file_bytes: int) -> None:
    """Raises BadFile where the value would end after the file."""
    if file.tell() + length > file_bytes:
        raise BadFile(
            f"truncated (an element of {length} bytes runs past the end); copy the file again"
        )
    file.seek(length, 1)
