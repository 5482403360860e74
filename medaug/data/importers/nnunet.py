"""nnU-Net 1 and 2, and the Medical Segmentation Decathlon."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medaug.data.importers.base import Found, Look, Options
from medaug.data.importers.lists import DATASET, Entry, finish, says_classes
from medaug.data.importers.tree import Tree, folder_of
from medaug.data.labels import read_json
from medaug.data.names import PICTURES, VOLUMES, ending_of, stem_of
from medaug.data.table import POOL
from medaug.errors import UserError

_CHANNEL = re.compile(r"(?P<case>.+)_(?P<number>\d{4})")


@dataclass(frozen=True)
class NnUnet:
    """``DIR/imagesTr/<case>_<channel number>.nii.gz`` and ``DIR/labelsTr/<case>.nii.gz``, where
    ``DIR/dataset.json`` gives each channel's name and number; or, as in the Decathlon, one 4-D
    file a case without a number.

    https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md

    It segments and knows no class of a patient: a table (``labels.csv``: ``case``, ``class`` and
    perhaps ``patient``) says it. The held-out images of ``imagesTs`` are the part
    ``test`` where the table has their class, else in the pool.
    """

    name: str = "nnunet"

    def looks_like(self, tree: Tree) -> Look | None:
        if DATASET not in tree or not any(n.startswith("imagesTr/") for n in tree.files):
            return None
        body = read_json(tree.root / DATASET)
        if says_classes(body):
            return None  # a MONAI list
        return Look(0.98, "imagesTr and dataset.json")

    def rows(self, tree: Tree, options: Options) -> Found:
        found = Found([], tables=[DATASET])
        about = read_json(tree.root / DATASET)
        channels, ending = channels_of(about), ending_in(about)
        found.channels = tuple(channels)
        cases = _cases(tree, "imagesTr", ending, len(channels))
        whole = [files[None] for files in cases.values() if None in files]
        read = _wanted(options, channels)
        if not cases or (not whole and not any(read[0][1] in files for files in cases.values())):
            raise UserError(
                f"imagesTr: no file ends in _{read[0][1]:04d}{ending}; check data.channel"
            )
        if whole and len(channels) > 1:
            read, found.volume = read[:1], read[0][1]
            found.notes.append(
                f"each file holds {len(channels)} volumes; the study reads {read[0][0]} "
                f"(data.accept.volume: {read[0][1]})"
            )
        found.read = tuple(name for name, _ in read)
        entries = []
        for case, files in cases.items():
            listed = tuple(files.get(None) or files.get(n) or "" for _, n in read)
            if not all(listed):
                for name in filter(None, files.values()):
                    found.leave_out(name, f"its case has no {read[0][0]} image")
                continue
            for name in files.values():
                if name not in listed:
                    found.leave_out(name, "another sequence than the study reads")
            mask = f"labelsTr/{case}{ending}"
            masks = (mask,) if mask in tree or mask in tree.noise else ()
            entries.append(Entry(case, listed, DATASET, masks=masks, own=case))
        for case, files in _cases(tree, "imagesTs", ending, len(channels)).items():
            listed = tuple(files.get(None) or files.get(n) or "" for _, n in read)
            mask = f"labelsTs/{case}{ending}"
            if all(listed):
                masks = (mask,) if mask in tree else ()
                entries.append(Entry(case, listed, DATASET, masks=masks, part=POOL, own=case))
        finish(tree, entries, options, found, "nnU-Net's dataset.json")
        return found


def channels_of(about: Any) -> dict[str, int]:
    """Channel name -> number, from ``channel_names`` (``modality`` in version 1)."""
    named = about.get("channel_names") or about.get("modality") if isinstance(about, dict) else None
    if not isinstance(named, Mapping) or not all(str(key).isdecimal() for key in named):
        raise UserError(f'{DATASET}: no channel_names; write {{"0": "FLAIR", …}}')
    return {str(name): int(key) for key, name in named.items()}


def ending_in(about: Mapping[str, Any]) -> str:
    ending = about.get("file_ending", ".nii.gz")
    if ending not in VOLUMES | PICTURES:
        raise UserError(f"{DATASET}: file_ending is not supported; use .nii.gz, .nii or .png")
    return str(ending)


def _cases(
    tree: Tree, folder: str, ending: str, n_channels: int
) -> dict[str, dict[int | None, str]]:
    """Case -> channel number (None: one file for all) -> file."""
    stems = {
        stem_of(name): name
        for name in tree.files
        if folder_of(name) == folder and ending_of(name) == ending
    }
    cases: dict[str, dict[int | None, str]] = defaultdict(dict)
    for stem, name in sorted(stems.items()):
        match = _CHANNEL.fullmatch(stem)
        if match and int(match["number"]) < n_channels:
            cases[match["case"]][int(match["number"])] = name
        else:
            cases[stem][None] = name
    return dict(cases)


def _wanted(options: Options, channels: Mapping[str, int]) -> list[tuple[str, int]]:
    by_name = {name.casefold(): name for name in channels}
    if not options.channels:
        return list(channels.items())[:1]
    unknown = [name for name in options.channels if name.casefold() not in by_name]
    if unknown:
        raise UserError(
            f"data.channel: '{unknown[0]}' is none of {DATASET}'s ({', '.join(channels)}); name one"
        )
    wanted = [by_name[name.casefold()] for name in options.channels]
    return [(name, channels[name]) for name in wanted]
