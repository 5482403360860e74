"""How much the gains of a run that is there vary: what another study's power is told from."""

from __future__ import annotations

from pathlib import Path

from medaug.errors import UserError
from medaug.metrics.variance import Components
from medaug.results.leaderboard import gains_of


def pilot_components(folder: Path) -> Components:
    """Variance components of a gain, of the run in ``folder``: its middle row's by variance.

    Raises:
        UserError: there is no such run, or it compares no row with synthetic data.
    """
    gains = [gain for gain in gains_of(folder) if gain.components is not None and gain.error > 0]
    if not gains:
        raise UserError(
            f"pilot: run {folder.name} compares no row with synthetic data; finish it, or take"
            " another"
        )
    gains.sort(key=lambda gain: gain.error)
    components = gains[(len(gains) - 1) // 2].components
    assert components is not None
    return components
