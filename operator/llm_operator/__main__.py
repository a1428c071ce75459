"""``python -m llm_operator``: the settings come from the environment, see ``settings.py``.

``python -m llm_operator plan FILE…`` tells what trainings, servings and apps would do, and
``python -m llm_operator prompt FILE --ask "…"`` what an app would send to its model; both need no cluster.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable

from llm_operator import plan, prompts
from llm_operator.app import run
from llm_operator.kube.login import LoginError
from llm_operator.settings import Settings, SettingsError

OFFLINE: dict[str, Callable[[list[str]], int]] = {"plan": plan.main, "prompt": prompts.main}


def main() -> int:
    if offline := OFFLINE.get("".join(sys.argv[1:2])):
        try:
            return offline(sys.argv[2:])
        except BrokenPipeError:  # `| head` has read enough; Python would complain once more when it flushes
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
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
