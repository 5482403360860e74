"""medaug: does generated training data help your classifier?

For notebooks: :func:`leaderboard`, :func:`load_generator` and :func:`open_store`. Everything else
is the ``medaug`` command. Importing this package loads nothing yet.
"""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import DataFrame

    from medaug.generator import Generator
    from medaug.store import Store

__all__ = ["leaderboard", "load_generator", "open_store"]


def open_store(path: str | PathLike[str]) -> Store:
    """The store in the folder ``path``, for example ``runs/stores/features-…``.

    Its rows are read when asked for: ``store.read(slice(0, 8)).x`` is a tensor (8, *shape);
    ``store.labels``, ``store.patients`` and ``store.split("train", fold=0)`` tell whose they are.

    Raises:
        UserError: there is no finished store.
        IntegrityError: a file of it is not what was written.
    """
    from pathlib import Path

    from medaug.store import Store

    return Store.open(Path(path))


def load_generator(
    name_or_path: str | PathLike[str], storage: str | PathLike[str] = "runs"
) -> Generator:
    """The best generator of a run, a generator by its own name (``generator-…``), or the one in a
    folder that ``medaug export`` has written.

    ``load_generator("glioma").sample(100, "HGG")`` is an array (100, *shape) float32.

    Raises:
        UserError: there is no such generator.
        IntegrityError: a file of it is not what was written.
    """
    from pathlib import Path

    from medaug.generator import find_generator
    from medaug.storage.uri import local

    return find_generator(Path(name_or_path), local(storage))


def leaderboard(name: str, storage: str | PathLike[str] = "runs") -> DataFrame:
    """The leaderboard of the run ``name``, best configuration first.

    Columns ``rank``, ``title``, ``mean`` (balanced accuracy) with its interval ``low`` to ``high``,
    ``gain`` over the best configuration without synthetic data with ``gain_low`` to ``gain_high``,
    ``flags``, ``scores.…``, ``quality.…`` and more.

    What nothing vouches for is a warning.

    Raises:
        UserError: there is no such run.
        IntegrityError: a file of it is not what the run has written.
    """
    import warnings

    from medaug.ownership.seals import check_run
    from medaug.results.frame import as_frame
    from medaug.results.leaderboard import leaderboard_of
    from medaug.storage.run_folder import run_in
    from medaug.storage.uri import local

    folder = run_in(local(storage), name)
    for remark in check_run(folder).remarks(name) if (folder / "study.json").exists() else ():
        warnings.warn(remark, stacklevel=2)
    return as_frame(leaderboard_of(folder))
