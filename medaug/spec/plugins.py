"""What installed packages of the user's add: arms, encoders, classifiers and importers of scans.

A package names them in its metadata (entry points of the groups below), so nothing in medaug is
edited, and nothing of it is imported before a study asks for it by name. What medaug has itself is
looked up first, and packages are not searched for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from medaug.errors import UserError

ARMS = "medaug.arms"
ENCODERS = "medaug.encoders"
CLASSIFIERS = "medaug.classifiers"
IMPORTERS = "medaug.importers"
KEYS = "keys"
"""``medaug.arms.keys`` and ``medaug.encoders.keys`` may name the configuration by itself, so that a
mistake in a study is told without loading torch."""

T = TypeVar("T")
Read = Callable[[str, Any], T]
"""Name, and what its package has under it -> what is wanted of it; raises TypeError."""


class Names(Collection[str]):
    """``own`` and the names that packages add to ``group``; none of them is imported."""

    def __init__(self, own: Collection[str], group: str) -> None:
        self._own, self._group = tuple(own), group

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in added(self._group)

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        yield from sorted(added(self._group).keys() - {*self._own})

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Extended(Mapping[str, T]):
    """``own``, and what packages add to ``group``, imported when it is asked for.

    Args:
        read: makes what is wanted of what a package has under the name, or raises TypeError.
        keys: another group, whose entries are taken where there are such.

    Raises:
        UserError: on looking up a name, if its package cannot be imported, or two packages add it.
    """

    def __init__(
        self, own: Mapping[str, T], group: str, read: Read[T], keys: str | None = None
    ) -> None:
        self._own, self._group, self._read, self._keys = own, group, read, keys
        self._loaded: dict[str, T] = {}

    def __getitem__(self, name: str) -> T:
        if name in self._own:
            return self._own[name]
        if name not in self._loaded:
            quick = added(self._keys) if self._keys else {}
            point = _single(quick.get(name) or added(self._group)[name])
            self._loaded[name] = _loaded(point, self._read)
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in added(self._group)

    def __iter__(self) -> Iterator[str]:
        return iter(Names(self._own, self._group))

    def __len__(self) -> int:
        return len(Names(self._own, self._group))


@cache
def added(group: str) -> Mapping[str, tuple[EntryPoint, ...]]:
    """Name -> the entry points of that name; several where packages disagree."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for point in entry_points(group=group):
        found[point.name] = (*found.get(point.name, ()), point)
    return found


def is_kind(name: str, keys: Any, base: type) -> Any:
    """``keys``, if it is a subclass of ``base`` whose ``kind`` is ``name``.

    Raises:
        TypeError: says what it lacks.
    """
    if not (isinstance(keys, type) and issubclass(keys, base)):
        raise TypeError(f"wants a subclass of {base.__name__}")
    field = getattr(keys, "model_fields", {}).get("kind")
    if field is None or field.default != name:
        raise TypeError(f"its key 'kind' wants the default '{name}'")
    return keys


def subclass(group: str, base: type, keys: type) -> Read[Any]:
    """Reads a class of ``group``: a subclass of ``base`` whose ``Config``, a subclass of ``keys``,
    is of the kind under which its package has it."""

    def read(name: str, found: Any) -> Any:
        if not (isinstance(found, type) and issubclass(found, base)):
            raise TypeError(f"wants a subclass of {group}.{base.__name__}")
        is_kind(name, getattr(found, "Config", None), keys)
        return found

    return read


def _single(points: tuple[EntryPoint, ...]) -> EntryPoint:
    values = {point.value for point in points}
    if len(values) > 1:
        packages = " and ".join(sorted(map(_package, points)))
        raise UserError(
            f"{points[0].group}: {packages} both add '{points[0].name}'; uninstall one of them"
        )
    return points[0]


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.module


def _loaded(point: EntryPoint, read: Read[T]) -> T:
    try:
        return read(point.name, point.load())
    # Whatever somebody else's module raises when it is imported.
    except Exception as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(
            f"{point.group}: '{point.name}' of package {_package(point)} ({point.value}) cannot be "
            f"used ({why}); mend or reinstall it"
        ) from error
