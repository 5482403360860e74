"""Rows 67 to 92: study files, the command line, storage, resuming, terminals, MLflow."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner

from medaug.cli import main
from medaug.data.privacy import site_key
from medaug.errors import MedaugError
from medaug.ownership.identity import check_same_data, claim_folder, forked
from medaug.plan.sizes import held_back
from medaug.plan.trials import plan_study
from medaug.spec import ExtractTrial, FeatureSpec, ResourceSpec
from medaug.storage.artifacts import Artifacts
from medaug.storage.manifest import read_sealed, sealed
from medaug.storage.probe import check_storage
from medaug.store import Store, StoreSchema, StoreWriter
from medaug.store.digest import digest_of
from medaug.study import resume_study
from medaug.sweep.cluster.start import Cluster
from medaug.sweep.runner import Sweep
from medaug.tracking.tracker import Tracker
from medaug.train.world import World, check_batch_size
from tests.audit.small_runs import SLICES, study, write_slices
from tests.bad_inputs.case import GOOD_STUDY, Case, Make, NotHere, load
from tests.store.small import ABOUT, SMALL, write_rows

ROOT = Path(__file__).parents[2]


def spec(text: str | bytes, *overrides: str, whole: bool = False) -> Make:
    """A study file; ``text`` is added to a good one, or is all of it."""
    body = text if whole or isinstance(text, bytes) else GOOD_STUDY + text

    def make(folder: Path, _: object) -> object:
        return load(folder, body, *overrides).canonical()

    return make


def planned(text: str, *overrides: str) -> Make:
    def make(folder: Path, _: object) -> object:
        arms = "name: x\narms: {none: {}, acgan: {}}\n"
        return f"{len(plan_study(load(folder, arms + text, *overrides), SLICES))} trials"

    return make


def sizes(folder: Path, _: object) -> object:
    small = study(folder, sweep={"n_synthetic": [24], "train_rows": [10**6]})
    write_slices(small)
    return held_back(small, Artifacts(folder).open_store(SLICES))


def too_many_ranks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """What Ray says of a machine of two CPUs; no cluster is needed to judge it."""
    node = {"Alive": True, "Resources": {"CPU": 2.0, "node:10.0.0.1": 1.0}}
    monkeypatch.setattr("ray.nodes", lambda: [node])
    return Cluster().require(8, ResourceSpec(ranks=8, gpus_per_rank=1))


def edited(**changes: Any) -> Callable[[Path, object], object]:
    """The same name, another learning rate."""

    def make(folder: Path, _: object) -> object:
        check_same_data(claim_folder(study(folder)), "slices-000000000001")
        other = study(folder, classifier={"kind": "linear", "epochs": 4, "lr": 0.5})
        return claim_folder(forked(other) if changes.get("fork") else other).name

    return make


def corrected(folder: Path, _: object) -> object:
    """Before any scan was read, a mistake may be mended under the same name."""
    claim_folder(study(folder))
    return claim_folder(study(folder, classifier={"kind": "linear", "epochs": 4, "lr": 0.5})).name


def newer_study(folder: Path, _: object) -> object:
    claim_folder(study(folder))
    path = folder / "small" / "study.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantum": True}))
    return resume_study(folder / "small")


def other_data(folder: Path, _: object) -> object:
    check_same_data(folder, "slices-000000000001")
    return check_same_data(folder, "slices-000000000002")


def damaged(change: Callable[[Path], object]) -> Make:
    def make(folder: Path, _: object) -> object:
        path = made(folder)
        change(next(path.glob("*.arrow")))
        return Store.open(path)

    return make


def made(folder: Path, schema: StoreSchema = SMALL, name: str = "features-1") -> Path:
    with StoreWriter(folder / name, schema, **ABOUT) as writer:
        write_rows(writer, schema, 40)
    return folder / name


def flip(shard: Path) -> None:
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)


def from_the_future(shard: Path) -> None:
    path = shard.with_name("manifest.json")
    path.write_bytes(sealed(read_sealed(path) | {"format": "medaug-store-99"}))


def pickled_column(shard: Path) -> None:
    """An extension type, which some readers unpickle; every hash is forged to agree."""
    table = pa.ipc.open_file(shard).read_all()
    at = table.schema.get_field_index("label")
    about = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": b"cos"}
    field = pa.field("label", pa.binary(), metadata=about)
    table = table.remove_column(at).add_column(at, field, pa.array([b"cos"] * len(table)))
    with pa.OSFile(str(shard), "wb") as sink, pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table)
    true = {"bytes": shard.stat().st_size, "digest": digest_of(shard)}
    sidecar, manifest = shard.with_suffix(".json"), shard.with_name("manifest.json")
    sidecar.write_bytes(sealed(read_sealed(sidecar) | true))
    body = read_sealed(manifest)
    body["shards"][0] |= true
    manifest.write_bytes(sealed(body))


def unlike(folder: Path, _: object) -> object:
    one, other = made(folder), made(folder, StoreSchema((3, 3, 5), "float16"), "features-2")
    return Store.concat(Store.open(one), Store.open(other))


def stray_shard(folder: Path, _: object) -> object:
    """What the manifest does not promise is not read."""
    path = made(folder)
    shard = next(path.glob("*.arrow"))
    shard.with_name("part-009-shard-00000.arrow").write_bytes(b"not of this store")
    return f"{len(Store.open(path))} rows"


def cli(*arguments: str) -> Make:
    """A command, in this process, as its exit code and last line on stderr."""

    def make(folder: Path, monkeypatch: pytest.MonkeyPatch) -> object:
        monkeypatch.chdir(folder)
        (folder / "study.yaml").write_text(GOOD_STUDY)
        done = CliRunner().invoke(main, arguments)
        assert isinstance(done.exception, SystemExit | None), done.exception
        if done.exit_code:
            error = MedaugError(done.stderr.removeprefix("error: ").rstrip("\n"))
            error.exit_code = done.exit_code
            raise error
        return done.stdout

    return make


def process(*arguments: str, stdout: int | None = None, **environment: str) -> str:
    """A command in a process of its own, where the terminal matters."""
    done = subprocess.run(
        [sys.executable, "-m", "medaug", *arguments],
        stdout=subprocess.PIPE if stdout is None else stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    return (done.stdout or b"").decode("ascii").replace("\n", " ")


def reader_gone(folder: Path, _: object) -> object:
    """``medaug show … | head``, when head has seen enough."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        return "quiet" + process("show", str(ROOT / "jobs/demo.yaml"), stdout=write_end)
    finally:
        os.close(write_end)


def plain_terminal(folder: Path, _: object) -> object:
    return process("show", str(ROOT / "jobs/demo.yaml"), LANG="C", LC_ALL="C", PYTHONUTF8="0")


def stopped_twice(folder: Path, _: object) -> object:
    trial = ExtractTrial(slices="none", features=FeatureSpec(), unet="none", fold=0)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with Sweep(folder / "x", folder, ResourceSpec()) as sweep:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            return sweep.run([trial])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def no_home(folder: Path, _: object) -> object:
    (folder / "home").touch()
    return site_key(folder / "home" / ".config" / "site.key")


def no_mlflow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{unused.getsockname()[1]}"
    required = study(folder, tracking={"uri": uri, "required": True})
    with contextlib.ExitStack() as stack:
        tracker = Tracker(required, claim_folder(required))
        return stack.enter_context(tracker)


GRID = "sweep: {grid: {acgan.ngf: [4, 8, 4], acgan.epochs: [1]}, n_synthetic: [5, 5], seeds: [0]}\n"
HUGE = f"sweep: {{n_synthetic: {list(range(1, 900))}, seeds: {list(range(900))}}}\n"

STUDIES = [
    Case(67, "1e-4", spec("classifier: {lr: 1e-4}\n"), r"'lr': 0\.0001", 0),
    Case(67, "text", spec("classifier: {lr: fast}\n"), "classifier.lr: should be a valid number"),
    Case(68, "twice", spec("storage: a\nstorage: b\n"), "study.yaml:4: storage was already given on line 3"),
    Case(69, "typo", spec("classifier: {epocs: 3}\n"), "classifier.epocs: .*did you mean 'epochs'"),
    *(
        Case(70, value, spec(f"classifier: {{epochs: {value}}}\n"), "classifier.epochs: ")
        for value in ("no", "off", "012", "1:30", "1_000", "true")
    ),
    Case(71, "python object", spec("x: !!python/object/apply:os.system [ls]\n"), "not allowed"),
    Case(72, "aliases", spec("a: &a [1]\nb: *a\n"), "aliases are not allowed"),
    Case(72, "nodes", spec("a: [" + "1," * 20_000 + "]\n"), "10000 nodes"),
    Case(72, "bytes", spec(b"a: 1\n" * 300_000), "larger than 1000000 bytes"),
    Case(73, "nesting", spec("a: " + "[" * 2000 + "]" * 2000 + "\n"), "levels"),
    Case(74, "tabs", spec("data:\n\tlayout: x\n"), "tab"),
    Case(74, "empty", spec(b""), "is empty"),
    Case(74, "list", spec(b"- a\n"), "is not a mapping"),
    Case(74, "two documents", spec("---\nname: y\n"), "2 documents"),
    *(
        Case(75, text, spec(f"classifier: {{{text}}}\n"), r"classifier\.\w+: ")
        for text in ("lr: -1", "lr: 0", "lr: .nan", "lr: .inf", "batch_size: 0", "epochs: 0")
    ),
    Case(75, "betas", spec("name: x\narms: {acgan: {betas: [0.5, 1.0]}}\n", whole=True), r"arms\.acgan\.betas"),
    Case(75, "ratio", spec("sweep: {n_synthetic: [-3]}\n"), "sweep.n_synthetic.*greater than or equal to 1"),
    Case(76, "empty axis", spec("sweep: {seeds: []}\n"), "0 trials"),
    Case(76, "empty grid axis", spec("sweep: {grid: {none.x: []}}\n"), "0 trials"),
    Case(77, "too many", planned(HUGE), r"12150010 trials, more than sweep.max_trials = 10000"),
    Case(77, "a lower limit", planned("sweep: {seeds: [0, 1]}\n", "sweep.max_trials=3"), "more than sweep.max_trials = 3"),
    Case(78, "equal points", planned(GRID), "^76 trials", 0),
    Case(79, "more rows than there are", sizes, r"sweep.train_rows: 1000000, but the smallest fold .* at most"),
    Case(80, "fewer than ranks", lambda folder, _: check_batch_size(2, World(0, 4, 0, None), "classifier.batch_size"), "a global batch of 2 cannot feed 4 ranks"),
    Case(81, "more than the cluster", too_many_ranks, r"wants 8 ranks .* 1 GPU .* room for 0 \(2 CPU and 0 GPU.*--wait", 3),
    Case(82, "metric", planned("sweep: {asha: {metric: val/accuracy}}\n"), "sweep.asha.metric: no generator reports 'val/accuracy'"),
    Case(82, "direction", planned("sweep: {asha: {mode: max}}\n"), "sweep.asha.mode: max would keep the worst"),
    Case(82, "too late", planned("sweep: {asha: {grace_period: 60}}\n"), "sweep.asha.grace_period: 60 epochs of grace stop no generator"),
    Case(83, "variable", spec("storage: ${MEDAUG_NOT_SET}/runs\n"), "MEDAUG_NOT_SET} is not set"),
    Case(83, "password", spec("mlflow_password: hunter2\n"), "looks like a secret"),
    Case(83, "password in a URI", spec("tracking: {uri: 'http://me:pw@host'}\n"), "holds a password"),
    Case(84, "missing", cli("run", "study.yaml", "--storage", "no/such/place"), "parent folder does not exist.*--mkdir", 3),
    Case(84, "a file", lambda folder, _: (folder / "f").touch() or check_storage(folder / "f" / "runs"), "make it writable or choose another", 3),
    Case(84, "read-only", lambda folder, _: check_storage(Path("/proc/medaug")), "make it writable or choose another", 3),
    Case(85, "another experiment", edited(), "holds another study"),
    Case(85, "corrected", corrected, "^small$", 0),
    Case(85, "newer", newer_study, "quantum: unknown key"),
    Case(86, "edited", edited(), r"classifier\.lr: 0\.05 -> 0\.5.*--fork"),
    Case(86, "forked", edited(fork=True), "^small-[0-9a-f]{6}$", 0),
    Case(87, "other scans", other_data, "began with slices-000000000001, but", 5),
    Case(87, "missing shard", damaged(Path.unlink), r"shard-00000\.arrow", 5),
    Case(87, "stray shard", stray_shard, "40 rows", 0),
    Case(88, "bit flip", damaged(flip), r"shard-00000\.arrow", 5),
    Case(89, "newer format", damaged(from_the_future), "medaug-store-99, this medaug reads"),
    Case(89, "other rows", unlike, "differ|rows"),
    Case(90, "extension type", damaged(pickled_column), "column label is"),
    Case(91, "Ctrl-C twice", stopped_twice, "stopped by SIGINT; `medaug resume` goes on", 75),
    Case(91, "reader gone", reader_gone, "^quiet$", 0),
    Case(91, "LANG=C, no terminal", plain_terminal, "# signature: [0-9a-f]{12}", 0),
    Case(91, "no home", no_home, "MEDAUG_SITE_KEY_FILE", 3),
    Case(91, "full disk", lambda folder, _: check_storage(folder, 10**18), "need 1000000000000 MB, have", 3),
    Case(92, "a folder", lambda folder, _: Tracker(study(folder, tracking={"uri": "./mlruns"}), folder), "is a folder, which MLflow 3 does not write"),
    Case(92, "required and gone", no_mlflow, "tracking.required: MLflow at .* cannot be reached"),
]  # fmt: skip

NOT_HERE = [
    NotHere(10, "a consistent gzip bomb is refused from its header like any volume over the limit"),
    NotHere(79, "a synthetic ratio has no maximum: every arm makes as many rows as are asked for"),
    NotHere(
        80, "batches are global, so more ranks never want more rows; a batch beyond the set is cut"
    ),
    NotHere(81, "--wait queues; that trials then wait is tests/sweep's to show, with a cluster"),
    NotHere(84, "different file systems per node need several nodes: tests/chaos"),
    NotHere(
        91, "a driver in the middle of a wave stops on two signals in tests/sweep/test_driver.py"
    ),
    NotHere(
        92, "a 403, an expired token and a hanging server are tests/tracking/test_tracker_faults.py"
    ),
]
"""Parts of rows that cannot apply, or that need more than one process and are tested elsewhere."""
