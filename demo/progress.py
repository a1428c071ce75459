"""What a user sees while a training runs: one line from the LLMTraining's status. Pure."""

from __future__ import annotations

from typing import Any

WIDTH = 24


def bar(percent: int) -> str:
    """A bar of WIDTH cells for 0–100."""
    filled = round(WIDTH * min(max(percent, 0), 100) / 100)
    return "█" * filled + "░" * (WIDTH - filled)


def line(status: dict[str, Any]) -> str:
    """Stage, bar, step, loss, tokens/s and time left; or the phase and its reason while there is no progress."""
    stage = next((s for s in status.get("stages", []) if s["name"] == status.get("stage")), None)
    if stage is None or not (progress := stage.get("progress")) or stage["state"] != "Running" or not progress["steps"]:
        return f"{status.get('phase', 'Pending'):<10} {status.get('stage') or '':<8} {cause(status)}".rstrip()
    parts = [
        f"{stage['name']:<8} {bar(progress['percent'])} {progress['percent']:>3}%",
        f"step {progress['step']}/{progress['steps']}",
    ]
    if loss := progress.get("loss"):
        parts.append(f"loss {loss}")
    if speed := progress.get("tokensPerSecond"):
        parts.append(f"{speed:,} tokens/s")
    if (eta := progress.get("etaSeconds")) is not None:
        parts.append(f"{eta // 60}:{eta % 60:02d} left")
    if restarts := status.get("restarts"):
        parts.append(f"{restarts} restarts")
    return "  ".join(parts)


def unchanged(text: str, seconds: float) -> str:
    """What has been so for a while, with for how long."""
    return f"{text}  ({seconds:.0f} s)" if seconds >= 10 else text


def cause(status: dict[str, Any]) -> str:
    """The message of the Running condition: why there is no progress."""
    conditions = {c["type"]: c for c in status.get("conditions", [])}
    for kind in ("Failed", "Running", "Accepted"):
        condition = conditions.get(kind)
        if condition and condition.get("message") and (kind != "Failed" or condition["status"] == "True"):
            return str(condition["message"])
    return ""
