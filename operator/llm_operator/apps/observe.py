"""What a decision needs to know of an app, read from the cache. No decisions are made here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from llm_operator.api.app import LLMAppSpec
from llm_operator.api.resources import DEFAULT_DEVICES, Devices
from llm_operator.api.validation import InvalidSpecError, load_app
from llm_operator.apps.config_maps import Contents
from llm_operator.kube.cache import Cache
from llm_operator.kube.fields import objects_at, text_at
from llm_operator.kube.kinds import (
    CLAIM,
    CONFIG_MAP,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    JOB,
    NETWORK_POLICY,
    POD,
    SERVICE,
    SERVING,
)
from llm_operator.kube.network import Network
from llm_operator.kube.plan import Key, Manifest
from llm_operator.kube.specs import Specs, loaded
from llm_operator.settings import Settings


@dataclass(frozen=True)
class Observed:
    """``serving`` is the LLMServing that the spec names, None if there is none; ``claims`` are the namespace's."""

    app: Manifest
    serving: Manifest | None = None
    embedders: Mapping[str, Manifest] = field(default_factory=dict)  # LLMServings that knowledge names, by name
    sources: Contents = field(default_factory=dict)  # ConfigMaps of the spec, by name
    deployments: tuple[Manifest, ...] = ()
    services: tuple[Manifest, ...] = ()
    disruption_budgets: tuple[Manifest, ...] = ()
    network_policies: tuple[Manifest, ...] = ()
    config_maps: tuple[Manifest, ...] = ()
    jobs: tuple[Manifest, ...] = ()
    pods: tuple[Manifest, ...] = ()
    claims: frozenset[str] = frozenset()
    app_image: str = ""
    pull_secrets: tuple[str, ...] = ()  # of every pod, beside the user's
    network: Network | None = None  # None: no NetworkPolicies are made
    loaded: LLMAppSpec | InvalidSpecError | None = None  # the spec, if it was validated before
    devices: Devices = DEFAULT_DEVICES

    @property
    def spec(self) -> LLMAppSpec | InvalidSpecError:
        """Or what is wrong with it."""
        if self.loaded is not None:
            return self.loaded
        return loaded(partial(load_app, devices=self.devices), self.app.get("spec") or {})

    @property
    def deployment(self) -> Manifest:
        """Empty if there is none."""
        return self.deployments[0] if self.deployments else {}


def observe(cache: Cache, key: Key, settings: Settings, specs: Specs[LLMAppSpec], sources: Contents) -> Observed | None:
    app = cache.get(key.kind, key.namespace, key.name)
    if app is None:
        return None
    serving = serving_of(app)
    return Observed(
        app=app,
        serving=cache.get(SERVING.name, key.namespace, serving) if serving else None,
        embedders={
            name: found
            for name in embedders_of(app)
            if (found := cache.get(SERVING.name, key.namespace, name)) is not None
        },
        sources=sources,
        deployments=tuple(cache.children(DEPLOYMENT.name, key)),
        services=tuple(cache.children(SERVICE.name, key)),
        disruption_budgets=tuple(cache.children(DISRUPTION_BUDGET.name, key)),
        network_policies=tuple(cache.children(NETWORK_POLICY.name, key)),
        config_maps=tuple(cache.children(CONFIG_MAP.name, key)),
        jobs=tuple(cache.children(JOB.name, key)),
        pods=tuple(cache.children(POD.name, key)),
        claims=frozenset(claim["metadata"]["name"] for claim in cache.objects(CLAIM.name, key.namespace)),
        app_image=settings.app_image,
        pull_secrets=settings.child_image_pull_secrets,
        network=Network.of(settings.network_policies, settings.pod_namespace),
        loaded=specs.of(app),
        devices=settings.devices,
    )


def serving_of(app: Manifest) -> str:
    """The name of the serving that an app follows, read from a spec that may be wrong."""
    return text_at(app, "spec", "model", "serving", "name")


def embedders_of(app: Manifest) -> list[str]:
    """The names of the servings that embed its knowledge, each once."""
    found = (text_at(one, "embedding", "serving", "name") for one in objects_at(app, "spec", "knowledge"))
    return list(dict.fromkeys(name for name in found if name))
