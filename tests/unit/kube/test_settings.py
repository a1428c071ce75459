"""Settings come from the environment; a bad one is named."""

from __future__ import annotations

import re

import pytest

from llm_operator.api.resources import DEFAULT_DEVICES, Devices
from llm_operator.settings import Settings, SettingsError


def test_defaults_need_no_environment() -> None:
    settings = Settings.from_environment({})
    assert settings.namespaces == ()
    assert settings.workers == 16


def test_values_are_read_by_upper_case_name() -> None:
    settings = Settings.from_environment({"NAMESPACES": "a, b,", "WORKERS": "4", "TRAINER_IMAGE": "registry/x:1"})
    assert settings.namespaces == ("a", "b")
    assert settings.workers == 4
    assert settings.trainer_image == "registry/x:1"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORKERS", "many"),
        ("PROBE_PORT", "99999"),
        ("LEASE_SECONDS", "1"),
        ("LOG_LEVEL", "LOUD"),
        ("GPU_RESOURCES", ","),
        ("GPU_RESOURCES", "gpu"),
        ("OTHER_RESOURCES", "cpu"),
        ("CHILD_IMAGE_PULL_SECRETS", "My Secret"),
        ("CHILD_IMAGE_PULL_SECRETS", "two..dots"),
        ("NETWORK_POLICIES", "yes"),
        ("NETWORK_POLICIES", '["enabled"]'),
    ],
)
def test_a_bad_value_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(f"{name}='{value}'")):
        Settings.from_environment({name: value})


def test_pull_secrets_of_children() -> None:
    given = Settings.from_environment({"CHILD_IMAGE_PULL_SECRETS": "mirror, hub"})
    assert given.child_image_pull_secrets == ("mirror", "hub")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ('{"enabled": true, "extraEgres": []}', "extraEgres: Extra inputs"),
        ('{"metricsFrom": [{}]}', "metricsFrom[0]: Value error, must have either ipBlock, or podSelector"),
        ('{"metricsFrom": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]}', "must have either ipBlock"),
        (
            '{"servingFrom": [{"ipBlock": {"cidr": "10.0.0.0"}}]}',
            "servingFrom[0].ipBlock.cidr: Value error, '10.0",
        ),
        ('{"servingFrom": [{"ipBlock": {"cidr": "300.0.0.0/8"}}]}', "servingFrom[0].ipBlock.cidr"),
        ('{"servingFrom": [{"ipBlock": {"cidr": "10.0.0.1/8"}}]}', "has host bits set"),
        ('{"servingFrom": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]}', "no part of cidr"),
        ('{"servingFrom": [{"ipBlock": {"cidr": "fd00::/8", "except": ["10.0.0.0/8"]}}]}', "no part of cidr"),
        ('{"extraEgress": [{"ports": [{"port": 70000}]}]}', "extraEgress[0].ports[0].port"),
        ('{"extraEgress": [{"ports": [{"port": "UPPER"}]}]}', "extraEgress[0].ports[0].port"),
        ('{"extraEgress": [{"ports": [{"port": 90, "endPort": 80}]}]}', "endPort needs a port"),
        ('{"extraEgress": [{"ports": [{"port": "dns", "endPort": 80}]}]}', "endPort needs a port"),
        ('{"extraEgress": [{"to": [{"podSelector": {"matchLabel": {}}}]}]}', "extraEgress[0].to[0].podSelector"),
    ],
)
def test_a_bad_place_in_a_value_is_named(value: str, says: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(says)):
        Settings.from_environment({"NETWORK_POLICIES": value})


def test_which_resources_are_gpus() -> None:
    assert Settings.from_environment({}).devices == DEFAULT_DEVICES
    given = {"GPU_RESOURCES": "nvidia.com/gpu, gpu.example.com/*", "OTHER_RESOURCES": ","}
    assert Settings.from_environment(given).devices == Devices(("nvidia.com/gpu", "gpu.example.com/*"), ())


def test_every_setting_has_a_description() -> None:
    assert all(field.description for field in Settings.model_fields.values())
