"""Carries finished things between a bucket and a node's copy of it (:mod:`medaug.storage.uri`).

Every function takes paths of the copy; where a path is in none, there is nothing to carry. What
consists of several objects counts from the moment its last one is there, a manifest. The bucket is
the truth: what a node did not get there before it died, has not happened. Hidden files and folders
stay on their node.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fnmatch
import functools
import hashlib
import os
import re
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medaug.errors import EnvironmentFault, UserError
from medaug.storage.locks import one_at_a_time
from medaug.storage.uri import address

if TYPE_CHECKING:
    from obstore.store import S3Store

AT_ONCE = 8
"""Objects under way at a time, in each process."""
PIECE_BYTES = 8 << 20
GIVE_UP_AFTER = datetime.timedelta(seconds=60)
"""With twice the pause after each try, from a tenth of a second on."""
SIGN_OF_LIFE_S = 1.0
_LOCK = ".lock"
_ARRIVING = ".arriving-"


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


def is_remote(path: Path) -> bool:
    """Whether ``path`` lies in the copy of a bucket, in no hidden folder."""
    uri = address(path)
    return uri is not None and "/." not in uri


@contextlib.contextmanager
def synced_write(path: Path) -> Iterator[None]:
    """Write the file ``path`` in this block; afterwards the bucket has it too.

    Others on this node who bring ``path`` up to date wait meanwhile: they would undo it.
    """
    if not is_remote(path):
        yield
        return
    with one_at_a_time(path.parent / _LOCK):
        yield
        send(path)


def send(path: Path) -> None:
    """Put the file ``path`` into the bucket."""
    if is_remote(path):
        _transfer([functools.partial(_put, path)])


def send_folder(folder: Path, last: str, *, content_named: bool = False) -> None:
    """Put the files of ``folder`` into the bucket, ``last`` at the end; hidden ones stay here.

    ``content_named``: what has the name has the content, so what is there already is not sent.
    """
    if not is_remote(folder):
        return
    there = {each.name: each for each in listing(folder)}
    if last in there:
        remove(folder / last)
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name[0] != "."]
    if content_named:
        files = [f for f in files if f.name not in there or there[f.name].n_bytes != _size(f)]
    _transfer([functools.partial(_put, path) for path in files if path.name != last])
    if (folder / last).exists():
        send(folder / last)


def send_new(
    folder: Path,
    *patterns: str,
    skip: re.Pattern[str] | None = None,
    content_named: bool = False,
) -> None:
    """Put files of ``folder`` into the bucket unless it has them; names of ``skip`` stay here."""
    if not is_remote(folder):
        return
    there = {each.name: each for each in listing(folder)}
    files = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    todo = []
    for path in files:
        known = there.get(path.relative_to(folder).as_posix())
        same = known and known.n_bytes == _size(path)
        same = same and (content_named or (known and known.is_copied_to(path)))
        if not same and is_remote(path) and not (skip and skip.fullmatch(path.name)):
            todo.append(functools.partial(_put, path))
    _transfer(todo)


def fetch_new(folder: Path, pattern: str) -> None:
    """Bring files of ``folder`` here that are not; a store that is being written, for example."""
    if not is_remote(folder):
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    there = [each for each in listing(folder) if fnmatch.fnmatchcase(each.name, pattern)]
    _transfer([functools.partial(_get, folder / each.name, each) for each in there])


def fetch_folder(
    folder: Path, last: str, make_room: Callable[[int], None] = lambda n_bytes: None
) -> bool:
    """Bring all of ``folder`` here, ``last`` at the end; whether it is here now.

    Processes of the node that want the same wait for the first one. ``make_room`` is told how many
    bytes will come.
    """
    if (folder / last).exists() or not is_remote(folder):
        return (folder / last).exists()
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with one_at_a_time(folder.parent / f".{folder.name}{_LOCK}"):
        if (folder / last).exists():
            return True
        there = {each.name: each for each in listing(folder)}
        if last not in there:
            return False
        make_room(sum(each.n_bytes for each in there.values()))
        folder.mkdir(mode=0o700, exist_ok=True)
        for torn in folder.glob(f"{_ARRIVING}*"):
            torn.unlink()
        end = there.pop(last)
        todo = [each for each in there.values() if "/" not in each.name]
        _transfer([functools.partial(_get, folder / each.name, each) for each in todo])
        _transfer([functools.partial(_get, folder / last, end)])
    return True


def mirror(folder: Path, wanted: Callable[[str], bool], here: Iterable[Path] = ()) -> None:
    """Make the small files of ``folder`` what they are in the bucket.

    ``wanted`` says of a path below ``folder`` whether it is one. Those of ``here`` that the bucket
    has not are removed.
    """
    if not is_remote(folder):
        return
    there = [each for each in listing(folder) if wanted(each.name)]
    stale = [each for each in there if not each.is_copied_to(folder / each.name)]
    names = {folder / each.name for each in there}
    gone = [path for path in here if path not in names and path.exists()]
    refresh([*(folder / each.name for each in stale), *gone])


def refresh(paths: Collection[Path]) -> None:
    """Make small files what they are in the bucket; those that are not there are removed."""
    for parent in {path.parent for path in paths}:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _transfer([functools.partial(_renew, path) for path in paths])


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
    return sorted(_name(each) for each in _inside(folder)["common_prefixes"])


def objects(folder: Path) -> list[str]:
    """Names of what would be files in ``folder``, in the bucket."""
    return sorted(_name(each["path"]) for each in _inside(folder)["objects"])


def _inside(folder: Path, patience: datetime.timedelta = GIVE_UP_AFTER) -> Any:
    obstore = _library(folder)
    bucket, prefix = _open(folder, patience)
    with _faults(folder):
        return obstore.list_with_delimiter(bucket, f"{prefix}/" if prefix else None)


def _name(key: str) -> str:
    return key.rstrip("/").rpartition("/")[2]


def holds(path: Path) -> bool:
    """Whether the bucket has an object of this name."""
    return written(path) is not None


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


def reach(path: Path) -> None:
    """Make sure that the bucket is there and may be read, within some seconds.

    Raises:
        UserError: the library that speaks to it is not installed.
        BucketFault: it is not, or may not.
    """
    _inside(path, patience=datetime.timedelta(seconds=5))


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


def _put(path: Path) -> None:
    obstore = _library(path)
    bucket, key = _open(path)
    with _faults(path):
        obstore.put(bucket, key, path, chunk_size=PIECE_BYTES, max_concurrency=2)


def _get(path: Path, about: Object) -> None:
    """In pieces: a request that takes long is cut off."""
    obstore = _library(path)
    if path.exists() and _size(path) == about.n_bytes:
        return
    bucket, key = _open(path)
    arriving = path.with_name(f"{_ARRIVING}{uuid.uuid4().hex[:8]}")
    try:
        with open(os.open(arriving, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            for start in range(0, about.n_bytes, PIECE_BYTES):
                end = min(start + PIECE_BYTES, about.n_bytes)
                with _faults(path):
                    file.write(obstore.get_range(bucket, key, start=start, end=end))
        arriving.replace(path)
    finally:
        arriving.unlink(missing_ok=True)


def _renew(path: Path) -> None:
    """Make one small file what it is in the bucket, now."""
    obstore = _library(path)
    bucket, key = _open(path)
    with one_at_a_time(path.parent / _LOCK):
        try:
            with _faults(path):
                answer = obstore.get(bucket, key)
                content, seconds = bytes(answer.bytes()), answer.meta["last_modified"].timestamp()
        except FileNotFoundError:
            path.unlink(missing_ok=True)
            return
        arriving = path.with_name(f"{_ARRIVING}{uuid.uuid4().hex[:8]}")
        with open(os.open(arriving, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
        os.utime(arriving, (seconds, seconds))
        arriving.replace(path)


def _transfer(calls: Sequence[Callable[[], None]]) -> None:
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


def _size(path: Path) -> int:
    return path.stat().st_size
