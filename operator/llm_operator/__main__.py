"""``python -m llm_operator``: the settings come from the environment, see ``settings.py``."""

from __future__ import annotations

import asyncio
import logging
import sys

from llm_operator.app import run
from llm_operator.kube.login import LoginError
from llm_operator.settings import Settings, SettingsError


def main() -> int:
    try:
        settings = Settings.from_environment()
        logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        logging.getLogger("kopf").setLevel(max(logging.WARNING, logging.getLogger().level))
        asyncio.run(run(settings))
    except (SettingsError, LoginError) as error:
        print(f"llm-operator can't start: {error}", file=sys.stderr)
        return 78
    return 0


if __name__ == "__main__":
    sys.exit(main())
