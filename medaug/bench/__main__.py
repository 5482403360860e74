"""``python -m medaug.bench store --json``: as ``medaug bench``, where there is no click."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from medaug.bench import BENCHES, Options, find_bench
from medaug.bench.result import Size
from medaug.bench.table import as_markdown, as_text
from medaug.errors import MedaugError


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark that the command line names; the exit code."""
    options = _parser().parse_args(arguments)
    size: Size = "quick" if options.quick else options.size
    try:
        result = find_bench(options.name)(Options(size, tuple(options.part), options.folder))
    except MedaugError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    show = as_markdown if options.markdown else as_text
    print(result.to_json() if options.json else show(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m medaug.bench", description="Measure medaug next to its peers."
    )
    parser.add_argument("name", choices=list(BENCHES))
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--markdown", action="store_true", help="a table for docs/benchmarks.md")
    parser.add_argument("--quick", action="store_true", help="the same as --size quick")
    parser.add_argument("--size", choices=("full", "quick", "tiny"), default="full")
    parser.add_argument(
        "--part", action="append", default=[], metavar="PART", help="only this part; repeat"
    )
    parser.add_argument("--folder", type=Path, help="where to put data [default: temporary]")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
