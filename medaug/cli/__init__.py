"""The ``medaug`` command. Every import that costs time happens inside a command."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import logging
import os
import re
import sys
from itertools import chain
from typing import Any

import click

from medaug.cli import bench, cluster, doctor, init, plan, results, study
from medaug.errors import EnvironmentFault, MedaugError


def _write_no_more() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say_error(text: object) -> None:
    with contextlib.suppress(OSError):  # nobody may be there: the exit code says it, too
        click.echo(f"error: {text}", err=True)


def _tell_fault(error: OSError) -> int:
    """Of a file that was named on the command line, or of where the output goes; the exit code."""
    if error.filename is None and error.errno in (errno.ENOSPC, errno.EIO):
        _write_no_more()
        _say_error(f"standard output: {error.strerror}; write it elsewhere")
    else:
        named = os.fsdecode(error.filename or "")
        where = re.sub(r"(^|/)\.([^/]+)\.tmp-[^/]+", r"\1\2", named)  # written aside at first
        where = f"{where}: " if where else ""
        _say_error(f"{where}{error.strerror}; name another place, or make this one accessible")
    return EnvironmentFault.exit_code


_PLAIN = str.maketrans(
    {"−": "-", "–": "-", "—": "-", "≤": "<=", "≥": ">=", "×": "x", "·": "*", "…": "...",
     "→": "->", "±": "+-", "√": "sqrt", "²": "^2", "“": '"', "”": '"', "’": "'"}
)  # fmt: skip


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """Characters that the terminal's encoding lacks, in ASCII: a minus stays a minus."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_PLAIN)
    return text.encode("ascii", "backslashreplace").decode(), error.end


class _Group(click.Group):
    """Turns medaug's own errors into one line and their exit code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        for name in ("stdin", "stdout", "stderr"):  # closed by whoever started us
            if getattr(sys, name) is None:
                setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115
        codecs.register_error("medaug", _plainly)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # no terminal lacks what it cannot show
                stream.reconfigure(errors="medaug")
        return super().main(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except MedaugError as error:
            if ctx.params.get("debug"):
                raise
            _say_error(error)
            ctx.exit(error.exit_code)
        except BrokenPipeError:  # `medaug … | head`: the reader has seen enough
            _write_no_more()
            ctx.exit(0)
        except OSError as error:  # of the storage, rooms below have made a fault of their own
            if ctx.params.get("debug") or error.errno is None:
                raise
            ctx.exit(_tell_fault(error))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(c.name or "", c.get_short_help_str(80)) for c in commands])


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option("-v", "--verbose", count=True, help="Say more: -v what happens, -vv every epoch.")
@click.version_option(package_name="medaug")
def main(debug: bool, verbose: int) -> None:
    """Data-augmentation studies for medical images, as distributed training sweeps."""
    if os.path.expanduser("~") == "~":  # a container's account that nobody has named
        raise EnvironmentFault(
            f"HOME: is not set, and uid {os.getuid()} has no home folder; set it to a folder that "
            "stays, for the site key"
        )
    os.umask(0o077)  # what is derived from patients' scans is for its owner alone
    if verbose:
        shown = logging.StreamHandler()
        shown.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        shown.setLevel(logging.DEBUG if verbose > 1 else logging.INFO)
        logging.getLogger("medaug").addHandler(shown)
        logging.getLogger("medaug").setLevel(shown.level)


SECTIONS: dict[str, tuple[click.Command, ...]] = {
    "Commands for a study": (init.init, init.check, plan.plan, study.run, study.resume, study.show),
    "Commands for its results": (
        results.leaderboard,
        results.compare,
        results.report,
        results.ui,
        results.export,
        results.unseal,
        results.score,
        results.predict,
        results.verify,
        study.sync,
    ),
    "Commands for a cluster": (cluster.submit, cluster.status, cluster.stop),
    "Other commands": (doctor.doctor, results.models, bench.bench),
}
for command in chain.from_iterable(SECTIONS.values()):
    main.add_command(command)
