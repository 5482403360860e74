"""An S3 store in this process, and copies of its bucket as nodes have them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from medaug.storage import artifacts, s3_client
from medaug.storage.uri import COPIES_ENV, local

SECRET = "this-is-the-secret-of-the-tests"
URI = "s3://medaug-tests/a/b"
Node = Callable[[str], Path]


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def environment(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    s3_client._client.cache_clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def client(environment: None) -> Iterator[boto3.client]:
    """Of a store with one empty bucket."""
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="medaug-tests")
    yield s3
    for each in keys(s3):
        s3.delete_object(Bucket="medaug-tests", Key=each)
    s3.delete_bucket(Bucket="medaug-tests")


def keys(client: boto3.client, below: str = "") -> list[str]:
    """Names of the bucket's objects."""
    found = client.list_objects_v2(Bucket="medaug-tests", Prefix=below).get("Contents", [])
    return [each["Key"] for each in found]


@pytest.fixture
def node(client: boto3.client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    """Turns this process into a node: the path of its copy, which nobody else sees."""

    def become(name: str) -> Path:
        monkeypatch.setenv(COPIES_ENV, str(tmp_path / name))
        monkeypatch.setattr(artifacts, "_STANDING", set())
        return local(URI)

    return become
