"""What Ray and Tune find in this process while a cluster is up; it is all put back afterwards."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, TextIO

log = logging.getLogger(__name__)

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # no second cluster when this one is gone
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",  # of 15, ranks starve beside anything else that runs
    "RAY_prestart_worker_first_driver": "0",  # a process for each core, and our trials use none
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints a table whatever its verbosity
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # nobody reads what it writes
    "TUNE_MAX_PENDING_TRIALS_PG": "200",  # tells an autoscaler how much is wanted
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}


LOOPBACK = "127.0.0.1"

_ALONE = {
    # Metrics are served to whoever asks, without the token.
    "RAY_enable_metrics_collection": "0",
    "AUTOSCALER_METRIC_PORT": "65536",  # these two have no switch: no port, so they are not served
    "DASHBOARD_METRIC_PORT": "65536",
}
_ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Ray's own way to say that this machine is no part of a larger cluster, the default on Windows and
macOS: only then 127.0.0.1 stays the node's address, and all that it starts listens there."""


_TOKEN = {"RAY_AUTH_MODE": "token"}
"""Ray before 2.59 asks nobody for a token unless this says so."""


@contextlib.contextmanager
def for_ray(*, alone: bool = False, joins: bool = False) -> Iterator[None]:
    """Settings of Ray and Tune, and what they have to say goes to the log.

    ``alone``: for a cluster of this machine that nobody else may reach. Ray reads that when it is
    imported; where somebody has imported it before, it listens on all interfaces, says the log.
    ``joins``: it is there, and whether it wants a token is its own affair.

    Ray lets a process whose connection to the node's raylet breaks end itself with exit code 1, and
    no word, if its parent process is gone or is process 1 (a container's init): it takes the parent
    for the raylet. Named here as what to look at, this process itself is always there, so that a
    sweep can end with what it has to say.
    """
    settings = {**_ENVIRONMENT, "RAY_RAYLET_PID": str(os.getpid())}
    if alone:
        settings |= _ALONE
        if _reads_our_mode() and not joins:
            settings |= _TOKEN
        if _may_stay_on_loopback():
            settings |= _ON_LOOPBACK
        else:
            log.warning(
                "Ray was imported here before medaug did it: what it starts listens on all "
                "interfaces, and asks for its token with Ray 2.59 or later, or where "
                "RAY_AUTH_MODE=token was set before that import"
            )
    with contextlib.ExitStack() as stack:
        stack.enter_context(environment(settings, "RAY_AUTH_MODE"))  # Ray sets that itself
        import ray  # noqa: F401  # it sets its loggers' levels

        for name in ("ray", "ray.tune", "ray.train"):  # what matters, the outcomes say
            stack.enter_context(_level(name, logging.CRITICAL))
        # The raylet's page about each worker that died has no switch of its own.
        stack.enter_context(contextlib.redirect_stdout(_WithoutRay(sys.stdout)))
        yield


@cache
def _reads_our_mode() -> bool:
    """Whether this process has yet to import Ray when first asked. Ray reads ``RAY_AUTH_MODE`` when
    it is imported and never again, so processes that it starts later must not be told otherwise."""
    return "ray" not in sys.modules


def _may_stay_on_loopback() -> bool:
    """Whether Ray is yet to be imported, or was imported so."""
    if "ray" not in sys.modules:
        return True
    import ray

    return ray.util.get_node_ip_address() == LOOPBACK


@contextlib.contextmanager
def environment(values: Mapping[str, str], *others: str) -> Iterator[None]:
    """``values`` in this process's environment, for those that it starts, too.

    They are put back afterwards, as are ``others``, whoever changes them.
    """
    before = {name: os.environ.get(name) for name in (*values, *others)}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _level(name: str, level: int) -> Iterator[None]:
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


class _WithoutRay:
    """Standard output; what Ray's own threads print goes to the log. One of another name prints."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if not threading.current_thread().name.startswith("ray_"):
            return self._stream.write(text)
        if text.strip():
            log.debug("%s", text.rstrip())
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
