from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from llm_operator.training.names import child_name

DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
names = st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,60}[a-z0-9])?", fullmatch=True)
stages = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?", fullmatch=True)


@given(names, st.uuids(), stages, st.integers(1, 10_000))
def test_a_name_is_a_label_with_room_for_a_pods_index(training: str, uid: object, stage: str, attempt: int) -> None:
    name = child_name(training, str(uid), stage, attempt)
    assert DNS_LABEL.fullmatch(name), name
    assert len(f"{name}-1023") <= 63


@given(names, st.uuids(), stages, stages, st.integers(1, 100), st.integers(1, 100))
def test_different_attempts_have_different_names(
    training: str, uid: object, one: str, other: str, first: int, second: int
) -> None:
    if (one, first) != (other, second):
        assert child_name(training, str(uid), one, first) != child_name(training, str(uid), other, second)
