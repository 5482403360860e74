"""A real MLflow server that dies, hangs and refuses when it is told to."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from werkzeug.serving import BaseWSGIServer, make_server


class MlflowServer:
    """MLflow's own request handlers on a SQLite database, in threads of this process.

    There can be one of them in a process.
    """

    def __init__(self, database: Path) -> None:
        self.database = database
        self._uri = f"sqlite:///{database}"
        self.hanging = 0
        """How many requests wait for it to be awake again."""
        before = dict(os.environ)
        from mlflow.server import app
        from mlflow.server.handlers import initialize_backend_stores

        artifacts = database.with_name("artifacts").as_uri()
        initialize_backend_stores(self._uri, default_artifact_root=artifacts)
        os.environ.clear()  # it tells the whole process to track there
        os.environ.update(before)
        self._app: Callable[..., Iterable[bytes]] = app
        self._status: int | None = None
        self._hangs_on = ""
        self._seconds = 0.0
        self._awake = threading.Event()
        self._awake.set()
        self._server: BaseWSGIServer | None = None
        self._port = 0
        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def client(self) -> MlflowClient:
        """A client of the server's database, which works without the server."""
        return MlflowClient(self._uri)

    def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        if self._server is None:
            self._server = make_server("127.0.0.1", self._port, self._serve, threaded=True)
            self._port = self._server.server_port
            threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def die(self) -> None:
        """Refuse connections."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def hang(self, on: str = "") -> None:
        """Take requests (for paths with ``on`` in them), but do what they ask only when awake
        again, as a stopped process does."""
        self._hangs_on = on
        self._awake.clear()

    def slow(self, seconds: float) -> None:
        """Take so long for every request."""
        self._seconds = seconds

    def refuse(self, status: int) -> None:
        """Answer every request so, as MLflow does where the Host is not allowed."""
        self._status = status

    def recover(self) -> None:
        """Be as if nothing had been."""
        self._status = None
        self._seconds = 0.0
        self._awake.set()
        self.start()

    def _serve(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if self._status is not None:
            start(f"{self._status} Refused", [("Content-Type", "text/plain")])
            return [b"Invalid Host header - possible DNS rebinding attack detected"]
        if self._hangs_on in environ["PATH_INFO"]:
            self.hanging += 1
            self._awake.wait()
            self.hanging -= 1
        time.sleep(self._seconds)
        return self._app(environ, start)
