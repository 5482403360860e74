"""``python -m medaug`` is the ``medaug`` command."""

from medaug.cli import main

main()
