"""An address and the path of a node's copy are two names of one thing."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from medaug.storage.uri import COPIES_ENV, BucketPath, address, display_uri, local


def test_a_folder_is_itself() -> None:
    for path in ("runs", "/storage/runs", "a:b/c"):
        assert local(path) == Path(path)
        assert not isinstance(local(path), BucketPath)
        assert display_uri(Path(path)) == path


def test_a_path_in_a_copy_is_told_as_its_address() -> None:
    copy = local("s3://medaug-tests/a/b/")
    assert display_uri(copy) == "s3://medaug-tests/a/b"
    assert address(copy / "run" / "study.json") == "s3://medaug-tests/a/b/run/study.json"
    assert local(Path("s3://medaug-tests/a/b")) == copy  # pathlib drops a slash
    assert local(str(copy)) == copy


def test_it_arrives_on_another_node_as_the_path_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(COPIES_ENV, str(tmp_path / "one"))
    sent = pickle.dumps(local("s3://medaug-tests/a") / "trials" / "key")
    monkeypatch.setenv(COPIES_ENV, str(tmp_path / "two"))
    arrived = pickle.loads(sent)
    assert arrived == local("s3://medaug-tests/a") / "trials" / "key"
    assert arrived.is_relative_to(tmp_path / "two")
    assert isinstance(arrived, BucketPath)
    assert isinstance(arrived.parent, BucketPath)


def test_stores_of_one_name_at_two_endpoints_have_two_copies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    one = local("s3://medaug-tests/a")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://minio.example")
    assert local("s3://medaug-tests/a") != one


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("ftp://host/runs", "ftp:// is not known"),
        ("gs://bucket/runs", "gs:// is not known"),
        ("s3://", "names no bucket"),
        ("s3://Bad_Name/x", "names no bucket"),
        ("s3://bucket/../x", "names no bucket"),
        ("s3://bucket/.hidden", "names no bucket"),
        ("s3://bucket/x?endpoint_override=evil", "names no bucket"),
        ("s3://key:secret@bucket/x", "an address with a password"),
        ("s3://key:sec/ret@bucket/x", "an address with a password"),
    ],
)
def test_what_names_no_bucket(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        local(text)
    assert "secret" not in str(caught.value)
    assert "sec/ret" not in str(caught.value)
