"""How large what a training fetches is, asked of a hub or a server from where `plan` runs.

By the user's own environment: HF_ENDPOINT, HF_TOKEN, AWS_ACCESS_KEY_ID and its like; HF_HUB_OFFLINE=1 asks nobody. It
never fails: what can't be asked is told so.
"""

from __future__ import annotations

import json
import os
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from llm_operator import bucket_sizes
from llm_operator.api.resolve import named_uris
from llm_operator.api.training import LLMTrainingSpec
from llm_trainer.config import InputUse, Remote, is_remote, parse
from llm_trainer.config.remote import shown

SECONDS, IN_ALL = 3.0, 10.0  # of a request, and of all of them
SMALL = (".json", ".txt", ".model", ".jinja", ".md", ".tiktoken")  # what is fetched beside a model's safetensors
PUBLIC_HUB = "https://huggingface.co"
NEEDS = {
    "hf": "; set HF_TOKEN if it is private or gated",
    "s3": "; look at AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL here",
}
MOST_BYTES = 32 << 20  # of an answer

Ask = Callable[[Request], tuple[dict[str, str], bytes]]


def describe_inputs(spec: LLMTrainingSpec, ask: Ask | None = None) -> Iterator[str]:
    """A line for each URI that data preparation fetches, or streams."""
    until = time.monotonic() + IN_ALL
    found = {(each.uri, each.use, each.stream): each for each in named_uris(spec) if is_remote(each.uri)}
    for uri, use, stream in found:
        late = time.monotonic() > until
        size = "not asked, as others took too long" if late else size_of(uri, use, ask or request)
        yield f"{shown(uri)}: {size}{', streamed, not copied' if stream else ''}"


def size_of(uri: str, use: InputUse, ask: Ask) -> str:
    """In words."""
    remote = parse(uri)
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        return "not asked, as HF_HUB_OFFLINE is set"
    try:
        match remote.scheme:
            case "hf":
                return of_hub(remote, use, ask)
            case "https":
                return of_server(uri, ask)
            case _:
                return of_bucket(remote, use, ask)
    except HTTPError as error:
        needs = NEEDS.get(remote.scheme, "") if error.code in (401, 403) else ""
        return f"not known, it answers {error.code}{needs}"
    except (OSError, ValueError, KeyError, TypeError) as error:  # no way to it, or another protocol
        return f"not known from here: {type(error).__name__}"


def of_hub(remote: Remote, use: InputUse, ask: Ask) -> str:
    kind = "datasets" if remote.datasets else "models"
    endpoint = (os.environ.get("HF_ENDPOINT") or PUBLIC_HUB).rstrip("/")
    if not endpoint.startswith(("http://", "https://")):
        return "not known, as HF_ENDPOINT is no http:// or https:// address"
    asked = Request(f"{endpoint}/api/{kind}/{remote.authority}/revision/{remote.revision}?blobs=true")  # noqa: S310
    if token := os.environ.get("HF_TOKEN"):
        asked.add_unredirected_header("Authorization", f"Bearer {token}")
    told: dict[str, Any] = json.loads(ask(asked)[1])
    files = {str(file["rfilename"]): int(file.get("size") or 0) for file in told["siblings"]}
    chosen = [size for path, size in files.items() if is_fetched(remote, path, use)]
    if not chosen:
        return "no such file"
    return (
        f"{sized(sum(chosen))} in {len(chosen)} {'file' if len(chosen) == 1 else 'files'}, revision {told['sha'][:12]}"
    )


def of_bucket(remote: Remote, use: InputUse, ask: Ask) -> str:
    if missing := bucket_sizes.lacks(os.environ):
        return f"a bucket, not asked without {missing} here; data preparation tells its size"
    asked = bucket_sizes.listed(
        remote.authority, remote.prefix, os.environ, lambda: datetime.now(UTC), lambda request: ask(request)[1]
    )
    until, count, total, more = time.monotonic() + IN_ALL, 0, 0, ""
    for number, (key, size) in enumerate(asked, start=1):
        if is_fetched(remote, key, use):
            count, total = count + 1, total + size
        if number == bucket_sizes.MOST_PAGES * bucket_sizes.PAGE or time.monotonic() > until:
            more = "at least "
            break
    return f"{more}{sized(total)} in {count} {'file' if count == 1 else 'files'}" if count else "no such file"


def is_fetched(remote: Remote, path: str, use: InputUse) -> bool:
    """As the trainer chooses files, to a glob's finer points."""
    if remote.is_glob:
        return fnmatchcase(path, remote.path.replace("**/", "*"))
    if remote.path and path != remote.path and not path.startswith(f"{remote.path}/"):
        return False
    if use == "data":
        return True
    below = path.removeprefix(f"{remote.path}/")
    return "/" not in below and (below.endswith(SMALL) or (use == "model" and below.endswith(".safetensors")))


def of_server(uri: str, ask: Ask) -> str:
    length = ask(Request(uri, method="HEAD"))[0].get("content-length", "")  # noqa: S310 -- https
    return sized(int(length)) if length.isdecimal() else "of a size that the server doesn't tell"


def request(asked: Request) -> tuple[dict[str, str], bytes]:
    authorities = os.environ.get("AWS_CA_BUNDLE") if asked.has_header("X-amz-date") else None
    context = ssl.create_default_context(cafile=authorities)
    with urlopen(asked, timeout=SECONDS, context=context) as answer:  # noqa: S310 -- as above
        return {name.lower(): value for name, value in answer.headers.items()}, answer.read(MOST_BYTES)


def sized(count: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
