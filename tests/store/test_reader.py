"""Views, batches, and the two ways to read them."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medaug.errors import IntegrityError, UserError
from medaug.store import Fold, Provenance, Splits, Store, StoreSchema, memory, reader
from tests.store.small import ALONE, PROVENANCE, SMALL, rank_of, rows_of

MakeStore = Callable[..., Store]

SPLITS = Splits(
    folds=(Fold(("p-0", "p-1"), ("p-2",), ("p-3",)), Fold(("p-2", "p-3"), ("p-1",), ("p-0",))),
    test=("p-4", "p-5"),
    seed=3,
)
BIG_ROWS = StoreSchema((33, 64, 64), "float16", (8, 8))


def batch_rows(store: Store, size: int = 8, **options: object) -> list[int]:
    order = {"seed": 0, "epoch": 0} | options
    return [row for batch in store.batches(ALONE, size, **order) for row in batch.row.tolist()]


@pytest.mark.parametrize("schema", [BIG_ROWS, StoreSchema((2, 3, 5), "bfloat16", (3, 3))])
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("access", ["pread", "direct"])
def test_map_and_disk_give_equal_batches(make_store: MakeStore, schema, size, access) -> None:
    path = make_store(24, schema, shard_bytes=7 * schema.row_bytes).path
    options = {"seed": 0, "epoch": 1, "steps": 6}
    mapped, on_disk = (Store.open(path, access=how) for how in ("map", access))
    written = rows_of(schema, 24)
    for rank in range(size):
        world = rank_of(size, rank)
        pairs = zip(
            mapped.batches(world, 8, **options), on_disk.batches(world, 8, **options), strict=True
        )
        for one, other in pairs:
            assert torch.equal(one.row, other.row)
            assert torch.equal(one.label, other.label)
            assert torch.equal(one.x, other.x)
            assert one.mask is not None
            assert other.mask is not None
            assert torch.equal(one.mask, other.mask)
            rows = one.row.numpy()
            assert np.array_equal(one.x.float().numpy(), written["x"][rows])
            assert np.array_equal(one.mask.numpy(), written["mask"][rows])
            assert one.label.tolist() == written["label"][rows].tolist()


@pytest.mark.parametrize("access", ["map", "pread", "direct"])
def test_last_batch_is_short_and_shares_may_be_empty(make_store: MakeStore, access) -> None:
    store = make_store(9, access=access)
    order = {"seed": 0, "epoch": 0, "shuffle": False, "drop_last": False}
    read = [
        [batch.row.tolist() for batch in store.batches(rank_of(4, rank), 8, **order)]
        for rank in range(4)
    ]
    assert [share[0] for share in read] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert sorted(len(share[1]) for share in read) == [0, 0, 0, 1]
    empty = next(iter(store.select(np.arange(3)).batches(rank_of(4), 8, **order)))
    assert empty.x.shape == (0, *SMALL.shape)


@pytest.mark.parametrize("access", ["map", "pread", "direct"])
def test_memory_of_batches_is_used_again(make_store: MakeStore, access) -> None:
    store = make_store(400, access=access)
    places = {batch.x.data_ptr() for batch in store.batches(ALONE, 4, seed=0, epoch=0)}
    assert len(places) == (1 if access == "map" else 4)
    again = {batch.x.data_ptr() for batch in store.batches(ALONE, 4, seed=0, epoch=1)}
    assert again == places


@pytest.mark.parametrize("access", ["map", "pread", "direct"])
def test_a_batch_kept_from_a_loop_left_early_stays(make_store: MakeStore, access) -> None:
    store = make_store(40, access=access)
    kept = next(store.batches(ALONE, 4, seed=0, epoch=0))
    gc.collect()
    before = kept.x.clone()
    for _ in store.batches(ALONE, 4, seed=0, epoch=1):
        pass
    assert torch.equal(kept.x, before)


@pytest.mark.parametrize("access", ["map", "pread", "direct"])
def test_two_loops_at_a_time_do_not_share_memory(make_store: MakeStore, access) -> None:
    store = make_store(40, access=access)
    for one, other in zip(
        store.batches(ALONE, 4, seed=0, epoch=0),
        store.batches(ALONE, 4, seed=0, epoch=1),
        strict=True,
    ):
        assert torch.equal(one.x, store.read(one.row.numpy()).x)
        assert torch.equal(other.x, store.read(other.row.numpy()).x)


def test_start_skips_batches_without_reading_them(make_store: MakeStore) -> None:
    store = make_store(40)
    whole = batch_rows(store)
    for start in range(6):
        assert batch_rows(store, start=start) == whole[8 * start :]


def test_split_gives_the_patients_of_a_role(make_store: MakeStore) -> None:
    store = make_store(40, splits=SPLITS)
    for fold in (0, 1):
        for role in ("train", "val", "eval"):
            part = store.split(role, fold)
            assert set(part.patients) == set(getattr(SPLITS.folds[fold], role))
    assert set(store.split("test").patients) == {"p-4", "p-5"}
    assert store.splits == SPLITS
    assert store.manifest["splits"]["hash"] == SPLITS.to_json()["hash"]
    train = store.split("train", 1)
    rows = store.slice_index[np.isin(store.patients, ["p-2", "p-3"])]
    assert train.slice_index.tolist() == rows.tolist()
    assert train.read([1]).x.tolist() == store.read([9]).x.tolist()


@pytest.mark.parametrize(
    ("role", "fold", "message"),
    [("train", 2, "use 0 to 1"), ("train", None, "fold None"), ("training", 0, "use train, val")],
)
def test_unknown_splits_are_refused(make_store: MakeStore, role, fold, message) -> None:
    with pytest.raises(UserError, match=message):
        make_store(8, splits=SPLITS).split(role, fold)


def test_a_store_without_splits_says_so(make_store: MakeStore) -> None:
    with pytest.raises(UserError, match="no splits"):
        make_store(8).split("train", 0)


def test_a_patient_has_one_role() -> None:
    with pytest.raises(UserError, match="fold 0 has patient p-1 twice"):
        Splits((Fold(("p-0", "p-1"), ("p-1",), ()),))
    with pytest.raises(UserError, match="p-9 twice"):
        Splits((Fold(("p-9",), (), ("p-1",)),), test=("p-9",))


def test_select_takes_numbers_masks_and_repeats(make_store: MakeStore) -> None:
    store = make_store(20)
    assert store.select(np.array([7, 3, 3])).slice_index.tolist() == [7, 3, 3]
    assert store.select(store.labels == 1).slice_index.tolist() == list(range(1, 20, 2))
    twice = store.select(np.arange(10, 20)).select(np.array([0, 9]))
    assert twice.slice_index.tolist() == [10, 19]
    batch = twice.read()
    assert batch.row.tolist() == [0, 1]
    assert torch.equal(batch.x, store.read([10, 19]).x)
    assert store.read(slice(4, 6)).row.tolist() == [4, 5]


@pytest.mark.parametrize("rows", [[20], [-1], np.ones(19, bool)])
def test_rows_that_are_not_there_are_refused(make_store: MakeStore, rows) -> None:
    with pytest.raises(UserError, match="rows"):
        make_store(20).select(np.array(rows))


@pytest.mark.parametrize("access", ["map", "pread", "direct"])
def test_concat_reads_from_all_its_stores(make_store: MakeStore, access) -> None:
    real = make_store(20, name="real", access=access)
    fitted = replace(PROVENANCE, synthetic=True, fitted_on=("p-1", "p-0"), encoder="unet-1")
    synthetic = make_store(33, name="synthetic", access=access, provenance=fitted, shard_bytes=600)
    joined = Store.concat(real.select(np.arange(5, 10)), synthetic, real)
    numbers = [*range(5, 10), *range(33), *range(20)]
    assert joined.slice_index.tolist() == numbers
    for batch in joined.batches(ALONE, 7, seed=0, epoch=0):
        wanted = rows_of(SMALL, 33)["x"][[numbers[row] for row in batch.row.tolist()]]
        assert batch.x.tolist() == wanted.tolist()
    assert joined.name == "real+synthetic"
    assert joined.provenance == Provenance(
        "concat",
        joined.provenance.config,
        parents=("real", "synthetic"),
        fitted_on=("p-0", "p-1"),
        synthetic=True,
        encoder="unet-1",
    )
    with pytest.raises(UserError, match="no splits"):
        joined.split("train", 0)


def test_quotas_mix_the_stores_of_a_concat(make_store: MakeStore) -> None:
    joined = Store.concat(make_store(20, name="real"), make_store(33, name="synthetic"))
    batches = list(joined.batches(ALONE, 5, seed=0, epoch=0, quotas=(4, 1)))
    assert len(batches) == 5
    for batch in batches:
        assert (batch.row < 20).sum() == 4


def test_only_like_rows_are_joined(make_store: MakeStore) -> None:
    one = make_store(4, name="one", provenance=replace(PROVENANCE, encoder="unet-1"))
    others = [
        make_store(4, StoreSchema((2, 3, 4), "float16"), name="shape"),
        make_store(4, StoreSchema((2, 3, 5), "float32"), name="dtype"),
        make_store(4, name="classes", classes=("a", "b")),
        make_store(4, name="encoder", provenance=replace(PROVENANCE, encoder="unet-2")),
    ]
    for other in others:
        with pytest.raises(UserError, match="do not mix"):
            Store.concat(one, other)
    assert Store.concat(one) is one


def test_weights_want_one_per_row(make_store: MakeStore) -> None:
    with pytest.raises(UserError, match="weights"):
        make_store(20).batches(ALONE, 4, seed=0, epoch=0, weights=np.ones(3))


def test_free_ram_decides_how_a_store_is_read(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_store(20).path
    n_bytes = Store.open(path).manifest["bytes"]
    for free, mapped, direct in (
        (2 * n_bytes, True, False),
        (2 * n_bytes - 1, False, False),
        (n_bytes, False, False),
        (n_bytes - 1, False, True),
    ):
        monkeypatch.setattr(reader, "free_ram_bytes", lambda free=free: free)
        shards = Store.open(path)._shards
        assert {(shard.mapped, shard.direct) for shard in shards} == {(mapped, direct)}


def test_free_ram_is_that_of_the_control_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Page cache gives way: 1,000 bytes allowed, 700 used, 500 of them page cache."""
    group = tmp_path / "memory" / "trial"
    group.mkdir(parents=True)
    (group / "memory.limit_in_bytes").write_text("1000\n")
    (group / "memory.usage_in_bytes").write_text("700\n")
    (group / "memory.stat").write_text("cache 500\nrss 200\n")
    (tmp_path / "self").write_text("5:cpu:/\n4:memory:/trial\n0::/\n")
    monkeypatch.setattr(memory, "GROUPS", tmp_path)
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "self")
    assert memory.free_ram_bytes() == 800
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("600\n")
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("100\n")
    (tmp_path / "memory" / "memory.stat").write_text("cache 50\n")
    assert memory.free_ram_bytes() == 550  # of the group above


def test_free_ram_is_that_of_the_unified_control_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 2: an inner group without a limit, in one that allows 1,000 bytes."""
    inner = tmp_path / "user" / "job"
    inner.mkdir(parents=True)
    (tmp_path / "cgroup.controllers").write_text("memory\n")
    for group, limit in ((inner, "max"), (inner.parent, "1000")):
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.current").write_text("400\n")
        (group / "memory.stat").write_text("anon 300\nfile 100\n")
    (tmp_path / "self").write_text("0::/user/job\n")
    monkeypatch.setattr(memory, "GROUPS", tmp_path)
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "self")
    assert memory.free_ram_bytes() == 700


def test_free_ram_is_at_most_what_the_machine_has() -> None:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < memory.free_ram_bytes() <= total


@pytest.mark.parametrize("access", ["pread", "direct"])
def test_a_shard_cut_off_while_it_is_open_raises(make_store: MakeStore, access) -> None:
    store = make_store(20, BIG_ROWS, access=access)
    shard = store.path / "part-000-shard-00000.arrow"
    os.truncate(shard, shard.stat().st_size // 2)
    store.read(slice(0, 5))
    with pytest.raises(IntegrityError, match=f"{shard.name}: ends at byte"):
        store.read(slice(15, 20))
    with pytest.raises(IntegrityError, match="ends at byte"):
        for _ in store.batches(ALONE, 4, seed=0, epoch=0):
            pass


def test_no_store_without_a_manifest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no manifest\.json, so no finished store"):
        Store.open(tmp_path)
