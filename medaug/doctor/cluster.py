"""The Ray cluster, and every node of it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata

from medaug.doctor.finding import Finding, Place, failed, passed, warned
from medaug.doctor.limits import clock_skew, free_disk, open_files, shared_memory
from medaug.errors import EnvironmentFault
from medaug.spec import ResourceSpec
from medaug.sweep.cluster.gpus import settled
from medaug.sweep.cluster.nodes import Node, ask_nodes

ANSWER_S = 60.0
"""For one node: importing torch from a cold disk takes long."""


def examine(place: Place) -> Iterator[Finding]:
    name = place.address or "embedded"
    try:
        nodes = ask_nodes(place.storage, place.address, ANSWER_S)
    except EnvironmentFault as fault:
        what, _, fix = str(fault).partition("; ")
        yield failed("cluster", what, fix)
        return
    cpus, gpus = (sum(node.resources.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU"))
    yield passed(
        "cluster", f"{name}: {len(nodes)} node{'s' * (len(nodes) != 1)}, {cpus:g} CPU, {gpus:g} GPU"
    )
    yield idle_gpus(nodes, gpus)
    for node in nodes:
        yield from judge(node)


def idle_gpus(nodes: list[Node], gpus: float) -> Finding:
    """What a study gets that says nothing of GPUs."""
    seen = [node.answer.gpus for node in nodes if node.resources.get("GPU") and node.answer]
    _, line = settled(ResourceSpec(), gpus, usable=any(seen))
    if gpus and not any(seen):
        return warned("cluster gpus", line, "install torch's CUDA build on the nodes")
    return passed("cluster gpus", line)


def judge(node: Node) -> Iterator[Finding]:
    """The findings about one node."""
    where = f"node {node.address}"
    if (answer := node.answer) is None:
        fix = f"install medaug {metadata.version('medaug')} there, and look at its raylet's log"
        yield failed(where, node.error, fix)
        return
    yield _versions(where, answer.versions)
    yield _storage(where, node)
    yield clock_skew(f"{where} clock", node.skew_s, node.took_s)
    yield free_disk(f"{where} disk", "at its temporary folder", answer.disk_bytes)
    yield shared_memory(f"{where} shared memory", answer.shm_bytes)
    yield open_files(f"{where} open files", answer.open_files)
    if answer.umask & 0o007 != 0o007:
        what = f"{answer.umask:04o}: Ray's logs and temporary files are readable by everybody"
        yield warned(f"{where} umask", what, "umask 077 before `ray start`")
    else:
        yield passed(f"{where} umask", f"{answer.umask:04o}")
    if node.resources.get("GPU", 0) and not answer.nccl:
        fix = "install torch's CUDA build there, or keep resources.ranks at 1"
        yield failed(f"{where} nccl", "Ray has GPUs there, but torch is built without NCCL", fix)


def _versions(where: str, theirs: dict[str, str]) -> Finding:
    """Pickles and process groups cross the versions of Python, torch and Ray."""
    ours = {name: metadata.version(name) for name in theirs if name != "python"}
    wrong = {
        name: version for name, version in theirs.items() if ours.get(name, version) != version
    }
    check = f"{where} versions"
    if "medaug" not in theirs:
        return failed(check, "has no medaug", f"install medaug {metadata.version('medaug')} there")
    if wrong:
        what = ", ".join(f"{name} {version}, here {ours[name]}" for name, version in wrong.items())
        return failed(check, what, "install the same versions (constraints.txt) on every node")
    return passed(check, ", ".join(f"{name} {version}" for name, version in theirs.items()))


def _storage(where: str, node: Node) -> Finding:
    check, answer = f"{where} storage", node.answer
    assert answer is not None
    fix = "mount the same folder at the same path on every node, writable for Ray's user"
    if answer.seen is None:
        what = f"does not see the file that was written here ({answer.storage_error})"
        return failed(check, what, fix)
    if answer.wrote is None:
        return failed(check, f"reads it, but cannot write ({answer.storage_error})", fix)
    if not node.same_file:
        return failed(check, "what one side writes, the other reads otherwise or not at all", fix)
    return passed(check, "both sides read what the other wrote")
