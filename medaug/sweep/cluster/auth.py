"""The secret that lets this process into a Ray cluster."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from medaug.errors import EnvironmentFault
from medaug.sweep.cluster.environment import environment

log = logging.getLogger(__name__)

ASK_S = 5.0
"""How long a head may take to say whether it wants a token."""


def read_token() -> str:
    """The cluster's token, from where Ray looks for it too.

    Raises:
        EnvironmentFault: there is none.
    """
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token
    path = token_file()
    try:
        token = path.read_text().strip()
    except OSError as fault:
        raise EnvironmentFault(
            f"{path}: {fault.strerror}; put the cluster's token there (0600), or name its file in "
            "RAY_AUTH_TOKEN_PATH"
        ) from None
    if not token:
        raise EnvironmentFault(f"{path}: is empty; put the cluster's token there")
    return token


@contextlib.contextmanager
def token_for(address: str) -> Iterator[None]:
    """Have Ray send the token that is there where the cluster wants one, and else none.

    Both have to agree: a process that sends one wants one from the head as well, and whatever it
    starts on a head that runs open is dead at once, of "all references were removed".

    Raises EnvironmentFault where RAY_AUTH_MODE insists on one that the cluster does not want.
    """
    mode, told = {}, os.environ.get("RAY_AUTH_MODE")
    asks = asks_for_token(address)
    if asks is False:
        log.warning("cluster %s wants no token: whoever reaches it can run code there", address)
        if told == "token":
            raise EnvironmentFault(
                f"cluster {address}: runs without a token, so nothing that a process with "
                "RAY_AUTH_MODE=token starts there lives; unset it, or start the cluster with it"
            )
        mode = {"RAY_AUTH_MODE": "disabled"}
    elif not told:
        with contextlib.suppress(EnvironmentFault):
            read_token()
            mode = {"RAY_AUTH_MODE": "token"}
    with environment(mode):
        yield


def asks_for_token(address: str) -> bool | None:
    """Whether the head at HOST:PORT wants one; None where it does not say (a head with TLS).

    It is asked, without any, what every Ray process asks a head first: whether it is alive.
    """
    import grpc

    options = [("grpc.enable_http_proxy", 0)]  # nor does Ray ask one
    with grpc.insecure_channel(address, options) as channel:
        ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")
        try:
            ask(b"", timeout=ASK_S)
        except grpc.RpcError as error:
            refused = error.code() is grpc.StatusCode.UNAUTHENTICATED
            return True if refused else None
        return False


def token_file() -> Path:
    """Where Ray looks for it, unless it is in RAY_AUTH_TOKEN."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def token_place() -> str:
    """Where it came from, for a message."""
    return "RAY_AUTH_TOKEN" if os.environ.get("RAY_AUTH_TOKEN") else str(token_file())
