"""This machine: versions, limits, the site key, the token."""

from __future__ import annotations

import os
import platform
import resource
import stat
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from medaug.data.privacy import KEY_ENV, refuse_key_inside, site_key_file
from medaug.doctor.finding import Finding, Place, failed, passed, warned
from medaug.doctor.limits import open_files, shared_memory
from medaug.errors import UserError
from medaug.sweep.cluster.auth import token_file

NAMED = ("torch", "ray", "mlflow")
"""Packages whose versions are worth a line even when they are right."""


def examine(place: Place) -> Iterator[Finding]:
    yield from _versions()
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield open_files("open files", 1 << 30 if soft == resource.RLIM_INFINITY else soft)
    if Path("/dev/shm").is_dir():
        shm = os.statvfs("/dev/shm")
        yield shared_memory("shared memory", shm.f_bavail * shm.f_frsize)
    yield _site_key(place.storage)
    yield _token(place.address)


def _versions() -> Iterator[Finding]:
    python, wanted = platform.python_version(), metadata.metadata("medaug")["Requires-Python"]
    if python in SpecifierSet(wanted):
        yield passed("python", f"{python} (wants {wanted})")
    else:
        yield failed("python", f"{python}, wants {wanted}", "make PYTHON=python3.12 demo")
    for line in metadata.requires("medaug") or ():
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name, wanted = requirement.name, str(requirement.specifier)
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield failed(name, f"is not installed, wants {wanted}", _install(requirement))
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            yield failed(name, f"{version}, wants {wanted}", _install(requirement))
        elif name in NAMED:
            yield passed(name, f"{version} (wants {wanted})")


def _install(requirement: Requirement) -> str:
    return f"pip install -c constraints.txt '{requirement.name}{requirement.specifier}'"


def _site_key(storage: Path) -> Finding:
    path, check = site_key_file(), "site key"
    try:
        refuse_key_inside(storage)
    except UserError:
        fix = f"move it elsewhere and set {KEY_ENV} to its new place"
        return failed(check, f"{path} lies inside the storage, which is shared and copied", fix)
    if not path.exists():
        return passed(check, f"{path}: none yet, the first ingest makes it")
    if (mode := stat.S_IMODE(path.stat().st_mode)) & 0o077:
        return failed(check, f"{path} is open to others ({mode:04o})", f"chmod 600 {path}")
    return passed(check, f"{path}, for its owner only")


def _token(address: str | None) -> Finding:
    """Ray sends no token unless it is told to, and its own ``get-auth-token`` writes 0644."""
    check, path = "ray token", token_file()
    mode = os.environ.get("RAY_AUTH_MODE", "")
    if os.environ.get("RAY_AUTH_TOKEN"):
        what = "in RAY_AUTH_TOKEN, where every process of this user can read it"
        return warned(check, what, "put it into a 0600 file and name that in RAY_AUTH_TOKEN_PATH")
    if not path.exists():
        if address is None:
            return passed(check, f"{path}: none yet, the embedded cluster makes it")
        fix = "put the cluster's token there (umask 077 first), and export RAY_AUTH_MODE=token"
        return warned(check, f"{path}: none; {address} is either open to everybody or refuses", fix)
    if (bits := stat.S_IMODE(path.stat().st_mode)) & 0o077:
        return failed(check, f"{path} is open to others ({bits:04o})", f"chmod 600 {path}")
    if address is not None and mode != "token":
        what = f"{path} is there, but without RAY_AUTH_MODE=token Ray does not send it"
        return warned(check, what, "export RAY_AUTH_MODE=token")
    return passed(check, f"{path}, for its owner only")
