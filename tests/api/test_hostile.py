"""Whoever may write objects writes the worst: a live operator goes on with all others, and tells what is wrong.

The API server is of these tests alone. Its definitions are first without bounds, as an older version may have left
them: what they let in is read by the operator as it is, and stays stored when the bounds come.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientTimeout

from llm_operator.kube import labels
from llm_operator.kube.client import Client
from llm_operator.kube.decoding import decoded
from llm_operator.kube.kinds import APP, CLAIM, DEPLOYMENT, EVENT, JOB, POD, SERVING, TRAINING, Kind
from llm_operator.kube.login import Connection
from llm_operator.training.gang import INDEX_LABEL
from tests import hostile
from tests.api.conftest import running
from tests.api.kube.manifests import child, job
from tests.api.tenant import LOOK_SECONDS, Reaction, at_work, reaction
from tests.app_specs import EVERYTHING as ANSWERS
from tests.bench.process import OperatorProcess
from tests.bench.steps import longest_ms
from tests.cluster.cluster import binaries
from tests.cluster.control_plane import ControlPlane, free_ports
from tests.cluster.settings import REPOSITORY
from tests.specs import SERVING as SERVED
from tests.specs import TRAINING as SPEC

Manifest = dict[str, Any]
OURS = (APP, SERVING, TRAINING)
AT_ONCE = 8  # writers
FEW, MANY = 300, 10_000  # objects that are thrown, beside the corpus
JSON_TEXT = {"Content-Type": "application/json"}
PATIENT = ClientTimeout(total=None)  # on a machine with a load of 40 the API server takes minutes for a write
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    found = ControlPlane(binaries(), tmp_path_factory.mktemp("hostile"), port=free_ports(1), etcd_port=free_ports(2))
    with running(found):
        yield found


@dataclass
class Lab:
    """``enemy`` is the namespace in which anything may be; in ``tenant`` another works."""

    plane: ControlPlane
    client: Client
    connection: Connection
    enemy: str
    tenant: str
    reactions: dict[str, list[Reaction]] = field(default_factory=dict)  # by what went on

    def unbound(self) -> None:
        """From now on the API server takes any spec."""
        self._definitions(lambda plural: json.dumps(hostile.unbounded(plural)))

    def bound(self) -> None:
        self._definitions(lambda plural: (REPOSITORY / "crds" / f"{plural}.yaml").read_text())

    def _definitions(self, text: Callable[[str], str]) -> None:
        for plural in (kind.plural for kind in OURS):
            file = self.plane.state / f"{plural}.yaml"
            file.write_text(text(plural))
            self.plane.kubectl("replace", "-f", file)
        time.sleep(2)  # the API server has no word for when it serves by a changed definition

    async def write(self, kind: Kind, manifest: Manifest, status: Any = None) -> bool:
        """As text, because Python can't write what is nested so deep. Whether it was taken."""
        namespace = self.enemy
        async with self.connection.session() as session:
            text = hostile.written(manifest)
            async with session.post(
                self.connection.server + kind.path(namespace), data=text, headers=JSON_TEXT, timeout=PATIENT
            ) as answer:
                if not answer.ok:
                    return False
                if status is None:
                    return True
                made = decoded(await answer.read())
            made = {**manifest, "metadata": made["metadata"], "status": status}
            async with session.put(
                self.connection.server + kind.path(namespace, manifest["metadata"]["name"], "status"),
                data=hostile.written(made), headers=JSON_TEXT, timeout=PATIENT,
            ) as answer:  # fmt: skip
                return answer.ok

    async def throw(self, kind: Kind, manifests: Iterable[Manifest], statuses: Iterable[Any] = ()) -> int:
        """How many were taken."""
        turns = asyncio.Semaphore(AT_ONCE)

        async def one(manifest: Manifest, status: Any) -> bool:
            async with turns:
                return await self.write(kind, manifest, status)

        pairs = itertools.zip_longest(manifests, statuses)
        return sum(await asyncio.gather(*(one(manifest, status) for manifest, status in pairs)))

    async def react(self, what: str) -> None:
        """The other tenant makes a training, and waits for its Job."""
        found = await reaction(self.client, self.tenant, f"work-{next(_numbers)}")
        self.reactions.setdefault(what, []).append(found)

    @asynccontextmanager
    async def reacting(self, what: str, told: Path) -> AsyncIterator[None]:
        """All the while."""
        async with at_work(self.tenant, told) as found:
            yield
        self.reactions.setdefault(what, []).extend(found)

    async def untold(self) -> list[str]:
        """Which of the enemy's objects tell nothing: in their status, or in an event where no status can be written."""
        events = (await self.client.get(EVENT.path(self.enemy)))["items"]
        told = {event["regarding"]["name"] for event in events if event.get("regarding")}
        found = []
        for kind in OURS:
            async for page in self.client.pages(kind.path(self.enemy), {}):
                found += [one for one in page["items"] if not conditions(one) and one["metadata"]["name"] not in told]
        return [
            f"{one['metadata']['name']} ({(one['metadata'].get('annotations') or {}).get('example.com/attack')})"
            for one in found
        ]

    async def all_told(self) -> None:
        """pytest's time limit ends a wait for what never comes."""
        while missing := await self.untold():
            print(f"not told yet: {len(missing)}, such as {missing[:3]}")
            await asyncio.sleep(max(1.0, len(missing) / 100))  # each look costs the API server a list of all

    async def clean(self) -> None:
        for kind in OURS:
            await self.client.request(
                "DELETE", kind.path(self.enemy), timeout_seconds=300, body={"propagationPolicy": "Background"}
            )

        async def gone() -> bool:
            first = [await self.client.get(kind.path(self.enemy), {"limit": "1"}) for kind in OURS]
            return not any(page["items"] for page in first)

        await until(gone)

    def said(self) -> str:
        told = (
            f"{what}: {middle_and_most([one.job for one in each])} of {len(each)}, "
            f"API server: {middle_and_most([one.taken for one in each])}"
            for what, each in self.reactions.items()
        )
        return "; ".join(told)


def middle_and_most(seconds: list[float]) -> str:
    return f"median {statistics.median(seconds):.2f} s, most {max(seconds):.2f} s"


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    """pytest's time limit ends a wait for what never comes."""
    while not await true():  # noqa: ASYNC110
        await asyncio.sleep(LOOK_SECONDS)


def conditions(manifest: Manifest) -> list[Any]:
    status = manifest.get("status")
    found = status.get("conditions") if isinstance(status, dict) else None
    return [one for one in found if isinstance(one, dict) and one.get("reason")] if isinstance(found, list) else []


@pytest.fixture
async def lab(plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Lab]:
    monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig))
    number = next(_numbers)
    connection = await Connection.open()
    client = Client(connection)
    lab = Lab(plane, client, connection, f"enemy-{number}", f"tenant-{number}")
    for namespace in (lab.enemy, lab.tenant):
        plane.kubectl("create", "namespace", namespace)
        for name in ("models", "corpus"):
            spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
            claim = {"apiVersion": "v1", "kind": CLAIM.name, "metadata": {"name": name, "namespace": namespace}}
            await client.create(CLAIM, {**claim, "spec": spec})
    yield lab
    await client.close()


def operator(lab: Lab, log: Path) -> Any:
    namespaces = f"{lab.enemy},{lab.tenant}"
    return OperatorProcess.started(
        lab.plane.kubeconfig, log, namespaces=namespaces, probed=True, module="tests.bench.steps"
    )


CORPUS = {
    TRAINING: list(hostile.manifests(TRAINING.name, {**hostile.TRAININGS, **hostile.HEAVY}, "t")),
    SERVING: list(hostile.manifests(SERVING.name, hostile.SERVINGS, "s")),
    APP: list(hostile.manifests(APP.name, hostile.APPS, "a")),
}


async def test_what_is_stored_already_is_told_and_never_fatal(
    lab: Lab, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Also after a restart, and when the bounds have come, which hold for writes and not for what is stored."""
    lab.unbound()
    for kind, manifests in CORPUS.items():
        assert await lab.throw(kind, manifests) == len(manifests), "the API server takes it, so that it must be read"
    spoiled = list(hostile.manifests(TRAINING.name, dict.fromkeys(hostile.STATUSES, SPEC), "u"))
    assert await lab.throw(TRAINING, spoiled, hostile.STATUSES.values()) == len(spoiled)
    spoiled = list(hostile.manifests(APP.name, dict.fromkeys(hostile.APP_STATUSES, ANSWERS), "v"))
    assert await lab.throw(APP, spoiled, hostile.APP_STATUSES.values()) == len(spoiled)
    for begin in ("without bounds", "with bounds"):
        if begin == "with bounds":
            lab.bound()
        log = tmp_path / f"{begin}.log"
        async with operator(lab, log) as process:
            await lab.react(begin)
            await lab.all_told()
            await process.idle()
            await lab.react(begin)
            record_property(f"longest answer of /healthz, {begin}", f"{max(process.answers) * 1000:.0f} ms")
        text = log.read_text()
        record_property(f"longest step of the event loop, {begin}", f"{longest_ms(text)} ms of CPU")
        assert "this replica stops" not in text
        assert "can't be listed" not in text, text
    record_property("another's Job after", lab.said())


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=[pytest.mark.release, pytest.mark.timeout(7200)])])
async def test_others_are_served_while_hostile_objects_come(
    lab: Lab, tmp_path: Path, count: int, record_property: Callable[[str, object], None]
) -> None:
    """And memory comes back when they go: the second half takes no more than the first."""
    lab.unbound()
    memory: list[float] = []
    log = tmp_path / "operator.log"
    async with operator(lab, log) as process:
        for _ in range(5):
            await lab.react("nothing")
        for half in range(2):
            shares = ((TRAINING, 2), (SERVING, 1), (APP, 1))  # eighths of all, in each half
            thrown = [(kind, hostile.mutated(kind.plural, count * share // 8, half)) for kind, share in shares]
            async with lab.reacting("hostile objects", tmp_path / f"tenant-{half}"):
                for kind, specs in thrown:
                    named = dict(zip(map(str, range(len(specs))), specs, strict=True))
                    assert await lab.throw(kind, hostile.manifests(kind.name, named, kind.plural)) == len(specs)
                await lab.all_told()
            await lab.clean()
            await process.idle()
            memory.append(process.memory_mib()[0])
        record_property("longest answer of /healthz", f"{max(process.answers) * 1000:.0f} ms")
        record_property("most memory", f"{process.memory_mib()[1]:.0f} MiB")
    record_property("another's Job after", lab.said())
    record_property("memory after each half", ", ".join(f"{found:.0f} MiB" for found in memory))
    record_property("longest step of the event loop", f"{longest_ms(log.read_text())} ms of CPU")
    print(lab.said(), memory)
    assert "this replica stops" not in log.read_text()
    assert len(lab.reactions["hostile objects"]) > 2, "another's turn comes between the enemy's, again and again"
    assert memory[1] < memory[0] * 1.25 + 32, f"what has gone must be forgotten: {memory}"


async def test_children_that_others_have_made_up(lab: Lab, tmp_path: Path) -> None:
    """Jobs, pods and Deployments with an owner reference to an object of ours, and anything in their words."""
    lab.bound()
    log = tmp_path / "operator.log"
    async with operator(lab, log) as process:
        metadata = {"name": "owner", "namespace": lab.enemy}
        spec = {**SPEC, "suspend": True}
        owner = await lab.client.create(TRAINING, {"apiVersion": TRAINING.api_version, "kind": TRAINING.name,
                                                   "metadata": metadata, "spec": spec})  # fmt: skip
        served = await lab.client.create(SERVING, {"apiVersion": SERVING.api_version, "kind": SERVING.name,
                                                   "metadata": metadata, "spec": SERVED})  # fmt: skip
        for number, index in enumerate(("9" * 63, "-1", "0", "x", "00")):
            await made_up(lab, owner, served, f"odd-{number}", index)
        await lab.react("made-up children")
        await process.idle()
        await lab.all_told()
    text = log.read_text()
    assert "this replica stops" not in text
    assert "Traceback" not in text


async def made_up(lab: Lab, owner: Manifest, served: Manifest, name: str, index: str) -> None:
    theirs = job(owner, name)
    theirs["metadata"]["labels"] |= {labels.STAGE: index.strip("-"), labels.ATTEMPT: index.strip("-")}
    theirs["metadata"]["annotations"] = {"example.com/large": "語" * 50_000}
    theirs["spec"]["suspend"] = True
    found = await lab.client.create(JOB, theirs)
    container = {"name": "trainer", "image": "none"}
    pod = child(found, POD.name, name, spec={"containers": [container]})
    pod["metadata"]["labels"] |= {INDEX_LABEL: index.strip("-"), "batch.kubernetes.io/job-name": name}
    pod["metadata"]["annotations"] = hostile.ANNOTATIONS
    made = await lab.client.create(POD, pod)
    ended = {"exitCode": 2**31 - 1, "message": "[" * 4000, "reason": "\u202e" * 100}
    state = {"name": "trainer", "image": "", "imageID": "", "ready": True, "restartCount": 2**31 - 1,
             "state": {"terminated": ended}, "lastState": {"terminated": ended}}  # fmt: skip
    status = {"phase": "Failed", "message": "\x1b[2J" * 1000, "containerStatuses": [state]}
    await lab.client.request("PUT", POD.path(lab.enemy, name, "status"), body={**made, "status": status})
    selector = {"app": name}
    template = {
        "metadata": {"labels": selector, "annotations": hostile.ANNOTATIONS},
        "spec": {"containers": [container]},
    }
    spec = {"replicas": 0, "selector": {"matchLabels": selector}, "template": template}
    body = child(served, DEPLOYMENT.name, name, spec=spec)
    await lab.client.create(DEPLOYMENT, {**body, "apiVersion": DEPLOYMENT.api_version})
