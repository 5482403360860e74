"""Heads that want a token and heads that do not, joined by a process that has one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from medaug.sweep.cluster.auth import asks_for_token
from tests.cluster.head import Head
from tests.cluster.joining import WORKS, join

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module", params=["token", "disabled"])
def head(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Head]:
    folder = tmp_path_factory.mktemp("head")
    with Head(folder, dashboard=False, RAY_AUTH_MODE=request.param) as head:
        yield head


def test_actors_live_on_either(head: Head) -> None:
    """A process that sends a token to a head that wants none loses all actors at once."""
    wanted = head.environment["RAY_AUTH_MODE"] == "token"
    assert asks_for_token(head.address) is wanted
    joined = join(head.address, RAY_AUTH_TOKEN_PATH=str(head.token_file))
    assert joined.stdout == WORKS, joined.stderr
    said = "wants no token: whoever reaches it can run code there"
    assert (said in joined.stderr) is not wanted


def test_a_mode_that_insists_is_told(head: Head) -> None:
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(head.token_file)}
    joined = join(head.address, **token)
    if head.environment["RAY_AUTH_MODE"] == "token":
        assert joined.stdout == WORKS, joined.stderr
    else:
        assert f"3 cluster {head.address}: runs without a token" in joined.stderr
