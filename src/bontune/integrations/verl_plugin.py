"""Importing this module registers the estimators; verl imports it at its start, by the entry point ``verl.plugins``."""

import logging

try:
    from bontune.integrations.verl import register

    register()
except Exception:
    # verl swallows the error of a plugin, and would only miss the estimators later.
    logging.getLogger(__name__).exception("bontune could not register its advantage estimators in verl.")
    raise
