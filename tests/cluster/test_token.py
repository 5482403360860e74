"""Heads that want a token and heads that do not, joined by a process that has one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from medaug.sweep.cluster.auth import asks_for_token
from tests.cluster.head import Head

pytestmark = pytest.mark.ray

JOIN = """\
import sys
from medaug.errors import MedaugError
from medaug.sweep.cluster.start import Cluster
cluster = Cluster(sys.argv[1])
try:
    cluster.start()
except MedaugError as error:
    sys.exit(f"{error.exit_code} {error}")
import ray
class Actor:
    def works(self):
        return True
print("works:", ray.get(ray.remote(num_cpus=0)(Actor).remote().works.remote(), timeout=60))
cluster.stop()
"""


@pytest.fixture(scope="module", params=["token", "disabled"])
def head(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Head]:
    folder = tmp_path_factory.mktemp("head")
    with Head(folder, dashboard=False, RAY_AUTH_MODE=request.param) as head:
        yield head


def join(head: Head, **mode: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment |= {"RAY_AUTH_TOKEN_PATH": str(head.token_file), **mode}
    command = [sys.executable, "-c", JOIN, head.address]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)


def test_actors_live_on_either(head: Head) -> None:
    """A process that sends a token to a head that wants none loses all actors at once."""
    wanted = head.environment["RAY_AUTH_MODE"] == "token"
    assert asks_for_token(head.address) is wanted
    joined = join(head)
    assert joined.stdout == "works: True\n", joined.stderr
    said = "wants no token: whoever reaches it can run code there"
    assert (said in joined.stderr) is not wanted


def test_a_mode_that_insists_is_told(head: Head) -> None:
    joined = join(head, RAY_AUTH_MODE="token")
    if head.environment["RAY_AUTH_MODE"] == "token":
        assert joined.stdout == "works: True\n", joined.stderr
    else:
        assert f"3 cluster {head.address}: runs without a token" in joined.stderr
