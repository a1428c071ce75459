"""``LLMApp``: what a user writes and what the operator answers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from llm_app.config import Example, Parameters, Tracing
from llm_app.team import Limits, Workflow
from llm_operator.api.agents import MOST_AGENTS, MOST_TOOLS, AppAgent, AppSessions
from llm_operator.api.app_evaluation import AppEvaluation, AppEvaluationStatus
from llm_operator.api.common import Condition, Spec, Status, Storage
from llm_operator.api.knowledge import MOST_KNOWLEDGE, KnowledgeBase, KnowledgeStatus
from llm_operator.api.pods import PodSettings
from llm_operator.api.resources import Resources
from llm_operator.api.serving import ALLOWED_NAMESPACE, ApiKey, ServedName, Tls
from llm_operator.api.tools import AppTool

Variable = Annotated[str, StringConstraints(max_length=4096)]


class ServingReference(Spec):
    """Followed as it changes: its address, its name in the OpenAI API, its key and its certificate."""

    name: str = Field(min_length=1, max_length=253, description="An LLMServing of the same namespace.")
    adapter: ServedName | None = Field(default=None, description="One of its adapters. Default: the model itself.")


class AppModel(Spec):
    """What answers."""

    serving: ServingReference = Field(description="A served model.")


class AppPrompt(Spec):
    """What the model is told beside the conversation. {{name}} in a template stands for a variable."""

    system: str = Field(default="", max_length=32_768, description="Template of the system's message.")
    variables: dict[str, Variable] = Field(default_factory=dict, max_length=64, description="Values of templates.")
    context_template: str = Field(
        default="",
        max_length=16_384,
        description="How the user's message is sent with what documents say: {{context}} is that, {{question}} the "
        "message. Default: with the order to answer by them and to cite.",
    )
    examples: list[Example] = Field(
        default_factory=list, max_length=32, description="Few-shot: turns before the conversation, in this order."
    )
    output_schema: str = Field(
        default="", max_length=16_384, description="JSON Schema of an object. Each answer is JSON that obeys it."
    )


class LLMAppSpec(Spec):
    model: AppModel = Field(description="What answers.")
    knowledge: list[KnowledgeBase] = Field(
        default_factory=list, max_length=MOST_KNOWLEDGE, description="Documents by which it answers."
    )
    storage: Storage | None = Field(
        default=None, description="Where indexes of knowledge are kept; ReadWriteMany unless all pods run on one node."
    )
    prompt: AppPrompt = Field(default_factory=AppPrompt, description="What the model is told beside the conversation.")
    parameters: Parameters = Field(default_factory=Parameters, description="Of the model's sampling.")
    evaluation: AppEvaluation | None = Field(
        default=None, description="Questions that each configuration is asked, and what must hold of its answers."
    )
    tools: list[AppTool] = Field(default_factory=list, max_length=MOST_TOOLS, description="What agents may call.")
    agents: list[AppAgent] = Field(
        default_factory=list, max_length=MOST_AGENTS, description="Who answer. Default: the model itself."
    )
    workflow: Workflow | None = Field(default=None, description="How several agents work together.")
    limits: Limits | None = Field(default=None, description="Of one request to agents.")
    sessions: AppSessions | None = Field(default=None, description="Conversations that the app keeps. Default: none.")
    replicas: int = Field(default=1, ge=0, le=1000, description="Pods of the server.")
    resources: Resources = Field(default_factory=Resources, description="Per pod.")
    api_key: ApiKey | None = Field(default=None, description="What requests must show. Default: none.")
    tls: Tls | None = Field(default=None, description="Certificate and key of the server. Default: HTTP.")
    tracing: Tracing | None = Field(
        default=None, description="Where spans of requests are sent. Default: nowhere, unless pods.env says."
    )
    allowed_namespaces: list[Annotated[str, StringConstraints(max_length=63, pattern=ALLOWED_NAMESPACE)]] = Field(
        default_factory=list,
        max_length=64,
        description="Whose pods may send requests beside the own namespace's; '*' is everybody, also outside of the "
        "cluster. Of no effect where the operator makes no NetworkPolicies.",
    )
    image: str | None = Field(default=None, max_length=512, description="Default: the operator's app image.")
    pods: PodSettings = Field(default_factory=PodSettings, description="Placement and environment of all its pods.")


class ResolvedModel(Status):
    """What the serving tells of itself."""

    url: str = Field(description="Base URL of its OpenAI API.")
    name: str = Field(description="Of the model or the adapter in that API.")
    max_model_length: int | None = Field(default=None, description="Tokens of context, if the serving's spec tells.")


class LLMAppStatus(Status):
    observed_generation: int | None = Field(default=None, description="metadata.generation that this is about.")
    phase: str = Field(default="Pending", description="The conditions in one word; for people, not for programs.")
    url: str | None = Field(
        default=None, description="Base URL of its own OpenAI API inside the cluster, if the Service exists."
    )
    model: ResolvedModel | None = Field(default=None, description="What answers.")
    knowledge: list[KnowledgeStatus] = Field(default_factory=list, description="In the order of spec.knowledge.")
    evaluation: AppEvaluationStatus | None = Field(default=None, description="Of the newest configuration.")
    replicas: int = Field(default=0, description="Pods that exist and don't leave.")
    ready_replicas: int = Field(default=0, description="Those that answer.")
    updated_replicas: int = Field(default=0, description="Those of the newest configuration.")
    selector: str = Field(default="", description="Label selector of the pods, for the scale subresource.")
    conditions: list[Condition] = Field(
        default_factory=list,
        description="Accepted, ModelResolved, KnowledgeReady if spec.knowledge names any, Evaluated if there "
        "is spec.evaluation, Available and Ready.",
    )
