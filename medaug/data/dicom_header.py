"""The outer structure of a DICOM file, judged before any parser sees it.

The element headers are walked without reading a value, so a file that nests without end, runs past
its own end or is packed as a whole is refused at the cost of a few seeks (PS3.5 chapter 7, PS3.10
chapter 7).
"""

from __future__ import annotations

from typing import BinaryIO

from pydicom import uid
from pydicom.uid import UID

from medaug.data.dicom_elements import (
    ITEM,
    ITEM_END,
    PIXEL_DATA,
    SEQUENCE_END,
    UNDEFINED,
    begin,
    begins,
    element_at,
    skip,
)
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


def check_structure(file: BinaryIO, file_bytes: int) -> UID:
    """Walk the elements of ``file``; return its transfer syntax. The file is rewound.

    Raises:
        BadFile: there is no DICOM preamble or a program in it, the syntax is not one of
            :data:`SYNTAXES`, sequences are nested more than ``MAX_DEPTH`` deep, or an element runs
            past the end.
    """
    _check_preamble(file.read(132))
    named = begin(file, file_bytes)
    if named is None:
        raise BadFile("has no transfer syntax; export the series again")
    syntax = UID(named)
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
    if begins(head) is None:
        raise BadFile("not DICOM (no DICM after 128 bytes); convert it or take it away")


def _walk(file: BinaryIO, file_bytes: int, order: str, *, explicit: bool) -> None:
    """Go through the data set up to the pixel data, which come last."""
    inside: list[int] = []  # the elements of undefined length that are open
    while len(start := file.read(8)) == 8:
        tag, length = element_at(file, start, order, explicit)
        if tag == PIXEL_DATA and not inside:
            if length != UNDEFINED:  # encapsulated pixel data are the decoder's to check
                skip(file, length, file_bytes)
            return
        if tag == SEQUENCE_END:
            inside = inside[:-1]
        elif tag in (ITEM, ITEM_END):
            if inside[-1:] == [PIXEL_DATA]:  # a fragment of an icon; other items are walked
                skip(file, length, file_bytes)
        elif length == UNDEFINED:
            inside.append(tag)
        else:
            skip(file, length, file_bytes)
        if len(inside) > MAX_DEPTH:
            raise BadFile(f"sequences nested more than {MAX_DEPTH} deep; export the series again")
    raise BadFile("truncated, or without pixel data; copy the file again")


def _shown(syntax: UID) -> str:
    """The standard's name of a syntax; what a file invents is not repeated."""
    return f"{syntax.name} ({syntax})" if syntax in uid.UID_dictionary else "of this file"
