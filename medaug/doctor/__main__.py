"""``python -m medaug.doctor GROUP STORAGE [ADDRESS]``: one group of checks, as lines of JSON."""

import os
import sys

from medaug.doctor.examine import place_of, run_group

os.umask(0o077)
run_group(sys.argv[1], place_of(*sys.argv[2:]))
