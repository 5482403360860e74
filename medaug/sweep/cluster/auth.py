"""The secret that lets this process into a Ray cluster."""

from __future__ import annotations

import os
from pathlib import Path

from medaug.errors import EnvironmentFault


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


def token_file() -> Path:
    """Where Ray looks for it, unless it is in RAY_AUTH_TOKEN."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def token_place() -> str:
    """Where it came from, for a message."""
    return "RAY_AUTH_TOKEN" if os.environ.get("RAY_AUTH_TOKEN") else str(token_file())
