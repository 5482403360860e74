"""Raw patient ids never leave; the site key is private and is not lost or shared by accident."""

import hashlib
import hmac
import threading

import pytest

from medaug.data.privacy import (
    KEY_ENV,
    Pseudonymiser,
    pseudonym,
    refuse_key_inside,
    site_key,
    site_key_file,
)
from medaug.errors import EnvironmentFault, UserError

KEY = bytes(range(32))


def test_a_pseudonym_is_the_keyed_hash():
    wanted = hmac.new(KEY, b"TCGA_CS_4941", hashlib.sha256).hexdigest()[:12]
    assert Pseudonymiser(KEY).pseudonym("TCGA_CS_4941") == f"p-{wanted}"


def test_another_key_gives_other_names_and_nfc_one():
    one, other = Pseudonymiser(KEY), Pseudonymiser(KEY[::-1])
    assert one.pseudonym("a") != other.pseudonym("a")
    assert one.pseudonym("\u00e9") == one.pseudonym("e\u0301")
    assert one.pseudonym("7") != one.pseudonym("007")


def test_a_weak_key_is_refused():
    with pytest.raises(ValueError, match="at least 32 bytes"):
        Pseudonymiser(b"secret")


def test_redact_replaces_whole_ids_only():
    site = Pseudonymiser(KEY)
    ids = ["CS_1", "CS_12", "a.b"]
    text = "/in/CS_12/CS_12_flair.nii.gz and CS_1, not CS_123, a.b but not axb"
    redacted = site.redact(text, ids)
    long, short, dotted = map(site.pseudonym, ("CS_12", "CS_1", "a.b"))
    assert (
        redacted == f"/in/{long}/{long}_flair.nii.gz and {short}, not CS_123, {dotted} but not axb"
    )
    assert site.redact(text, []) == text


def test_the_key_is_made_once_and_private(tmp_path):
    path = tmp_path / "new" / "folder" / "site.key"
    key = site_key(path)
    assert len(key) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert site_key(path) == key
    assert [p.name for p in path.parent.iterdir()] == ["site.key"]


def test_of_two_makers_one_wins(tmp_path):
    keys = []
    start = threading.Barrier(8)

    def make():
        start.wait()
        keys.append(site_key(tmp_path / "site.key"))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1


def test_the_environment_names_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv(KEY_ENV, str(tmp_path / "a.key"))
    assert site_key_file() == tmp_path / "a.key"
    one = pseudonym("x")
    monkeypatch.setenv(KEY_ENV, str(tmp_path / "b.key"))
    assert pseudonym("x") != one
    monkeypatch.delenv(KEY_ENV)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert site_key_file() == tmp_path / ".config/medaug/site.key"


def test_a_key_that_others_can_read_is_refused(tmp_path):
    path = tmp_path / "site.key"
    site_key(path)
    path.chmod(0o640)
    with pytest.raises(UserError, match="readable by others; chmod 600"):
        site_key(path)


@pytest.mark.parametrize("content", [b"", b"abcd", b"z" * 64, b"\xff" * 64])
def test_a_damaged_key_is_refused_not_replaced(tmp_path, content):
    path = tmp_path / "site.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(UserError, match="is not 64 hex digits"):
        site_key(path)
    assert path.read_bytes() == content


def test_no_place_for_the_key(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFault, match=KEY_ENV):
        site_key(tmp_path / "file" / "site.key")


def test_a_key_inside_storage_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(KEY_ENV, str(tmp_path / "runs" / "x" / "site.key"))
    with pytest.raises(UserError, match="lies inside the storage folder"):
        refuse_key_inside(tmp_path / "runs")
    refuse_key_inside(tmp_path / "elsewhere")
