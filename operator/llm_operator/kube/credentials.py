"""The Secrets of `spec.credentials`, as files in the pods that reach hubs, buckets and servers. Pure.

A folder for each, as every provider's Secret has the same keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm_operator.api.pods import CREDENTIALS
from llm_trainer.config import Credentials, MountedCredentials


def mounted_credentials(credentials: Sequence[Credentials]) -> list[MountedCredentials]:
    """Where a pod finds each."""
    return [
        MountedCredentials(secret_name=each.secret_name, target=each.target, folder=f"{CREDENTIALS}/{index}")
        for index, each in enumerate(credentials)
    ]


def credential_mounts(credentials: Sequence[MountedCredentials]) -> list[dict[str, Any]]:
    return [{"name": volume_name(each), "mountPath": each.folder, "readOnly": True} for each in credentials]


def credential_volumes(credentials: Sequence[MountedCredentials]) -> list[dict[str, Any]]:
    return [
        {"name": volume_name(each), "secret": {"secretName": each.secret_name, "defaultMode": 0o440}}
        for each in credentials
    ]


def volume_name(credential: MountedCredentials) -> str:
    return f"credential-{credential.folder.rpartition('/')[2]}"
