"""What an ``LLMApp`` knows: documents, how they are embedded, kept and found."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from llm_app.config import Chunking, Document, HttpsUrl, Metadata, Retrieval, TokenHeader
from llm_operator.api.common import Spec, Status
from llm_operator.api.network import Cidr
from llm_operator.api.pods import ObjectName
from llm_operator.api.serving import SecretKey
from llm_trainer.config import Name, Uri

MOST_KNOWLEDGE, MOST_SOURCES = 8, 16
PORT_NUMBER = r"([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
StoreUrl = Annotated[
    str,
    StringConstraints(
        pattern=rf"^https?://([a-zA-Z0-9._-]+|\[[0-9a-fA-F:.]+\])(:{PORT_NUMBER})?(/[^\s?#]*)?$", max_length=1024
    ),
]
ChromaName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9][-._a-zA-Z0-9]*$", min_length=3, max_length=128)]
Key = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]


class ConfigMapSource(Spec):
    """Each key is a document: Markdown and plain text, or HTML and JSON lines by the key's ending."""

    name: ObjectName = Field(description="A ConfigMap of the same namespace. A change of it indexes it again.")
    keys: list[Key] = Field(default_factory=list, max_length=64, description="Default: all of its data.")


class HttpsSource(Spec):
    """Pages and files of the network. No link in them is followed."""

    urls: list[HttpsUrl] = Field(min_length=1, max_length=64, description="HTML, text, Markdown, JSON lines or PDF.")
    allowed_networks: list[Cidr] = Field(
        default_factory=list,
        max_length=16,
        description="Networks in which they may lie beside the internet: addresses of the cluster, of its nodes and "
        "of private networks are refused else.",
    )


class KnowledgeSource(Spec):
    """Exactly one of inline, configMap, uri and https."""

    name: Name = Field(description="Shown with what is cited of it.")
    inline: list[Document] | None = Field(
        default=None, min_length=1, max_length=32, description="Documents that stand here, 256 KiB in all."
    )
    config_map: ConfigMapSource | None = Field(default=None, description="Documents of a ConfigMap.")
    uri: Uri | None = Field(
        default=None,
        description="A folder, a file or files, pvc://CLAIM/PATH: .txt, .md, .rst, .html and .jsonl in UTF-8, .pdf.",
    )
    https: HttpsSource | None = Field(default=None, description="Documents of the network.")
    metadata: Metadata = Field(default_factory=dict, description="Of all its documents that don't say otherwise.")


class EmbeddingServing(Spec):
    """Followed as it changes: its address, its name in the OpenAI API, its key, its certificate and its model."""

    name: str = Field(min_length=1, max_length=253, description="An LLMServing of the same namespace, of task embed.")


class KnowledgeEmbedding(Spec):
    """By meaning, documents are found that share no word with a question."""

    serving: EmbeddingServing = Field(description="A served embedding model.")
    query_prefix: str = Field(
        default="", max_length=512, description="Before each question, as the model's card asks for, such as 'query: '."
    )
    document_prefix: str = Field(default="", max_length=512, description="Before each chunk, such as 'passage: '.")


class PgvectorStore(Spec):
    """PostgreSQL with pgvector 0.8 or newer. Pods then hold no documents."""

    url_secret_key_ref: SecretKey = Field(
        description="Where the URL is, postgresql://USER:PASSWORD@HOST/DATABASE?sslmode=verify-full."
    )
    schema_name: str = Field(
        default="llm_operator",
        pattern=r"^[a-z_][a-z0-9_]*$",
        max_length=40,
        description="Schema of its tables. Several apps, also of several clusters, may share one.",
    )


class ChromaStore(Spec):
    """A server of Chroma 1.0 or newer. Pods then hold no documents."""

    url: StoreUrl = Field(description="Of the server, such as http://chroma.data.svc:8000.")
    tenant: ChromaName = Field(default="default_tenant", description="Must be there.")
    database: ChromaName = Field(
        default="default_database",
        description="Must be there. Several apps, also of several clusters, may share one.",
    )
    token_secret_key_ref: SecretKey | None = Field(
        default=None, description="What it, or the gateway before it, asks for. Default: it lets everybody in."
    )
    token_header: TokenHeader = Field(
        default="X-Chroma-Token", description="Where the token goes. Authorization: as Bearer."
    )


class KnowledgeStore(Spec):
    """Exactly one of its members."""

    pgvector: PgvectorStore | None = Field(default=None, description="A database.")
    chroma: ChromaStore | None = Field(default=None, description="A server of Chroma.")


class KnowledgeBase(Spec):
    """Documents that are looked at for each question."""

    name: Name = Field(description="Its name among them.")
    sources: list[KnowledgeSource] = Field(min_length=1, max_length=MOST_SOURCES, description="Its documents.")
    chunking: Chunking = Field(default_factory=Chunking, description="How they are cut.")
    embedding: KnowledgeEmbedding | None = Field(
        default=None, description="How they are found by meaning. Default: by words alone."
    )
    store: KnowledgeStore | None = Field(
        default=None, description="Where the index is kept. Default: a folder of spec.storage that pods load."
    )
    retrieval: Retrieval = Field(default_factory=Retrieval, description="What of them goes to the model.")
    refresh_seconds: int | None = Field(
        default=None,
        ge=60,
        le=31_536_000,
        description="After which they are read again, as no watch tells what changes in a claim or in the network. "
        "Nothing is rolled out where nothing has changed. Default: never.",
    )
    edition: str = Field(
        default="",
        max_length=63,
        description="Any text. A change indexes again what lies in a claim, which no watch sees.",
    )


class KnowledgeStatus(Status):
    """One of spec.knowledge."""

    name: str = Field(description="As in spec.knowledge.")
    revision: str = Field(default="", description="Hash of what the spec and its ConfigMaps say now.")
    active_revision: str = Field(default="", description="That which the newest pods answer by.")
    uri: str = Field(default="", description="Folder of the active revision, pvc://CLAIM/PATH.")
    documents: int | None = Field(default=None, description="Of the active revision.")
    chunks: int | None = Field(default=None, description="Of the active revision.")
    dimensions: int | None = Field(default=None, description="Of its vectors, if it has any.")
    job: str = Field(default="", description="That makes the revision, or has made it.")
    reason: str = Field(description="How it stands, in one word.")
    message: str = Field(default="", description="How it stands, for people.")
