"""``NAME.html``: what is in a folder of scans, seen through the readers that a study will use."""

from __future__ import annotations

import base64
import io
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import islice

import numpy as np
from jinja2 import Environment
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from medaug.data.importers.base import count_reasons
from medaug.data.look import Sight
from medaug.init import FirstLook
from medaug.results.report.style import CYCLE, WIDTH, png, styled

SHOWN = 24
"""Pictures of each class, of as many patients as there are."""
COLUMNS = 8
TILE = 96
OUTLINE = (230, 159, 0)
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ name }}: the data</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
img { max-width: 100%; image-rendering: auto; } h1 { font-size: 1.5rem; } h2 { margin-top: 2rem; }
table { border-collapse: collapse; } td, th { padding: .15rem .8rem .15rem 0; text-align: left;
vertical-align: top; } .n { text-align: right; } li { margin: .2rem 0; } figure { margin: 1rem 0; }
figcaption { color: #555; }
</style></head><body>
<h1>{{ name }}: the data</h1>
<p>Read with the readers of a study, before it exists. For research only; the pictures
are patients'.</p>
<ul>{% for line in lines %}<li>{{ line }}</li>{% endfor %}</ul>
<h2>Classes</h2>
<table><tr><th>class</th><th class="n">patients</th><th class="n">scans</th>
<th class="n">slices</th>
<th>files</th><th>pixels (width x height)</th><th>spacing in mm</th></tr>
{% for row in classes %}<tr><td>{{ row.name }}</td><td class="n">{{ row.patients }}</td>
<td class="n">{{ row.scans }}</td><td class="n">{{ row.slices }}</td><td>{{ row.files }}</td>
<td>{{ row.sizes }}</td><td>{{ row.spacing }}</td></tr>{% endfor %}</table>
{% for row in classes %}<figure><img alt="contact sheet of class {{ row.name }}"
src="data:image/png;base64,{{ row.sheet }}"><figcaption>{{ row.name }}: {{ row.shown }} of
{{ row.scans }} scans, each from its lowest to its highest value, padded to a square
{%- if row.masks %}; masks outlined{% endif %}
{%- if row.sequences > 1 %}; the first of {{ row.sequences }} sequences{% endif %}.
</figcaption></figure>{% endfor %}
<h2>Intensities and patients</h2>
{% for figure in figures %}<figure><img alt="{{ figure.about }}"
src="data:image/png;base64,{{ figure.png }}"><figcaption>{{ figure.about }}</figcaption></figure>
{% endfor %}
<h2>Left out</h2>
{% if left_out %}<table><tr><th class="n">files</th><th>why</th><th>for example</th></tr>
{% for row in left_out %}<tr><td class="n">{{ row.n }}</td><td>{{ row.why }}</td>
<td>{{ row.example }}</td></tr>{% endfor %}</table>{% else %}<p>Nothing.</p>{% endif %}
<details><summary>All {{ files|length }} files that were left out</summary><table>
{% for file, why in files %}<tr><td>{{ file }}</td><td>{{ why }}</td></tr>{% endfor %}</table>
</details>
</body></html>
"""
_MOST_FILES = 5000


def preview(name: str, look: FirstLook) -> str:
    """The page as HTML, complete in one file. File names are in it: it is for its owner alone."""
    by_class: dict[int, list[Sight]] = defaultdict(list)
    for sight in look.inspection.sights:
        by_class[sight.scan.label or 0].append(sight)
    classes = look.inspection.classes
    rows = [_class_row(c, by_class[i], look) for i, c in enumerate(classes)]
    named = [(c, by_class[i]) for i, c in enumerate(classes)]
    figures = [
        {"about": about, "png": _encoded(png(figure))}
        for about, figure in (
            (
                "Intensities of the middle slices, each scan from its lowest to its highest",
                _histograms(named),
            ),
            ("Scans per patient", _per_patient(named)),
        )
        if figure is not None
    ]
    left_out = look.found.left_out
    examples: dict[str, str] = {}
    for file, why in left_out.items():
        examples.setdefault(why, file)
    return (
        Environment(autoescape=True)
        .from_string(_PAGE)
        .render(
            name=name,
            lines=look.lines,
            classes=rows,
            figures=figures,
            left_out=[
                {"n": n, "why": why, "example": examples[why]} for why, n in count_reasons(left_out)
            ],
            files=list(islice(left_out.items(), _MOST_FILES)),
        )
    )


def contact_sheet(sights: Sequence[Sight]) -> tuple[Image.Image, int]:
    """Up to :data:`SHOWN` pictures in rows, their masks outlined, and how many there are."""
    tiles = [_tile(s) for s in _one_of_each(sights) if s.image is not None][:SHOWN]
    n_rows = max(1, -(-len(tiles) // COLUMNS))
    columns = min(COLUMNS, max(1, len(tiles)))
    sheet = np.full((n_rows * (TILE + 2), columns * (TILE + 2), 3), 255, np.uint8)
    for number, tile in enumerate(tiles):
        y, x = (number // COLUMNS) * (TILE + 2), (number % COLUMNS) * (TILE + 2)
        sheet[y : y + TILE, x : x + TILE] = tile
    return Image.fromarray(sheet), len(tiles)


def _class_row(name: str, sights: Sequence[Sight], look: FirstLook) -> dict[str, object]:
    sheet, shown = contact_sheet(sights)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    forms = Counter(s.form for s in sights)
    sizes = Counter("x".join(map(str, s.size[:2])) for s in sights if s.size)
    spacings = Counter(
        " x ".join(f"{mm:.3g}" for mm in s.spacing_mm) for s in sights if s.spacing_mm
    )
    return {
        "name": name,
        "patients": look.inspection.patients[name],
        "scans": len(sights),
        "slices": look.inspection.slices[name],
        "files": _most(forms),
        "sizes": _most(sizes),
        "spacing": _most(spacings),
        "sheet": _encoded(buffer.getvalue()),
        "shown": shown,
        "sequences": max((s.sequences for s in sights), default=1),
        "masks": any(s.mask is not None for s in sights),
    }


def _most(counts: Counter[str], most: int = 4) -> str:
    shown = ", ".join(f"{what} ({n})" for what, n in counts.most_common(most))
    return shown + (f" and {len(counts) - most} more" if len(counts) > most else "")


def _one_of_each(sights: Sequence[Sight]) -> list[Sight]:
    """One scan of each patient first, evenly over them; then the others."""
    first: dict[str, Sight] = {}
    others = []
    for sight in sights:
        if first.setdefault(sight.scan.patient, sight) is not sight:
            others.append(sight)
    ones = list(first.values())
    step = max(1, len(ones) // SHOWN)
    return [*ones[::step], *others]


def _tile(sight: Sight) -> NDArray[np.uint8]:
    assert sight.image is not None
    x = sight.image[None] if sight.image.ndim == 2 else sight.image
    pixels = _grey(x if sight.in_colour else x[:1]).transpose(1, 2, 0)
    grey_or_rgb = np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels
    tile: NDArray[np.uint8] = np.asarray(Image.fromarray(grey_or_rgb).resize((TILE, TILE))).copy()
    if sight.mask is not None and sight.mask.any():
        mask = np.asarray(
            Image.fromarray(sight.mask).resize((TILE, TILE), Image.Resampling.NEAREST)
        )
        inner = mask.copy()
        for axis in (0, 1):
            for step in (1, -1):
                inner &= np.roll(mask, step, axis)
        tile[(mask > 0) & (inner == 0)] = OUTLINE
    return tile


def _grey(x: NDArray[np.float32]) -> NDArray[np.uint8]:
    """From the lowest to the highest value of all channels, so that a colour keeps its tint."""
    low, high = float(x.min()), float(x.max())
    return ((x - low) * (255 / (high - low) if high > low else 0)).astype(np.uint8)


@styled
def _histograms(named: Sequence[tuple[str, Sequence[Sight]]]) -> Figure:
    figure = Figure(figsize=(WIDTH, 2.2), layout="constrained")
    axes = figure.subplots()
    for (name, sights), colour in zip(named, CYCLE * len(named), strict=False):
        counts = [np.array(s.histogram, float) for s in sights if s.histogram]
        if not counts:
            continue
        share = np.mean([c / max(1.0, c.sum()) for c in counts], axis=0)
        axes.step(np.linspace(0, 1, len(share)), share, where="mid", color=colour, label=name)
    axes.set(
        xlabel="share of the way from lowest to highest", ylabel="share of pixels", yscale="log"
    )
    axes.legend()
    return figure


@styled
def _per_patient(named: Sequence[tuple[str, Sequence[Sight]]]) -> Figure | None:
    counts = {name: Counter(Counter(s.scan.patient for s in ss).values()) for name, ss in named}
    if all(max(c, default=1) == 1 for c in counts.values()):
        return None
    figure = Figure(figsize=(WIDTH, 2.0), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(counts)
    for number, ((name, c), colour) in enumerate(zip(counts.items(), CYCLE * 99, strict=False)):
        xs = np.array(sorted(c))
        axes.bar(xs + number * width, [c[x] for x in xs], width, color=colour, label=name)
    axes.set(xlabel="scans of one patient", ylabel="patients")
    axes.legend()
    return figure


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()
