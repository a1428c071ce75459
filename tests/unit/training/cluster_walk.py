"""A training in a cluster that takes its time: what a random walk does to it, and what must hold at every moment.

Everything goes through the real cache and the real observer. A Job that the operator deletes goes after its pods, one
that somebody else deletes before them; pods go when they have ended, a restarted operator knows what lists tell and
nothing else, and users edit at any moment what the API server lets them.
"""

from __future__ import annotations

import copy
from typing import Any, cast

from llm_operator.api.validation import load_training
from llm_operator.kube import labels
from llm_operator.kube.cache import Cache
from llm_operator.kube.plan import Delete, Manifest, Plan
from llm_operator.kube.pull import Puller
from llm_operator.kube.specs import Specs
from llm_operator.training.departed import Departed
from llm_operator.training.gang import job_of
from llm_operator.training.missing import Troubles
from llm_operator.training.names import run_name
from llm_operator.training.observe import Observer
from llm_operator.training.reconcile import apply_refused, reconcile
from llm_trainer.protocol import ExitCode, Progress, Result
from tests.specs import changed
from tests.unit.training import scenes
from tests.unit.world import START

PASSES = 25  # at most, until nothing is left to do
GONE = "2026-01-01T00:00:00Z"
EARLY = {"name": "early", "model": {"uri": "pvc://models/base"}, "globalBatchSize": 8}
Attempt = tuple[str, int, str]
"""Stage, number, Job."""
WINDOWS = (1.0, 11.0, 100.0, 700.0)


class Walk:
    """``objects`` are the children and their pods by kind and name."""

    def __init__(self) -> None:
        self.owner = copy.deepcopy(scenes.scene().owner)
        self.now = START
        self.objects: dict[tuple[str, str], Manifest] = {}
        self.finished: set[str] = set()
        self._known: set[Attempt] = set()
        self._made = 0
        self.restart()

    # --- the cluster ---

    def restart(self) -> None:
        """Another process: its cache has what lists tell, and it remembers nothing."""
        self._cache = Cache()
        self._departed = Departed()
        self._observer = Observer(
            self._cache, Specs(load_training), Puller(self._cache, 10), Troubles(self._cache, cast(Any, None)),
            self._departed, "trainer:1", 10, clock=lambda: self.now,
        )  # fmt: skip
        for found in (*scenes.CLAIMS.values(), self.owner, *self.objects.values()):
            self._seen(found)

    def _number(self) -> int:
        self._made += 1
        return self._made

    def _seen(self, found: Manifest) -> None:
        """A watch tells of it."""
        metadata = {**found["metadata"], "resourceVersion": str(self._number())}
        self._cache.put(found["kind"], copy.deepcopy({**found, "metadata": metadata}))

    def _put(self, found: Manifest) -> None:
        self.objects[found["kind"], found["metadata"]["name"]] = found
        self._seen(found)

    def _gone(self, found: Manifest) -> None:
        del self.objects[found["kind"], found["metadata"]["name"]]
        self._cache.remove(found["kind"], copy.deepcopy(found))
        if found["kind"] == "Pod":
            self._departed.remember(found["metadata"]["ownerReferences"][0]["uid"], copy.deepcopy(found))

    def _of(self, kind: str) -> list[Manifest]:
        return [found for (of, _), found in sorted(self.objects.items()) if of == kind]

    @property
    def going_pods(self) -> list[Manifest]:
        """Those that have not ended, deleted or not."""
        return [pod for pod in self._of("Pod") if pod["status"]["phase"] == "Running"]

    @property
    def running_pods(self) -> list[Manifest]:
        return [pod for pod in self.going_pods if "deletionTimestamp" not in pod["metadata"]]

    def _delete(self, child: Manifest, foreground: bool) -> None:
        """A Job goes after its pods, or before them."""
        pods = [pod for pod in self._of("Pod") if job_of(pod) == child["metadata"]["name"]]
        if child["kind"] != "Job" or not foreground:
            self._gone(child)
        else:
            child["metadata"]["deletionTimestamp"] = GONE
            self._put(child)
        for pod in pods if child["kind"] == "Job" else ():
            self._delete_pod(pod)
        self._let_go()

    def _delete_pod(self, pod: Manifest) -> None:
        if pod["status"]["phase"] == "Running":
            pod["metadata"].update(deletionTimestamp=GONE, deletionGracePeriodSeconds=120)
            self._put(pod)
        else:
            self._gone(pod)

    def _let_go(self) -> None:
        """A Job that is deleted and has no pod any more."""
        held = {job_of(pod) for pod in self._of("Pod")}
        for job in self._of("Job"):
            if "deletionTimestamp" in job["metadata"] and job["metadata"]["name"] not in held:
                self._gone(job)

    def leave(self) -> None:
        """The pods that were deleted have ended."""
        for pod in [pod for pod in self._of("Pod") if "deletionTimestamp" in pod["metadata"]]:
            if pod["status"]["phase"] == "Running":
                scenes.end_pod(pod, ExitCode.PREEMPTED, "left")
                self._put(pod)
            self._gone(pod)
        self._let_go()

    def _create(self, child: Manifest) -> None:
        name = child["metadata"]["name"]
        if (child["kind"], name) in self.objects:
            return
        child = copy.deepcopy(child)
        child["metadata"]["uid"] = f"uid-{self._number()}"
        if child["kind"] == "Job":
            self._check_new(child)
        self._put(child)
        for index in range(child["spec"]["completions"] if child["kind"] == "Job" else 0):
            self._put(self._pod(child, index))

    def _pod(self, job: Manifest, index: int) -> Manifest:
        name, number = job["metadata"]["name"], self._number()
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job["metadata"]["uid"]}
        own = {"batch.kubernetes.io/job-name": name, "batch.kubernetes.io/job-completion-index": str(index)}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{name}-{index}-{number}",
                "namespace": "team",
                "uid": f"uid-{number}",
                "labels": {**job["metadata"]["labels"], **own},
                "ownerReferences": [{**owner, "controller": True}],
            },
            "spec": {"nodeName": f"node-{index}"},
            "status": {"phase": "Running", "containerStatuses": [{"name": "trainer", "state": {"running": {}}}]},
        }

    def end(self, code: int) -> None:
        """The pods of one attempt end, with a result if all is well, and the Job says so."""
        first = next(iter(self.running_pods), None)
        if first is None:
            return
        of = first["metadata"]["labels"]
        stage = of[labels.STAGE]
        place = "data" if stage == "data" else f"stages/{stage}/results/step-00000100"
        run = run_name(self.owner["metadata"]["name"], self.owner["metadata"]["uid"])  # its ConfigMap tells the pod
        uri = f"pvc://models/{run}/{place}"
        result = Result(uri=uri, digest=scenes.digest_of(stage), kind="model", step=100)
        told = Progress(
            stage=stage, attempt=int(of[labels.ATTEMPT]), phase="Training", step=100, total_steps=100, loss=1.0,
            tokens=1, heartbeat=self.now, result=None if code else result,
        )  # fmt: skip
        for pod in [pod for pod in self.running_pods if job_of(pod) == job_of(first)]:
            scenes.end_pod(pod, code, "its end", told)
            self._put(pod)
        job = self.objects["Job", job_of(first)]
        job["status"] = {"conditions": [{"type": "Failed" if code else "Complete", "status": "True"}]}
        self._put(job)

    def lose(self, kind: str, which: int) -> None:
        """Somebody deletes a Job, or a node drains a pod."""
        known = {name for _, _, name in self._attempts()}
        found = [job for job in self._of("Job") if job["metadata"]["name"] in known]
        found = found if kind == "Job" else self.running_pods
        if found and kind == "Job":
            self._delete(found[which % len(found)], foreground=False)
        elif found:
            self._delete_pod(found[which % len(found)])

    def edit(self, **paths: Any) -> None:
        metadata = {**self.owner["metadata"], "generation": self.owner["metadata"]["generation"] + 1}
        self.owner = {**self.owner, "metadata": metadata, "spec": changed(self.owner["spec"], **paths)}
        self._seen(self.owner)

    def put_before(self) -> None:
        """A stage before all others, as one may at any time."""
        stages = self.owner["spec"]["stages"]
        if stages[0]["name"] != "early":
            self.edit(stages=[{**EARLY, "sft": stages[-1]["sft"]}, *stages])

    # --- the operator ---

    @property
    def status(self) -> dict[str, Any]:
        return self.owner.get("status") or {}

    def one_pass(self, writes: int | None = None, refused: bool = False) -> bool:
        """Whether nothing was to be done. ``writes``: the operator dies after so many."""
        observed = self._observer.observe(scenes.KEY)
        assert observed is not None
        plan = reconcile(observed, self.now)
        if refused and plan.create:
            told = apply_refused(observed, "Job x: exceeded quota", self.now)
            plan = Plan(delete=plan.delete, status=None if told.status == self.owner.get("status") else told.status)
        for what in [*plan.delete, *plan.create, plan.status][:writes]:
            if isinstance(what, Delete):
                child = self.objects.get((what.kind, what.name))
                if child and child["metadata"]["uid"] == what.uid:
                    self._delete(child, what.foreground)
            elif what is plan.status and what is not None:
                self.owner = {**self.owner, "status": copy.deepcopy(what)}
                self._seen(self.owner)
            elif what is not None:
                self._create(what)
        self._check()
        return plan.empty

    def settle(self) -> None:
        assert any(self.one_pass() for _ in range(PASSES)), "it doesn't come to rest"

    def come_to_an_end(self) -> None:
        """Nothing happens any more but that pods which were deleted end."""
        for _ in range(6):
            self.leave()
            self.settle()
            self.now += 300
        phase, going = self.status["phase"], [pod["metadata"]["name"] for pod in self.going_pods]
        assert not going or phase not in ("Failed", "Succeeded", "Suspended"), f"{phase}, and {going} run"
        assert not going or not self.owner["spec"].get("suspend"), f"suspended, and {going} run"
        assert self.status["observedGeneration"] == self.owner["metadata"]["generation"]
        assert self.one_pass(), "it had come to rest"

    # --- what must hold ---

    def _check_new(self, job: Manifest) -> None:
        name, of = job["metadata"]["name"], job["metadata"]["labels"]
        alive = [pod["metadata"]["name"] for pod in self.going_pods if job_of(pod) == name]
        assert not alive, f"the number of {name} is used again, and {alive} live"
        others = [pod["metadata"]["name"] for pod in self.running_pods]
        assert not others, f"{name} begins beside {others}"
        assert of[labels.STAGE] not in self.finished, f"{name}: its stage has its result"

    def _attempts(self, under_way: bool = False) -> list[Attempt]:
        """All that the status knows, or those that have not ended."""
        attempts = ((stage["name"], one) for stage in self.status.get("stages", []) for one in stage["attempts"])
        return [(name, one["number"], one["job"]) for name, one in attempts if not under_way or "endTime" not in one]

    def _check(self) -> None:
        stages, under_way = self.status.get("stages", []), self._attempts(under_way=True)
        for attempt in set(under_way) - self._known:
            job = self.objects["Job", attempt[2]]
            assert "deletionTimestamp" not in job["metadata"], f"{attempt} begins with a Job that goes"
        self._known |= set(under_way)
        assert len(under_way) <= 1, f"at the same time: {under_way}"
        assert not under_way or self.status["phase"] not in ("Failed", "Succeeded", "Suspended")
        for stage in stages:
            numbers = [attempt["number"] for attempt in stage["attempts"]]
            assert numbers == sorted(set(numbers)), f"{stage['name']}: {numbers}"
        self.finished |= {stage["name"] for stage in stages if stage["state"] == "Succeeded"}
