"""Errors that end a command, each with the exit code its caller can act on."""

from __future__ import annotations


class MedaugError(Exception):
    """Base: one line for the person at the terminal, and the process's exit code."""

    exit_code = 1


class UserError(MedaugError, ValueError):
    """Bad input or configuration: names the file or field and the fix."""

    exit_code = 2


class EnvironmentFault(MedaugError):
    """The surroundings fail: storage, disk, cluster, tracking server."""

    exit_code = 3


class TrialsFailed(MedaugError):
    """The sweep finished, but some trials or input files did not make it."""

    exit_code = 4


class IntegrityError(MedaugError):
    """A shard, checkpoint or model does not have the content its manifest promises."""

    exit_code = 5


class Interrupted(MedaugError):
    """Stopped by a signal or a lost cluster; ``medaug resume`` goes on (EX_TEMPFAIL)."""

    exit_code = 75


def lines_of(error: BaseException) -> list[str]:
    """What an error says, a line at least: its kind where it says nothing, as some of Ray's do."""
    return str(error).strip().splitlines() or [type(error).__name__]
