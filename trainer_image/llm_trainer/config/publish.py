"""What a pod is told that brings a stage's result to a bucket or a hub."""

from __future__ import annotations

from pydantic import Field

from llm_trainer.config.attempt import MountedCredentials
from llm_trainer.config.base import Settings, Uri

PUBLISH_VARIABLE = "LLM_PUBLISH"  # of the pod's environment, with a PublishConfig as JSON: it holds no secret


class PublishConfig(Settings):
    training: str = Field(description="metadata.name of the LLMTraining.")
    namespace: str
    uid: str
    stage: str
    result: Uri = Field(description="The folder.")
    digest: str = Field(description="Of its manifest, as the status has it.")
    to: str = Field(description="s3://BUCKET/PATH or hf://ORG/NAME[@BRANCH][/PATH].")
    private: bool = Field(default=True, description="Of a repository that is made.")
    credentials: list[MountedCredentials] = Field(default_factory=list, description="Of that bucket or hub.")
    volumes_root: str = "/volumes"
