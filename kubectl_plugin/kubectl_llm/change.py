"""`kubectl llm suspend`, `resume` and `retry`: one field of the spec each, and what it will do."""

from __future__ import annotations

from datetime import datetime

from kubectl_llm.kubectl import TRAININGS, Kubectl, PluginError
from kubectl_llm.screen import clean


def suspend(kubectl: Kubectl, name: str, *, wanted: bool) -> str:
    training = kubectl.one(TRAININGS, name)
    if bool(training.get("spec", {}).get("suspend")) == wanted:
        return f"training {name} is {'suspended' if wanted else 'not suspended'} already"
    kubectl.patch(TRAININGS, name, {"spec": {"suspend": wanted}})
    if wanted:
        return f"training {name} is asked to stop: its pods save a checkpoint and leave"
    return f"training {name} goes on from its newest checkpoint"


def retry(kubectl: Kubectl, name: str, now: datetime) -> str:
    training = kubectl.one(TRAININGS, name)
    phase = clean((training.get("status") or {}).get("phase") or "Pending")
    if phase not in ("Failed", "Restarting"):
        raise PluginError(f"training {name} is {phase}: only one that failed or waits to restart is taken up again")
    kubectl.patch(TRAININGS, name, {"spec": {"restartToken": now.strftime("%Y-%m-%dT%H:%M:%SZ")}})
    return (
        f"training {name} is taken up at stage {clean(training['status'].get('stage'))}, with new budgets of restarts"
    )
