"""Repositories of a hub that speaks Hugging Face's protocol, by huggingface-hub: $HF_ENDPOINT says where it is."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import httpx
from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from llm_trainer.config.remote import Remote
from llm_trainer.runtime.errors import DataError
from llm_trainer.storage import http_ranges
from llm_trainer.storage.credentials import Credential
from llm_trainer.storage.glob import matches
from llm_trainer.storage.ranges import fetch_ranges
from llm_trainer.storage.remote_files import Listing, RemoteFile, Tell, TransientError, refuse_nothing
from llm_trainer.storage.retry import TRIES, pause


class Hub:
    def __init__(self, credential: Credential, endpoint: str | None = None) -> None:
        """By default $HF_ENDPOINT as it is now (the library reads it when it is imported), or the public hub."""
        self._credential, self._endpoint = credential, endpoint or os.environ.get("HF_ENDPOINT") or None
        self._token: str | Literal[False] = credential.get("HF_TOKEN") or False
        self._api = HfApi(endpoint=self._endpoint, token=self._token)
        self._client = http_ranges.client(credential, build_hf_headers(token=self._token))

    def listing(self, remote: Remote) -> Listing:
        kind, uri = self._kind(remote), self._uri(remote)
        with self._said(remote):
            info: Any = self._api.repo_info(
                remote.authority,
                revision=remote.revision,
                repo_type=kind,
                files_metadata=True,
                timeout=http_ranges.SECONDS,
            )
        found = tuple(sorted(map(_file, info.siblings or ()), key=lambda file: file.path))
        chosen = tuple(file for file in found if wanted(remote, file.path))
        refuse_nothing(uri, chosen, f"the repository {remote.authority} at {remote.revision}")
        card = getattr(info, "card_data", None)
        licence = getattr(card, "license", None)
        return Listing(str(info.sha), chosen, str(licence) if licence else "")

    def fetch(self, remote: Remote, file: RemoteFile, part: Path, tell: Tell) -> str:
        """By ranges: the hub's own client, with Xet or without, begins a file anew after a kill."""
        for failures in range(1, TRIES + 1):
            sha256 = fetch_ranges(self, remote, file, part, tell)  # which has patience of its own
            if is_as_told(part, file):
                return sha256
            part.unlink()
            time.sleep(pause(failures, 0))
        raise TransientError(f"{self._uri(remote)}: {file.path} came with other contents than the hub tells of it")

    def read(self, remote: Remote, file: RemoteFile, start: int, stop: int | None = None) -> Iterator[bytes]:
        url = hf_hub_url(
            remote.authority,
            file.path,
            repo_type=self._kind(remote),
            revision=remote.revision,
            endpoint=self._endpoint,
        )

        def refuse(answer: httpx.Response) -> None:
            if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
                raise DataError(
                    f"{self._uri(remote)}: the hub does not let {file.path} be read ({answer.status_code}); "
                    f"{self._credential.advice}"
                )

        return http_ranges.read(self._client, url, file, start, refuse, "hf", marked=False, stop=stop)

    def _kind(self, remote: Remote) -> str:
        return "dataset" if remote.datasets else "model"

    def _uri(self, remote: Remote) -> str:
        return f"hf://{'datasets/' if remote.datasets else ''}{remote.authority}"

    @contextmanager
    def _said(self, remote: Remote) -> Iterator[None]:
        """Raises DataError for what a user has to change, TransientError for the rest."""
        uri, advice = self._uri(remote), self._credential.advice
        try:
            yield
        except GatedRepoError as error:
            raise DataError(
                f"{uri} is gated: its owner must let the account of the token read it, on the repository's page; "
                f"{advice}"
            ) from error
        except RevisionNotFoundError as error:
            raise DataError(
                f"{uri} has no revision {remote.revision!r}; write a branch, tag or commit of it"
            ) from error
        except RepositoryNotFoundError as error:
            raise DataError(f"{uri}: there is no such repository, or it is private; {advice}") from error
        except LocalEntryNotFoundError as error:  # the hub was not reached; nobody asked for what is local
            raise TransientError(f"{uri}: {str(error).splitlines()[0]}") from error
        except EntryNotFoundError as error:
            raise DataError(f"{uri}@{remote.revision}: {str(error).splitlines()[0]}") from error
        except HfHubHTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            if status in (401, 403):
                raise DataError(f"{uri}: the hub does not let it be read ({status}); {advice}") from error
            if status and status < 500 and status not in http_ranges.UNHURRIED:
                raise DataError(f"{uri}: the hub answers {status}; check the URI") from error
            raise TransientError(f"{uri}: the hub answers {status}") from error
        except (httpx.HTTPError, OSError, RuntimeError) as error:
            if isinstance(error, OSError) and error.filename is not None:
                raise  # of the disk
            raise TransientError(f"{uri}: {type(error).__name__}: {str(error).splitlines()[0]}") from error


def wanted(remote: Remote, path: str) -> bool:
    """A repository without a path is all that lies in it."""
    if remote.is_glob:
        return matches(path.split("/"), remote.path.split("/"))
    return not remote.path or path == remote.path or path.startswith(f"{remote.path}/")


def _file(sibling: Any) -> RemoteFile:
    lfs = sibling.lfs
    digest = (lfs.get("sha256") if isinstance(lfs, dict) else getattr(lfs, "sha256", None)) if lfs else None
    return RemoteFile(
        sibling.rfilename, int(sibling.size or 0), sibling.blob_id, digest, None if lfs else sibling.blob_id
    )


def is_as_told(part: Path, file: RemoteFile) -> bool:
    """Whether a small file has the contents that the hub tells of it; of a large one the cache compares the sha256."""
    if not file.git:
        return True
    blob = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    blob.update(part.read_bytes())
    return blob.hexdigest() == file.git
