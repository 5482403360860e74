"""One way to say what belongs to a folder, and to see that it is what was written.

A manifest is canonical JSON: the size and SHA-256 of each of ``files``, whatever else there is to
say, and the SHA-256 of itself as ``self``. It is written last: without it nothing in the folder
counts. Manifests of version 0.1 are read too: those of checkpoints had spaces in them, those of
models were names and hashes only.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medaug.errors import IntegrityError
from medaug.storage.files import sha256_of
from medaug.storage.reading import MOST_JSON_BYTES, parse_object, read_regular

MANIFEST = "MANIFEST.json"
"""Of a checkpoint or model: the last of its files to be there."""


def sealed(body: Mapping[str, Any]) -> bytes:
    """Canonical JSON of ``body`` with the SHA-256 of itself under ``self``."""
    digest = hashlib.sha256(canonical(body)).hexdigest()
    return canonical({**body, "self": digest})


def read_sealed(path: Path) -> dict[str, Any]:
    """What :func:`sealed` wrote to ``path``.

    Raises:
        FileNotFoundError: there is nothing.
        IntegrityError: one byte differs.
    """
    if (content := read_regular(path, MOST_JSON_BYTES)) is None:
        raise FileNotFoundError(path)
    return parse_sealed(content, str(path))


def parse_sealed(content: bytes, name: str) -> dict[str, Any]:
    """What :func:`sealed` made; ``name`` is for the message. Raises IntegrityError."""
    try:
        body = parse_object(content, name)
        del body["self"]
        intact = content in (sealed(body), _sealed_by_0_1(body))
    except (ValueError, KeyError, TypeError, RecursionError, IntegrityError):
        intact = False
    if not intact:
        raise IntegrityError(f"{name}: does not have the content that was written")
    return body


def canonical(body: Mapping[str, Any]) -> bytes:
    """One JSON for one content."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def file_entry(content: bytes | memoryview) -> dict[str, Any]:
    """What a manifest says of a file with this content."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def write_manifest(folder: Path) -> None:
    """Write ``MANIFEST.json`` for all files that are in ``folder`` itself."""
    files = {
        file.name: {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
        for file in sorted(folder.iterdir())
        if file.is_file()
    }
    (folder / MANIFEST).write_bytes(sealed({"files": files}))


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of ``folder``; ``files`` maps names to ``bytes`` and ``sha256``.

    Raises:
        IntegrityError: there is none, or it is not what was written.
    """
    path = folder / MANIFEST
    if (content := read_regular(path, MOST_JSON_BYTES)) is None:
        raise IntegrityError(f"{path}: missing")
    plain = parse_object(content, str(path))
    if _is_of_0_1(plain):
        return {"files": {name: {"sha256": sha256} for name, sha256 in plain.items()}}
    body = parse_sealed(content, str(path))
    files = body.get("files")
    if not isinstance(files, dict) or not all(map(_is_entry, files.items())):
        raise IntegrityError(f"{path}: not a manifest")
    return body


def verified(folder: Path, remedy: str) -> Path:
    """``folder``, whose files have the hashes that its manifest promises.

    Raises:
        IntegrityError: a file is missing or changed; ends with ``remedy``.
    """
    try:
        for name, promised in read_manifest(folder)["files"].items():
            check_file(folder / name, promised)
    except IntegrityError as error:
        raise IntegrityError(f"{error}; {remedy}") from None
    return folder


def check_file(path: Path, promised: Mapping[str, Any]) -> bytes:
    """The content of a file that is as its manifest says; raises IntegrityError."""
    if (content := read_regular(path)) is None:
        raise IntegrityError(f"{path}: missing")
    n_bytes = promised.get("bytes", len(content))
    if len(content) != n_bytes:
        raise IntegrityError(f"{path}: has {len(content)} of {n_bytes} bytes")
    if hashlib.sha256(content).hexdigest() != promised["sha256"]:
        raise IntegrityError(f"{path}: changed, its SHA-256 is not the manifest's")
    return content


def _is_entry(item: tuple[str, Any]) -> bool:
    name, entry = item
    return (
        _is_name(name)
        and isinstance(entry, dict)
        and isinstance(entry.get("sha256"), str)
        and isinstance(entry.get("bytes"), int)
    )


def _is_name(name: str) -> bool:
    """Of a file in the folder itself: a manifest cannot ask for another one."""
    return bool(name) and "/" not in name and "\0" not in name and name not in (".", "..")


def _is_of_0_1(body: Mapping[str, Any]) -> bool:
    return (
        bool(body)
        and all(
            _is_name(name) and isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value)
            for name, value in body.items()
            if name != "self"
        )
        and "self" not in body
    )


def _sealed_by_0_1(body: Mapping[str, Any]) -> bytes:
    """As the manifests of checkpoints were."""
    text = json.dumps(body, sort_keys=True).encode()
    return json.dumps({**body, "self": hashlib.sha256(text).hexdigest()}, sort_keys=True).encode()
