"""What one node has finished, another finds in the bucket, whole or not at all."""

from __future__ import annotations

import http.server
import json
import sys
import threading
import time
from pathlib import Path

import boto3
import pytest
import torch
from click.testing import CliRunner

from medaug.cli import main
from medaug.doctor.finding import Place
from medaug.doctor.storage import examine
from medaug.errors import EnvironmentFault, UserError
from medaug.ownership.lease import Lease
from medaug.storage import storage_at
from medaug.storage.artifacts import Artifacts
from medaug.storage.results import ExtractResult
from medaug.storage.run_folder import refresh_run, share_run
from medaug.storage.trial_folder import TrialFolder, write_json
from medaug.storage.uri import local
from medaug.store import StoreWriter
from medaug.train.checkpoint import Ledger
from tests.storage.conftest import SECRET, URI, Node, keys
from tests.store.small import ABOUT, SMALL, write_rows
from tests.sweep.toy_trials import config
from tests.train.checkpoints import KEY, checkpoint

TRIAL = config("x")

DONE = ExtractResult(output="none", rows=0, shape=())


def ledger(storage: Path) -> Ledger:
    return Ledger(storage / "run" / "trials" / KEY)


def trial_in(storage: Path) -> TrialFolder:
    return TrialFolder(storage / "run", TRIAL.key)


def test_another_node_goes_on_from_the_newest_checkpoint(node: Node, client: boto3.client) -> None:
    first = ledger(node("one"))
    for epoch in (1, 2, 3):
        first.commit(checkpoint(epoch), fingerprint=KEY)
    folders = {key.split("/")[-2] for key in keys(client)}
    assert folders == {"ep_000002", "ep_000003"}, "old ones are removed from the bucket too"

    second = ledger(node("two"))
    found = second.latest(KEY)
    assert found is not None
    assert found.epoch == 3
    assert found.tensors["net.weight"].equal(checkpoint(3).tensors["net.weight"])
    second.commit(checkpoint(4), fingerprint=KEY)

    back = ledger(node("one")).latest(KEY)  # whose own copy ends at epoch 3
    assert back is not None
    assert back.epoch == 4


def test_half_a_checkpoint_is_none(node: Node, client: boto3.client) -> None:
    first = ledger(node("one"))
    first.commit(checkpoint(1), fingerprint=KEY)
    first.commit(checkpoint(2), fingerprint=KEY)
    place = f"a/b/run/trials/{KEY}/ep_000002/"
    client.delete_object(Bucket="medaug-tests", Key=f"{place}MANIFEST.json")  # is sent last
    for name in ("one", "two"):  # the one that was killed while it sent, and one that helps out
        found = ledger(node(name)).latest(KEY)
        assert found is not None
        assert found.epoch == 1

    first.commit(checkpoint(2), fingerprint=KEY)
    client.put_object(Bucket="medaug-tests", Key=f"{place}weights.safetensors", Body=b"torn")
    found = ledger(node("three")).latest(KEY)
    assert found is not None
    assert found.epoch == 1


def test_a_finished_trial_leaves_nothing_in_the_bucket_that_is_not_needed(
    node: Node, client: boto3.client
) -> None:
    first = ledger(node("one"))
    first.commit(checkpoint(1), fingerprint=KEY)
    first.prune(keep=0)
    assert keys(client) == []
    assert ledger(node("two")).latest(KEY) is None


def test_what_a_trial_leaves_is_seen_elsewhere(node: Node) -> None:
    mine = trial_in(node("one"))
    mine.claim(TRIAL)
    mine.log_epoch({"epoch": 1})
    mine.fail({"error": "a reason"})
    theirs = trial_in(node("two"))
    theirs.refresh()
    assert theirs.config() == TRIAL
    assert theirs.epoch() == 1
    assert theirs.failure() == {"error": "a reason"}

    theirs.reopen()
    theirs.log_epoch({"epoch": 2})
    theirs.finish(DONE)
    mine = trial_in(node("one"))
    mine.refresh()
    assert mine.failure() is None
    assert mine.result() == DONE
    assert [row["epoch"] for row in mine.epochs()] == [1, 2]


def test_what_never_reached_the_bucket_has_not_happened(node: Node) -> None:
    folder = trial_in(node("one"))
    folder.claim(TRIAL)
    folder.log_epoch({"epoch": 1})
    with open(folder.path / "epochs.jsonl", "a") as file:  # killed before it was sent
        file.write('{"epoch": 2}\n')
    (folder.path / "result.json").write_text(DONE.model_dump_json())
    folder.refresh()
    assert folder.epoch() == 1
    assert folder.result() is None


def test_who_looks_on_undoes_nothing(node: Node) -> None:
    folder = trial_in(node("one"))
    folder.claim(TRIAL)
    over = threading.Event()

    def look_on() -> None:
        while not over.is_set():
            refresh_run(folder.experiment)

    watcher = threading.Thread(target=look_on)
    watcher.start()
    try:
        for epoch in range(1, 41):
            folder.log_epoch({"epoch": epoch})
    finally:
        over.set()
        watcher.join()
    assert [row["epoch"] for row in folder.epochs()] == list(range(1, 41))


def test_a_run_is_seen_elsewhere_without_its_checkpoints(node: Node, client: boto3.client) -> None:
    mine = node("one") / "run"
    folder = trial_in(mine.parent)
    folder.claim(TRIAL)
    Ledger(folder.path).commit(checkpoint(1), fingerprint=TRIAL.key)
    write_json(mine / "study.json", {"name": "run"})
    (mine / "report.html").write_text("all of it")
    (mine / "mlflow_spool.jsonl").write_text("only this machine's")
    share_run(mine)
    assert "a/b/run/report.html" in keys(client)
    assert not [key for key in keys(client) if "spool" in key]

    theirs = node("two") / "run"
    refresh_run(theirs)
    assert json.loads((theirs / "study.json").read_text()) == {"name": "run"}
    assert trial_in(theirs.parent).config() == TRIAL
    assert not list(theirs.rglob("ep_*"))


def test_stores_and_models_come_when_they_are_opened(node: Node, client: boto3.client) -> None:
    mine = Artifacts(node("one"))
    with StoreWriter(mine.store_path("rows-1"), SMALL, **ABOUT) as writer:
        write_rows(writer, SMALL, 40)
    assert not mine.has("rows-1"), "what the bucket has not is not made"
    mine.share_store("rows-1")
    mine.save_model("unet-1", {"w": torch.arange(4.0)}, {"base": 4})
    assert mine.has("rows-1")

    theirs = Artifacts(node("two"))
    assert theirs.has("rows-1")
    assert not theirs.store_path("rows-1").exists()
    assert theirs.open_store("rows-1").read().x.equal(mine.open_store("rows-1").read().x)
    assert theirs.load_model("unet-1")[0]["w"].equal(torch.arange(4.0))
    for key in keys(client):  # whatever is needed is here now
        client.delete_object(Bucket="medaug-tests", Key=key)
    assert len(theirs.open_store("rows-1")) == 40


def test_half_a_store_is_none(node: Node, client: boto3.client) -> None:
    mine = Artifacts(node("one"))
    with StoreWriter(mine.store_path("rows-1"), SMALL, **ABOUT) as writer:
        write_rows(writer, SMALL, 40)
    storage_at(mine.storage).publish_new(mine.store_path("rows-1"), "part-*", content_named=True)
    theirs = Artifacts(node("two"))
    assert not theirs.has("rows-1")
    with pytest.raises(UserError, match=f"store rows-1: not in {URI}/stores"):
        theirs.open_store("rows-1")


def test_a_nodes_copy_keeps_to_its_limit(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Artifacts(node("one"))
    for name in ("rows-1", "rows-2"):
        with StoreWriter(mine.store_path(name), SMALL, **ABOUT) as writer:
            write_rows(writer, SMALL, 40)
        mine.share_store(name)
    n_bytes = sum(file.stat().st_size for file in mine.store_path("rows-1").iterdir())
    monkeypatch.setenv("MEDAUG_STORE_CACHE_GB", str(1.5 * n_bytes / 1e9))
    theirs = Artifacts(node("two"))
    first = theirs.open_store("rows-1")
    theirs.open_store("rows-2")
    assert not theirs.store_path("rows-1").exists()
    assert first.read().x.shape[0] == 40, "who has it open keeps it"
    assert len(theirs.open_store("rows-1")) == 40
    monkeypatch.setenv("MEDAUG_STORE_CACHE_GB", str(0.5 * n_bytes / 1e9))
    with pytest.raises(EnvironmentFault, match="raise its limit"):
        Artifacts(node("three")).open_store("rows-1")


def test_of_many_drivers_one_gets_the_lease(node: Node) -> None:
    run = node("one") / "run"
    start, leases, told = threading.Barrier(6), [], []

    def race() -> None:
        lease = Lease(run)
        start.wait()
        try:
            lease.acquire()
            leases.append(lease)
        except UserError as refusal:
            told.append(str(refusal))

    racers = [threading.Thread(target=race) for _ in range(6)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert len(leases) == 1
    assert all("experiment run is running (host" in text for text in told)
    node("two")  # another machine
    with pytest.raises(UserError, match="is running"):
        Lease(local(URI) / "run").acquire()
    node("one")
    leases[0].release()
    node("two")
    with Lease(local(URI) / "run"):
        pass


def test_a_lease_that_is_not_renewed_is_taken_over(node: Node, client: boto3.client) -> None:
    run = node("one") / "run"
    slow = Lease(run, renew_s=0.5)
    slow.acquire()
    key = "a/b/run/lease-000001.json"
    body = json.loads(client.get_object(Bucket="medaug-tests", Key=key)["Body"].read())
    body |= {"machine": "elsewhere", "host": "far"}
    slow._me = type(slow._me)(**body)  # of a machine whose processes we cannot look up
    client.put_object(Bucket="medaug-tests", Key=key, Body=json.dumps(body).encode())
    with pytest.raises(UserError, match="host far"):
        Lease(run).acquire()
    deadline = time.monotonic() + 60
    while True:  # the store's clock ticks in seconds
        try:
            taken = Lease(run, stale_s=-1.0)
            taken.acquire()
            break
        except UserError:
            assert time.monotonic() < deadline
    assert slow.lost.wait(60)
    slow.release()
    taken.release()


class Busy(http.server.BaseHTTPRequestHandler):
    """A store that asks to try again later, twice."""

    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        self.send_response(200 if self.asked > 2 else 503)
        body = b"at last" if self.asked > 2 else b"<Error><Code>SlowDown</Code></Error>"
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", "Sat, 21 Nov 2026 18:00:00 GMT")
        self.send_header("ETag", '"1"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


def test_a_store_that_is_busy_is_asked_again(
    environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        assert storage_at(local(URI)).read(local(URI) / "x") == b"at last"
        server.shutdown()
    assert Busy.asked == 3


def outcome(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, [*words, "--storage", URI])
    assert SECRET not in result.output
    assert "Traceback" not in result.output
    return result.exit_code, result.stderr.strip()


COMMANDS = [("run", "jobs/demo.yaml"), ("resume", "demo"), ("status",), ("leaderboard", "demo")]


@pytest.mark.parametrize("words", COMMANDS)
def test_a_bucket_that_is_not_there(environment: None, words: tuple[str, ...]) -> None:
    code, said = outcome(*words)
    assert (code, said) == (
        3, "error: s3://medaug-tests: there is no such bucket; make it, or correct the address",
    )  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS)
def test_no_credentials(
    environment: None, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    code, said = outcome(*words)
    assert (code, said.partition(";")[0]) == (
        3,
        "error: s3://medaug-tests: no credentials",
    )


def test_nobody_answers(client: boto3.client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    code, said = outcome("status")
    assert code == 3
    assert said.startswith("error: s3://medaug-tests: does not answer; check the network")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("words", COMMANDS)
def test_the_library_is_missing(
    environment: None, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    code, said = outcome(*words)
    assert (code, said) == (2, f"error: {URI}: wants pip install 'medaug[s3]'")


def test_doctor_sees_that_a_bucket_keeps_two_writers_apart(node: Node) -> None:
    node("one")
    findings = list(examine(Place(local(URI), None)))
    assert [f.status for f in findings][:1] == ["pass"]
    assert findings[0].what == f"{URI} can be written, and keeps two writers apart"


def test_a_trial_that_another_run_has_finished_is_taken_over_with_its_checkpoint(
    node: Node, client: boto3.client
) -> None:
    theirs = trial_in(node("one"))
    theirs.claim(TRIAL)
    theirs.log_epoch({"epoch": 1})
    Ledger(theirs.path).commit(checkpoint(1), fingerprint=TRIAL.key)
    theirs.finish(DONE)

    storage = node("two")
    refresh_run(storage / "run")
    mine = TrialFolder(storage / "mine", TRIAL.key)
    mine.claim(TRIAL)
    mine.adopt(trial_in(storage))
    assert f"a/b/mine/trials/{TRIAL.key}/ep_000001/MANIFEST.json" in keys(client)

    mine = TrialFolder(node("three") / "mine", TRIAL.key)
    mine.refresh()
    assert mine.result() == DONE
    found = Ledger(mine.path).latest(TRIAL.key)
    assert found is not None
    assert found.epoch == 1
