"""Every field that a user may set of pods, and every way to get one wrong."""

from __future__ import annotations

from typing import Any

from tests.specs import SERVING, TRAINING, Spec, Wrong, changed

Pods = dict[str, Any]

IN = {"key": "zone", "operator": "In", "values": ["a", "b"]}
POD_TERM = {
    "labelSelector": {"matchLabels": {"app": "cache"}, "matchExpressions": [{"key": "tier", "operator": "Exists"}]},
    "namespaces": ["team-cache"],
    "topologyKey": "topology.kubernetes.io/zone",
}
POD_AFFINITY = {
    "requiredDuringSchedulingIgnoredDuringExecution": [POD_TERM],
    "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 10, "podAffinityTerm": POD_TERM}],
}
VOLUMES = [
    {"name": "scratch", "hostPath": {"path": "/mnt/nvme", "type": "Directory"}},
    {"name": "empty", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}},
    {"name": "claim", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}},
    {"name": "settings", "configMap": {"name": "settings", "defaultMode": 0o440, "optional": True}},
    {"name": "keys", "secret": {"secretName": "keys", "defaultMode": 0o400, "optional": True}},
    {"name": "share", "nfs": {"server": "nfs.example", "path": "/corpus", "readOnly": True}},
    {
        "name": "bucket",
        "csi": {
            "driver": "gcsfuse.csi.storage.gke.io",
            "readOnly": True,
            "volumeAttributes": {"bucketName": "corpus"},
            "nodePublishSecretRef": {"name": "bucket"},
        },
    },
    {
        "name": "local",
        "ephemeral": {
            "volumeClaimTemplate": {
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "storageClassName": "local-nvme",
                    "resources": {"requests": {"storage": "100Gi"}},
                }
            }
        },
    },
]
STAGE_PODS: Pods = {
    "labels": {"cost-center": "42", "sidecar.istio.io/inject": "false"},
    "annotations": {"karpenter.sh/do-not-disrupt": "true"},
    "nodeSelector": {"pool": "gpu"},
    "tolerations": [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "spot", "operator": "Equal", "value": "yes", "effect": "NoExecute", "tolerationSeconds": 60},
    ],
    "priorityClassName": "urgent",
    "schedulerName": "volcano",
    "runtimeClassName": "nvidia",
    "serviceAccountName": "trainer",
    "terminationGracePeriodSeconds": 900,
    "env": [
        {"name": "NODE_NAME", "value": "mine"},
        {"name": "HOME", "value": "/scratch"},
        {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf", "key": "token", "optional": True}}},
        {"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "mode", "optional": True}}},
        {"name": "HOST_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
        {"name": "CPUS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1"}}},
    ],
    "volumeMounts": [
        {"name": "scratch", "mountPath": "/tmp/"},
        *({"name": volume["name"], "mountPath": f"/mnt/{volume['name']}"} for volume in VOLUMES[1:-1]),
        {"name": "local", "mountPath": "/scratch", "subPath": "run", "readOnly": True},
    ],
    "shmSize": "64Gi",
    "resourceClaims": [
        {"name": "gpus", "resourceClaimTemplateName": "eight-gpus"},
        {"name": "fabric", "resourceClaimName": "fabric"},
    ],
}
# What ALL_PODS names that the API server looks up.
NAMED_BY_ALL_PODS = (
    {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "urgent"}, "value": 7},
    {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}, "handler": "nvidia"},
    {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "trainer"}},
)
ALL_PODS: Pods = {
    **STAGE_PODS,
    "hostNetwork": True,
    "dnsPolicy": "ClusterFirstWithHostNet",
    "envFrom": [
        {"prefix": "S3_", "secretRef": {"name": "bucket", "optional": True}},
        {"configMapRef": {"name": "settings", "optional": True}},
    ],
    "volumes": VOLUMES,
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [IN]}]},
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 100, "preference": {"matchExpressions": [{**IN, "operator": "NotIn"}]}}
            ],
        },
        "podAffinity": POD_AFFINITY,
        "podAntiAffinity": POD_AFFINITY,
    },
    "topologySpreadConstraints": [
        {
            "maxSkew": 2,
            "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "ScheduleAnyway",
            "matchLabelKeys": ["pod-template-hash"],
            "nodeAffinityPolicy": "Honor",
            "nodeTaintsPolicy": "Ignore",
        },
        {
            "maxSkew": 1,
            "topologyKey": "rack",
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"cost-center": "42"}},
        },
    ],
    "imagePullSecrets": [{"name": "registry"}],
    "securityContext": {
        "runAsUser": 1000680000,
        "runAsGroup": 1000680000,
        "runAsNonRoot": True,
        "fsGroup": 1000680000,
        "fsGroupChangePolicy": "Always",
        "supplementalGroups": [44, 109],
        "seLinuxOptions": {"user": "u", "role": "r", "type": "t", "level": "s0:c26,c5"},
    },
    "containerSecurityContext": {
        "capabilities": {"add": ["IPC_LOCK"]},
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": False,
        "runAsUser": 1000680001,
        "runAsGroup": 1000680001,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "Localhost", "localhostProfile": "profiles/trainer.json"},
    },
}


def deep(levels: int) -> Any:
    nested: Any = {}
    for _ in range(levels):
        nested = {"a": nested}
    return nested


def with_pods(pods: Pods) -> Spec:
    return changed(TRAINING, pods=pods)


def wrong(name: str, path: str, says: str, pods: Pods, *, at_server: bool = True) -> Wrong:
    """``path`` is that of a field of the pods."""
    return Wrong(name, with_pods(pods), f"spec.pods.{path}", says, at_server)


EMPTY = {"name": "mine", "emptyDir": {}}
MOUNTED = {"volumes": [EMPTY], "volumeMounts": [{"name": "mine", "mountPath": "/mnt"}]}
WRONG_PODS = (
    wrong("a label of ours", "labels", "set by the operator", {"labels": {"llm-operator.io/stage": "x"}}),
    wrong("a label of the Job's", "labels", "set by the operator", {"labels": {"job-name": "x"}}),
    wrong("an annotation of ours", "annotations", "set by the operator", {"annotations": {"llm-operator.io/x": "y"}}),
    wrong("a key that is none", "labels", "must match", {"labels": {"a b": "c"}}, at_server=False),
    wrong("a label that is none", "labels.a", "must match", {"labels": {"a": "-"}}, at_server=False),
    wrong("a variable twice", "env", "2 variables are named 'A'", {"env": [{"name": "A"}, {"name": "A"}]}),
    wrong("a name that is none", "env[0].name", "match the pattern", {"env": [{"name": "A=B"}]}),
    wrong("a value twice", "env[0]", "can't both be set",
          {"env": [{"name": "A", "value": "b", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]}),
    wrong("a value of nowhere", "env[0].valueFrom", "exactly one of", {"env": [{"name": "A", "valueFrom": {}}]}),
    wrong("a value of two", "env[0].valueFrom", "not secretKeyRef and configMapKeyRef",
          {"env": [{"name": "A", "valueFrom": {kind: {"name": "a", "key": "b"}
                                               for kind in ("secretKeyRef", "configMapKeyRef")}}]}),
    wrong("variables of nowhere", "envFrom[0]", "exactly one of", {"envFrom": [{"prefix": "A_"}]}),
    wrong("a volume of nothing", "volumes[0]", "exactly one of", {"volumes": [{"name": "mine"}]}),
    wrong("a volume of two", "volumes[0]", "not emptyDir and hostPath",
          {"volumes": [{**EMPTY, "hostPath": {"path": "/mnt"}}]}),
    wrong("a volume twice", "volumes", "2 volumes are named 'mine'", {"volumes": [EMPTY, EMPTY]}),
    *(
        wrong(f"a volume named {name}", "volumes[0].name", "one of ours", {"volumes": [{**EMPTY, "name": name}]},
              at_server=False)
        for name in ("tmp", "shm", "config", "model", "claim-0", "adapters-3", "result", "embedding-manual")
    ),
    wrong("a mount of no volume", "volumeMounts[0].name", "no volume 'mine'; the volumes are none",
          {"volumeMounts": [{"name": "mine", "mountPath": "/mnt"}]}, at_server=False),
    wrong("two mounts at a path", "volumeMounts", "2 mounts are at '/mnt'",
          {"volumes": [EMPTY], "volumeMounts": [{"name": "mine", "mountPath": path} for path in ("/mnt", "/mnt/")]},
          at_server=False),
    wrong("a mount at no path", "volumeMounts[0].mountPath", "match the pattern",
          {"volumes": [EMPTY], "volumeMounts": [{"name": "mine", "mountPath": "mnt"}]}),
    *(
        wrong(f"a mount at {path}", "volumeMounts[0].mountPath", "in the way of our",
              {"volumes": [EMPTY], "volumeMounts": [{"name": "mine", "mountPath": path}]}, at_server=False)
        for path in ("/", "/etc", "/etc/llm-operator", "/etc/llm-operator/x", "/volumes", "/volumes/models", "/tmp/..",
                     "/credentials/0")
    ),
    wrong("a size of what isn't there", "shmSize", "remove one",
          {"shmSize": "1Gi", "volumes": [EMPTY], "volumeMounts": [{"name": "mine", "mountPath": "/dev/shm"}]},
          at_server=False),
    wrong("a size that is none", "shmSize", "is no quantity", {"shmSize": "64 GB"}),
    wrong("a claim of nowhere", "resourceClaims[0]", "exactly one of", {"resourceClaims": [{"name": "gpus"}]}),
    wrong("root that may not be", "securityContext.runAsUser", "set runAsNonRoot: false",
          {"securityContext": {"runAsUser": 0}}, at_server=False),
    wrong("a container's root that may not be", "containerSecurityContext.runAsUser", "set runAsNonRoot: false",
          {"containerSecurityContext": {"runAsUser": 0}}, at_server=False),
    wrong("privileged and not", "containerSecurityContext.allowPrivilegeEscalation", "leave it out",
          {"containerSecurityContext": {"privileged": True, "allowPrivilegeEscalation": False}}, at_server=False),
    wrong("a user beyond all", "securityContext.runAsUser", "2147483647", {"securityContext": {"runAsUser": 2**31}}),
    wrong("no DNS of the cluster", "dnsPolicy", "2 pods find each other", {"dnsPolicy": "Default"}, at_server=False),
    wrong("no DNS of the cluster on the node's network", "dnsPolicy", "ClusterFirstWithHostNet follows",
          {"hostNetwork": True, "dnsPolicy": "ClusterFirst"}, at_server=False),
    wrong("an unknown field", "hostPID", "no such field", {"hostPID": True}),
    wrong("an unknown field within", "tolerations[0].kye", "no such field", {"tolerations": [{"kye": "a"}]}),
    wrong("a list that is none", "tolerations", "valid list", {"tolerations": {"key": "a"}}),
    wrong("a number that is none", "tolerations[0].tolerationSeconds", "valid integer",
          {"tolerations": [{"tolerationSeconds": "long"}]}),
    wrong("too many", "tolerations", "at most 32", {"tolerations": [{"operator": "Exists"}] * 33}),
    wrong("a deep toleration", "tolerations[0].key", "must be a text", {"tolerations": [{"key": deep(900)}]}),
    wrong("a deep affinity", "affinity.a", "no such field", {"affinity": deep(900)}),
    Wrong("a device for the data", changed(TRAINING, prepareData={"resources": {"limits": {"rdma/hca": 1}}}),
          "spec.prepareData.resources.limits[rdma/hca]", "uses no device", at_server=False),
    Wrong("a variable of the data's",
          changed(TRAINING, prepareData={"pods": {"env": [{"name": "A", "valueFrom": {}}]}}),
          "spec.prepareData.pods.env[0].valueFrom", "exactly one of"),
    Wrong("what no stage may set", changed(TRAINING, stages__1__pods={"affinity": {}}),
          "spec.stages[1].pods.affinity", "no such field"),
)  # fmt: skip
WRONG_SERVING_PODS = (
    Wrong("no time to drain", changed(SERVING, pods={"terminationGracePeriodSeconds": 79}),
          "spec.pods.terminationGracePeriodSeconds", "80"),
    Wrong("no time to drain longer", changed(SERVING, drainTimeoutSeconds=600,
                                             pods={"terminationGracePeriodSeconds": 619}),
          "spec.pods.terminationGracePeriodSeconds", "620"),
    Wrong("a serving's volume", changed(SERVING, pods={"volumes": [{"name": "mine"}]}),
          "spec.pods.volumes[0]", "exactly one of"),
)  # fmt: skip
RIGHT_PODS = {
    "every field": changed(with_pods(ALL_PODS), stages__1__pods=STAGE_PODS, prepareData={"pods": STAGE_PODS}),
    "no mount in a stage": changed(with_pods(MOUNTED), stages__1__pods={"volumeMounts": []}),
    "root": with_pods({"securityContext": {"runAsUser": 0, "runAsNonRoot": False}}),
    "privileged": with_pods({"containerSecurityContext": {"privileged": True}}),
    "one pod without the cluster's DNS": changed(with_pods({"dnsPolicy": "Default"}), nodes=1),
    "a place beside ours": with_pods(
        {"volumes": [EMPTY], "volumeMounts": [{"name": "mine", "mountPath": "/etc/llm-operator.d"}]}
    ),
    "resources of the data's own": changed(TRAINING, prepareData={"resources": {"limits": {"cpu": "4"}}}),
}
RIGHT_SERVING_PODS = {
    "every field": changed(SERVING, pods=ALL_PODS),
    "just enough time to drain": changed(SERVING, pods={"terminationGracePeriodSeconds": 80}),
}
