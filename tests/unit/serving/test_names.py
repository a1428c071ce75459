from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from llm_operator.serving.names import child_name

NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?", fullmatch=True)


@given(NAMES, NAMES)
def test_a_child_has_a_dns_label_of_its_own(name: str, other: str) -> None:
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", child_name(name))
    assert (child_name(name) == child_name(other)) == (name == other)


def test_a_plain_name_stays_readable() -> None:
    assert child_name("chat") == "chat-serving"
    assert child_name("llama-3.1-8b") != child_name("llama-3-1-8b") == "llama-3-1-8b-serving"
