"""Helper modules of other folders are found by their full names."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))
