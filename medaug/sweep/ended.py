"""Which trials of a wave have ended before it begins, in this run or in another on its storage."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from medaug.ownership.seals import vouched, vouched_bundles
from medaug.spec import TrialConfig
from medaug.storage.bundle_folder import Bundled, BundleFolder, bundle_key
from medaug.storage.results import TrialResult
from medaug.storage.trial_folder import TrialFolder
from medaug.sweep.events import Outcome, Status


def ended_before(
    configs: Sequence[TrialConfig],
    experiment: Path,
    storage: Path,
    *,
    stops: bool,
    again: Collection[str] = (),
) -> dict[str, Outcome]:
    """Outcomes of those trials that need not run, by key; ``again`` are keys of those that have to.

    A key is the hash of all that decides a trial's outcome, so what ended in another run is taken
    over as it is, if what it made is still there. ``stops``: the wave stops trials early, so one
    that was stopped has ended.
    """
    outcomes: dict[str, Outcome] = {}
    configs = [config for config in configs if config.key not in again]
    for config in configs:
        folder = TrialFolder(experiment, config.key)
        if not (folder.path / "config.json").exists():  # it counts nowhere, whatever else is there
            continue
        if (result := folder.result()) is not None:
            outcomes[config.key] = _reused(config.key, result, folder.epoch())
        elif stops and (stopped := folder.stopped()) is not None:
            outcomes[config.key] = Outcome(config.key, "stopped", stopped["epoch"])
    for key, member in Bundled(experiment).members(_left(configs, outcomes)).items():
        if member.result is not None:
            outcomes[key] = _reused(key, member.result)
    if left := _left(configs, outcomes):
        outcomes |= _adopted(left, experiment, storage)
    return outcomes


def _left(
    configs: Sequence[TrialConfig], outcomes: Mapping[str, Outcome]
) -> dict[str, TrialConfig]:
    return {config.key: config for config in configs if config.key not in outcomes}


def _adopted(left: dict[str, TrialConfig], experiment: Path, storage: Path) -> dict[str, Outcome]:
    """Of trials that ended in other runs; this one has them now, too."""
    from medaug.storage.artifacts import Artifacts  # and torch with it

    artifacts = Artifacts(storage)

    def is_whole(result: TrialResult | None) -> bool:
        if result is None or result.status != "done":
            return False
        return all(map(artifacts.has, result.made))

    outcomes = {}
    others = [path.parent for path in sorted(experiment.parent.glob("*/trials"))]
    for config in left.values():
        for other in (TrialFolder(run, config.key) for run in others if run != experiment):
            there = (other.path / "result.json").exists()
            if there and vouched(other.path) and is_whole(result := other.result()):
                assert result is not None
                folder = TrialFolder(experiment, config.key)
                folder.claim(config)
                folder.reopen()
                folder.adopt(other)
                outcomes[config.key] = _reused(config.key, result, folder.epoch())
                break
    for path in sorted(experiment.parent.glob("*/bundles")):
        if path.parent == experiment or not vouched_bundles(path.parent):
            continue
        found = Bundled(path.parent).members(left.keys() - outcomes.keys())
        whole = [member for member in found.values() if is_whole(member.result)]
        if whole:
            trials = [left[member.key] for member in whole]
            folder = BundleFolder(experiment, bundle_key(trials))
            folder.claim_all(trials)
            folder.commit(whole)
            outcomes |= {m.key: _reused(m.key, m.result) for m in whole if m.result}
    return outcomes


def _reused(key: str, result: TrialResult, epoch: int = 1) -> Outcome:
    status: Status = "diverged" if result.status == "diverged" else "reused"
    return Outcome(key, status, epoch, result)
