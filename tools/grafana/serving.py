"""One serving."""

from __future__ import annotations

from tools.grafana.description import Dashboard, Query, Series, Variable, number, series

served = Series('namespace=~"$namespace",serving=~"$serving"')
QUANTILES = (0.5, 0.9, 0.99)
RUNNING = "vllm:num_requests_running"
SERVING = Dashboard(
    "serving",
    "llm-operator: one serving",
    (Variable("namespace", RUNNING), Variable("serving", RUNNING, several=False)),
    (
        ("Does it answer", (
            number("Pods", f"count(sum by (pod) ({served.of(RUNNING)}))"),
            number("Requests that run", f"sum({served.of(RUNNING)})"),
            number("Requests that wait", f"sum({served.of('vllm:num_requests_waiting')})"),
            number("Tokens a second", served.rate("vllm:generation_tokens_total").expr),
            number(
                "Errors", served.rate("http_requests_total", more='status=~"5.*"', over="10m").expr + " or vector(0)",
                "reqps",
            ),
            number("KV cache in use", f"max({served.of('vllm:kv_cache_usage_perc')})", "percentunit"),
        )),
        ("How fast", (
            series("Time to the first token", "s", *served.quantiles("vllm:time_to_first_token_seconds", *QUANTILES)),
            series("Time between tokens", "s", *served.quantiles("vllm:inter_token_latency_seconds", *QUANTILES)),
            series("Time in the queue", "s", *served.quantiles("vllm:request_queue_time_seconds", *QUANTILES)),
            series(
                "Tokens a second", "short", served.rate("vllm:prompt_tokens_total", legend="prompts"),
                served.rate("vllm:generation_tokens_total", legend="answers"),
            ),
            series("Requests", "reqps", served.rate("http_requests_total", "status")),
            series("Ends of answers", "reqps", served.rate("vllm:request_success_total", "finished_reason")),
        )),
        ("What holds it up", (
            series(
                "Requests by pod", "short", served.by("sum", RUNNING, "pod", legend="{{pod}} run"),
                served.by("sum", "vllm:num_requests_waiting", "pod", legend="{{pod}} wait"),
            ),
            series("KV cache", "percentunit", served.by("max", "vllm:kv_cache_usage_perc", "pod")),
            series("Preemptions", "ops", served.rate("vllm:num_preemptions_total", "pod")),
            series("Prefix cache hits", "percentunit", Query(" / ".join(
                served.rate(f"vllm:prefix_cache_{what}_total").expr for what in ("hits", "queries")), "hits")),
            series(
                "Models", "reqps", served.rate("vllm:request_success_total", "model_name"),
                told="Which model or adapter answers.",
            ),
        )),
    ),
)  # fmt: skip
