"""Pods that were deleted, as they were last seen: a container's last word often comes with the end of its pod."""

from __future__ import annotations

from collections import OrderedDict

from llm_operator.kube.cache import trim
from llm_operator.kube.kinds import KINDS, POD
from llm_operator.kube.plan import Manifest
from llm_operator.training.gang import job_of

REMEMBERED = 1000  # some 5 kB each at most: a last word has 4 kB


class Departed:
    """The newest of them, by Job. What an operator that has just started does not know, it decides without."""

    def __init__(self) -> None:
        self._pods: OrderedDict[str, Manifest] = OrderedDict()  # by uid
        self._by_job: dict[tuple[str, str], list[str]] = {}

    def remember(self, pod: Manifest) -> None:
        """A pod whose deletion was just seen."""
        uid = pod["metadata"]["uid"]
        if uid in self._pods or not job_of(pod):
            return
        self._pods[uid] = trim(KINDS[POD.name], pod)
        self._by_job.setdefault(_place(pod), []).append(uid)
        if len(self._pods) > REMEMBERED:
            gone, oldest = self._pods.popitem(last=False)
            uids = self._by_job[_place(oldest)]
            uids.remove(gone)
            if not uids:
                del self._by_job[_place(oldest)]

    def of(self, namespace: str, job: str) -> tuple[Manifest, ...]:
        """Those of a Job, in the order in which they went."""
        return tuple(self._pods[uid] for uid in self._by_job.get((namespace, job), ()))


def _place(pod: Manifest) -> tuple[str, str]:
    return pod["metadata"]["namespace"], job_of(pod)
