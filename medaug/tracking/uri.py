"""Where MLflow is, and what to say when it is not."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from urllib.parse import urlsplit

from medaug.errors import UserError
from medaug.spec import StudySpec
from medaug.storage.files import private_folder

PREFIX = "medaug/"
"""Of our experiments' names: servers are shared."""

CLIENT_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
}
"""Read by MLflow when it is imported. Its own defaults wait 20 minutes for a server that hangs,
send usage data to its makers, and write the working folder's path into each new database."""


def prepare_client() -> None:
    """Before MLflow is imported: set :data:`CLIENT_SETTINGS` where the user has not, and silence
    its warnings about itself."""
    for name, value in CLIENT_SETTINGS.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", module=r"mlflow(\.|$)")


def database(storage: Path) -> Path:
    """The SQLite database that tracks a storage folder's runs where no server does."""
    return storage.absolute() / "mlflow.db"


def artifact_folder(storage: Path) -> Path:
    return storage.absolute() / "mlartifacts"


def database_uri(storage: Path) -> str:
    return f"sqlite:///{database(storage)}"


def private_database(storage: Path) -> None:
    """Make the database's file and the folder of artifacts, if new for the owner only."""
    private_folder(artifact_folder(storage))
    database(storage).touch(mode=0o600)


def inode(uri: str) -> int | None:
    """Which file the SQLite database at ``uri`` is just now; None: there is none, or no file."""
    path = uri.removeprefix("sqlite:///")
    if path == uri or "?" in path or not path.startswith("/"):
        return None
    try:
        return os.stat(path).st_ino
    except OSError:
        return None


def as_it_is(uri: str) -> str:
    """``uri`` as MLflow has to hear it to open the file that is there now.

    MLflow keeps what it has opened by its URI, for as long as the process lives: of a database that
    was deleted or replaced it would go on with the file that has no name any more. So the file's
    inode is part of the path, in binary, of ``/.`` and ``/``, which mean nothing to a file system.
    """
    if (number := inode(uri)) is None:
        return uri
    folder, _, name = uri.rpartition("/")
    marks = "".join("/." if bit == "1" else "/" for bit in f"{number:b}")
    return f"{folder}{marks}/{name}"


def tracking_uri(study: StudySpec, storage: Path) -> str:
    """The study's own, else ``MLFLOW_TRACKING_URI``, else the storage folder's database.

    Raises:
        UserError: it names a folder; MLflow 3 has given these up.
    """
    sources = {
        "tracking.uri": study.tracking.uri,
        "MLFLOW_TRACKING_URI": os.environ.get("MLFLOW_TRACKING_URI"),
    }
    for source, uri in sources.items():
        if uri:
            return usable_uri(source, uri)
    return database_uri(storage)


def usable_uri(source: str, uri: str) -> str:
    """``uri``, which ``source`` gives.

    Raises:
        UserError: it is no address, names a database in a folder that is not there, or a folder;
            MLflow 3 has given these up.
    """
    try:
        parts = urlsplit(uri)
        _ = parts.port  # raises, too
    except ValueError as why:
        raise UserError(
            f"{source}: {without_password(uri)} is no address ({why}); "
            "use http://HOST:PORT or sqlite:////PATH/mlflow.db"
        ) from None
    place = uri.removeprefix("sqlite:///")
    if place != uri and "?" not in place and place and not Path(place).parent.is_dir():
        raise UserError(  # MLflow tries for minutes
            f"{source}: {uri}: there is no folder {Path(place).parent}; make it, or mend the path"
        )
    if parts.scheme in ("", "file") and uri != "databricks":
        raise UserError(
            f"{source}: {uri} is a folder, which MLflow 3 does not write; "
            "use http://HOST:PORT or sqlite:////PATH/mlflow.db"
        )
    return uri


def without_password(uri: str) -> str:
    """``uri`` as it may be printed."""
    return re.sub(r"://[^/@\s]*@", "://", uri)


_DIAGNOSES = {
    r"Invalid Host": "refuses this host name (403); start it with --allowed-hosts {host}",
    r"\b401\b": "wants a user; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    r"\b403\b": "forbids it (403); ask for the right to write there",
    r"timed out|timeout": "does not answer; look at its log, or restart it",
    r"refused|unreachable|Failed to (establish|resolve)|reset by peer|Connection aborted": (
        "cannot be reached; start it, or correct tracking.uri"
    ),
    r"database is locked": "is locked by another process; end that one",
    r"not a database|disk image is malformed": (
        "is no database, or a damaged one; put it aside, and `medaug sync NAME` of each run makes "
        "a new one"
    ),
    r"readonly database": "may not be written; give its file and its folder to this user",
}


def diagnosis(error: BaseException, uri: str) -> str:
    """What is the matter with the MLflow at ``uri`` and what to do, in one line, no password."""
    text = without_password(" ".join(str(error).split()))
    what = f"fails ({type(error).__name__}: {text[:200]})"
    for pattern, known in _DIAGNOSES.items():
        if re.search(pattern, text):
            what = known.format(host=urlsplit(uri).netloc.rpartition("@")[2])
            break
    return f"MLflow at {without_password(uri)} {what}"
