"""Opening files that nobody vouches for."""

from __future__ import annotations

import gzip
import io
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medaug.data.formats import UNREAD, UNREAD_VOLUMES
from medaug.data.names import ending_of

MAX_NAME_BYTES = 255
_POINTER, _POINTER_BYTES = b"version https://git-lfs", 1024
_CHUNK = 1 << 20


class BadFile(Exception):
    """A file that cannot be used. The message is one line, ``<what>; <fix>``, free of any name or
    text that comes from the disk: those may identify a patient."""


@contextmanager
def open_regular(path: Path) -> Iterator[io.BufferedReader]:
    """Open a regular file for reading, and see to it that it stays the same while it is read.

    Raises:
        BadFile: the name is not plain text; this is a link, FIFO, device or folder (a FIFO is never
            opened, so it cannot hang); it is missing, empty or unreadable; or its size or time
            changed between opening and closing.
    """
    check_name(path)
    try:
        _check_kind(os.lstat(path).st_mode)
        # Whatever takes the file's place after lstat is neither followed nor waited for.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise BadFile("missing; put the file back or take its patient out") from None
    except OSError as error:
        raise BadFile(f"cannot be opened ({error.strerror}); check its permissions") from None
    with os.fdopen(fd, "rb") as stream:
        before = os.fstat(fd)
        _check_kind(before.st_mode)
        if before.st_size == 0:
            raise BadFile("empty file; copy it again")
        if before.st_size < _POINTER_BYTES and stream.peek(len(_POINTER)).startswith(_POINTER):
            raise BadFile("a pointer of Git LFS, not the file; fetch it with git lfs pull")
        yield stream
        after = os.fstat(fd)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise BadFile("changed during ingest; wait until the copy is complete")


def check_name(path: Path) -> None:
    """Raise BadFile unless the last part of ``path`` is printable, valid UTF-8 and not too long."""
    name = path.name
    try:
        length = len(name.encode())
    except UnicodeEncodeError:  # undecodable bytes reach us as lone surrogates
        raise BadFile("the file name is not valid UTF-8; rename the file") from None
    if not name.isprintable():
        raise BadFile("the file name holds control characters; rename the file")
    if length >= MAX_NAME_BYTES or ".." in path.parts:
        raise BadFile("the file name is too long or holds '..'; rename the file")


def check_format(path: Path) -> None:
    """Raise BadFile where the name is that of a format that nothing here reads."""
    if (what := UNREAD.get(ending_of(path.name))) is not None:
        raise BadFile(f"is {what}")


def _check_kind(mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kinds = {stat.S_IFLNK: "a symbolic link", stat.S_IFIFO: "a FIFO", stat.S_IFDIR: "a folder"}
    kind = kinds.get(stat.S_IFMT(mode), "a device or socket")
    raise BadFile(f"{kind}, not a regular file; put the file itself here")


@contextmanager
def decompressed(path: Path) -> Iterator[tuple[io.BufferedIOBase, int]]:
    """(stream of the content, size of the file on disk); names in ``.gz`` must be gzip.

    Raises:
        BadFile: as :func:`open_regular`, the file is not what its name says, or of a format that
            nothing here reads.
    """
    if ending_of(path.name) in UNREAD_VOLUMES:
        check_format(path)
    with open_regular(path) as file:
        file_bytes = os.fstat(file.fileno()).st_size
        if path.suffix.lower() != ".gz":
            yield file, file_bytes
            return
        magic = file.read(3)
        file.seek(0)
        if not magic.startswith(b"\x1f\x8b"):
            raise BadFile(f"not gzip (starts {magic.hex(' ')}); name it .nii if it is not packed")
        with gzip.GzipFile(fileobj=file) as stream:
            yield stream, file_bytes


def fill(stream: io.BufferedIOBase, target: memoryview) -> int:
    """Read until ``target`` is full or the stream ends; return how many bytes came.

    Raises:
        BadFile: the compressed data are damaged, or followed by something else.
    """
    got = 0
    try:
        while got < len(target):
            # read1, unlike read, hands over what there is when the gzip stream breaks off.
            chunk = stream.read1(min(_CHUNK, len(target) - got))
            if not chunk:
                break
            target[got : got + len(chunk)] = chunk
            got += len(chunk)
    except EOFError:
        pass
    except gzip.BadGzipFile as error:
        kind = "gzip CRC mismatch" if "CRC" in str(error) else "garbage after the gzip stream"
        raise BadFile(f"{kind}; copy the file again") from None
    except zlib.error:
        raise BadFile("damaged gzip data; copy the file again") from None
    return got


def skip(stream: io.BufferedIOBase, n: int) -> int:
    """Read past ``n`` bytes; return how many there were before the stream ended."""
    buffer, left = bytearray(min(n, _CHUNK)), n
    while left and (got := fill(stream, memoryview(buffer)[:left])):
        left -= got
    return n - left


def take(stream: io.BufferedIOBase, n: int) -> bytes:
    """The next ``n`` bytes, fewer where the stream ends."""
    buffer = bytearray(n)
    return bytes(buffer[: fill(stream, memoryview(buffer))])
