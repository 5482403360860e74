"""Ray's Job API: a sweep whose driver runs on the cluster, whatever becomes of this machine.

What travels is one shell command with the resolved study in it: no files, no environment, no
working directory of the user's. medaug itself has to be installed on the cluster's nodes.
"""

from __future__ import annotations

import asyncio
import getpass
import json
import logging
import shlex
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from medaug.errors import (
    EnvironmentFault,
    IntegrityError,
    Interrupted,
    MedaugError,
    TrialsFailed,
    UserError,
    lines_of,
)
from medaug.spec import StudySpec
from medaug.sweep.cluster.auth import read_token, token_place

RUN, BY, STORAGE = "medaug.run", "medaug.by", "medaug.storage"
"""Metadata of our jobs: the run's name, user@host who submitted it, and where it is kept."""

STOP_SIGNAL, STOP_WAIT_S = "SIGINT", 40
"""Ray's own are SIGTERM and 3 s: too little for an epoch and its checkpoint."""

CONNECT_TIMEOUT_S = 5.0
START_TIMEOUT_S = 120.0
"""For a job to leave Ray's queue."""
SETTLE_S = 3.0
"""How long to look whether a job that was just started ends at once, for want of medaug."""
BEAT_S = 0.5
MAX_COMMAND_BYTES = 100_000
"""Linux takes 128 KiB for one argument, and the command is one."""

_SHELL_FOUND_NOTHING = 127
_ERRORS: dict[int, type[MedaugError]] = {
    error.exit_code: error
    for error in (UserError, EnvironmentFault, TrialsFailed, IntegrityError, Interrupted)
}


@dataclass(frozen=True)
class Job:
    """One submission of a run."""

    id: str
    run: str
    by: str
    state: str
    """pending, running, stopped, succeeded or failed."""
    since: str
    storage: str | None
    """None: the cluster's own MEDAUG_STORAGE."""
    exit_code: int | None
    last_words: str
    """Last line of what it printed, if it failed."""

    @property
    def is_over(self) -> bool:
        return self.state in ("stopped", "succeeded", "failed")

    def __str__(self) -> str:
        return f"job {self.id}, submitted by {self.by}, since {self.since}"

    def error(self) -> MedaugError | None:
        """How it failed, as the error that ``medaug run`` would have ended with; else None."""
        if self.state == "stopped":
            return Interrupted(f"job {self.id} was stopped; `medaug resume {self.run}` goes on")
        if self.state != "failed":
            return None
        what = self.last_words.removeprefix("error: ") or "it left no word; see Ray's dashboard"
        if self.exit_code == _SHELL_FOUND_NOTHING and what.endswith("not found"):
            return EnvironmentFault(
                f"job {self.id}: {what}; medaug must be installed in the cluster's image "
                "(docker/Dockerfile builds one), it is not sent along"
            )
        error = _ERRORS.get(self.exit_code or 0, EnvironmentFault)
        return error(f"job {self.id}: {what}")


class Jobs:
    """The jobs of medaug on the cluster whose dashboard is at ``address`` (http://HOST:8265).

    Every method raises EnvironmentFault, with what to do, when the cluster cannot be reached or
    does not let us in.
    """

    def __init__(self, address: str) -> None:
        try:
            place = urlsplit(address)
            usual = {"http": 80, "https": 443}[place.scheme]
            port = place.port or usual
        except (ValueError, KeyError):  # neither a URL nor a port from 1 to 65535
            place = None
        if place is None or not place.hostname:
            raise UserError(f"address '{address}': write http://HOST:8265, Ray's dashboard")
        self.address = address.rstrip("/")
        self.in_clear = place.scheme == "http" and not _is_loopback(place.hostname)
        """Whether the token travels readable over a network."""
        token = read_token()
        try:
            socket.create_connection((place.hostname, port), timeout=CONNECT_TIMEOUT_S).close()
        except OSError as fault:
            raise EnvironmentFault(
                f"cluster {self.address}: {fault.strerror or fault}; is its head up, and is its "
                "dashboard's port (8265) tunnelled to here (ssh -L, kubectl port-forward)?"
            ) from None
        headers = {"Authorization": f"Bearer {token}"}
        logging.getLogger("ray.dashboard.modules.job.sdk").setLevel(logging.WARNING)
        self._client = self._ask(lambda: JobSubmissionClient(self.address, headers=headers))

    def submit(self, run: str, command: str, storage: str | None = None) -> Job:
        """Start ``command`` as the driver of ``run``, which is kept in ``storage``.

        Raises:
            UserError: a job of this run is under way; says whose.
        """
        if len(command.encode()) > MAX_COMMAND_BYTES:
            raise UserError(f"{run}: the study is larger than {MAX_COMMAND_BYTES} bytes; split it")
        before = self.of_run(run)
        for job in before:
            if not job.is_over:
                raise self._refusal(job)
        number = 1 + max((_number(job.id) for job in before), default=0)
        environment = {
            "RAY_JOB_STOP_SIGNAL": STOP_SIGNAL,
            "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S),
        }
        metadata = {RUN: run, BY: f"{getpass.getuser()}@{socket.gethostname()}"}
        if storage is not None:
            metadata[STORAGE] = storage
        job_id = f"medaug-{run}-{number}"
        try:
            self._ask(
                lambda: self._client.submit_job(
                    entrypoint=command,
                    submission_id=job_id,
                    runtime_env={"env_vars": environment},
                    metadata=metadata,
                )
            )
        except _AlreadyThere:  # somebody was quicker than we
            raise self._refusal(self.get(job_id)) from None
        return self.get(job_id)

    def get(self, job_id: str) -> Job:
        return _job(self._ask(lambda: self._client.get_job_info(job_id)))

    def all(self) -> list[Job]:
        """Every job of medaug that this cluster knows, oldest first."""
        listed = self._ask(self._client.list_jobs)
        ours = [info for info in listed if RUN in (info.metadata or {}) and info.submission_id]
        return [_job(info) for info in sorted(ours, key=lambda info: info.start_time or 0)]

    def of_run(self, run: str) -> list[Job]:
        return [job for job in self.all() if job.run == run]

    def running(self, run: str) -> Job | None:
        """The job of ``run`` that is not over, if there is one."""
        return next((job for job in self.of_run(run) if not job.is_over), None)

    def await_start(self, job: Job) -> Job:
        """The job when it has left the queue."""
        return self._await(job, lambda job: job.state != "pending", START_TIMEOUT_S)

    def settle(self, job: Job) -> Job:
        """The job that was just started, after it had time to end at once if it must."""
        return self._await(self.await_start(job), lambda job: job.is_over, SETTLE_S)

    def follow(self, job: Job, tell: Callable[[str], None]) -> Job:
        """Pass on all that the job prints until it is over."""

        async def pass_on() -> None:
            async for text in self._client.tail_job_logs(job.id):
                tell(text)

        self.await_start(job)
        self._ask(lambda: asyncio.run(pass_on()))
        return self._await(self.get(job.id), lambda job: job.is_over, START_TIMEOUT_S)

    def stop(self, job: Job) -> Job:
        """Ask the job to end after the running epochs, and wait until it has; Ray kills it after
        STOP_WAIT_S."""
        self._ask(lambda: self._client.stop_job(job.id))
        return self._await(job, lambda job: job.is_over, 2 * STOP_WAIT_S)

    def last_words(self, job: Job) -> str:
        """The last line that the job printed."""
        info = self._ask(lambda: self._client.get_job_info(job.id))
        return _last_words(self._ask(lambda: self._client.get_job_logs(job.id)), info.entrypoint)

    def _await(self, job: Job, done: Callable[[Job], bool], timeout_s: float) -> Job:
        deadline = time.monotonic() + timeout_s
        while not done(job) and time.monotonic() < deadline:
            time.sleep(BEAT_S)
            job = self.get(job.id)
        return job

    def _refusal(self, job: Job) -> UserError:
        return UserError(
            f"run {job.run} is {job.state} ({job}); wait for it, stop it (medaug stop {job.run} "
            f"--address {self.address}), or choose another --name"
        )

    def _ask(self, question: Callable[[], Any]) -> Any:
        """The answer to ``question``, whose failures become ours."""
        here = f"cluster {self.address}"
        try:
            return question()
        except AuthenticationError as fault:
            refused = "does not accept" if "invalid" in str(fault) else "did not get"
            raise EnvironmentFault(
                f"{here}: {refused} the token in {token_place()}; put the cluster's own there"
            ) from None
        except (requests.RequestException, OSError) as fault:
            raise EnvironmentFault(
                f"{here}: {_first_line(fault)}; is this the port of Ray's dashboard (8265)?"
            ) from None
        except RuntimeError as fault:
            if "already exists" in str(fault):
                raise _AlreadyThere from None
            raise EnvironmentFault(f"{here}: {lines_of(fault)[-1]}; see the head's log") from None


class _AlreadyThere(Exception):
    """A job with this id exists."""


def run_command(study: StudySpec, *, storage: str | None, wait: bool) -> str:
    """The shell command that runs ``study`` on the cluster; the study comes on its standard input.

    ``storage`` is a folder as the cluster's nodes see it; None is their own ``MEDAUG_STORAGE``.
    """
    content = study.model_copy(update={"storage": Path(storage or "runs")}).canonical()
    text = json.dumps(content, ensure_ascii=False)  # JSON is YAML, and has no aliases
    return f"{_driver('run /dev/stdin', storage, wait)} <<'STUDY'\n{text}\nSTUDY"


def resume_command(
    run: str,
    *,
    storage: str | None,
    wait: bool,
    overrides: Iterable[str] = (),
    allow_version_skew: bool = False,
) -> str:
    """The shell command that goes on with ``run`` on the cluster."""
    words = ["resume", run]
    for item in overrides:
        words += ["--set", item]
    words += ["--allow-version-skew"] if allow_version_skew else []
    return _driver(shlex.join(words), storage, wait)


def _driver(command: str, storage: str | None, wait: bool) -> str:
    """``exec``, so that Ray's stop signal meets medaug and no shell around it."""
    unset = "is not set on the cluster; give --storage DIR, a folder that all its nodes see"
    folder = shlex.quote(storage) if storage else f'"${{MEDAUG_STORAGE:?{unset}}}"'
    words = ["exec medaug", command, '--address "$RAY_ADDRESS"', f"--storage {folder}"]
    return " ".join([*words, "--wait"] if wait else words)


def _job(info: JobDetails) -> Job:
    metadata = info.metadata or {}
    since = time.localtime((info.start_time or 0) / 1000)
    status: JobStatus = info.status
    failed = status == JobStatus.FAILED
    return Job(
        id=info.submission_id or "",
        run=metadata.get(RUN, ""),
        by=metadata.get(BY, "?"),
        state=status.value.lower(),
        since=time.strftime("%Y-%m-%d %H:%M:%S %Z", since),
        storage=metadata.get(STORAGE),
        exit_code=info.driver_exit_code,
        last_words=_last_words(info.message or "", info.entrypoint) if failed else "",
    )


def _last_words(log: str, entrypoint: str) -> str:
    """The last line of ``log`` that is not of the command: Ray writes it there, late at times."""
    command = entrypoint.splitlines()
    ours = [
        line
        for line in map(str.strip, log.splitlines())
        if line and line not in command and not line.startswith("Running entrypoint for job")
    ]
    return ours[-1] if ours else ""


def _number(job_id: str) -> int:
    last = job_id.rpartition("-")[2]
    return int(last) if last.isdecimal() else 0


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _first_line(fault: BaseException) -> str:
    return next(iter(str(fault).strip(" .\n").splitlines()), type(fault).__name__)
