"""MLflow as a study without ``tracking.uri`` of its own would use it."""

from __future__ import annotations

from collections.abc import Iterator

from medaug.doctor.finding import Finding, Place, passed, warned
from medaug.errors import EnvironmentFault, UserError
from medaug.tracking.reach import reach


def examine(place: Place) -> Iterator[Finding]:
    try:
        yield passed("mlflow server", reach(place.storage))
    except (EnvironmentFault, UserError) as fault:
        what, _, fix = str(fault).partition("; ")
        # No failure: a run goes on without it, and `medaug sync` sends later what it missed.
        yield warned("mlflow server", what, fix)
