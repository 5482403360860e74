"""Figures about a study, kept as PNG in ``figures/``, with the words that go with each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from medaug.errors import MedaugError
from medaug.metrics.uncertainty import confusion_by_patient
from medaug.results.records import TrialRecord
from medaug.results.report.curves import segmenter_curves
from medaug.results.report.evidence import Evidence
from medaug.results.report.exchange import worth
from medaug.results.report.figures import confusion, forest, response, roc
from medaug.results.report.roc import roc_band
from medaug.results.report.row_figures import draw_rows
from medaug.results.report.style import DPI
from medaug.results.report.trial_figures import draw_trial, figure_path, keep, with_figures
from medaug.results.rows import Row
from medaug.storage.files import write_whole

BAND = "Bands are 95 %, over patients, seeds and draws."


@dataclass(frozen=True)
class Drawn:
    """A figure of the report."""

    name: str
    title: str
    caption: str
    alt: str
    path: Path

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height on a screen (96 dots an inch), from the PNG's own header."""
        header = self.path.read_bytes()[16:24]
        dots = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:], "big")
        return round(dots[0] * 96 / DPI), round(dots[1] * 96 / DPI)


@dataclass(frozen=True)
class Gallery:
    """The study's figures in the order of the report, and what could not be drawn."""

    figures: tuple[Drawn, ...]
    problems: tuple[str, ...]

    def named(self, *names: str) -> list[Drawn]:
        return [figure for figure in self.figures if figure.name in names]


def draw_all(run: Evidence) -> Gallery:
    """Draw every figure that the run has data for, those of its trials included that have some."""
    drawn: list[Drawn] = []
    problems: list[str] = []
    for trial in with_figures(run.trials.values()):
        problems += draw_trial(run, trial)
    problems += draw_rows(run)
    for draw in (
        _leaderboard,
        _worth,
        _ratio,
        _sizes,
        _confusion,
        _roc,
        _overlays,
        _unets,
        _montage,
        _gan,
    ):
        try:
            drawn += draw(run)
        except MedaugError as error:
            problems.append(f"{draw.__name__.strip('_')}: {error}")
    return Gallery(tuple(drawn), tuple(problems))


def _leaderboard(run: Evidence) -> Iterator[Drawn]:
    yield from _study_figure(
        run,
        "leaderboard",
        forest(run.board),
        "Gains, best first",
        "Filled circles use synthetic data, open squares do not; the diamond is the configuration"
        " that all others are compared with. A gain is shown when its whole interval lies right of"
        " zero; intervals of rows with synthetic data hold for all of them at once.",
        "Forest plot of the gain of each configuration with its interval.",
    )


def _worth(run: Evidence) -> Iterator[Drawn]:
    yield from _study_figure(
        run,
        "learning_curve",
        worth(run.board),
        "What synthetic rows are worth",
        "The curve is what further real rows bring to the reference's classifier without synthetic"
        " data. Each arm's best row stands at its gain, and at the real rows that bring as much:"
        " upright bars are the bounds of the leaderboard, level ones the 95 % interval of the"
        " exchange rate.",
        "Learning curve of real training rows with the best row of each arm and its exchange rate.",
    )


def _ratio(run: Evidence) -> Iterator[Drawn]:
    yield from _study_figure(
        run,
        "ratio",
        response(run.board, "n_synthetic"),
        "Balanced accuracy by number of added rows",
        f"One panel an arm; the grey band is arm 'none'. {BAND}",
        "Ratio-response curves: balanced accuracy against the number of rows added, by arm.",
    )


def _sizes(run: Evidence) -> Iterator[Drawn]:
    if any(row.train_rows for row in run.board.rows):
        yield from _study_figure(
            run,
            "sizes",
            response(run.board, "train_rows"),
            "Balanced accuracy by number of real training rows",
            f"One panel an arm; grey is arm 'none'. {BAND}",
            "Learning curves: balanced accuracy against the number of real rows, by arm.",
        )


def _confusion(run: Evidence) -> Iterator[Drawn]:
    compared = _compared(run)
    if not compared:
        return
    matrices = {
        title: confusion_by_patient(run.predictions(row)).sum(0).mean(0)
        for title, row in compared.items()
    }
    yield from _study_figure(
        run,
        "confusion",
        confusion(matrices, run.classes),
        "Confusion matrices",
        "Single slices of all folds, mean over the replicates; shares are of the true class.",
        "Confusion matrices of the reference and the best configuration with synthetic data.",
    )


def _roc(run: Evidence) -> Iterator[Drawn]:
    compared = _compared(run)
    if not compared or len(run.classes) != 2:
        return
    curves = {title: roc_band(run.predictions(row)) for title, row in compared.items()}
    yield from _study_figure(
        run,
        "roc",
        roc(curves, run.classes[-1]),
        "ROC curves",
        "ROC curves of slices, mean over folds and replicates (each fold ranks its own rows only)."
        f" {BAND}",
        "ROC curves of the reference and the best configuration with synthetic data.",
    )


def _overlays(run: Evidence) -> Iterator[Drawn]:
    yield from _of_trial(
        run,
        run.done("segment"),
        "overlay",
        "overlays",
        "What the U-Net finds",
        "Patients of fold {fold} whom the U-Net was not trained on, for each the slice with the"
        " largest tumour: chosen by that rule, not by how well it went.",
        "Slices with the true outline of the tumour over what was predicted.",
    )


def _unets(run: Evidence) -> Iterator[Drawn]:
    histories = {f"fold {t.config.fold}": t.history for t in run.done("segment")}
    yield from _study_figure(
        run,
        "unet_curves",
        segmenter_curves(histories),
        "Training curves of the U-Nets",
        "One line a fold; the epoch with the best validation IoU is the one used.",
        "Loss, IoU and Dice of the U-Nets by epoch.",
    )


def _montage(run: Evidence) -> Iterator[Drawn]:
    shown = "Images spread over the rows."
    if run.study.features is not None:
        shown = (
            "The 25 channels that vary most in the training row with the largest tumour, and the"
            " same channels of the first generated row of that class."
        )
    yield from _of_trial(
        run,
        _makers(run),
        "montage",
        "montage",
        "Real rows beside generated ones",
        f"Generator {{title}}. {shown} Both sides share one scale.",
        "Montage of real training rows beside generated ones, by class.",
    )


def _gan(run: Evidence) -> Iterator[Drawn]:
    yield from _of_trial(
        run,
        _makers(run),
        "curves",
        "gan_curves",
        "How a generator learnt",
        "Generator {title}. The discriminator's own class accuracy is shown because the papers show"
        " it; it says little about the rows, and nothing here is chosen by it.",
        "Losses and class accuracies of generator and discriminator by epoch.",
    )


def _makers(run: Evidence) -> list[TrialRecord]:
    """One generator of each configuration with generated rows, the best-placed first."""
    rows = sorted(run.board.rows, key=lambda row: not row.synthetic)
    return [maker for row in rows if (maker := run.maker(row)) is not None]


def _compared(run: Evidence) -> dict[str, Row]:
    """By what they are and are called, over two lines."""
    other = "best with synthetic data" if run.best and run.best.synthetic else "next best"
    rows = {"best without synthetic data": run.reference, other: run.best}
    return {f"{name}:\n{row.title}": row for name, row in rows.items() if row is not None}


def _study_figure(
    run: Evidence, name: str, figure: Figure | None, title: str, caption: str, alt: str
) -> Iterator[Drawn]:
    path = figure_path(run, name)
    keep(path, figure)
    if figure is not None:
        yield Drawn(name, title, caption, alt, path)


def _of_trial(
    run: Evidence,
    trials: list[TrialRecord],
    own: str,
    name: str,
    title: str,
    caption: str,
    alt: str,
) -> Iterator[Drawn]:
    """The first of the trials that has a figure called ``own`` stands for the study."""
    for trial in trials:
        path = figure_path(run, own, trial)
        if path.exists():
            write_whole(figure_path(run, name), path.read_bytes())
            config = trial.config
            title_of = f"{config.title}, fold {config.fold}, seed {config.seed}"
            about = {"fold": config.fold, "title": title_of}
            yield Drawn(name, title, caption.format(**about), alt, figure_path(run, name))
            return
