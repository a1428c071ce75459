"""What every part of the configuration is made of."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=40)]
FunctionName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", max_length=253)]
_CLAIM = r"pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/.+"
Uri = Annotated[str, StringConstraints(pattern=f"^{_CLAIM}$", max_length=1024)]
AnyUri = Annotated[str, StringConstraints(pattern=rf"^({_CLAIM}|(hf|s3|https)://[^\s/]+.*)$", max_length=1024)]
"""Also of what lies elsewhere: config.remote."""


class Settings(BaseModel):
    """camelCase in YAML and JSON, snake_case in Python; an unknown key is an error."""

    # Built when it is used: a process needs few of them, and all of them take as long to make as pydantic to import.
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, defer_build=True
    )

    @model_validator(mode="before")
    @classmethod
    def _whole_numbers(cls, given: Any) -> Any:
        """20e9 is an integer to the API server, and would be none to a strict validation."""
        return {name: _whole(value) for name, value in given.items()} if isinstance(given, dict) else given


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def local_path(uri: str, volumes_root: str = "/volumes") -> str:
    """The path inside a pod of a pvc:// URI; raises ValueError for any other scheme or a path that climbs out."""
    scheme, _, rest = uri.partition("://")
    if scheme != "pvc" or not rest:
        raise ValueError(f"{uri!r} is not a pvc://CLAIM/PATH URI")
    if ".." in PurePosixPath(rest).parts:
        raise ValueError(f"{uri!r} must not contain '..'")
    return f"{volumes_root}/{rest}"


def claim_of(uri: str) -> str | None:
    """The PersistentVolumeClaim of a pvc:// URI, None for any other scheme."""
    return uri.removeprefix("pvc://").split("/", 1)[0] if uri.startswith("pvc://") else None
