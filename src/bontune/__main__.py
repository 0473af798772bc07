"""``python -m bontune`` is the command ``bontune``."""

from bontune.cli import main

main()
