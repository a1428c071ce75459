"""What a pod of an app is told: an index to make, or all that a server does. The operator writes it."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, JsonValue, StringConstraints

from llm_app.team import Team
from llm_trainer.config import Name, Settings

CONFIG_FOLDER = "/etc/llm-operator"
INDEX_FILE, SERVER_FILE, EVALUATION_FILE = "index.json", "server.json", "evaluation.json"
QUESTIONS = f"{CONFIG_FOLDER}/questions"  # a ConfigMap, or a file of the operator's
SOURCES = f"{CONFIG_FOLDER}/sources"  # ConfigMaps, each in the folder of its source's name
TLS = f"{CONFIG_FOLDER}/tls"  # tls.crt and tls.key of the server itself, if it speaks HTTPS
CERTIFICATES = f"{CONFIG_FOLDER}/model/ca.crt"  # of the model's server, where it speaks HTTPS
PORT = 8080
Metric = Literal["hitAt1", "hitAt3", "hitAt5", "mrr", "contains", "exactMatch", "f1", "citation", "judge"]
METRICS: tuple[Metric, ...] = get_args(Metric)
OURS = "LLM_APP_"  # environment variables begin so
API_KEY, MODEL_API_KEY = f"{OURS}API_KEY", f"{OURS}MODEL_API_KEY"
EMBEDDING_API_KEY = f"{OURS}EMBEDDING_API_KEY_"  # and the knowledge base's name, as of the next two
STORE_URL, STORE_TOKEN = f"{OURS}STORE_URL_", f"{OURS}STORE_TOKEN_"
EMBEDDINGS = f"{CONFIG_FOLDER}/embedding"  # of each knowledge base's name a folder with ca.crt
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=63)]
MetadataValue = Annotated[str, StringConstraints(max_length=253)]
Metadata = Annotated[dict[str, MetadataValue], Field(max_length=16)]
HttpsUrl = Annotated[str, StringConstraints(pattern=r"^https://[^\s/?#@]+([/?#][^\s]*)?$", max_length=1024)]


def of_knowledge(prefix: str, knowledge: str) -> str:
    """The environment variable of a knowledge base."""
    return prefix + knowledge.upper().replace("-", "_")


class Chunking(Settings):
    """How documents are cut. Headings and sentences stay whole where they fit."""

    size: int = Field(default=800, ge=100, le=8000, description="Characters of a chunk at most.")
    overlap: int = Field(default=100, ge=0, le=4000, description="Characters at most that the next chunk begins with.")


Mode = Literal["keyword", "dense", "hybrid"]


class Retrieval(Settings):
    """Which chunks go to the model with a question."""

    mode: Mode | None = Field(
        default=None,
        description="keyword: those that share most words with it (BM25). dense: those whose meaning is nearest. "
        "hybrid: both, by their ranks. Default: hybrid with embedding, keyword without.",
    )
    top_k: int = Field(default=4, ge=1, le=50, description="Chunks at most.")
    max_tokens: int | None = Field(
        default=None, ge=16, le=1_000_000, description="Of all of them, about. Default: what the context has room for."
    )
    minimum_score: float = Field(
        default=0.0, ge=0, le=1000, description="Of BM25; chunks below it are not found by words."
    )
    minimum_similarity: float = Field(
        default=0.0, ge=-1, le=1, description="Cosine; chunks below it are not found by meaning."
    )
    where: Metadata = Field(
        default_factory=dict, description="Documents whose metadata has all of these; a request may ask for more."
    )


class Example(Settings):
    """One turn that shows the model how to answer."""

    input: str = Field(min_length=1, max_length=8192, description="What a user says.")
    output: str = Field(min_length=1, max_length=8192, description="What the model is to answer.")


class Parameters(Settings):
    """Of the model's sampling; a request may say otherwise."""

    max_tokens: int = Field(default=512, ge=1, le=1_000_000, description="Of an answer; a request gets no more.")
    temperature: float | None = Field(default=None, ge=0, le=2, description="Default: the model's.")
    top_p: float | None = Field(default=None, gt=0, le=1, description="Default: the model's.")


class Document(Settings):
    title: str = Field(default="", max_length=253, description="Shown with what is cited of it.")
    text: str = Field(min_length=1, max_length=65_536, description="In plain text or Markdown.")
    metadata: Metadata = Field(default_factory=dict, description="By which retrieval.where chooses.")


class IndexSource(Settings):
    """Documents that stand here, files, or URLs: exactly one of the three."""

    name: Name
    documents: list[Document] = Field(default_factory=list)
    path: str = Field(default="", description="A folder, a file or a glob of files.")
    all_are_text: bool = Field(default=False, description="Whatever their names end with, as keys of a ConfigMap.")
    urls: list[HttpsUrl] = Field(default_factory=list)
    allowed_networks: list[str] = Field(default_factory=list, description="Beside the internet.")
    metadata: Metadata = Field(default_factory=dict)


class Embedding(Settings):
    """An OpenAI API that embeds. ``model``: what is served under its name; vectors of two models mean nothing together.

    The key is in a variable, the certificate in a folder of the knowledge base's name.
    """

    url: str
    name: str
    model: str
    query_prefix: str = ""
    document_prefix: str = ""

    @property
    def space(self) -> str:
        """Vectors of the same text are the same where this is."""
        return f"{self.model}\n{self.document_prefix}"


TokenHeader = Literal["X-Chroma-Token", "Authorization"]


class ChromaServer(Settings):
    """Its token, if it wants one, is in a variable."""

    url: str
    tenant: str
    database: str
    token_header: TokenHeader = "X-Chroma-Token"  # noqa: S105 -- a header's name


class Store(Settings):
    """Chroma, or a schema of PostgreSQL, whose URL is in a variable. ``owner``: the app, of all that share it."""

    owner: str
    schema_name: str = ""
    chroma: ChromaServer | None = None


class IndexConfig(Settings):
    """One revision of one knowledge base."""

    knowledge: Name
    revision: str
    folder: str = Field(description="Where all its revisions are; each is a folder of its name.")
    keep: list[str] = Field(default_factory=list, description="Other revisions that may be in use.")
    used: str = Field(default="", description="That of keep which is: what has not changed is taken from it.")
    embedding: Embedding | None = None
    store: Store | None = Field(default=None, description="None: the folder.")
    chunking: Chunking
    sources: list[IndexSource]


class Knowledge(Settings):
    """What a server has loaded."""

    name: Name
    revision: str
    folder: str = Field(description="Of this revision, if it is in one.")
    retrieval: Retrieval
    embedding: Embedding | None = None
    store: Store | None = Field(default=None, description="None: the folder.")


class Prompt(Settings):
    """What the model is told beside the conversation. Templates are rendered when a request comes."""

    system: str = ""
    variables: dict[VariableName, str] = Field(default_factory=dict)
    context_template: str = ""
    examples: list[Example] = Field(default_factory=list)
    output_schema: dict[str, JsonValue] | None = None


class Model(Settings):
    url: str = Field(description="Base URL of its OpenAI API.")
    name: str = Field(description="In that API.")
    context_tokens: int | None = Field(default=None, description="None: as long as the model takes.")


class Tracing(Settings):
    """Where spans of requests are sent, in OTLP by HTTP."""

    endpoint: Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#@]+[^\s?#]*$", max_length=1024)] = Field(
        description="Of an OpenTelemetry collector, such as http://collector.observability.svc:4318."
    )
    sample_ratio: float = Field(
        default=1.0, ge=0, le=1, description="Of traces that begin here; those of clients are kept as they ask."
    )


class Server(Settings):
    """All of a server's configuration."""

    name: str = Field(description="Of the app, and of its model in the OpenAI API.")
    revision: str = Field(default="", description="Hash of the rest.")
    model: Model
    knowledge: list[Knowledge] = Field(default_factory=list)
    prompt: Prompt
    parameters: Parameters
    team: Team | None = Field(default=None, description="None: the model itself answers.")
    concurrency: int = Field(default=64, ge=1, description="Requests to the model at the same time.")
    queue: int = Field(default=256, ge=0, description="Requests that wait; what comes beyond is answered with 429.")
    drain_seconds: int = Field(default=60, ge=0, description="For open requests when the pod leaves.")
    metrics_without_key: bool = False
    tracing: Tracing | None = None
    tls: bool = Field(default=False, description="Whether it speaks HTTPS, by the certificate that lies in TLS.")


class EvaluationConfig(Settings):
    """Which questions a Job asks of the configuration that lies beside this."""

    questions: str = Field(description="A file of JSON lines.")
    limit: int = Field(ge=1, description="First questions only.")
    judge: bool = Field(default=False, description="The model says of each answer whether it is right.")
    report: str = Field(default="", description="File of each question, its answer and scores; none if empty.")
