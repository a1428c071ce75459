"""Where what a URI names comes from."""

from __future__ import annotations

from functools import cache as once
from pathlib import Path

from llm_trainer.config.remote import Remote
from llm_trainer.runtime.startup import importing
from llm_trainer.storage.credentials import Credential, read_credential
from llm_trainer.storage.remote_files import Source
from llm_trainer.storage.request import Request


class Sources:
    """One for each target, made when it is needed: libraries and Secrets of what nobody names are not."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._of = once(self._make)

    def of(self, remote: Remote) -> Source:
        return self._of(remote.target)

    def _make(self, target: str) -> Source:
        credential = self._credential(target)
        scheme, _, authority = target.partition("://")
        with importing():
            if scheme == "hf":
                from llm_trainer.storage.hub import Hub

                return Hub(credential)
            if scheme == "s3":
                from llm_trainer.storage.bucket import Bucket

                return Bucket(authority, credential)
            from llm_trainer.storage.web import Web

            return Web(credential, self._request.writer)

    def _credential(self, target: str) -> Credential:
        for given in self._request.credentials:
            if given.target == target:
                return read_credential(target, given.secret_name, Path(given.folder))
        return Credential(target)
