"""Specs as they were validated: most passes are over a training whose spec is the same as before."""

from __future__ import annotations

from collections import OrderedDict

from llm_operator.api.resources import Devices
from llm_operator.api.training import LLMTrainingSpec
from llm_operator.api.validation import InvalidSpecError, load_training
from llm_operator.kube.plan import Manifest

REMEMBERED = 1000  # some 20 kB each


class Specs:
    """What follows from a spec, which an object's uid and generation identify. Those used last are kept."""

    def __init__(self, devices: Devices) -> None:
        self._devices = devices
        self._known: OrderedDict[tuple[str, int], LLMTrainingSpec | InvalidSpecError] = OrderedDict()

    def of(self, training: Manifest) -> LLMTrainingSpec | InvalidSpecError:
        """The spec, or what is wrong with it."""
        metadata = training["metadata"]
        at = (metadata["uid"], metadata["generation"])
        if at not in self._known:
            self._known[at] = loaded(training, self._devices)
        self._known.move_to_end(at)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return self._known[at]


def loaded(training: Manifest, devices: Devices) -> LLMTrainingSpec | InvalidSpecError:
    try:
        return load_training(training.get("spec") or {}, devices)
    except InvalidSpecError as error:
        return error
