"""The outer structure of a DICOM file, judged before any parser sees it.

The element headers are walked without reading a value, so a file that nests without end, runs past
its own end or is packed as a whole is refused at the cost of a few seeks (PS3.5 chapter 7, PS3.10
chapter 7).
"""

from __future__ import annotations

import struct
from typing import BinaryIO

from pydicom import uid
from pydicom.uid import UID

from medaug.data.files import BadFile

MAX_DEPTH = 100
SYNTAXES = frozenset(
    {
        *(uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian),
        *(uid.RLELossless, uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit),
        *(uid.JPEGLossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEGLSNearLossless),
        *(uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2K),
    }
)
"""Transfer syntaxes that are read. Not the deflated one: it hides any size behind one stream."""

_PROGRAMS = {b"MZ": "a Windows program", b"\x7fELF": "a Linux program", b"#!": "a script"}
_LONG_VR = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
"""Value representations with a four-byte length (PS3.5 table 7.1-1)."""
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXEL_DATA, _TRANSFER_SYNTAX = 0x7FE00010, 0x00020010


def check_structure(file: BinaryIO, file_bytes: int) -> UID:
    """Walk the elements of ``file``; return its transfer syntax. The file is rewound.

    Raises:
        BadFile: there is no DICOM preamble or a program in it, the syntax is not one of
            :data:`SYNTAXES`, sequences are nested more than ``MAX_DEPTH`` deep, or an element runs
            past the end.
    """
    _check_preamble(file.read(132))
    syntax = _walk_meta(file, file_bytes)
    if syntax not in SYNTAXES:
        raise BadFile(f"transfer syntax {_shown(syntax)} is not read; export it uncompressed")
    order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
    _walk(file, file_bytes, order, explicit=syntax != uid.ImplicitVRLittleEndian)
    file.seek(0)
    return syntax


def _check_preamble(head: bytes) -> None:
    for magic, name in _PROGRAMS.items():
        if head.startswith(magic):
            raise BadFile(f"is also {name}: one is hidden in the DICOM preamble; do not open it")
    if head[128:] != b"DICM":
        raise BadFile("not DICOM (no DICM after 128 bytes); convert it or take it away")


def _walk_meta(file: BinaryIO, file_bytes: int) -> UID:
    """Go through group 2, which is always explicit little endian; return the transfer syntax."""
    syntax = None
    while (start := file.read(8)) and start[:2] == b"\x02\x00":
        tag, length = _element(file, start, "<", explicit=True)
        if tag == _TRANSFER_SYNTAX and length <= 64:
            syntax = UID(file.read(length).rstrip(b"\0 ").decode("ascii", "replace"))
        else:
            _skip(file, length, file_bytes)
    if syntax is None:
        raise BadFile("has no transfer syntax; export the series again")
    file.seek(-len(start), 1)
    return syntax


def _walk(file: BinaryIO, file_bytes: int, order: str, *, explicit: bool) -> None:
    """Go through the data set up to the pixel data, which come last."""
    inside: list[int] = []  # the elements of undefined length that are open
    while len(start := file.read(8)) == 8:
        tag, length = _element(file, start, order, explicit)
        if tag == _PIXEL_DATA and not inside:
            if length != _UNDEFINED:  # encapsulated pixel data are the decoder's to check
                _skip(file, length, file_bytes)
            return
        if tag == _SEQUENCE_END:
            inside = inside[:-1]
        elif tag in (_ITEM, _ITEM_END):
            if inside[-1:] == [_PIXEL_DATA]:  # a fragment of an icon; other items are walked
                _skip(file, length, file_bytes)
        elif length == _UNDEFINED:
            inside.append(tag)
        else:
            _skip(file, length, file_bytes)
        if len(inside) > MAX_DEPTH:
            raise BadFile(f"sequences nested more than {MAX_DEPTH} deep; export the series again")
    raise BadFile("truncated, or without pixel data; copy the file again")


def _element(file: BinaryIO, start: bytes, order: str, explicit: bool) -> tuple[int, int]:
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


def _skip(file: BinaryIO, length: int, file_bytes: int) -> None:
    """Raises BadFile where the value would end after the file."""
    if file.tell() + length > file_bytes:
        raise BadFile(
            f"truncated (an element of {length} bytes runs past the end); copy the file again"
        )
    file.seek(length, 1)


def _shown(syntax: UID) -> str:
    """The standard's name of a syntax; what a file invents is not repeated."""
    return f"{syntax.name} ({syntax})" if syntax in uid.UID_dictionary else "of this file"
