"""Objects of a bucket, one request at a time. Paths are those of this node's copy of it.

This is the only file that knows the library that speaks to the bucket.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medaug.errors import EnvironmentFault, UserError
from medaug.storage.files import write_pieces
from medaug.storage.uri import address

if TYPE_CHECKING:
    from obstore.store import S3Store

AT_ONCE = 8
"""Objects under way at a time, in each process."""
PIECE_BYTES = 8 << 20
GIVE_UP_AFTER = datetime.timedelta(seconds=60)
"""With twice the pause after each try, from a tenth of a second on."""
SOON = datetime.timedelta(seconds=5)
SIGN_OF_LIFE_S = 1.0


class BucketFault(EnvironmentFault, OSError):
    """The object store fails: to those who write, an OSError like that of a disk."""

    def __init__(self, uri: str, why: str) -> None:
        OSError.__init__(self, errno.EIO, f"{uri}: {why}")

    def __str__(self) -> str:
        return self.strerror or ""

    def __reduce__(self) -> tuple[Any, ...]:
        return (BucketFault, tuple(str(self).split(": ", 1)))


@dataclass(frozen=True)
class Object:
    """What a listing says of one."""

    name: str
    """Its path below the listed folder."""
    n_bytes: int
    etag: str

    def is_copied_to(self, file: Path) -> bool:
        """Whether ``file`` has its content. Of a large object, or one that is encrypted with keys
        of one's own, the etag is no MD5: then never."""
        return _md5(file) == self.etag


def listing(folder: Path) -> list[Object]:
    """All objects below ``folder``, in the bucket."""
    obstore = _library(folder)
    bucket, prefix = _open(folder)
    prefix = f"{prefix}/" if prefix else ""
    with _faults(folder):
        found = [each for chunk in obstore.list(bucket, prefix or None) for each in chunk]
    return [
        Object(
            name=each["path"][len(prefix) :],
            n_bytes=each["size"],
            etag=(each["e_tag"] or "").strip('"'),
        )
        for each in found
    ]


def folders(folder: Path) -> list[str]:
    """Names of what would be folders in ``folder``, in the bucket."""
    return sorted(_name(each) for each in inside(folder)["common_prefixes"])


def objects(folder: Path) -> list[str]:
    """Names of what would be files in ``folder``, in the bucket."""
    return sorted(_name(each["path"]) for each in inside(folder)["objects"])


def inside(folder: Path, patience: datetime.timedelta = GIVE_UP_AFTER) -> Any:
    obstore = _library(folder)
    bucket, prefix = _open(folder, patience)
    with _faults(folder):
        return obstore.list_with_delimiter(bucket, f"{prefix}/" if prefix else None)


def _name(key: str) -> str:
    return key.rstrip("/").rpartition("/")[2]


def written(path: Path) -> float | None:
    """When the object was written, by the store's clock; None when there is none."""
    obstore = _library(path)
    bucket, key = _open(path)
    with _faults(path), contextlib.suppress(FileNotFoundError):
        return obstore.head(bucket, key)["last_modified"].timestamp()
    return None


def read(path: Path) -> bytes | None:
    """The content of an object, or None."""
    obstore = _library(path)
    bucket, key = _open(path)
    with _faults(path), contextlib.suppress(FileNotFoundError):
        return bytes(obstore.get(bucket, key).bytes())
    return None


def write(path: Path, content: bytes) -> None:
    """Give an object this content, whatever it had."""
    obstore = _library(path)
    bucket, key = _open(path)
    with _faults(path):
        obstore.put(bucket, key, content, use_multipart=False)


def create(path: Path, content: bytes) -> bool:
    """Make an object unless there is one; whether there was none. Of several, one succeeds.

    ``content`` is nobody else's: a try whose answer got lost is told from another's success by it.
    """
    obstore = _library(path)
    bucket, key = _open(path)
    try:
        with _faults(path):
            obstore.put(bucket, key, content, mode="create", use_multipart=False)
    except obstore.exceptions.AlreadyExistsError:
        return read(path) == content
    return True


def remove(*paths: Path) -> None:
    """Remove objects; those that are not there are no error."""
    for path in paths:
        obstore, (bucket, key) = _library(path), _open(path)
        with _faults(path), contextlib.suppress(FileNotFoundError):
            obstore.delete(bucket, key)


def remove_folder(folder: Path, first: str) -> None:
    """Remove all below ``folder``, its manifest ``first``: half of it must not look whole."""
    names = [each.name for each in listing(folder)]
    for name in sorted(names, key=lambda name: name != first):
        remove(folder / name)


def _library(path: Path) -> Any:
    try:
        import boto3  # noqa: F401
        import obstore
        import obstore.exceptions
    except ImportError:
        raise UserError(f"{address(path)}: wants pip install 'medaug[s3]'") from None
    return obstore


def _open(path: Path, patience: datetime.timedelta = GIVE_UP_AFTER) -> tuple[S3Store, str]:
    uri = address(path)
    assert uri is not None
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return _client(bucket, endpoint, patience), key


@functools.lru_cache
def _client(bucket: str, endpoint: str | None, patience: datetime.timedelta) -> S3Store:
    from botocore.exceptions import BotoCoreError
    from obstore.auth.boto3 import Boto3CredentialProvider  # environment, profiles, roles, SSO
    from obstore.store import S3Store

    try:
        credentials = Boto3CredentialProvider()
    except (ValueError, BotoCoreError):
        why = "no credentials; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        raise BucketFault(f"s3://{bucket}", why) from None
    return S3Store(
        bucket,
        endpoint=endpoint,
        credential_provider=credentials,
        client_options={"allow_http": bool(endpoint and endpoint.startswith("http://"))},
        retry_config={"max_retries": 10, "retry_timeout": patience},
    )


@contextlib.contextmanager
def _faults(path: Path) -> Iterator[None]:
    """Turn the library's errors, which quote requests, into one line that says what to do."""
    from obstore.exceptions import AlreadyExistsError, BaseError

    try:
        yield
    except AlreadyExistsError:
        raise
    except FileNotFoundError as error:
        if "NoSuchBucket" not in str(error):
            raise
        raise _fault(path, str(error)) from None
    except BaseError as error:
        raise _fault(path, str(error)) from None


def _fault(path: Path, text: str) -> BucketFault:
    status = re.search(r"status code: (\d{3})", text)
    bucket = "/".join((address(path) or "").split("/")[:3])
    if "NoSuchBucket" in text:
        why = "there is no such bucket; make it, or correct the address"
    elif status and status[1] in ("401", "403"):
        why = "access is denied; check the credentials and what they allow (get, put, list, delete)"
    elif status and status[1] in ("301", "307", "400"):
        why = f"answers {status[1]}; check AWS_REGION, and whether the credentials have expired"
    elif status and status[1] == "501":
        why = "does not know conditional writes (If-None-Match), which keep two drivers apart"
    elif status:
        why = f"answers {status[1]}; look at the store's own log, then resume"
    else:
        why = "does not answer; check the network and AWS_ENDPOINT_URL, then resume"
    return BucketFault(bucket, why)


def put_file(path: Path) -> None:
    obstore = _library(path)
    bucket, key = _open(path)
    with _faults(path):
        obstore.put(bucket, key, path, chunk_size=PIECE_BYTES, max_concurrency=2)


def get_file(path: Path, about: Object) -> None:
    """Bring an object here, in pieces: a request that takes long is cut off."""
    obstore = _library(path)
    if path.exists() and path.stat().st_size == about.n_bytes:
        return
    bucket, key = _open(path)

    def pieces() -> Iterator[bytes]:
        for start in range(0, about.n_bytes, PIECE_BYTES):
            end = min(start + PIECE_BYTES, about.n_bytes)
            with _faults(path):
                yield bytes(obstore.get_range(bucket, key, start=start, end=end))

    write_pieces(path, pieces())


def get_with_time(path: Path) -> tuple[bytes, float]:
    """Content of an object, and when it was written. Raises FileNotFoundError."""
    obstore = _library(path)
    bucket, key = _open(path)
    with _faults(path):
        answer = obstore.get(bucket, key)
        return bytes(answer.bytes()), answer.meta["last_modified"].timestamp()


def at_once(calls: Sequence[Callable[[], None]]) -> None:
    """Make ``calls``, several at once; raises the first error.

    This thread wakes up now and then: one that uses no time at all passes for one that hangs.
    """
    if not calls:
        return
    with ThreadPoolExecutor(AT_ONCE, "bucket") as pool:
        pending = {pool.submit(call) for call in calls}
        while pending:
            done, pending = wait(pending, SIGN_OF_LIFE_S, FIRST_EXCEPTION)
            try:
                for each in done:
                    each.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _md5(path: Path) -> str | None:
    try:
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    except FileNotFoundError:
        return None
