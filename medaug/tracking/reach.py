"""Whether MLflow can be reached from here, and does not turn us away."""

from __future__ import annotations

import os
from pathlib import Path

from medaug.errors import EnvironmentFault
from medaug.tracking.uri import (
    database,
    database_uri,
    diagnosis,
    prepare_client,
    usable_uri,
    without_password,
)


def reach(storage: Path) -> str:
    """Ask the MLflow that ``MLFLOW_TRACKING_URI`` names, else the storage's own database, for its
    experiments; returns what answered, in a line.

    Raises:
        EnvironmentFault: it does not answer or refuses; with what to do.
        UserError: the address is a folder.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        if not database(storage).exists():
            return f"{database(storage)}: none yet, the first run makes it"
        uri = database_uri(storage)
    else:
        uri = usable_uri("MLFLOW_TRACKING_URI", uri)
    prepare_client()
    from mlflow import MlflowClient

    try:
        MlflowClient(uri).search_experiments(max_results=1)
    except Exception as error:  # MLflow raises whatever its transports do
        raise EnvironmentFault(diagnosis(error, uri)) from None
    return f"{without_password(uri)} answers"
