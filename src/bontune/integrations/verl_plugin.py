"""What verl imports when it starts, by the entry point ``verl.plugins``: importing it registers the estimators."""

import logging

try:
    from bontune.integrations.verl import register

    register()
except Exception:
    # verl keeps the error of a plugin to itself, and would only miss the estimators later.
    logging.getLogger(__name__).exception("bontune could not give verl its advantage estimators")
    raise
