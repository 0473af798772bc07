"""Which TRL is installed: importing this module refuses one that is too old, before its parts are missed."""

from importlib.metadata import version

from bontune.base.errors import BontuneError

OLDEST = (1, 12)
"""Oldest TRL whose trainer has the parts that ours is built on."""


def check(installed: str) -> None:
    """Refuse a version of TRL.

    Raises:
        BontuneError: it is too old.
    """
    if tuple(int(part) for part in installed.split(".")[:2]) < OLDEST:
        raise BontuneError(
            f"BoNGRPOTrainer works with TRL {OLDEST[0]}.{OLDEST[1]} or newer, and TRL {installed} is installed: "
            "pip install 'bontune[trl]'."
        )


check(version("trl"))
