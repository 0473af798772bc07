"""Trains in TRL from a file: ``accelerate launch -m bontune.integrations.trl --config bon.yaml``."""

from bontune.integrations.trl.script import run_script

run_script()
