"""CEL rules of an LLMServing."""

from __future__ import annotations

from llm_operator.api.resolve import DRAIN_MARGIN_SECONDS
from llm_operator.api.rules import NAME, PODS, Path, Rule, exactly_one, pod_rules
from llm_operator.api.vllm_arguments import RESERVED
from llm_operator.api.vllm_environment import API_KEY, DOORS

SERVING_PODS = pod_rules(*PODS)
REMOTE_MODEL = "(has(self.model.uri) && !self.model.uri.startsWith('pvc://'))"
REMOTE_ADAPTER = "(has(self.adapters) && self.adapters.exists(a, has(a.uri) && !a.uri.startsWith('pvc://')))"
SERVING_RULES: dict[Path, tuple[Rule, ...]] = {
    (): (
        NAME,
        Rule(
            "!has(self.spec.adapters) || self.spec.adapters.all(a, a.name != "
            "(has(self.spec.servedModelName) ? self.spec.servedModelName : self.metadata.name))",
            "an adapter can't have the model's name; rename it or set spec.servedModelName",
            ".spec.adapters",
        ),
        Rule(
            "!has(self.spec.servedModelAliases) || !((has(self.spec.servedModelName) ? self.spec.servedModelName : "
            "self.metadata.name) in self.spec.servedModelAliases)",
            "has the model's first name; remove it",
            ".spec.servedModelAliases",
        ),
    ),
    ("spec",): (
        Rule(
            "!has(self.pods) || !has(self.pods.terminationGracePeriodSeconds) || "
            f"self.pods.terminationGracePeriodSeconds >= self.drainTimeoutSeconds + {DRAIN_MARGIN_SECONDS}",
            f"must be drainTimeoutSeconds + {DRAIN_MARGIN_SECONDS} at least",
            ".pods.terminationGracePeriodSeconds",
        ),
        Rule(
            "!has(self.servedModelAliases) || !has(self.adapters) || "
            "self.adapters.all(a, !(a.name in self.servedModelAliases))",
            "an adapter can't have the model's name; rename it",
            ".adapters",
        ),
        Rule(
            "!has(self.apiKey) || !has(self.pods) || !has(self.pods.env) || "
            f"!self.pods.env.exists(e, e.name == '{API_KEY}')",
            f"{API_KEY} stands beside apiKey; remove one",
            ".pods.env",
        ),
        Rule(
            f"has(self.modelCache) == ({REMOTE_MODEL} || {REMOTE_ADAPTER})",
            "is needed for hf:// and s3:// URIs, and for them alone",
            ".modelCache",
        ),
    ),
    ("spec", "modelCache"): (exactly_one("persistentVolumeClaim", "emptyDir"),),
    ("spec", "servedModelAliases"): (Rule("self.all(a, self.exists_one(b, a == b))", "has a name twice; leave one"),),
    ("spec", "extraArguments"): (
        Rule(
            f"!self.exists(a, a.split('=')[0].replace('_', '-') in {sorted(RESERVED)})",
            "has an argument that a field gives or the operator sets: see docs/howto/serving.md",
        ),
    ),
    ("spec", "chatTemplate"): (
        exactly_one("configMap", "text"),
        Rule("!has(self.text) || self.text.contains('{')", "must be a Jinja template, which has a '{'", ".text"),
    ),
    ("spec", "strategy"): (
        Rule(
            "!has(self.rollingUpdate) || self.type != 'Recreate'",
            "is of no use with type Recreate; leave it out",
            ".rollingUpdate",
        ),
    ),
    ("spec", "strategy", "rollingUpdate"): (
        Rule("self.maxSurge + self.maxUnavailable > 0", "maxSurge and maxUnavailable can't both be 0"),
    ),
    ("spec", "model"): (exactly_one("training", "uri"),),
    ("spec", "adapters", "*"): (
        exactly_one("training", "uri"),
        Rule("!has(self.rank) || has(self.uri)", "is that of the stage; leave it out with training", ".rank"),
    ),
    **SERVING_PODS,
    (*PODS, "env", "*"): (
        *SERVING_PODS[*PODS, "env", "*"],
        Rule(f"!(self.name in {sorted(DOORS)})", "opens the server to whoever reaches it; remove it", ".name"),
    ),
}
