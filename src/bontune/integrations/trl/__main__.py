"""``accelerate launch -m bontune.integrations.trl --config bon.yaml``."""

from bontune.integrations.trl.script import main

main()
