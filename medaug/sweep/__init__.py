"""Sweeps: trials of DDP ranks on a Ray cluster. The only room that knows Ray."""

from medaug.sweep.events import Listener, Outcome
from medaug.sweep.runner import Sweep, check_storage

__all__ = ["Listener", "Outcome", "Sweep", "check_storage"]
