"""Pods that were deleted, as they were last seen: a container's last word often comes with the end of its pod."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable

from llm_operator.kube.cache import trim
from llm_operator.kube.kinds import KINDS, POD
from llm_operator.kube.plan import Manifest
from llm_operator.training.gang import pod_index

FIRST = 1_000  # pods of rank 0, some 6 kB each at most: their last word has the checkpoint and the result
OTHERS = 4_096  # some gangs of 1,024


class Departed:
    """The newest of them, by their Job's uid. What an operator that has just started does not know, it decides without.

    Those of rank 0 are counted by themselves: no gang, however large, makes it forget the last word of one.
    """

    def __init__(self, first: int = FIRST, others: int = OTHERS) -> None:
        self._limits = {True: first, False: others}
        self._jobs: dict[bool, OrderedDict[str, str]] = {True: OrderedDict(), False: OrderedDict()}  # by pods' uids
        self._pods: dict[str, dict[str, Manifest]] = defaultdict(dict)  # by uid, those of each Job

    def remember(self, job: str, pod: Manifest) -> None:
        """A pod of this Job of ours whose deletion was just seen."""
        uid, first = pod["metadata"]["uid"], pod_index(pod) == 0
        jobs = self._jobs[first]
        if uid in jobs:
            return
        jobs[uid] = job
        self._pods[job][uid] = trim(KINDS[POD.name], pod)
        if len(jobs) > self._limits[first]:
            gone, of = jobs.popitem(last=False)
            del self._pods[of][gone]
            if not self._pods[of]:
                del self._pods[of]

    def of(self, jobs: Iterable[str]) -> tuple[Manifest, ...]:
        """Those of these Jobs, in the order in which they went."""
        return tuple(pod for job in jobs for pod in self._pods.get(job, {}).values())
