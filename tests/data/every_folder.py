"""All folders that tests generate: every row of what was misread, and the neighbours."""

from __future__ import annotations

from tests.data import (
    folders_of_cases,
    folders_of_challenges,
    folders_of_classes,
    folders_of_cohorts,
    folders_of_dicom,
    folders_of_downloads,
    folders_of_formats,
    folders_of_kinds,
    folders_of_lists,
    folders_of_people,
    folders_of_pixels,
    folders_of_places,
    folders_of_tables,
)
from tests.data.folders import Build

_PARTS = (
    *(folders_of_people, folders_of_classes, folders_of_kinds),
    *(folders_of_pixels, folders_of_downloads, folders_of_places),
    *(folders_of_cases, folders_of_dicom, folders_of_tables),
    *(folders_of_challenges, folders_of_lists, folders_of_cohorts, folders_of_formats),
)
FOLDERS: dict[str, Build] = {name: build for part in _PARTS for name, build in part.FOLDERS.items()}
assert len(FOLDERS) == sum(len(part.FOLDERS) for part in _PARTS), "two folders of one name"
