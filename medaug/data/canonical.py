"""When two cells of a table mean one class, or one person.

Spreadsheets turn ``007`` into ``7`` and ``1`` into ``1.0``, people write ``HGG`` and ``hgg``. What
is equal in its canonical form is never taken for two things: it is refused, with both spellings.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from itertools import combinations

_BLANK = re.compile(
    r"|[-–—?.]+|#?<?(nan|n\.?[/._-]?a\.?|null|none|nil|missing|unknown|undefined|nat|tbd|"
    r"not available|not applicable|unlabell?ed)>?",
    re.I,
)
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d{1,4})?", re.I)
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"))
_TOKENS = re.compile(r"\d+|[^\W\d_]+")
_BRITISH = (("our", "or"), ("ae", "e"), ("oe", "e"))
_ROMAN = re.compile(r"[ivx]+[ab]?")


def tidy(cell: str) -> str:
    """NFC, without spaces around it or invisible characters, inner white space as one space."""
    return " ".join(unicodedata.normalize("NFC", cell).translate(_INVISIBLE).split())


def is_blank(cell: str) -> bool:
    """Whether a cell says nothing: empty, ``nan``, ``N/A``, ``None``, ``?`` …"""
    return _BLANK.fullmatch(tidy(cell)) is not None


def class_form(name: str) -> tuple[str, ...]:
    """What two spellings of one class have in common: ``HGG`` and ``hgg``, ``0`` and ``0.0``,
    ``non-tumour`` and ``Non Tumor``, ``glioma`` and ``gliomas``."""
    text = unicodedata.normalize("NFKC", tidy(name)).casefold()
    if (number := _as_number(text)) is not None:
        return (number,)
    words: list[str] = []
    for word in _TOKENS.findall(text) or [text]:
        for british, american in _BRITISH:
            word = word.replace(british, american)
        plural = len(word) > 4 and word.endswith("s") and not word.endswith(("ss", "is", "us"))
        words.append(
            word.lstrip("0") or "0" if word.isdecimal() else word[: -1 if plural else None]
        )
    return ("".join(words),)


def alike_classes(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Pairs of different names that are spellings of one class, or one letter apart."""
    for a, b in combinations(sorted({tidy(name) for name in names}), 2):
        if class_form(a) == class_form(b) or _one_letter_apart(a.casefold(), b.casefold()):
            yield a, b


def id_form(patient: str) -> tuple[str, ...]:
    """What two spellings of one id have in common: case, zeros, ``.0``, spaces, separators."""
    text = unicodedata.normalize("NFKC", tidy(patient)).casefold()
    if (whole := _as_number(text)) is not None:
        return (whole,)
    text = re.sub(r"(?<=\d)\.0+$", "", text) if text.count(".") == 1 else text
    joined: list[str] = []
    for token in _tokens(text):
        if joined and joined[-1].isalpha() and token.isalpha():
            joined[-1] += token
        else:
            joined.append(token)
    return tuple(joined) or (text,)


def alike_ids(ids: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Pairs of different ids that seem to be one person's: ``007`` and ``7``, ``1`` and ``1.0``,
    ``P001`` and ``p001`` or ``001``."""
    first: dict[tuple[str, ...], str] = {}
    for name in sorted(set(ids)):
        if (other := first.setdefault(id_form(name), name)) != name:
            yield other, name
    for name in first.values():
        prefix, *rest = _tokens(tidy(name).casefold()) or [""]
        bare = first.get(id_form(" ".join(rest))) if rest and prefix.isalpha() else None
        if bare is not None and bare != name:
            yield bare, name


def near_id(wanted: str, ids: Mapping[str, int]) -> int | None:
    """The line of an id in ``ids`` (id -> line) that is another spelling of ``wanted``."""
    form = id_form(wanted)
    return next((line for name, line in ids.items() if id_form(name) == form), None)


def _tokens(text: str) -> list[str]:
    return [_digits(t) if t.isdecimal() else t for t in _TOKENS.findall(text)]


def _as_number(text: str) -> str | None:
    if not _NUMBER.fullmatch(text):
        return None
    try:
        normal = Decimal(text).normalize()
    except InvalidOperation:
        return None
    return str(normal) if "e" in text or "." in text or normal == 0 else _digits(text)


def _digits(text: str) -> str:
    """A whole number as ``Decimal.normalize`` writes it, at any length."""
    stripped = text.lstrip("+0") or "0"
    return str(Decimal(stripped).normalize()) if len(stripped) < 28 else stripped


def _one_letter_apart(a: str, b: str) -> bool:
    """Long words of letters that differ by one letter, not the first (``typical``, ``atypical``)
    and no Roman numeral: a slip of the pen."""
    if a == b or a[:1] != b[:1]:
        return False
    words_a, words_b = a.split(), b.split()
    if len(words_a) != len(words_b):
        return False
    differing = [(x, y) for x, y in zip(words_a, words_b, strict=True) if x != y]
    if len(differing) != 1:
        return False
    x, y = sorted(differing[0], key=len)
    if len(x) < 6 or not (x.isalpha() and y.isalpha()) or _ROMAN.fullmatch(x) or x[0] != y[0]:
        return False
    if len(x) == len(y):
        return sum(p != q for p, q in zip(x, y, strict=True)) == 1
    return len(y) - len(x) == 1 and any(y[:i] + y[i + 1 :] == x for i in range(len(y)))
