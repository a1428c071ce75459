"""One app: whether it answers, what it finds, what its agents do."""

from __future__ import annotations

from tools.grafana.description import Dashboard, Query, Series, Variable, number, series

its = Series('namespace=~"$namespace",app=~"$app"')
ALWAYS = "llm_app_running_requests"  # of every pod, whatever it was asked
ASKED = 'path=~"/v1/.*"'  # neither probes nor scrapes
TOKENS = ("llm_app_tokens_total", "llm_app_agent_tokens_total")  # an app has one of them
QUANTILES = (0.5, 0.9, 0.99)

APP = Dashboard(
    "app",
    "llm-operator: one app",
    (Variable("namespace", ALWAYS), Variable("app", ALWAYS, several=False)),
    (
        ("Does it answer", (
            number("Pods", f"count(sum by (pod) ({its.of(ALWAYS)}))"),
            number("Requests a second", its.rate("llm_app_requests_total", more=ASKED).expr + " or vector(0)", "reqps"),
            number("Requests that run", f"sum({its.of(ALWAYS)})"),
            number("Requests that wait", f"sum({its.of('llm_app_waiting_requests')})"),
            number(
                "Errors", its.rate("llm_app_requests_total", more=f'{ASKED},status=~"5.*"', over="10m").expr
                + " or vector(0)", "reqps",
            ),
            number(
                "Refused", its.rate("llm_app_requests_total", more=f'{ASKED},status="429"', over="10m").expr
                + " or vector(0)", "reqps", told="With 429: as many as may be are answered, and as many wait.",
            ),
        )),
        ("How fast", (
            series("Time to the first piece", "s", *its.quantiles("llm_app_first_piece_seconds", *QUANTILES)),
            series("Time of an answer", "s", *its.quantiles("llm_app_answer_seconds", *QUANTILES)),
            series("Requests", "reqps", its.rate("llm_app_requests_total", "path", "status", more=ASKED)),
            series(
                "Answers that broke off", "reqps", its.rate("llm_app_broken_answers_total", legend="broken"),
                told="After their first piece, so their status was 200.",
            ),
            series("Requests by pod", "short", its.by("sum", ALWAYS, "pod")),
            series(
                "Tokens", "short",
                Query(" or ".join(its.rate(name, "kind").expr for name in TOKENS), "{{kind}}"),
                told="As the model's server counts, of an app with agents those of all of them.",
            ),
        )),
        ("What it knows", (
            series("Time of a search", "s", *its.quantiles("llm_app_retrieval_seconds", *QUANTILES)),
            series(
                "Age of the index", "s",
                Query(f"time() - min by (knowledge) ({its.of('llm_app_index_timestamp_seconds')})", "{{knowledge}}"),
                told="Since it was made. One whose documents have not changed stays.",
            ),
            series("Chunks", "short", its.by("max", "llm_app_chunks", "knowledge")),
            series("Passages sent", "short", its.rate("llm_app_passages_total", legend="passages a second")),
            series(
                "Searches that did less than wanted", "ops", its.rate("llm_app_searched_less_total", "knowledge"),
                told="Such as by words alone, as the embedding server did not answer.",
            ),
            series("Time of embedding a question", "s", *its.quantiles("llm_app_embedding_seconds", *QUANTILES)),
        )),
        ("What agents do", (
            series("Calls of tools", "ops", its.rate("llm_app_tool_calls_total", "tool", "outcome")),
            series("Time of a call, 90 %", "s", *its.quantiles("llm_app_tool_seconds", 0.9, labels=("tool",))),
            series("Tokens by agent", "short", its.rate("llm_app_agent_tokens_total", "agent", "kind")),
            series("Turns of agents", "ops", its.rate("llm_app_agent_turns_total", "agent")),
            series("Answers at a limit", "ops", its.rate("llm_app_limits_total", "limit")),
            series("Forgotten turns", "ops", its.rate("llm_app_forgotten_turns_total", legend="turns")),
        )),
    ),
)  # fmt: skip
