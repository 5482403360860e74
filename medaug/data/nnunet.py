"""nnU-Net's raw data sets: ``dataset.json``, ``imagesTr``, ``labelsTr``.

https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medaug.data.cohort import Cohort, Reject, Scan, folder_of
from medaug.data.listed import cohort_of, read_cases, read_list
from medaug.errors import UserError
from medaug.spec.study import DataSpec

DATASET = "dataset.json"


def nnunet(spec: DataSpec, progress: object = None) -> Cohort:
    """``DIR/imagesTr/<case>_<channel number>.nii.gz`` and ``DIR/labelsTr/<case>.nii.gz``, where
    ``DIR/dataset.json`` gives each channel's name and number.

    nnU-Net segments and knows no class of a patient: ``DIR/labels.csv`` (``case``, ``class`` and
    perhaps ``patient``) says it. The held-out images of ``imagesTs`` are not read.
    """
    root = folder_of(spec)
    about = read_list(root / DATASET)
    channels, ending = channels_of(about), ending_of(about)
    number = _number(spec.channel, channels)
    images = images_of(root, number, ending)
    table = read_cases(root, spec, images, "nnU-Net's dataset.json")
    scans, rejects = [], []
    for case, image in images.items():
        if case in table.reasons:
            rejects.append(Reject(image, table.reasons[case], case, unlabelled=True))
            continue
        mask = root / "labelsTr" / f"{case}{ending}"
        scans.append(
            Scan(
                table.patient_of.get(case, case),
                image,
                mask if os.path.lexists(mask) else None,
                table.label_of[case],
            )
        )
    return cohort_of(spec, scans, rejects, table.notes)


def channels_of(about: Any) -> dict[str, int]:
    """Channel name -> number, from ``channel_names`` (``modality`` in version 1)."""
    named = about.get("channel_names") or about.get("modality") if isinstance(about, dict) else None
    if not isinstance(named, Mapping) or not all(str(key).isdecimal() for key in named):
        raise UserError(f'{DATASET}: no channel_names; write {{"0": "FLAIR", …}}')
    return {str(name): int(key) for key, name in named.items()}


def ending_of(about: Mapping[str, Any]) -> str:
    ending = about.get("file_ending", ".nii.gz")
    if ending not in (".nii.gz", ".nii", ".png"):
        raise UserError(f"{DATASET}: file_ending is not supported; use .nii.gz, .nii or .png")
    return str(ending)


def images_of(root: Path, number: int, ending: str) -> dict[str, Path]:
    """Case -> image of channel ``number``."""
    folder, suffix = root / "imagesTr", f"_{number:04d}{ending}"
    if not folder.is_dir() or folder.is_symlink():
        raise UserError("data.root: holds no folder imagesTr; check data.root")
    names = sorted(path.name for path in folder.iterdir() if path.name.endswith(suffix))
    if not names:
        raise UserError(f"imagesTr: no file ends in {suffix}; check data.channel")
    return {name.removesuffix(suffix): folder / name for name in names}


def _number(channel: str, channels: Mapping[str, int]) -> int:
    by_name = {name.casefold(): number for name, number in channels.items()}
    if channel.casefold() not in by_name:
        raise UserError(
            f"data.channel: '{channel}' is none of {DATASET}'s ({', '.join(channels)}); name one"
        )
    return by_name[channel.casefold()]
