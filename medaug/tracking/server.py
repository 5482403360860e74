"""The MLflow server on a storage folder's own database, for this machine only."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from medaug.errors import UserError
from medaug.tracking.gate import APP, TOKEN_ENV
from medaug.tracking.uri import (
    PREFIX,
    artifact_folder,
    database,
    database_uri,
    prepare_client,
)
from medaug.tracking.view import VIEW_TAG, link

HOST = "127.0.0.1"


def serve(storage: Path, port: int) -> None:
    """Become the MLflow server of the runs in ``storage``; prints its URL, does not return.

    Raises:
        UserError: no run has been tracked there, or the port is taken.
    """
    if not database(storage).is_file():
        raise UserError(
            f"{database(storage)}: not there; run a study first, or give --storage (runs with a "
            "tracking.uri are on that server)"
        )
    _check_free(port)
    prepare_client()
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    os.environ[TOKEN_ENV] = token = secrets.token_urlsafe(24)
    start = f"http://{HOST}:{port}/?token={token}"
    print(f"MLflow starts at {start} (for you alone; Ctrl-C ends it)")
    for name, page in pages(storage):
        print(f"  {name}: {start}{page}")
    sys.stdout.flush()
    os.execv(sys.executable, command(storage, port))


def pages(storage: Path) -> Iterator[tuple[str, str]]:
    """(name, page of the leaderboard or of the runs) of each run, the latest first."""
    from mlflow import MlflowClient

    client = MlflowClient(database_uri(storage))
    for experiment in client.search_experiments(filter_string=f"name LIKE '{PREFIX}%'"):
        finished = VIEW_TAG in experiment.tags
        name = experiment.name.removeprefix(PREFIX)
        yield name, link(experiment.experiment_id, finished=finished)


def command(storage: Path, port: int) -> list[str]:
    """One worker is enough for one person, and takes a quarter of the memory."""
    options = {
        "--backend-store-uri": database_uri(storage),
        "--artifacts-destination": artifact_folder(storage).as_uri(),
        "--host": HOST,
        "--port": str(port),
        "--workers": "1",
        "--app-name": APP,
    }
    words = [word for option in options.items() for word in option]
    return [sys.executable, "-m", "mlflow", "server", *words]


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise UserError(f"--port: {port} is taken; give another one") from None
