"""What Secrets hold for hubs, buckets and servers: mounted as files, read by the process that fetches alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llm_trainer.runtime.errors import DataError

KEYS = {
    "hf": ("HF_TOKEN",),
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    "https": ("TOKEN",),
}
CA = "ca.crt"  # certificates of authorities beside those of the image, in PEM


@dataclass(frozen=True)
class Credential:
    """Of one target. Without a Secret it is empty: public repositories, or what the environment holds."""

    target: str
    secret: str = ""
    values: Mapping[str, str] = field(default_factory=dict, repr=False)

    def get(self, key: str) -> str | None:
        return self.values.get(key)

    @property
    def advice(self) -> str:
        """Which Secret is to be looked at."""
        keys = " and ".join(KEYS[self.target.partition(":")[0]])
        if self.secret:
            return f"look at {keys} of the Secret {self.secret}, which spec.credentials names for {self.target}"
        return f"if it is not public, name a Secret with {keys} in spec.credentials, for: {self.target}"


def read_credential(target: str, secret: str, folder: Path) -> Credential:
    """Raises DataError for a Secret without the keys that its target needs, with no value in the message."""
    values = {file.name: file.read_text().strip("\n") for file in sorted(folder.glob("[!.]*")) if file.is_file()}
    needed = KEYS[target.partition(":")[0]]
    if missing := [key for key in needed if not values.get(key)]:
        found = ", ".join(values) or "none"
        raise DataError(
            f"spec.credentials: the Secret {secret}, for {target}, has no {' and no '.join(missing)}; "
            f"its keys are {found}"
        )
    for key, value in values.items():
        if key != CA and (value != value.strip() or "\n" in value):
            raise DataError(f"spec.credentials: {key} of the Secret {secret} has a blank or a line break at its end")
    return Credential(target, secret, values)
