"""Stores: Arrow shards, an index of byte offsets, and batches in a reproducible order."""

from medaug.storage.assemble import assembled, publish_directory
from medaug.store.cache import NodeCache
from medaug.store.manifest import publish
from medaug.store.reader import Batch, Store
from medaug.store.sampler import balanced_weights
from medaug.store.schema import Fold, Provenance, Splits, StoreSchema
from medaug.store.writer import StoreWriter

__all__ = [
    "Batch",
    "Fold",
    "NodeCache",
    "Provenance",
    "Splits",
    "Store",
    "StoreSchema",
    "StoreWriter",
    "assembled",
    "balanced_weights",
    "publish",
    "publish_directory",
]
