"""The items of CLAIM (Mongan 2020) and TRIPOD+AI (Collins 2024) that a run can answer itself,
and, as important, those that it cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from medaug.results.external import heading
from medaug.results.report.evidence import Evidence
from medaug.results.report.facts import plural, versions
from medaug.spec import ClassifierSpec, LinearSpec, NetworkSpec, StudySpec

Status = Literal["filled", "in part", "to be written"]


@dataclass(frozen=True)
class Item:
    claim: str
    """Item number, "" where CLAIM has none."""
    tripod: str
    topic: str
    status: Status
    text: str


def checklist(run: Evidence) -> list[Item]:
    """Items in CLAIM's order."""
    study = run.study
    return [
        Item("4", "4", "Objective", "filled", "The question at the top of this report."),
        *_data(run),
        *_model(study),
        *_evaluation(run),
        Item("38", "26", "Limitations", "to be written", "The flags above are a beginning."),
        Item("40–42", "17–18", "Ethics, registration, funding", "to be written", ""),
    ]


def _data(run: Evidence) -> list[Item]:
    study, slices = run.study, run.slices
    data, split = study.data, study.split
    report = slices.manifest["extra"].get("ingest", {}) if slices else {}
    rejects, free_text = len(report.get("rejects", ())), report.get("free_text", 0)
    phantom = data.layout == "phantom"
    source = (
        "Simulated cohort; its settings and seed are below."
        if phantom
        else f"A folder in the layout '{data.layout}'. Sites, scanners and dates: not on record."
    )
    step = "" if data.slice_step == 1 else f", every {data.slice_step}th slice"
    policy = "all slices" if data.slice_policy == "all" else "slices with a tumour"
    disjoint = (
        "By patient: no patient is in two parts of a fold."
        if split.unit == "patient"
        else "By image, as published: patients are on both sides of the split."
    )
    sealed = f", {split.test_fraction:.0%} sealed" if split.test_fraction else ""
    folds = f"{split.folds} folds" if split.folds > 1 else "one cut"
    return [
        Item("7", "5a", "Data source", "filled" if phantom else "in part", source),
        Item(
            *("8", "6b", "Eligibility", "in part"),
            f"{plural(rejects, 'file')} left out for technical reasons (see the data); clinical"
            " criteria are not on record.",
        ),
        Item(
            *("9", "7", "Preparation", "filled"),
            f"{policy.capitalize()}{step}, {data.image_size} pixels square, normalised by mean"
            " and deviation of the training patients of each fold.",
        ),
        Item(
            *("12", "", "De-identification", "filled"),
            "Patients appear under keyed pseudonyms (HMAC-SHA256, key outside the storage);"
            f" {free_text} free-text header fields were dropped.",
        ),
        Item(
            *("13", "11", "Missing data", "filled"),
            "Scans without a class, or without a mask where others have one, were left out and"
            " counted.",
        ),
        Item("14–18", "8", "Reference standard", "to be written", "Who graded and drew, and how."),
        Item(
            *("19", "10", "Sample size", "in part"),
            "The bounds show what these patients can tell, and undecided rows name the number that"
            " would decide; `medaug plan` gives the smallest gain that would be seen.",
        ),
        Item(
            *("20", "12a", "Partitions", "filled"),
            f"{folds.capitalize()}, classes in proportion, seed {split.seed}{sealed}; counts in"
            " the data section.",
        ),
        Item("21", "12a", "Level of disjointness", "filled", disjoint),
    ]


_INITIALISATION = {
    "cnn12": "Glorot uniform, Keras's default",
    "separable_cnn": "Glorot uniform, Keras's default",
    "resnet50": "He normal",
}

_WEIGHTING = {
    "none": "no class weights",
    "class_weights": "class weights",
    "logit_adjust": "logits adjusted by the classes' shares",
}


def _model(study: StudySpec) -> list[Item]:
    classifier, segmenter = study.classifier, study.segmenter
    first = "No network before the classifier."
    chosen = "validation rows" if study.split.val_fraction else "the rows that are scored"
    start, training, selection = _fitting(classifier, chosen)
    if segmenter is not None and study.features is not None:
        first = f"U-Net, base width {segmenter.base}, block {study.features.tap}."
        pretrain = segmenter.pretrain
        begun = "from random weights" if pretrain is None else "pre-trained"
        start = f"U-Net: {segmenter.init} initialisation, {begun}. {start}"
    imbalance = ["Balanced accuracy", _WEIGHTING[classifier.weighting]]
    if isinstance(classifier, NetworkSpec) and classifier.balanced_sampler:
        imbalance.append("balanced batches")
    return [
        Item(
            *("22", "12c", "Model", "filled"),
            f"{first} Classifier {classifier.kind}; every setting is in the appendix.",
        ),
        Item("23", "18f", "Software", "filled", f"{versions()}."),
        Item("24", "", "Initialisation", "filled", start),
        Item("25", "12c", "Training", "filled", training),
        Item("26", "12c", "Selection", "filled", selection),
        Item("", "13", "Class imbalance", "filled", f"{', '.join(imbalance)}."),
    ]


def _fitting(classifier: ClassifierSpec, chosen: str) -> tuple[str, str, str]:
    """How the classifier starts, is trained, and what is chosen by the rows that choose."""
    threshold = f"threshold: {classifier.threshold}"
    if isinstance(classifier, LinearSpec):
        what = "penalty" if classifier.kind == "probe" else "temperature"
        space = classifier.components or "all"
        return (
            "Classifier: none, it is solved.",
            f"Classifier: linear, {space} components, fitted to convergence.",
            f"The {what} with the lowest loss on {chosen}; {threshold}.",
        )
    assert isinstance(classifier, NetworkSpec)
    begun_as = _INITIALISATION.get(classifier.kind, "PyTorch's defaults")
    return (
        f"Classifier: {begun_as}.",
        f"Classifier: {classifier.optimizer}, learning rate {classifier.lr:g}, batches of"
        f" {classifier.batch_size}, at most {classifier.epochs} epochs.",
        f"The epoch with the lowest loss on {chosen}; {threshold}.",
    )


def _external(run: Evidence) -> Item:
    """Other cohorts: that of a study's own hospital, or of none, is for the authors to say."""
    said = "; ".join(heading(record) for record in run.board.external)
    status: Status = "in part" if said else "to be written"
    text = f"{said}. See other cohorts." if said else "No other cohort was scored."
    return Item("32", "16", "External validation", status, text)


def _evaluation(run: Evidence) -> list[Item]:
    seeds = len(run.study.sweep.seeds)
    scored: Status = "filled" if any(row.replicates for row in run.board.rows) else "to be written"
    return [
        Item(
            *("28–29", "12e", "Metrics and uncertainty", "filled"),
            f"Balanced accuracy of patients; 95 % intervals over patients and {seeds} seeds (and"
            " draws of small training sets); gains are paired by patient, with bounds that hold for"
            " all rows with synthetic data at once (max-t, Romano and Wolf 2005).",
        ),
        _external(run),
        Item("33", "20a", "Flow of patients", "filled", "Kept, left out and split: see the data."),
        Item("34", "20b", "Demographics", "to be written", "Not read from the scans."),
        Item("35–36", "23a", "Performance with precision", scored, "See the leaderboard."),
        Item(
            "37", "", "Failure analysis", "in part", "Confusion matrices; no cases were reviewed."
        ),
        Item("", "14", "Fairness", "to be written", "Needs demographics."),
    ]
