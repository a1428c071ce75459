"""Specs of an app that are right, and every way to get one wrong: for pydantic and for the API server."""

from __future__ import annotations

from typing import Any

from llm_app.config import API_KEY, MODEL_API_KEY
from tests.specs import REMOVE, Spec, Wrong, changed

PLAIN: Spec = {"model": {"serving": {"name": "chat"}}}
APP: Spec = {
    "model": {"serving": {"name": "chat"}},
    "storage": {"persistentVolumeClaim": {"claimName": "models"}},
    "knowledge": [
        {
            "name": "manual",
            "sources": [
                {"name": "notes", "inline": [{"title": "Care", "text": "Oil it every 40 hours."}]},
                {"name": "faq", "configMap": {"name": "faq"}},
                {"name": "files", "uri": "pvc://corpus/manual"},
            ],
        }
    ],
    "prompt": {
        "system": "You help users of {{product}}.",
        "variables": {"product": "the pump"},
        "examples": [{"input": "Is it red?", "output": "Yes [1]."}],
    },
}
EVERYTHING = changed(
    APP,
    model__serving__adapter="acme/legal-v1.2",
    knowledge__0__chunking={"size": 400, "overlap": 200},
    knowledge__0__retrieval={"topK": 8, "minimumScore": 1.5},
    knowledge__0__edition="2026-11",
    knowledge__0__sources__1__configMap={"name": "faq", "keys": ["a.md"]},
    prompt__contextTemplate="{{context}}\n{{question}}",
    prompt__outputSchema='{"type": "object", "properties": {"years": {"type": "integer"}}}',
    parameters={"maxTokens": 256, "temperature": 0.2, "topP": 0.9},
    evaluation={
        "questions": {"configMap": {"name": "asked"}},
        "limit": 50,
        "judge": True,
        "edition": "1",
        "gate": "block",
        "thresholds": [{"metric": "hitAt3", "min": 0.9}, {"metric": "judge", "min": 0.5}],
    },
    replicas=2,
    resources={"limits": {"cpu": "1", "memory": "512Mi"}},
    apiKey={"secretKeyRef": {"name": "keys", "key": "app"}, "metricsWithoutKey": True},
    tls={"secretName": "help-tls"},
    tracing={"endpoint": "http://collector.observability.svc:4318", "sampleRatio": 0.1},
    allowedNamespaces=["web", "*"],
    image="mirror.example.com/llm-app:1",
    pods={"nodeSelector": {"pool": "cpu"}},
)
ASKED = {"configMap": {"name": "asked"}}
EMBEDDED = changed(
    APP,
    knowledge__0__embedding={"serving": {"name": "embedder"}, "queryPrefix": "query: ", "documentPrefix": "passage: "},
)
IN_DATABASE: Spec = {
    "model": {"serving": {"name": "chat"}},
    "knowledge": [
        {
            "name": "site",
            "sources": [
                {
                    "name": "pages",
                    "https": {"urls": ["https://example.com/a.html"], "allowedNetworks": ["10.1.0.0/16", "fd00::/8"]},
                    "metadata": {"language": "en"},
                }
            ],
            "embedding": {"serving": {"name": "embedder"}},
            "store": {"pgvector": {"urlSecretKeyRef": {"name": "database", "key": "url"}, "schemaName": "apps"}},
            "retrieval": {
                "mode": "dense", "minimumSimilarity": 0.3, "maxTokens": 800, "where": {"language": "en"}
            },
            "refreshSeconds": 3600,
        }
    ],
}  # fmt: skip
IN_CHROMA: Spec = changed(
    IN_DATABASE,
    knowledge__0__store={
        "chroma": {"url": "https://chroma.example.com/base", "tenant": "team", "database": "apps",
                   "tokenSecretKeyRef": {"name": "chroma", "key": "token"}, "tokenHeader": "Authorization"}
    },
)  # fmt: skip
CITY = '{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}'
ORDERS = """openapi: 3.1.0
paths:
  /orders/{id}:
    get:
      operationId: getOrder
      parameters: [{name: id, in: path, required: true, schema: {type: string, maxLength: 20}}]
"""
AGENTS: Spec = changed(
    APP,
    tools=[
        {"name": "weather", "description": "Tells the weather.", "timeoutSeconds": 5, "answerCharacters": 2000,
         "http": {"url": "https://weather.example.com/{city}", "parameters": CITY, "method": "GET",
                  "headers": [{"name": "X-Key", "secretKeyRef": {"name": "keys", "key": "weather"}}],
                  "allowedAddresses": ["10.96.0.0/12", "fd00::/8"]}},
        {"name": "stock", "mcp": {"url": "http://stock.shop.svc/mcp", "tools": ["count"],
                                  "headers": [{"name": "X-Team", "value": "pumps"}]}},
        {"name": "manual", "knowledge": {"names": ["manual"], "topK": 3}},
        {"name": "orders", "openapi": {"url": "http://orders.shop.svc/v2", "inline": ORDERS, "operations": ["getOrder"],
                                       "headers": [{"name": "X-Key", "secretKeyRef": {"name": "keys", "key": "o"}}]}},
        {"name": "own", "python": {"entryPoint": "mine.tools:weather", "parameters": CITY}},
    ],
    image="mirror.example.com/mine:1",
    agents=[
        {"name": "lead", "instructions": "Lead {{product}}.", "tools": ["manual"], "steps": 3},
        {"name": "worker", "description": "Knows all.", "tools": ["weather", "stock", "own", "orders"],
         "requireApproval": ["stock"]},
    ],
    workflow={"supervisor": {"agent": "lead", "agents": ["worker"]}},
    limits={"turns": 4, "tokens": 5000, "seconds": 60},
    sessions={"persistentVolumeClaim": {"claimName": "models"}, "idleSeconds": 3600, "most": 100},
)  # fmt: skip
RIGHT_APPS = (
    PLAIN, APP, EVERYTHING, EMBEDDED, IN_DATABASE, IN_CHROMA, AGENTS,
    changed(IN_CHROMA, knowledge__0__store={"chroma": {"url": "http://chroma:8000"}}), changed(PLAIN, replicas=0),
    changed(PLAIN, agents=[{"name": "one"}]),
    changed(AGENTS, replicas=3, sessions={"postgres": {"secretKeyRef": {"name": "keys", "key": "url"}}}),
    *(changed(AGENTS, tools__3__openapi={"url": "https://orders.example.com", **place}) for place in (
        {"configMap": {"name": "documents", "key": "orders.yaml"}}, {"uri": "pvc://corpus/orders.yaml"},
        {"https": "https://orders.example.com/openapi.json"},
    )),
    *(changed(AGENTS, agents__1__requireApproval=REMOVE, workflow={kind: told}) for kind, told in (
        ("sequential", {"agents": ["lead", "worker"]}), ("router", {"agents": ["lead", "worker"]}),
        ("parallel", {"agents": ["worker"], "combine": "lead"}), ("handOver", {"agents": ["lead", "worker"]}),
    )),
)  # fmt: skip
LONG = {"title": "x", "text": "あ" * 30_000}


def wrong(name: str, path: str, says: str, *, at_server: bool = True, **paths: Any) -> Wrong:
    return Wrong(name, changed(APP, **paths), path, says, at_server)


def wrong_agents(name: str, path: str, says: str, *, at_server: bool = False, **paths: Any) -> Wrong:
    return Wrong(name, changed(AGENTS, **paths), path, says, at_server)


def long_document(name: str) -> Spec:
    return {"name": name, "openapi": {"url": "https://x.example.com", "inline": ORDERS + "#" * 60_000}}


WRONG_APPS = (
    wrong("a collector by gRPC", "spec.tracing.endpoint", "match", tracing={"endpoint": "collector:4317"}),
    wrong_agents("a tool that is two", "spec.tools[0]", "exactly one of http", at_server=True, tools__0__knowledge={}),
    wrong_agents("a header of no value", "spec.tools[0].http.headers[0]", "exactly one of value", at_server=True,
                 tools__0__http__headers=[{"name": "X"}]),
    wrong_agents("two workflows", "spec.workflow", "exactly one of sequential", at_server=True,
                 workflow__router={"agents": ["lead"]}),
    wrong_agents("sessions nowhere", "spec.sessions", "exactly one of persistentVolumeClaim", at_server=True,
                 sessions={"most": 3}),
    wrong_agents("two pods of SQLite", "spec.replicas", "SQLite", at_server=True, replicas=2),
    wrong_agents("a tool's name with a blank", "spec.tools[0].name", "match", at_server=True, tools__0__name="a b"),
    wrong_agents("a tool by ftp", "spec.tools[0].http.url", "match", at_server=True,
                 tools__0__http__url="ftp://x/{city}"),
    wrong_agents("a tool that nobody has", "spec.agents[1].tools[0]", "there is no", agents__1__tools=["wether"]),
    wrong_agents("a tool of no agent", "spec.tools[2].name", "no agent has", agents__0__tools=[]),
    wrong_agents("a document in two places", "spec.tools[3].openapi", "exactly one of inline", at_server=True,
                 tools__3__openapi__https="https://x.example.com/"),
    wrong_agents("a document that is none", "spec.tools[3].openapi.inline", "convert it",
                 tools__3__openapi__inline="swagger: '2.0'"),
    wrong_agents("a document of nowhere", "spec.tools[3].openapi.uri", "must not contain",
                 tools__3__openapi={"url": "https://x.example.com", "uri": "pvc://corpus/../../etc/passwd"}),
    wrong_agents("an operation that is not there", "spec.tools[3].openapi.inline", "no operation 'pay'",
                 tools__3__openapi__operations=["pay"]),
    wrong_agents("a base with a query", "spec.tools[3].openapi.url", "without a query",
                 tools__3__openapi__url="https://x.example.com/?a=1"),
    wrong_agents("documents too long", "spec.tools", "inline documents have",
                 tools__0=long_document("a"), tools__1=long_document("b"), tools__2=long_document("c")),
    wrong_agents("instructions too long", "spec.agents", "with the variables in them",
                 prompt__variables={"product": "x" * 4096}, agents__0__instructions="{{product}}" * 100),
    wrong_agents("two tools of one name", "spec.tools", "named 'weather'", tools__1__name="weather"),
    wrong_agents("a tool that answers", "spec.tools[1].name", "another name", tools__1__name="answer",
                 agents__1__tools=["weather", "answer", "own", "orders"], agents__1__requireApproval=[]),
    wrong_agents("a schema that is none", "spec.tools[0].http.parameters", "no JSON", tools__0__http__parameters="{x"),
    wrong_agents("a schema that is open", "spec.tools[0].http.parameters", "patternProperties: is not taken",
                 tools__0__http__parameters='{"patternProperties": {}}'),
    wrong_agents("a place of no argument", "spec.tools[0].http.url", "{town}",
                 tools__0__http__url="https://x.example.com/{town}"),
    wrong_agents("a host by an argument", "spec.tools[0].http.url", "host must be fixed",
                 tools__0__http__url="https://{city}.example.com/"),
    wrong_agents("a network that is none", "spec.tools[0].http.allowedAddresses[0]", "1.2.3.4/8",
                 tools__0__http__allowedAddresses=["1.2.3.4/8"]),
    wrong_agents("a function without an image", "spec.tools[4].python", "needs spec.image", image=REMOVE),
    wrong_agents("knowledge that is not there", "spec.tools[2].knowledge.names[0]", "there is no 'maps'",
                 tools__2__knowledge={"names": ["maps"]}),
    wrong_agents("an approval of no tool", "spec.agents[0].requireApproval[0]", "none of its tools",
                 agents__0__requireApproval=["own"]),
    wrong_agents("an approval without sessions", "spec.agents[1].requireApproval", "needs spec.sessions",
                 sessions=REMOVE),
    wrong_agents("an unknown variable of an agent", "spec.agents[0].instructions", "{{x}}",
                 agents__0__instructions="{{x}}"),
    wrong_agents("agents without a workflow", "spec.workflow", "is required with 2", workflow=REMOVE),
    wrong_agents("an agent that nobody reaches", "spec.workflow", "nobody reaches",
                 workflow={"sequential": {"agents": ["worker"]}}),
    wrong_agents("a member that is not there", "spec.workflow", "no agent 'boss'",
                 workflow__supervisor={"agent": "boss", "agents": ["worker", "lead"]}),
    wrong_agents("a supervisor of itself", "spec.workflow", "one of agents too",
                 workflow__supervisor={"agent": "lead", "agents": ["worker", "lead"]}),
    wrong_agents("an approval of several at a time", "spec.workflow.parallel", "requireApproval",
                 workflow={"parallel": {"agents": ["worker"], "combine": "lead"}}),
    wrong("tools without agents", "spec.tools", "of no use without spec.agents", at_server=False,
          tools=[AGENTS["tools"][2]]),
    wrong("no serving", "spec.model.serving", "equired", model__serving=REMOVE),
    wrong("a URL by hand", "spec.model.url", "no such field", model__url="http://x/v1"),
    wrong("an adapter with a blank", "spec.model.serving.adapter", "match", model__serving__adapter="a b"),
    wrong("knowledge without storage", "spec.storage", "is required with spec.knowledge", storage=REMOVE),
    wrong("two knowledge bases of one name", "spec.knowledge", "manual", knowledge__1=APP["knowledge"][0]),
    wrong("knowledge of nothing", "spec.knowledge[0].sources", "at least 1", knowledge__0__sources=[]),
    wrong("two sources of one name", "spec.knowledge[0].sources", "notes", knowledge__0__sources__1__name="notes"),
    wrong("a source from nowhere", "spec.knowledge[0].sources[0]", "exactly one of",
          knowledge__0__sources__0__inline=REMOVE),
    wrong("a source from two places", "spec.knowledge[0].sources[0]", "exactly one of",
          knowledge__0__sources__0__uri="pvc://corpus/x"),
    wrong("a source of the network", "spec.knowledge[0].sources[2].uri", "match",
          knowledge__0__sources__2__uri="https://example.com/x"),
    wrong("a source above its claim", "spec.knowledge[0].sources[2].uri", "..",
          knowledge__0__sources__2__uri="pvc://corpus/../x", at_server=False),
    wrong("inline documents of none", "spec.knowledge[0].sources[0].inline", "at least 1",
          knowledge__0__sources__0__inline=[]),
    wrong("too much inline", "spec.knowledge", "put them into ConfigMaps", knowledge__0__sources__0__inline=[LONG] * 3,
          at_server=False),
    wrong("more overlap than chunk", "spec.knowledge[0].chunking.overlap", "half of size",
          knowledge__0__chunking={"size": 200, "overlap": 101}),
    wrong("a chunk of nothing", "spec.knowledge[0].chunking.size", "greater than or equal to 100",
          knowledge__0__chunking={"size": 0}),
    wrong("no passage", "spec.knowledge[0].retrieval.topK", "greater than or equal to 1",
          knowledge__0__retrieval={"topK": 0}),
    wrong("meanings without embedding", "spec.knowledge[0].retrieval.mode", "needs embedding",
          knowledge__0__retrieval={"mode": "hybrid"}),
    wrong("a similarity without embedding", "spec.knowledge[0].retrieval.minimumSimilarity", "without embedding",
          knowledge__0__retrieval={"minimumSimilarity": 0.5}, at_server=False),
    wrong("an unknown mode", "spec.knowledge[0].retrieval.mode", "hybrid", knowledge__0__retrieval={"mode": "bm25"}),
    wrong("embedding by nobody", "spec.knowledge[0].embedding.serving", "equired", knowledge__0__embedding={}),
    wrong("an embedding model by URL", "spec.knowledge[0].embedding.url", "no such field",
          knowledge__0__embedding={"serving": {"name": "e"}, "url": "http://x"}),
    wrong("a store of nothing", "spec.knowledge[0].store", "exactly one of", knowledge__0__store={}),
    wrong("a password in the spec", "spec.knowledge[0].store.pgvector.urlSecretKeyRef", "equired",
          knowledge__0__store={"pgvector": {}}),
    wrong("a schema with a quote", "spec.knowledge[0].store.pgvector.schemaName", "match",
          knowledge__0__store={"pgvector": {"urlSecretKeyRef": {"name": "a", "key": "b"}, "schemaName": 'a"b'}}),
    wrong("a port that is none", "spec.knowledge[0].store.chroma.url", "match",
          knowledge__0__store={"chroma": {"url": "http://chroma.data.svc:65536"}}),
    wrong("two stores", "spec.knowledge[0].store", "exactly one of",
          knowledge__0__store={"pgvector": {"urlSecretKeyRef": {"name": "a", "key": "b"}},
                               "chroma": {"url": "http://chroma:8000"}}),
    wrong("a password in a store's URL", "spec.knowledge[0].store.chroma.url", "match",
          knowledge__0__store={"chroma": {"url": "http://me:pw@chroma:8000"}}),
    wrong("a database of Chroma with a slash", "spec.knowledge[0].store.chroma.database", "match",
          knowledge__0__store={"chroma": {"url": "http://chroma:8000", "database": "a/b"}}),
    wrong("a token in a header of one's own", "spec.knowledge[0].store.chroma.tokenHeader", "X-Chroma-Token",
          knowledge__0__store={"chroma": {"url": "http://chroma:8000", "tokenHeader": "X-Key"}}),
    wrong("a page without TLS", "spec.knowledge[0].sources[2].https.urls[0]", "match",
          knowledge__0__sources__2={"name": "web", "https": {"urls": ["http://example.com"]}}),
    wrong("a password in a URL", "spec.knowledge[0].sources[2].https.urls[0]", "match",
          knowledge__0__sources__2={"name": "web", "https": {"urls": ["https://me:pw@example.com/"]}}),
    wrong("a network that is none", "spec.knowledge[0].sources[2].https.allowedNetworks[0]", "prefix", at_server=False,
          knowledge__0__sources__2={"name": "web", "https": {"urls": ["https://a/"], "allowedNetworks": ["10.0.0.1"]}}),
    wrong("too many fields of metadata", "spec.knowledge[0].sources[0].metadata", "16", at_server=True,
          knowledge__0__sources__0__metadata={f"k{at}": "v" for at in range(17)}),
    wrong("metadata without a name", "spec.knowledge[0].retrieval.where", "at most 63 letters", at_server=False,
          knowledge__0__retrieval={"where": {"": "x"}}),
    wrong("a refresh all the time", "spec.knowledge[0].refreshSeconds", "equal to 60", knowledge__0__refreshSeconds=1),
    wrong("an unknown variable", "spec.prompt.system", "{{brand}} is no variable; those of",
          prompt__system="{{brand}}", at_server=False),
    wrong("a variable that a request sets", "spec.prompt.variables", "use another name",
          prompt__variables={"context": "x", "product": "y"}),
    wrong("a variable with a dash", "spec.prompt.variables", "letters, digits", at_server=False,
          prompt__variables={"a-b": "x", "product": "y"}),
    wrong("a context template without the context", "spec.prompt.contextTemplate", "has no {{context}}",
          prompt__contextTemplate="{{question}}"),
    wrong("a context template with a typo", "spec.prompt.contextTemplate", "{{contexts}} is no variable",
          prompt__contextTemplate="{{contexts}}", at_server=False),
    Wrong("a context template of no knowledge", changed(PLAIN, prompt={"contextTemplate": "{{context}}"}),
          "spec.prompt.contextTemplate", "without spec.knowledge", at_server=False),
    wrong("half an example", "spec.prompt.examples[0].output", "equired", prompt__examples=[{"input": "x"}]),
    wrong("a schema that is no JSON", "spec.prompt.outputSchema", "is no JSON", prompt__outputSchema="{",
          at_server=False),
    wrong("a schema of a list", "spec.prompt.outputSchema", "of an object", prompt__outputSchema='{"type": "array"}',
          at_server=False),
    wrong("questions from two places", "spec.evaluation.questions", "exactly one of",
          evaluation={"questions": {"uri": "pvc://a/b", "configMap": {"name": "asked"}}}),
    wrong("questions from nowhere", "spec.evaluation.questions", "exactly one of", evaluation={"questions": {}}),
    wrong("questions above their claim", "spec.evaluation.questions.uri", "..", at_server=False,
          evaluation={"questions": {"uri": "pvc://a/../b"}}),
    wrong("a gate that lets all through", "spec.evaluation.thresholds", "is required with gate: block",
          evaluation={"questions": ASKED, "gate": "block"}),
    wrong("a metric that there is not", "spec.evaluation.thresholds[0].metric", "hitAt1",
          evaluation={"questions": ASKED, "thresholds": [{"metric": "accuracy", "min": 0.5}]}),
    wrong("more than all", "spec.evaluation.thresholds[0].min", "less than or equal to 1",
          evaluation={"questions": ASKED, "thresholds": [{"metric": "f1", "min": 50}]}),
    wrong("two thresholds of a metric", "spec.evaluation.thresholds", "2 thresholds are named 'f1'", at_server=False,
          evaluation={"questions": ASKED, "thresholds": [{"metric": "f1", "min": 0.5}, {"metric": "f1", "min": 0.6}]}),
    wrong("a judge that nobody asks", "spec.evaluation.thresholds[0].metric", "judge: true", at_server=False,
          evaluation={"questions": ASKED, "thresholds": [{"metric": "judge", "min": 0.5}]}),
    Wrong("what is found of no knowledge",
          changed(PLAIN, evaluation={"questions": ASKED, "thresholds": [{"metric": "mrr", "min": 0.5}]}),
          "spec.evaluation.thresholds[0].metric", "no spec.knowledge", at_server=False),
    *(
        wrong(f"a schema of {what}", "spec.prompt.outputSchema", says, at_server=False,
              prompt__outputSchema=f'{{"type": "object", "a": {text}}}')
        for what, text, says in (
            ("no number", "NaN", "is no JSON"),
            ("half a character", '"\\ud800"', "is no JSON"),
            ("more than a number", "1e999", "is no JSON"),
            ("a long number", "9" * 5000, "is no JSON"),
            ("900 levels", "[" * 900 + "]" * 900, "nests deeper than 32"),
            ("8,000 levels", "[" * 8000 + "]" * 8000, "spec.prompt.outputSchema"),
        )
    ),
    wrong("a prompt of more than a ConfigMap", "spec.prompt", "bytes as JSON", at_server=False,
          prompt__examples=[{"input": "語" * 8192, "output": "x"}] * 32),
    wrong("documents of signs that JSON escapes", "spec.knowledge[0].sources", "bytes as JSON", at_server=False,
          knowledge__0__sources__0__inline=[{"text": "\x01" * 65_000}] * 3),
    wrong("an answer of nothing", "spec.parameters.maxTokens", "equal to 1", parameters={"maxTokens": 0}),
    wrong("too hot", "spec.parameters.temperature", "less than or equal to 2", parameters={"temperature": 3}),
    wrong("a GPU", "spec.resources.limits", "uses no GPU", at_server=False,
          resources={"limits": {"nvidia.com/gpu": 1}}),
    wrong("a key in the spec", "spec.apiKey", "secretKeyRef", apiKey={"value": "s3cret"}),
    *(
        wrong(name, "spec.pods.env[0]", "is set by the operator", pods={"env": [{"name": name, "value": "x"}]})
        for name in (API_KEY, MODEL_API_KEY)
    ),
    wrong("a volume of ours", "spec.pods.volumes[0].name", "one of ours", at_server=False,
          pods={"volumes": [{"name": "source-0", "emptyDir": {}}],
                "volumeMounts": [{"name": "source-0", "mountPath": "/x"}]}),
)  # fmt: skip
