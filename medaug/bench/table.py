"""A benchmark's figures as text for a terminal, or as Markdown for ``docs/benchmarks.md``."""

from __future__ import annotations

from collections.abc import Sequence

from medaug.bench.result import Figure, Result

_HEADER = ("part", "subject", "value", "unit", "ratio", "(quartiles)", "against", "target", "")


def as_text(result: Result) -> str:
    """Aligned columns, the machine above them, notes below."""
    rows = [_HEADER, *map(_cells, result.figures)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADER))]
    right = {2, 4, 7}
    lines = [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    notes = [f"note: {note}" for note in result.notes]
    head = f"medaug bench {result.name} ({result.size}) on {result.machine.line}"
    return "\n".join([head, "", *lines, *notes])


def as_markdown(result: Result) -> str:
    """The same as a Markdown table."""
    lines = [" | ".join(_HEADER), "|".join(["---"] * len(_HEADER))]
    lines += [" | ".join(_cells(figure)) for figure in result.figures]
    table = "\n".join(f"| {line} |" for line in lines)
    notes = "".join(f"\n- {note}" for note in result.notes)
    return f"{result.machine.line}; size `{result.size}`.\n\n{table}\n{notes}"


def _cells(figure: Figure) -> Sequence[str]:
    met = figure.met
    sign = {"higher": "≥", "lower": "≤"}[figure.better]
    spread = figure.ratio
    verdict = "" if met is None else "met" if met else "MISSED"
    return (
        figure.part,
        figure.subject,
        "-" if figure.value is None else short(figure.value),
        figure.unit,
        "" if spread is None else short(spread.median),
        "" if spread is None else f"{short(spread.low)} to {short(spread.high)}",
        figure.against,
        "" if figure.target is None else f"{sign} {short(figure.target)}",
        "; ".join(text for text in (verdict, figure.note) if text),
    )


def short(value: float) -> str:
    """Three digits that matter, thousands as they are: 55,912, 4.91, .017 as 0.017."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
