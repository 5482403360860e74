"""The items of CLAIM (Tejani 2024, whose numbers are given) and TRIPOD+AI (Collins 2024) that a run
can answer itself, and, as important, those that it cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from medaug.results.external import heading
from medaug.results.numbers import with_interval
from medaug.results.report.curve_tables import as_csv
from medaug.results.report.evidence import Evidence
from medaug.results.report.facts import plural, question, versions
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
    """Items in CLAIM's order, then those that are TRIPOD+AI's alone."""
    study = run.study
    return [
        *_design(study),
        *_data(run),
        *_partitions(run),
        *_model(study),
        *_evaluation(run),
        *_results(run),
        *_of_tripod(run),
    ]


def checklist_table(run: Evidence) -> bytes:
    """:func:`checklist` as CSV, to be completed by the authors."""
    rows = ([i.claim, i.tripod, i.topic, i.status, i.text] for i in checklist(run))
    return as_csv(("CLAIM 2024", "TRIPOD+AI", "item", "state", "from the records"), rows)


def _design(study: StudySpec) -> list[Item]:
    simulated = study.data.layout == "phantom"
    made = "Simulated scans." if simulated else "Retrospective: scans that were there are read."
    networks = isinstance(study.classifier, NetworkSpec)
    kind = "deep learning" if networks else "linear classification of image features"
    return [
        Item(
            *("1–3", "1–3", "Title, abstract, background", "to be written"),
            f"The technology to name: {kind}, with training rows added by generators.",
        ),
        Item("4", "4", "Objectives and hypotheses", "filled", question(study)),
        Item("5", "5a", "Prospective or retrospective", "filled", made),
        Item(
            *("6", "", "Study goal", "filled"),
            "Whether added rows help: superiority over the best configuration without synthetic"
            f" data; a gain below {study.sweep.margin:g} is called too small to matter.",
        ),
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
    most = "all patients" if data.max_patients is None else f"at most {data.max_patients} patients"
    sealed = (
        f"; {split.test_fraction:.0%} of the patients are sealed" if split.test_fraction else ""
    )
    acquired = "Simulated: see the settings." if phantom else "Protocols are not on record."
    return [
        Item("7", "5a", "Data sources", "filled" if phantom else "in part", source),
        Item(
            *("8", "6b", "Inclusion and exclusion", "in part"),
            f"{plural(rejects, 'file')} left out for technical reasons (see the data); clinical"
            " criteria are not on record.",
        ),
        Item(
            *("9", "7", "Preprocessing", "filled"),
            f"{data.image_size} pixels square, normalised by mean and deviation of the training"
            " patients of each fold.",
        ),
        Item(
            *("10", "7", "Selection of data subsets", "filled"),
            f"{policy.capitalize()}{step} of {most}{sealed}.",
        ),
        Item(
            *("11", "", "De-identification", "filled"),
            "Patients appear under keyed pseudonyms (HMAC-SHA256, key outside the storage);"
            f" {free_text} free-text header fields were dropped.",
        ),
        Item(
            *("12", "11", "Missing data", "filled"),
            "Scans without a class, or without a mask where others have one, were left out and"
            " counted.",
        ),
        Item("13", "", "Image acquisition", "filled" if phantom else "to be written", acquired),
        Item("14–18", "8", "Reference standard", "to be written", "Who graded and drew, and how."),
    ]


def _partitions(run: Evidence) -> list[Item]:
    split = run.study.split
    disjoint = (
        "By patient: no patient is in two parts of a fold."
        if split.unit == "patient"
        else "By image, as published: patients are on both sides of the split."
    )
    sealed = f", {split.test_fraction:.0%} sealed" if split.test_fraction else ""
    folds = f"{split.folds} folds" if split.folds > 1 else "one cut"
    return [
        Item(
            *("19", "12a", "Partitions", "filled"),
            f"{folds.capitalize()}, classes in proportion, seed {split.seed}{sealed}; counts in"
            " the data section.",
        ),
        Item("20", "12a", "Level of disjointness", "filled", disjoint),
        Item(
            *("21", "10", "Sample size", "in part"),
            "The bounds show what these patients can tell, and undecided rows name the number that"
            " would decide; `medaug plan` gives the smallest gain that would be seen.",
        ),
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
        Item(
            *("27", "", "Ensembling", "filled"),
            "None: every classifier is scored by itself; scores are means over the replicates.",
        ),
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


def _evaluation(run: Evidence) -> list[Item]:
    study, board = run.study, run.board
    seeds, folds = len(study.sweep.seeds), study.split.folds
    scored = _scored(run)
    draws = f", {plural(study.sweep.draws, 'draw')} of small sets" if study.sweep.draws > 1 else ""
    repeats = f"{plural(seeds, 'seed')} on {plural(folds, 'fold')}{draws}"
    axes = f"{plural(board.tried, 'configuration')}, {plural(len(study.judges), 'classifier')}"
    done = run.done("classify")
    said = "; ".join(heading(record) for record in board.external)
    return [
        Item(
            *("28", "12e", "Metrics", "filled"),
            "Balanced accuracy of patients, recalls of each class; AUROC, MCC and balanced accuracy"
            " of slices.",
        ),
        Item(
            *("29", "12e", "Significance and uncertainty", "filled"),
            f"95 % intervals over patients and {plural(seeds, 'seed')} (and draws of small training"
            " sets); gains are paired by patient, with bounds that hold for all rows with synthetic"
            " data at once (max-t, Romano and Wolf 2005).",
        ),
        Item("30", "", "Robustness", scored if seeds > 1 else "in part", f"{repeats}; {axes}."),
        Item("31", "", "Explainability", "to be written", "No method was applied."),
        Item(
            *("32", "12a", "Internal evaluation", scored),
            f"{plural(len(done), 'classifier')} scored on patients of their fold who trained and"
            " chose nothing."
            if study.split.val_fraction
            else f"{plural(len(done), 'classifier')} scored on patients who also chose the epoch.",
        ),
        Item(
            *("33", "16", "External testing", "in part" if said else "to be written"),
            f"{said}. See other cohorts." if said else "No other cohort was scored.",
        ),
        Item("34", "18d", "Trial registration", "to be written", ""),
    ]


def _results(run: Evidence) -> list[Item]:
    scored, best = _scored(run), run.best or run.reference
    score = with_interval(best.mean, best.low, best.high) if best else ""
    precision = f"{best.title}: balanced accuracy {score}." if best and score else ""
    shared = run.board.subgroups
    named = ", ".join(dict.fromkeys(str(each["covariate"]) for each in shared))
    people: Status = "in part" if shared else "to be written"
    return [
        Item(
            *("35", "20a", "Numbers included and excluded", "filled" if run.slices else "in part"),
            "Kept, left out and split: see the data.",
        ),
        Item(
            *("36", "20b", "Demographics", people),
            f"By {named}: see the subgroups." if shared else "Not read from the scans.",
        ),
        Item("37", "23a", "Performance and uncertainty", scored, "See the leaderboard."),
        Item("38", "23a", "Estimates and their precision", scored, precision),
        Item(
            *("39", "", "Failure analysis", "in part"),
            "Confusion matrices, ROC and precision-recall curves; no cases were reviewed.",
        ),
        Item("40", "26", "Limitations", "to be written", "The flags above are a beginning."),
        Item("41", "25, 27", "Implications for practice", "to be written", ""),
        Item(
            *("42", "18c", "Protocol and technical details", "filled"),
            f"The study with every setting is in the appendix (signature {run.study.signature()}).",
        ),
        Item(
            *("43", "18e–f", "Availability", "in part"),
            "medaug is open; `medaug export` gives a generator or its rows. Whether the scans may"
            " be had, the authors know.",
        ),
        Item("44", "17–18b", "Ethics, funding, interests", "to be written", ""),
    ]


def _of_tripod(run: Evidence) -> list[Item]:
    threshold = getattr(run.study.classifier, "threshold", "half")
    chosen = "0.5" if threshold == "half" else f"chosen on validation patients ({threshold})"
    shared = bool(run.board.subgroups)
    sizes = "see the parts of each fold in the data section; added rows are in the leaderboard."
    return [
        Item("", "14", "Fairness", "in part" if shared else "to be written", "Needs demographics."),
        Item(
            *("", "15", "Model output", "filled"),
            f"The probability of each class; the threshold of two classes is {chosen}.",
        ),
        Item(
            *("", "21", "Participants in each analysis", "filled" if run.slices else "in part"),
            f"Patients and slices by class: {sizes}",
        ),
        Item(
            *("", "24", "Model updating", "filled"),
            "None: nothing was fitted again after it was scored.",
        ),
    ]


def _scored(run: Evidence) -> Status:
    return "filled" if any(row.replicates for row in run.board.rows) else "to be written"
