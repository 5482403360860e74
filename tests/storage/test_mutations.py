"""Every file of a finished run, spoilt in every way, through every command that reads it.

No traceback, no hang, and no number that is another one without a word: a command either refuses
(exit 5 and the file's name, or 2 or 3 where the name is another kind of mistake), or says what is
missing, or prints what it printed before.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import pytest
from click.testing import CliRunner

from medaug.cli import main
from tests.storage.sealed_runs import sealed_run, site_key, small_study

WAYS = 60
"""Mutations of each file."""
PARTS = 4
"""Of the files: each may be mutated by a process of its own."""
MUTATIONS = 2000
HANG_CPU_S = 10.0
LOOK_S, STILL_CPU_S, STILL_LOOKS = 2.0, 0.001, 5
"""A command stands still that for ten seconds of the wall got a millisecond in none of two."""
REFUSALS = {2, 3, 5}
Mutation = Callable[[Path, random.Random], None]


def flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def truncate(path: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size))


def grow(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes() + rng.randbytes(rng.randrange(1, 99)))


def empty(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"")


def a_list(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"[]")


def an_object(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"{}")


def deep(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"[" * 100_000)


def no_text(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"\xff\xfe" + rng.randbytes(200))


def delete(path: Path, rng: random.Random) -> None:
    path.unlink()


def swap(path: Path, rng: random.Random) -> None:
    """For another file of that name, or of that kind."""
    root = path.parents[2]
    others = [p for p in root.rglob(path.name) if p != path and p.is_file()]
    others = others or [p for p in path.parent.iterdir() if p != path and p.is_file()]
    if not others:
        others = [p for p in root.rglob(f"*{path.suffix}") if p != path and p.is_file()]
    shutil.copyfile(rng.choice(sorted(others)), path)


def folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path, rng: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def link_to_itself(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to(path)


def link_to_nothing(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to(path.parent / "is-not-there")


def link_to_a_device(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def header(path: Path, rng: random.Random) -> None:
    """A length of 2^62 where safetensors and Arrow have theirs."""
    content = path.read_bytes()
    path.write_bytes(struct.pack("<Q", 1 << 62) + content[8:])


def footer(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-10] + struct.pack("<i", (1 << 31) - 1) + content[-6:])


ONCE: tuple[Mutation, ...] = (
    empty, a_list, an_object, deep, no_text, delete, swap, folder, pipe, link_to_itself,
    link_to_nothing, link_to_a_device, header, footer, grow,
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("mutations")
    with site_key(root / "site.key"):
        yield sealed_run(small_study(root / "runs", seeds=[0, 1, 2]))


@dataclass
class Answer:
    """What a command did."""

    code: int
    out: str
    err: str
    trouble: str = ""


class Hangs(BaseException):
    """Nothing of ours catches it."""


@contextmanager
def within(cpu_s: float) -> Iterator[None]:
    """Raise :class:`Hangs` where what is done takes so much of the processor, or stands still.

    By the processor's time, not by the wall's: on a busy machine a command waits for its turn.
    Something that waits for ever gets none at all.
    """
    started = before = time.process_time()
    still = 0

    def look(number: int, frame: FrameType | None) -> None:
        nonlocal before, still
        now = time.process_time()
        still = 0 if now - before > STILL_CPU_S else still + 1
        before = now
        if now - started > cpu_s or still >= STILL_LOOKS:
            raise Hangs

    handler = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, LOOK_S, LOOK_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


def ask(run: Path, command: str) -> Answer:
    words = command.split()
    out = run.parents[1] / "out"
    shutil.rmtree(out, ignore_errors=True)
    more = ["--out", str(out)] if words[0] == "export" else []
    name = [] if words[0] == "status" else [run.name]
    try:
        with within(HANG_CPU_S):
            result = CliRunner().invoke(main, [*words, *name, *more, "--storage", str(run.parent)])
    except Hangs:
        return Answer(-1, "", "", "hangs")
    answer = Answer(result.exit_code, result.stdout, result.stderr)
    if isinstance(result.exception, Hangs):
        answer.trouble = "hangs"
    elif result.exception is not None and not isinstance(result.exception, SystemExit):
        answer.trouble = f"traceback: {result.exception!r}"
    return answer


def targets(run: Path) -> list[Path]:
    """All files of the run but most of its trials and bundles, models and stores of each kind."""
    trials = sorted((run / "trials").iterdir())
    chosen = [next(t for t in trials if (t / "ep_000004").exists())]
    chosen += [t for t in trials if not (t / "ep_000004").exists()][:1]
    storage = run.parent
    chosen += sorted((run / "bundles").iterdir())[:1]
    folders = [*chosen, storage / "stores" / "slices-0123456789ab"]
    folders += (
        sorted((storage / "stores").glob("rows-*"))[:1] + sorted((storage / "models").iterdir())[:4]
    )
    inside = [p for folder in folders for p in sorted(folder.rglob("*")) if p.is_file()]
    return [*(p for p in sorted(run.iterdir()) if p.is_file() and p.name[0] != "."), *inside]


def commands_for(path: Path, run: Path, number: int) -> list[str]:
    """Verify, and what reads the file; of what costs seconds when nothing is found, a sample."""
    if run not in path.parents:
        return ["verify", "export", *(["unseal"] if number % 4 == 0 else ["leaderboard --json"])]
    return ["verify", "leaderboard --json", "export", "unseal", "status"]


SLOW = ("report", "sync", "resume")
"""They begin as ``leaderboard`` does: asked where it refuses, then they end as soon."""


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(PARTS))
def test_no_traceback_no_hang_no_other_number(
    run: Path, part: int, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = {c: ask(run, c) for c in ("verify", "leaderboard --json", "export", "status")}
    assert {a.code for a in whole.values()} == {0}, whole
    opened = ask_and_put_back(run, "unseal")
    assert opened.code in (0, 2)
    counts: Counter[str] = Counter()
    faults: list[str] = []
    for path in targets(run)[part::PARTS]:
        original = path.read_bytes()
        for number in range(WAYS):
            rng = random.Random(f"{path.name} {number}")
            mutate = ONCE[number] if number < len(ONCE) else (flip, truncate)[number % 2]
            mutate(path, rng)
            if path.is_file() and not path.is_symlink() and path.read_bytes() == original:
                continue
            counts["mutations"] += 1
            what = f"{mutate.__name__} of {path.relative_to(run.parent)}"
            answers = {c: ask_and_put_back(run, c) for c in commands_for(path, run, number)}
            if answers.get("leaderboard --json", opened).code == 5:
                answers |= {c: ask_and_put_back(run, c) for c in SLOW}
            for command, answer in answers.items():
                counts["commands"] += 1
                counts[f"exit {answer.code}"] += 1
                before = opened if command == "unseal" else whole.get(command, opened)
                if fault := judge(command, answer, before):
                    faults.append(f"{what}: {command}: {fault}")
            remove(path)
            path.write_bytes(original)
    with capsys.disabled():
        print(f"\npart {part + 1} of {PARTS}: {dict(counts)}; {len(faults)} faults")
        print("\n".join(faults[:60]))
    assert counts["mutations"] >= MUTATIONS / PARTS
    assert not faults


def run_for_ever() -> None:
    while True:  # in Python: it looks for signals between its own steps only
        pass


def test_what_hangs_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "LOOK_S", 0.05)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Hangs), within(60.0):
        (tmp_path / "pipe").read_bytes()
    with pytest.raises(Hangs), within(0.2):
        run_for_ever()
    with within(60.0):
        sum(range(1000))


def plain(out: str) -> str:
    """Without when it was opened, and by whom."""
    return "\n".join(line for line in out.splitlines() if not line.startswith("opened by"))


def judge(command: str, answer: Answer, whole: Answer) -> str:
    """What is wrong with an answer; nothing where it is right."""
    if answer.trouble:
        return answer.trouble
    if answer.code not in {0, *REFUSALS}:
        return f"exit {answer.code}: {answer.err[-200:]}"
    if answer.code in REFUSALS:
        lines = [line for line in answer.err.splitlines() if line.startswith("error: ")]
        return "" if len(lines) == 1 else f"exit {answer.code} with {len(lines)} lines"
    told = answer.err != whole.err or "missing" in answer.out
    if (
        command.startswith(("leaderboard", "unseal", "export"))
        and plain(answer.out) != plain(whole.out)
        and not told
    ):
        return "another answer, without a word"
    return ""


def ask_and_put_back(run: Path, command: str) -> Answer:
    """A command may write: what it wrote must not be what the next one reads."""
    beside = run.parents[1].glob("site.key.journals/*")  # what this machine knows of the run
    inside = (p for p in run.iterdir() if p.is_file() and not p.is_symlink())
    kept = {p: p.read_bytes() for p in (*inside, *beside)}
    answer = ask(run, command)
    if command not in ("unseal", *SLOW):
        return answer
    for path in run.iterdir():
        if path.is_file() and not path.is_symlink() and path not in kept:
            path.unlink()
    for path, content in kept.items():
        if path.read_bytes() != content:
            path.write_bytes(content)
    return answer


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
