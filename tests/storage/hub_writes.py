"""The write side of the hub of hub_server.py: what huggingface-hub sends, as the protocol has it.

A repository is made, each file's way is asked for (preupload), large files go by git LFS's basic transfer to the second
host, and one commit names them all.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from tests.storage.hub_server import Hub

CHUNK = 1 << 16


def answer(hub: Hub, request: BaseHTTPRequestHandler) -> None:
    path = unquote(urlsplit(request.path).path)
    if path.startswith("/lfs/"):
        receive(hub, request, path.removeprefix("/lfs/"))
        return
    body = content(request)
    token = (request.headers.get("Authorization") or "").removeprefix("Bearer ")
    if path == "/api/validate-yaml":
        say(request, 200, {"errors": [], "warnings": []})
    elif path == "/api/repos/create":
        create(hub, request, json.loads(body), token)
    elif found := re.fullmatch("/api/models/([^/]+/[^/]+)/(preupload|commit|branch)/(.+)", path):
        name, step, revision = found.groups()
        if refused := may_write(hub, name, token, step):
            say(request, refused, {"error": "refused"})
        elif step == "preupload":
            preupload(hub, request, name, json.loads(body))
        elif step == "branch":
            hub.repositories[name].branch = revision
            say(request, 200, {})
        else:
            commit(hub, request, name, body)
    elif found := re.fullmatch("/([^/]+/[^/]+)[.]git/info/lfs/objects/batch", path):
        refused = may_write(hub, found[1], token, "batch")
        say(request, refused, {"error": "refused"}) if refused else batch(hub, request, json.loads(body))
    else:
        say(request, 404, {"error": path})


def may_write(hub: Hub, name: str, token: str, step: str) -> int:
    """The status of a refusal, 0 if there is none."""
    if asked := hub.refusals.pop(step, 0):
        return asked
    if token not in hub.writers:
        return 401
    return 0 if hub.writers[token] == name.partition("/")[0] else 403


def create(hub: Hub, request: BaseHTTPRequestHandler, asked: dict[str, Any], token: str) -> None:
    from tests.storage.hub_server import Repository

    name = f"{asked['organization']}/{asked['name']}"
    if refused := may_write(hub, name, token, "create"):
        say(request, refused, {"error": "refused"})
    elif name in hub.repositories:
        say(request, 409, {"error": "exists", "url": f"{hub.url}/{name}"})
    else:
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        hub.repositories[name] = Repository(
            {".gitattributes": b"* lfs"}, private=private, token=token if private else None
        )
        say(request, 200, {"url": f"{hub.url}/{name}", "name": name})


def preupload(hub: Hub, request: BaseHTTPRequestHandler, name: str, asked: dict[str, Any]) -> None:
    from tests.storage.hub_server import LARGE

    assert name in hub.repositories
    files = [
        {"path": each["path"], "uploadMode": "lfs" if each["size"] >= LARGE else "regular", "shouldIgnore": False}
        for each in asked["files"]
    ]
    say(request, 200, {"files": files})


def batch(hub: Hub, request: BaseHTTPRequestHandler, asked: dict[str, Any]) -> None:
    objects: list[dict[str, Any]] = []
    for each in asked["objects"]:
        found = {"oid": each["oid"], "size": each["size"]}
        if each["oid"] not in hub.objects:
            found["actions"] = {"upload": {"href": f"{hub.second}/lfs/{each['oid']}", "header": {}}}
        objects.append(found)
    say(request, 200, {"transfer": "basic", "objects": objects})


def receive(hub: Hub, request: BaseHTTPRequestHandler, oid: str) -> None:
    """A large file, whole or not at all; on the second host, which must never see a token."""
    if request.headers.get("Authorization"):
        say(request, 400, {"error": "token on another host"})
        return
    if refused := hub.refusals.pop("lfs", 0):
        content(request)
        say(request, refused, {"error": "refused"})
        return
    data = content(request)
    if hashlib.sha256(data).hexdigest() != oid:
        request.close_connection = True
        say(request, 400, {"error": "other bytes than were told"})
        return
    hub.objects[oid] = data
    hub.sent.append((oid, len(data)))
    say(request, 200, {})


def commit(hub: Hub, request: BaseHTTPRequestHandler, name: str, body: bytes) -> None:
    repository = hub.repositories[name]
    lines = [json.loads(line) for line in body.splitlines() if line.strip()]
    header = lines[0]["value"]
    if header.get("parentCommit") not in (None, repository.commit):
        say(request, 412, {"error": "A commit has happened since. Please refresh and try again."})
        return
    files = dict(repository.files)
    for line in lines[1:]:
        value = line["value"]
        match line["key"]:
            case "file":
                files[value["path"]] = base64.b64decode(value["content"])
            case "lfsFile":
                files[value["path"]] = hub.objects[value["oid"]]
            case "deletedFile":
                del files[value["path"]]
    repository.before[repository.commit] = repository.files
    repository.files = files
    say(
        request,
        200,
        {"success": True, "commitOid": repository.commit, "commitUrl": f"{hub.url}/{name}/commit/{repository.commit}"},
    )


def content(request: BaseHTTPRequestHandler) -> bytes:
    """All of it, or what came before the connection broke."""
    if request.headers.get("Transfer-Encoding") == "chunked":
        parts: list[bytes] = []
        while size := int(request.rfile.readline().strip() or b"0", 16):
            parts.append(request.rfile.read(size))
            request.rfile.readline()
        request.rfile.readline()
        return b"".join(parts)
    return request.rfile.read(int(request.headers.get("Content-Length") or 0))


def say(request: BaseHTTPRequestHandler, status: int, value: Any) -> None:
    body = json.dumps(value).encode()
    request.send_response(status)
    for name, text in {"Content-Type": "application/json", "Content-Length": str(len(body))}.items():
        request.send_header(name, text)
    request.end_headers()
    request.wfile.write(body)
