"""Patient ids leave the data room only as keyed pseudonyms."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from medaug.errors import EnvironmentFault, UserError
from medaug.regular import open_regular
from medaug.storage.files import private_folder

KEY_ENV = "MEDAUG_SITE_KEY_FILE"
KEY_BYTES = 32
MOST_BYTES = 1024
"""Of a key's file that are looked at."""


class Pseudonymiser:
    """Names patients by HMAC-SHA256 under the site's key.

    Without the key nobody can go back, not even by trying every possible id; with it, one patient
    has one pseudonym in every study of the site.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < KEY_BYTES:
            raise ValueError(f"a site key has at least {KEY_BYTES} bytes, this one {len(key)}")
        self._key = key

    def pseudonym(self, raw: str) -> str:
        """``p-`` and the first 12 hex digits (48 bits) of the HMAC of the NFC form of ``raw``."""
        message = unicodedata.normalize("NFC", raw).encode("utf-8", "surrogateescape")
        return "p-" + hmac.new(self._key, message, hashlib.sha256).hexdigest()[:12]

    def redact(self, text: str, raw_ids: Iterable[str]) -> str:
        """``text`` with every whole occurrence of a raw id replaced by its pseudonym."""
        longest_first = sorted({raw for raw in raw_ids if raw}, key=len, reverse=True)
        if not longest_first:
            return text
        any_id = "|".join(map(re.escape, longest_first))
        whole = rf"(?<![A-Za-z0-9])(?:{any_id})(?![A-Za-z0-9])"
        return re.sub(whole, lambda match: self.pseudonym(match[0]), text)


def pseudonym(raw: str) -> str:
    """The pseudonym of a patient under this machine's site key."""
    return site_pseudonymiser().pseudonym(raw)


def site_pseudonymiser() -> Pseudonymiser:
    """The pseudonymiser of :func:`site_key_file`; the key is made when there is none."""
    return _pseudonymiser(site_key_file())


@lru_cache
def _pseudonymiser(path: Path) -> Pseudonymiser:
    return Pseudonymiser(site_key(path))


def site_key_file() -> Path:
    """``$MEDAUG_SITE_KEY_FILE``, or ``~/.config/medaug/site.key``: never inside a study's storage,
    which is shared and copied."""
    named = os.environ.get(KEY_ENV)
    return Path(named) if named else Path("~/.config/medaug/site.key").expanduser()


def seal_key() -> bytes | None:
    """The key that this machine seals results with; None where it has no site key.

    Derived from the site's key: whoever learnt this one could still not undo a pseudonym.
    """
    path = site_key_file()
    if not path.exists():
        return None
    return hmac.new(site_key(path), b"medaug seals of results", hashlib.sha256).digest()


def refuse_key_inside(folder: Path) -> None:
    """Raise UserError when the site key lies inside ``folder``."""
    if site_key_file().resolve().is_relative_to(folder.resolve()):
        raise UserError(
            "site key: lies inside the storage folder, so whoever gets a copy can undo the "
            f"pseudonyms; move it elsewhere and set {KEY_ENV}"
        )


def site_key(path: Path) -> bytes:
    """Read the site key, or make one (0600) when the file does not exist.

    Raises:
        UserError: the file is open to others, or is no key.
        EnvironmentFault: it can be neither read nor made.
    """
    try:
        if not path.exists():
            _make(path)
        open_to_others = path.stat().st_mode & 0o077
        with open_regular(path) as file:
            text = file.read(MOST_BYTES)
    except OSError as error:
        raise EnvironmentFault(
            f"site key {path}: {error.strerror}; set {KEY_ENV} to a file that can be read or made"
        ) from None
    if open_to_others:
        raise UserError(f"site key {path}: readable by others; chmod 600 it")
    if not re.fullmatch(rb"[0-9a-f]{%d}\s*" % (2 * KEY_BYTES), text):
        raise UserError(
            f"site key {path}: is not {2 * KEY_BYTES} hex digits; restore it from a backup, or "
            "delete it to start with a new key and new pseudonyms"
        )
    return bytes.fromhex(text.decode())


def _make(path: Path) -> None:
    """Publish a new key under its name only when complete; of two makers, the first one wins."""
    private_folder(path.parent)
    private = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    fd = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "w") as file:
            file.write(secrets.token_hex(KEY_BYTES))
            file.flush()
            os.fsync(fd)
        os.link(private, path)
    except FileExistsError:
        pass
    finally:
        private.unlink()
