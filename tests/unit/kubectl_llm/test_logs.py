from __future__ import annotations

import io
import json
from typing import Any

import pytest

from kubectl_llm.completion import COMMANDS, NO_FILES, options, words
from kubectl_llm.kubectl import ExitCode, Kubectl, PluginError, documents, refusal
from kubectl_llm.logs import AT_ONCE, Wanted, arguments, attempt_of, gone, pod_index

TRAINING: dict[str, Any] = {
    "metadata": {"name": "chat"},
    "status": {
        "stage": "tuned",
        "stages": [
            {
                "name": "base",
                "attempts": [
                    {"number": 1, "job": "j-1", "reason": "Hang", "message": "no step"},
                    {"number": 2, "job": "j-2"},
                ],
            },
            {"name": "tuned", "attempts": []},
        ],
    },
}


def test_the_newest_attempt_of_the_newest_stage() -> None:
    assert attempt_of(TRAINING, Wanted())[1]["job"] == "j-2", "the stage whose turn it is has no attempt yet"
    assert attempt_of(TRAINING, Wanted("base", 1))[1]["job"] == "j-1"


@pytest.mark.parametrize(
    ("wanted", "told"),
    [(Wanted("ghost"), "no stage ghost; there is: base"), (Wanted("base", 7), "no attempt 7; the status has 1, 2")],
)
def test_what_is_not_there_is_told_with_what_is(wanted: Wanted, told: str) -> None:
    with pytest.raises(PluginError, match=told) as found:
        attempt_of(TRAINING, wanted)
    assert found.value.code == ExitCode.NOT_FOUND


def test_pods_that_are_gone_have_left_a_word() -> None:
    assert "attempt 1 are gone; its end was told as Hang: no step" in str(
        gone(TRAINING["status"]["stages"][0]["attempts"][0])
    )


def test_which_pod_has_a_rank() -> None:
    stage = {"workers": [{"rank": 0, "processes": 8}, {"rank": 8, "processes": 8}]}
    assert [pod_index(stage, rank, 1) for rank in (0, 7, 8, 15)] == [0, 0, 1, 1]
    assert pod_index({}, 17, 8) == 2, "of an attempt whose pods the status doesn't name any more"


def test_a_stream_for_each_pod() -> None:
    assert "--max-log-requests=2" in arguments([{}, {}], "j", None, follow=False, tail=-1)
    assert f"--max-log-requests={AT_ONCE}" in arguments([{}] * 1000, "j", None, follow=False, tail=-1)
    assert arguments([{}], "j", 3, follow=True, tail=5)[2].endswith("job-completion-index=3")


@pytest.mark.parametrize(
    ("errors", "code", "told"),
    [
        ('error: the server doesn\'t have a resource type "llmtrainings"', ExitCode.NOT_INSTALLED, "install the chart"),
        (
            "E1126 12:00 memcache.go] noise\nError from server (Forbidden): it is forbidden: User x cannot list",
            ExitCode.FORBIDDEN,
            "User x cannot list",
        ),
        ('Error from server (NotFound): llmtrainings "a" not found', ExitCode.NOT_FOUND, '"a" not found'),
        ("Unable to connect to the server: dial tcp", ExitCode.UNREACHABLE, "dial tcp"),
        ('error: context "x" does not exist', ExitCode.USAGE, 'context "x" does not exist'),
        ("", ExitCode.FAILED, "said nothing"),
    ],
)
def test_an_error_of_kubectl_is_one_line_and_a_code(errors: str, code: ExitCode, told: str) -> None:
    found = refusal(errors)
    assert found.code == code
    assert told in str(found)
    assert "\n" not in str(found)


def test_no_kubectl() -> None:
    with pytest.raises(PluginError, match="not on the PATH") as found:
        Kubectl(program="kubectl-that-is-not-there").text("version")
    assert found.value.code == ExitCode.NO_KUBECTL


def test_words_for_a_shell() -> None:
    nobody = Kubectl(program="kubectl-that-is-not-there")
    assert [word.split("\t")[0] for word in words([""], nobody)[0]] == list(COMMANDS)
    assert words(["st"], nobody) == (["status\twhat each does, and why, as a tree"], NO_FILES)
    assert words(["logs", "c"], nobody) == ([], NO_FILES), "a cluster that can't be asked spoils no prompt"
    assert options(["logs", "-n", "team", "--context=a", "x"]) == ("-n", "team", "--context=a")


def test_documents_on_one_line_and_indented() -> None:
    found = [{"type": "ADDED", "object": {"a": "}\n{"}}, {}, {"b": [{}]}]
    text = "".join(json.dumps(one) + "\n" for one in found) + "".join(json.dumps(one, indent=4) + "\n" for one in found)
    assert list(documents(io.StringIO(text))) == found * 2
