"""CEL rules of an LLMApp."""

from __future__ import annotations

from llm_app.config import OURS
from llm_operator.api.rules import NAME, PODS, Path, Rule, exactly_one, pod_rules

APP_PODS = pod_rules(*PODS)
APP_RULES: dict[Path, tuple[Rule, ...]] = {
    (): (NAME,),
    ("spec",): (
        Rule(
            "!has(self.knowledge) || self.knowledge.all(k, has(k.store)) || has(self.storage)",
            "is required with spec.knowledge that has no store, whose indexes are kept there; set it",
            ".storage",
        ),
        Rule(
            "!has(self.sessions) || !has(self.sessions.persistentVolumeClaim) || self.replicas <= 1",
            "must be at most 1: pods can't share a file of SQLite; or use sessions.postgres",
            ".replicas",
        ),
    ),
    ("spec", "tools", "*"): (exactly_one("http", "openapi", "mcp", "python", "knowledge"),),
    ("spec", "tools", "*", "http", "headers", "*"): (exactly_one("value", "secretKeyRef"),),
    ("spec", "tools", "*", "openapi"): (exactly_one("inline", "configMap", "uri", "https"),),
    ("spec", "tools", "*", "openapi", "headers", "*"): (exactly_one("value", "secretKeyRef"),),
    ("spec", "tools", "*", "mcp", "headers", "*"): (exactly_one("value", "secretKeyRef"),),
    ("spec", "workflow"): (exactly_one("sequential", "parallel", "router", "supervisor", "handOver"),),
    ("spec", "sessions"): (exactly_one("persistentVolumeClaim", "postgres"),),
    ("spec", "evaluation"): (
        Rule(
            "self.gate != 'block' || has(self.thresholds) && self.thresholds.size() > 0",
            "is required with gate: block, which nothing could ever miss without; name what must hold",
            ".thresholds",
        ),
    ),
    ("spec", "evaluation", "questions"): (exactly_one("configMap", "uri"),),
    ("spec", "knowledge", "*", "sources", "*"): (exactly_one("inline", "configMap", "uri", "https"),),
    ("spec", "knowledge", "*", "store"): (exactly_one("pgvector", "chroma"),),
    ("spec", "knowledge", "*"): (
        Rule(
            "has(self.embedding) || !has(self.retrieval) || !has(self.retrieval.mode) || "
            "self.retrieval.mode == 'keyword'",
            "needs embedding, by which meanings are compared; set that, or keyword",
            ".retrieval.mode",
        ),
    ),
    ("spec", "knowledge", "*", "chunking"): (
        Rule("self.overlap * 2 <= self.size", "must be at most half of size", ".overlap"),
    ),
    ("spec", "prompt"): (
        Rule(
            "!has(self.contextTemplate) || self.contextTemplate == '' || self.contextTemplate.contains('context')",
            "has no {{context}}, where what documents say is to stand",
            ".contextTemplate",
        ),
        Rule(
            "!has(self.variables) || !self.variables.exists(name, name in ['context', 'question'])",
            "has one that is set with each request; use another name",
            ".variables",
        ),
    ),
    **APP_PODS,
    (*PODS, "env", "*"): (
        *APP_PODS[*PODS, "env", "*"],
        Rule(f"!self.name.startsWith('{OURS}')", "is set by the operator; see spec.apiKey", ".name"),
    ),
}
