"""What a client may ask, in the shape of OpenAI's API: read strictly, and told by field. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from llm_app.config import Server
from llm_app.prompt import Turn, inert, text_of

MOST_TURNS, MOST_CHARACTERS = 512, 1_000_000
# Passed on as they are; vLLM says what is wrong with their values.
PASSED = (
    "temperature", "top_p", "top_k", "min_p", "stop", "seed", "presence_penalty", "frequency_penalty",
    "repetition_penalty", "logprobs", "top_logprobs", "tools", "tool_choice", "parallel_tool_calls",
    "response_format", "user", "stream", "stream_options",
)  # fmt: skip

OF_AGENTS = ("session", "approve")

Request = TypeVar("Request", bound=BaseModel)


class RequestError(Exception):
    """An answer that is none: HTTP status, OpenAI's code, the field, what to do.

    ``retry_seconds``: after which it may be asked again, where another time is another answer.
    """

    def __init__(
        self, status: int, code: str, message: str, param: str | None = None, *, retry_seconds: int = 1
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.retry_seconds = status, code, param, retry_seconds

    def body(self) -> dict[str, Any]:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


Said = Annotated[str, AfterValidator(inert)]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]
    text: Said


class Message(BaseModel):
    """The roles of a client: what the system says is the app's alone."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["user", "assistant", "tool"]
    content: Said | list[Part] | None = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[dict[str, JsonValue]] | None = None
    refusal: None = None


class ChatRequest(BaseModel):
    model_config = ConfigDict(extra="allow")
    model: str | None = None
    messages: list[Message] = Field(min_length=1, max_length=MOST_TURNS)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    n: int | None = Field(default=None, ge=1, le=8)  # answers: each costs as much as a request
    stream: bool = False


class RetrieveRequest(BaseModel):
    """``knowledge``: names of knowledge bases. Default: all. ``where``: metadata of their documents."""

    model_config = ConfigDict(extra="forbid")
    query: str = Field(min_length=1, max_length=MOST_CHARACTERS)
    knowledge: list[str] = Field(default_factory=list, max_length=64)
    top_k: int | None = Field(default=None, ge=1, le=50)
    where: dict[str, str] = Field(default_factory=dict, max_length=16)


def chat_request(given: object, config: Server) -> ChatRequest:
    """Raises RequestError."""
    refuse_orders(given)
    request = read(ChatRequest, given)
    if request.model is not None and request.model != config.name:
        raise RequestError(404, "model_not_found", f"there is no model {request.model!r}; ask {config.name!r}", "model")
    for field in request.model_extra or {}:
        if field not in PASSED and not (config.team and field in OF_AGENTS):
            raise RequestError(400, "unsupported_parameter", f"{field}: is not supported; leave it out", field)
    turns = turns_of(request)
    if not any(turn["role"] == "user" and text_of(turn).strip() for turn in turns):
        raise RequestError(400, "invalid_value", "messages: none of the user's has a text; add one", "messages")
    if sum(len(text_of(turn)) for turn in turns) > MOST_CHARACTERS:
        raise RequestError(413, "request_too_large", f"messages: more than {MOST_CHARACTERS:,} characters", "messages")
    return request


def refuse_orders(given: object) -> None:
    """A client's system message would stand beside the app's own, and change what the app is."""
    messages = given.get("messages") if isinstance(given, dict) else None
    for index, message in enumerate(messages if isinstance(messages, list) else ()):
        role = message.get("role") if isinstance(message, dict) else None
        if role in ("system", "developer"):
            said = f"messages[{index}].role: what the {role} says is the app's own; send it as user, or leave it out"
            raise RequestError(400, "invalid_value", said, f"messages[{index}].role")


def turns_of(request: ChatRequest) -> list[Turn]:
    """What clients say is data: none of it begins a turn."""
    return [message.model_dump(exclude_none=True) for message in request.messages]


def read(model: type[Request], given: object) -> Request:
    """Raises RequestError with the first thing that is wrong."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        param = ".".join(map(str, first["loc"])) or "body"
        raise RequestError(400, "invalid_value", f"{param}: {first['msg']}", param) from None


def upstream(request: ChatRequest, config: Server, turns: list[Turn]) -> dict[str, Any]:
    """What the model is asked."""
    passed = {field: value for field, value in (request.model_extra or {}).items() if value is not None}
    made = config.parameters.model_dump(exclude_none=True) | passed
    asked = request.max_completion_tokens or request.max_tokens or config.parameters.max_tokens
    made |= {"model": config.model.name, "messages": turns, "max_tokens": min(asked, config.parameters.max_tokens)}
    if request.n is not None:
        made["n"] = request.n
    if request.stream:
        made["stream"] = True
    if config.prompt.output_schema is not None:
        schema = {"name": "answer", "schema": config.prompt.output_schema, "strict": True}
        made["response_format"] = {"type": "json_schema", "json_schema": schema}
    return made
