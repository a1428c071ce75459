"""When a replica knows enough: of everything that it may read, and of each namespace by itself."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest

from llm_operator.kube.cache import Cache
from llm_operator.kube.kinds import WATCHED
from llm_operator.kube.reflector import LONGEST_BACKOFF_SECONDS, backoff
from llm_operator.kube.watches import Watches
from llm_operator.settings import Settings


def watches(*namespaces: str, listed: Any = lambda _: None) -> Watches:
    settings = Settings(namespaces=namespaces)
    return Watches(cast(Any, None), Cache(), settings, changed=lambda *_: None, listed=listed)


def turn(made: Watches, namespace: str | None, *, refusal: str = "", kinds: int = len(WATCHED)) -> None:
    for reflector in [one for one in made.reflectors if one.namespace == namespace][:kinds]:
        reflector._turn(listed=not refusal, refusal=refusal)


def test_every_kind_must_be_listed() -> None:
    made = watches()
    turn(made, None, kinds=len(WATCHED) - 1)
    assert list(made.missing()) == [f"{WATCHED[-1].name} was not listed yet"]
    assert not made.cover("team")
    turn(made, None)
    assert list(made.missing()) == []
    assert made.cover("team")


def test_a_namespace_that_may_not_be_read_keeps_no_other_waiting() -> None:
    told: list[str | None] = []
    made = watches("a", "b", listed=told.append)
    turn(made, "a")
    assert any("namespace b" in problem for problem in made.missing())
    turn(made, "b", refusal="forbidden")
    assert list(made.missing()) == []
    assert (made.cover("a"), made.cover("b"), told) == (True, False, ["a"])
    turn(made, "b")
    assert (made.cover("b"), told) == (True, ["a", "b"])


def test_one_kind_that_may_not_be_read_makes_its_namespace_wait() -> None:
    """A pass that sees a training and none of its Jobs would take them for deleted."""
    made = watches("a", "b")
    turn(made, "a")
    turn(made, "b")
    turn(made, "b", refusal="forbidden", kinds=1)
    assert (made.cover("a"), made.cover("b")) == (True, False)


def test_where_nothing_may_be_read_the_refusals_are_told() -> None:
    made = watches("a", "b")
    for namespace in ("a", "b"):
        turn(made, namespace, refusal="forbidden")
    assert f"{WATCHED[0].name} in namespace b can't be listed: forbidden" in list(made.missing())


def test_a_watch_that_is_not_renewed_is_told() -> None:
    made = watches()
    assert list(made.stale()) == []
    next(made.reflectors).heard_at = time.monotonic() - 1000
    assert [problem.split(" was")[0] for problem in made.stale()] == [f"the watch of {WATCHED[0].name}"]


@pytest.mark.parametrize("failures", range(100))
def test_the_pauses_between_tries_are_bounded_and_spread(failures: int) -> None:
    pauses = {backoff(failures) for _ in range(20)}
    assert len(pauses) > 1
    assert 0 < min(pauses) <= max(pauses) <= LONGEST_BACKOFF_SECONDS
