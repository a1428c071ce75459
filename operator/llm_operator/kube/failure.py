"""What a status says of a pass that failed. Pure, and on plain JSON: the status itself may be what can't be read."""

from __future__ import annotations

import re
import traceback
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from llm_operator.api.conditions import timestamp
from llm_operator.api.reasons import Reason, TrainingCondition
from llm_operator.api.text import cut
from llm_operator.kube.client import ApiError, DeleteRefusedError
from llm_operator.kube.plan import Event, Manifest, Plan

WHAT_TO_DO = "correct it if it is yours; it is tried again within five minutes, and the operator's log has more"
LOGGED_BYTES = 2048  # of what an error says
PROBLEMS = 3  # of a validation
UNKNOWN = "Unknown"
# Names what differs from try to try, and tells nobody anything.
PASSING = re.compile(
    r"""
    [0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}                # a uid
    | \d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.\d]*(\ ?Z|\ ?[-+]\d\d:?\d\d)?(\ UTC)?  # a time
    """,
    re.VERBOSE,
)
# In time that grows with the text alone: a name is looked at from its first sign and never gone back in.
SECRETS = re.compile(
    r"""
    (
        \bbearer\s+
        | ://[^/\s:@]*:(?=[^/\s@]*@)
        | (?<![\w-])(?=[\w-]*?(?:token|password|secret))[\w-]++["']?\s*+[=:]\s*+["']?
    )
    [^\s@,;'"}]+
    """,
    re.VERBOSE | re.IGNORECASE,
)


def told(owner: Manifest, about: str, error: Exception, now: float, done: Plan | None = None) -> Plan:
    """The status with what has gone wrong in the condition ``about``. ``done``: a plan whose writes were made.

    Nothing else of it is touched: what it holds of attempts and results is the truth, whether it can be read or not.
    """
    done = done or Plan()
    known = owner.get("status") or {}
    base = dict(done.status or known)
    conditions = conditions_in(base)
    before, shown = named(conditions, about), named(conditions_in(known), about)
    new = condition_of(owner, before, about, error, now)
    if standing(shown, new):
        new["message"] = shown["message"]
    base["conditions"] = [new if condition is before else condition for condition in conditions]
    if not before:
        base["conditions"].append(new)
    if new["status"] == UNKNOWN and not ended(conditions):
        base["phase"] = UNKNOWN
    event = Event("Warning", new["reason"], new["message"])
    return Plan(status=base, events=(*done.events, *(() if shown.get("reason") == new["reason"] else (event,))))


def settled(owner: Manifest, plan: Plan, about: str) -> Plan:
    """The plan with the words that stand, if it says the same in others."""
    shown, new = (named(conditions_in(status or {}), about) for status in (owner.get("status"), plan.status))
    if plan.status is None or not new or not standing(shown, new):
        return plan
    conditions = [shown if condition is new else condition for condition in plan.status["conditions"]]
    return replace(plan, status={**plan.status, "conditions": conditions})


def cleared(owner: Manifest, plan: Plan, about: str) -> Plan:
    """The plan of a pass that went well: it leaves no word of one that failed."""
    status = plan.status or owner.get("status") or {}
    found = named(conditions_in(status), about)
    if found.get("reason") not in (Reason.RECONCILE_ERROR, Reason.DELETE_REFUSED):
        return plan
    end = ended(status["conditions"])  # of what is over no pass tells the condition anew: it said the same as the end
    kept = [{**end, "type": about, "status": "False"}] if end else []
    conditions = [one for c in status["conditions"] for one in (kept if c is found else [c])]
    return replace(plan, status={**status, "conditions": conditions})


def conditions_in(status: Manifest) -> list[Any]:
    """Those of a status that others may have written; none if they are no list."""
    found = status.get("conditions")
    return list(found) if isinstance(found, list) else []


def named(conditions: list[Any], kind: str) -> dict[str, Any]:
    """The condition of this type, or an empty one."""
    found = (condition for condition in conditions if isinstance(condition, dict))
    return next((condition for condition in found if condition.get("type") == kind), {})


def condition_of(owner: Manifest, before: Manifest, about: str, error: Exception, now: float) -> Manifest:
    refused = isinstance(error, DeleteRefusedError)
    status = before.get("status", UNKNOWN) if refused else UNKNOWN
    since = before.get("lastTransitionTime") if before.get("status") == status else None
    generation = owner["metadata"].get("generation")
    return {
        "type": about,
        "status": status,
        **({"observedGeneration": generation} if generation is not None else {}),
        "lastTransitionTime": since or timestamp(now),
        "reason": str(Reason.DELETE_REFUSED if refused else Reason.RECONCILE_ERROR),
        "message": cut(text_of(error)),
    }


def standing(shown: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether the same is said already, but for a request's id or a time."""
    same = all(shown.get(field) == new.get(field) for field in ("status", "reason", "observedGeneration"))
    return same and PASSING.sub("", str(shown.get("message"))) == PASSING.sub("", new["message"])


def ended(conditions: list[Any]) -> dict[str, Any]:
    """The condition that says how a training has ended; empty if it hasn't."""
    ends = (named(conditions, end) for end in (TrainingCondition.SUCCEEDED, TrainingCondition.FAILED))
    return next((end for end in ends if end.get("status") == "True"), {})


def text_of(error: Exception) -> str:
    """Its kind, what it says without secrets, and what to do."""
    if isinstance(error, DeleteRefusedError):
        return without_secrets(error.message)
    kind = "the API server answered" if isinstance(error, ApiError) else type(error).__name__
    return f"{kind}: {cut(without_secrets(words_of(error)), 640)}; {WHAT_TO_DO}"


def words_of(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error) or "no message"
    # not str(error), which has the values
    found = error.errors(include_url=False, include_context=False, include_input=False)
    said = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in found[:PROBLEMS]]
    more = [f"and {len(found) - PROBLEMS} more"] if len(found) > PROBLEMS else []
    return f"{error.title}: {'; '.join(said + more)}"


def trace_of(error: Exception) -> str:
    """Where it came from and what it says: not as Python shows it, in as many lines as the value has parts."""
    where = "".join(traceback.format_tb(error.__traceback__))
    return f"{cut(words_of(error), LOGGED_BYTES)}\n{where}{type(error).__name__}"


def without_secrets(text: str) -> str:
    return SECRETS.sub(r"\1…", text)
