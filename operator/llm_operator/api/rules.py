"""CEL rules of the CRDs: what the API server can refuse by itself. ``validation`` has the same rules and more.

Here is what a rule is, and what several resources have; those of one are in training_rules.py, serving_rules.py and
app_rules.py.

A path is a tuple of fields below the root; "*" stands for the items of a list.
"""

from __future__ import annotations

from dataclasses import dataclass

from llm_operator.api.pods import OUR_DOMAINS, OUR_KEYS

Path = tuple[str, ...]


@dataclass(frozen=True)
class Rule:
    """One entry of x-kubernetes-validations."""

    rule: str
    message: str
    field_path: str = ""

    def as_schema(self) -> dict[str, str]:
        path = {"fieldPath": self.field_path} if self.field_path else {}
        return {"rule": self.rule, "message": self.message, **path}


def exactly_one(*fields: str) -> Rule:
    given = ", ".join(f"has(self.{field})" for field in fields)
    return Rule(f"[{given}].exists_one(x, x)", f"exactly one of {', '.join(fields)} must be set")


OURS = Rule(
    f"self.all(k, !(k in {list(OUR_KEYS)}) && "
    + " && ".join(f"!k.startsWith('{domain}')" for domain in OUR_DOMAINS)
    + ")",
    "has a key that the operator or Kubernetes sets; remove it",
)


def pod_rules(*pods: str) -> dict[Path, tuple[Rule, ...]]:
    """Of all the fields of the pods at a path."""
    return {
        **stage_pod_rules(*pods),
        (*pods, "envFrom", "*"): (exactly_one("secretRef", "configMapRef"),),
        (*pods, "volumes", "*"): (
            exactly_one(
                "emptyDir", "hostPath", "persistentVolumeClaim", "configMap", "secret", "nfs", "csi", "ephemeral"
            ),
        ),
    }


def stage_pod_rules(*pods: str) -> dict[Path, tuple[Rule, ...]]:
    """Of the fields that a stage may set."""
    return {
        (*pods, "labels"): (OURS,),
        (*pods, "annotations"): (OURS,),
        (*pods, "env", "*"): (
            Rule("!has(self.value) || !has(self.valueFrom)", "value and valueFrom can't both be set"),
        ),
        (*pods, "env", "*", "valueFrom"): (
            exactly_one("secretKeyRef", "configMapKeyRef", "fieldRef", "resourceFieldRef"),
        ),
        (*pods, "resourceClaims", "*"): (exactly_one("resourceClaimName", "resourceClaimTemplateName"),),
    }


def pod_list_keys(*pods: str) -> dict[Path, list[str]]:
    """Lists of which no two items may have the same key; no key is asked for where Kubernetes asks for none."""
    keys = {"env": "name", "volumes": "name", "volumeMounts": "mountPath", "resourceClaims": "name"}
    return {(*pods, field): [key] for field, key in keys.items()}


PODS = ("spec", "pods")
STAGE_PODS = (("spec", "stages", "*", "pods"), ("spec", "prepareData", "pods"))
NAME = Rule("self.metadata.name.size() <= 63", "metadata.name must have at most 63 characters: labels bear it")
LIST_KEYS: dict[Path, list[str]] = {
    ("spec", "stages"): ["name"],
    ("spec", "stages", "*", "evaluation", "tasks"): ["name"],
    ("spec", "data", "sources"): ["name"],
    ("spec", "publish"): ["to"],
    **pod_list_keys(*PODS),
    **{path: keys for pods in STAGE_PODS for path, keys in pod_list_keys(*pods).items()},
    ("spec", "adapters"): ["name"],
    ("spec", "knowledge"): ["name"],
    ("spec", "knowledge", "*", "sources"): ["name"],
    ("status", "conditions"): ["type"],
    ("status", "stages"): ["name"],
    ("status", "adapters"): ["name"],
    ("status", "inputs"): ["uri"],
    ("status", "knowledge"): ["name"],
    ("status", "stages", "*", "attempts"): ["number"],
    ("status", "stages", "*", "workers"): ["rank"],
}
# Of lists that a rule walks through, where the model says nothing: CEL's cost is estimated from them.
MOST_ITEMS: dict[Path, int] = {("status", "stages"): 17}  # one more than spec.stages may have
