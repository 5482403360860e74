"""Where studies are kept: a folder that all nodes see, or a bucket of which each node has a copy.

``s3://bucket/prefix/x`` and a file of this node's own disk are two names of one thing: all code
works on the copy; :class:`medaug.storage.interface.Storage` brings what is finished from one to the
other.
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path, PosixPath
from urllib.parse import urlsplit

from medaug.errors import UserError

COPIES_ENV = "MEDAUG_BUCKET_COPIES"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class BucketPath(PosixPath):
    """A path in this node's copy of a bucket.

    It travels to another process as its address and arrives as the path of that node's copy, which
    may lie elsewhere.
    """

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (_arrived, (display_uri(self),))


def local(storage: str | os.PathLike[str]) -> Path:
    """The path of ``storage`` on this node: its own, or that of its copy if it is an address.

    Raises:
        ValueError: it is an address that names no bucket; says what to give.
    """
    text = os.fspath(storage)
    if (scheme := _SCHEME.match(text)) is None:
        path = Path(text)
        return path if address(path) is None else BucketPath(path)
    if scheme[1].lower() != "s3":
        raise ValueError(
            f"{scheme[1]}:// is not known; give a path that all nodes see (a disk, NFS, Lustre), "
            "or s3://bucket/prefix"
        )
    bucket, _, key = text[scheme.end() :].partition("/")
    if "@" in text:
        raise ValueError(
            "an address with a password in it would be written down with the study; give "
            "s3://bucket/prefix, and the credentials as AWS's own tools read them"
        )
    parts = [part for part in key.split("/") if part]
    hidden = any(part.startswith(".") for part in parts)
    if not _BUCKET.fullmatch(bucket) or hidden or re.search(r"[?#%\\]", key):
        raise ValueError("this address names no bucket; write s3://bucket/prefix, and no more")
    return BucketPath(_root() / bucket, *parts)


def _arrived(uri: str) -> BucketPath:
    return BucketPath(_root() / uri.removeprefix("s3://"))


def display_uri(path: Path) -> str:
    """What a person calls ``path``: a bucket's address, or the path as it is."""
    return address(path) or str(path)


def address(path: Path) -> str | None:
    """``s3://bucket/key`` of a path in this node's copy of a bucket, else None."""
    try:
        inside = path.relative_to(_root())
    except ValueError:
        return None
    return f"s3://{inside.as_posix()}" if inside.parts else None


def _root() -> Path:
    """Above the copies of all buckets of one endpoint: names are unique there, not everywhere."""
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    copies = os.environ.get(COPIES_ENV) or f"{caches}/medaug/buckets"
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return _root_of(os.path.abspath(copies), endpoint or "")


@cache
def _root_of(copies: str, endpoint: str) -> Path:
    """Asked for before every look into a folder."""
    try:
        where = urlsplit(endpoint).netloc.rpartition("@")[2]
    except ValueError as why:
        raise UserError(f"AWS_ENDPOINT_URL: is no address ({why}); write https://HOST") from None
    return Path(copies) / (f"s3@{where}" if where else "s3")
