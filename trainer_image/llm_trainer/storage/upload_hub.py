"""A result into a repository of a hub, by huggingface-hub: large files first, then one commit with all of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import httpx
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, set_client_factory
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from llm_trainer.checkpoint.files import MANIFEST
from llm_trainer.config.remote import Remote
from llm_trainer.protocol import PublishedResult
from llm_trainer.runtime.digests import digest_of
from llm_trainer.runtime.errors import DataError
from llm_trainer.storage import http_ranges
from llm_trainer.storage.credentials import CA, Credential
from llm_trainer.storage.hub import Hub
from llm_trainer.storage.publication import Files, PublishedManifest, read_published, refuse_others
from llm_trainer.storage.remote_files import Listing, RemoteFile, TransientError
from llm_trainer.storage.retry import patiently

OF_A_NEW_ONE = ".gitattributes"  # what a hub puts into a repository that it makes
SECONDS = 60.0  # without a byte
CONFLICTS = (409, 412)  # another commit came in between


class HubTarget:
    def __init__(self, to: str, remote: Remote, credential: Credential, *, private: bool) -> None:
        self._to, self._remote, self._credential, self._private = to, remote, credential, private
        self._api = HfApi(token=credential.get("HF_TOKEN") or False)
        self._hub = Hub(credential)
        self._digests: dict[Path, str] = {}
        authority = credential.get(CA)

        def client() -> httpx.Client:
            made = http_ranges.client(Credential(credential.target, values={CA: authority} if authority else {}), {})
            made.timeout = httpx.Timeout(SECONDS)
            return made

        set_client_factory(client)

    def publish(self, files: Files) -> PublishedResult:
        patiently(self._make)
        revision = patiently(lambda: self._commit(files))
        self._verify(files, revision)
        return PublishedResult(revision=revision, bytes=files.size, files=len(files.manifest.files))

    def _make(self) -> None:
        """The repository and its branch, if they aren't there."""
        name, branch = self._remote.authority, self._remote.revision
        with self._said():
            try:
                self._api.repo_info(name, revision=branch)
                return
            except RevisionNotFoundError:
                self._api.create_branch(name, branch=branch, exist_ok=True)
                return
            except RepositoryNotFoundError:
                self._api.create_repo(name, private=self._private, exist_ok=True)
            if branch != "main":
                self._api.create_branch(name, branch=branch, exist_ok=True)

    def _commit(self, files: Files) -> str:
        """One commit of all; the commit that is there, if that has been made before."""
        head, listed, there = self._there()
        refuse_others(self._to, files.manifest.publication, there.publication if there else None, listed)
        if there and there.digest() == files.manifest.digest() and self._problem(files, head) is None:
            print(f"{self._to} has it already, in commit {head}", flush=True)
            return head
        text = files.manifest_text
        additions = [
            CommitOperationAdd(self._in_repository(file.path), str(files.folder / file.path))
            for file in files.manifest.files
        ]
        additions.append(CommitOperationAdd(self._in_repository(MANIFEST), text))
        gone = (there.paths if there else set()) - files.manifest.paths
        deletions = [CommitOperationDelete(self._in_repository(path)) for path in sorted(gone)]
        with self._said():
            for addition in additions:
                self._api.preupload_lfs_files(
                    self._remote.authority, [addition], revision=self._remote.revision, free_memory=False
                )
            publication = files.manifest.publication
            made: Any = self._api.create_commit(
                self._remote.authority,
                [*additions, *deletions],
                commit_message=f"Stage {publication.stage} of {publication.namespace}/{publication.training}",
                commit_description=publication.digest,
                revision=self._remote.revision,
                parent_commit=head,
            )
        return str(made.oid)

    def _there(self) -> tuple[str, list[str], PublishedManifest | None]:
        """The branch's commit, the files at our place that are not the hub's own, and the manifest of a publication."""
        listing = self._listing(self._remote.revision)
        below = {self._out_of_repository(file.path): file for file in listing.files if self._is_below(file.path)}
        there = None
        if found := below.get(MANIFEST):
            pinned = Remote("hf", self._remote.authority, "", listing.revision)
            there = read_published(b"".join(self._hub.read(pinned, found, 0)))
        return listing.revision, [path for path in sorted(below) if path != OF_A_NEW_ONE], there

    def _listing(self, revision: str) -> Listing:
        with self._said():
            info: Any = self._api.repo_info(
                self._remote.authority, revision=revision, files_metadata=True, timeout=http_ranges.SECONDS
            )
        return Listing(str(info.sha), tuple(map(_file, info.siblings or ())))

    def _verify(self, files: Files, revision: str) -> None:
        if problem := patiently(lambda: self._problem(files, revision)):
            raise DataError(f"{self._to} at {revision} is not as it was sent: {problem}")

    def _problem(self, files: Files, revision: str) -> str | None:
        """What differs in the repository, by the digests that the hub tells."""
        told = {file.path: file for file in self._listing(revision).files}
        for record in files.manifest.files:
            found, file = told.get(self._in_repository(record.path)), files.folder / record.path
            if found is None or found.size != record.size:
                return f"{record.path} has {found.size if found else 'no'} bytes instead of {record.size}"
            if found.sha256 and found.sha256 != self._sha256(file):
                return f"{record.path} has another sha256"
            if found.git and found.git != git_digest(file.read_bytes()):
                return f"{record.path} has other contents"
        manifest = told.get(self._in_repository(MANIFEST))
        if manifest is None or manifest.git not in (None, git_digest(files.manifest_text)):
            return f"{MANIFEST} has other contents"
        return None

    def _sha256(self, file: Path) -> str:
        """Of a file of the result, read once."""
        if file not in self._digests:
            self._digests[file] = digest_of(file, "sha256")
        return self._digests[file]

    # --- paths ---------------------------------------------------------------------------------------------------

    def _in_repository(self, path: str) -> str:
        return str(PurePosixPath(self._remote.path, path))

    def _is_below(self, path: str) -> bool:
        return not self._remote.path or path.startswith(f"{self._remote.path}/")

    def _out_of_repository(self, path: str) -> str:
        return path.removeprefix(f"{self._remote.path}/") if self._remote.path else path

    # --- words ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _said(self) -> Iterator[None]:
        """Raises DataError for what a user has to change, TransientError for the rest."""
        to, advice = self._to, self._credential.advice
        organisation = self._remote.authority.partition("/")[0]
        try:
            yield
        except (RepositoryNotFoundError, GatedRepoError) as error:
            status = error.response.status_code if error.response is not None else 0
            if status == httpx.codes.UNAUTHORIZED:
                raise DataError(f"{to}: the hub does not accept the token (401); {advice}") from error
            raise DataError(f"{to}: {needs_right(organisation, status)}; {advice}") from error
        except HfHubHTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            if status == httpx.codes.UNAUTHORIZED:
                raise DataError(f"{to}: the hub does not accept the token (401); {advice}") from error
            if status == httpx.codes.FORBIDDEN:
                raise DataError(f"{to}: {needs_right(organisation, status)}; {advice}") from error
            if status and status < 500 and status not in (*http_ranges.UNHURRIED, *CONFLICTS):
                raise DataError(f"{to}: the hub answers {status}: {first_line(error)}") from error
            raise TransientError(f"{to}: the hub answers {status}") from error
        except (httpx.HTTPError, OSError, RuntimeError, json.JSONDecodeError) as error:
            if isinstance(error, OSError) and error.filename is not None:
                raise  # of the volume
            if isinstance(error.__cause__, HfHubHTTPError):  # of one of several files
                with self._said():
                    raise error.__cause__ from None
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                said = f"the server's certificate is not trusted; put its authority's into {CA} of the Secret"
                raise DataError(f"{to}: {said}") from error
            raise TransientError(f"{to}: {type(error).__name__}: {first_line(error)}") from error
        except ValueError as error:
            raise DataError(f"{to}: {first_line(error)}") from error


def needs_right(organisation: str, status: int) -> str:
    return f"the token may not write to {organisation} ({status}), it needs the right to write there"


def first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _file(sibling: Any) -> RemoteFile:
    lfs = sibling.lfs
    digest = (lfs.get("sha256") if isinstance(lfs, dict) else getattr(lfs, "sha256", None)) if lfs else None
    git = None if lfs else sibling.blob_id
    return RemoteFile(sibling.rfilename, int(sibling.size or 0), sibling.blob_id, digest, git)


def git_digest(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
