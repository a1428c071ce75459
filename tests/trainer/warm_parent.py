"""Imported by the fork server before it forks; see warm.py."""

from tests.trainer.warm import import_everything

import_everything()
