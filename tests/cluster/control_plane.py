"""etcd, the API server, the controller manager and the scheduler as plain processes."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

from tests.cluster.pki import Authority
from tests.cluster.processes import Processes, run, wait

# Who did what to which object, and when: tests count writes by it.
AUDIT_POLICY = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n- level: Metadata\n"


@dataclass(frozen=True)
class ControlPlane:
    """On loopback by default: an API server for tests that need no node."""

    binaries: Path
    state: Path
    address: str = "127.0.0.1"
    port: int = 16443
    etcd_port: int = 12379
    service_range: str = "10.215.0.0/16"  # of IPv4 or IPv6, or both with a comma between
    controller_options: tuple[str, ...] = ()

    @property
    def processes(self) -> Processes:
        return Processes(self.state)

    @property
    def authority(self) -> Authority:
        return Authority(self.state / "pki")

    @property
    def server(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address  # IPv6
        return f"https://{host}:{self.port}"

    @property
    def kubeconfig(self) -> Path:
        return self.state / "admin.kubeconfig"

    @property
    def audit_log(self) -> Path:
        return self.state / "audit.log"

    def kubectl(self, *arguments: object, check: bool = True) -> str:
        return run(self.binaries / "kubectl", "--kubeconfig", self.kubeconfig, *arguments, check=check).stdout

    def start(self, *, controllers: bool = True, scheduler: bool = True) -> None:
        """Up and answering /readyz; a running part is left as it is."""
        self.state.mkdir(parents=True, exist_ok=True)
        self.make_identities()
        self.start_etcd()
        self.start_api_server()
        if controllers:
            self.start_controller_manager()
        if scheduler:
            self.start_scheduler()

    def stop(self) -> None:
        for name in ("kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd"):
            self.processes.stop(name)

    def make_identities(self) -> None:
        service_ip = ip_network(self.service_range.split(",")[0])[1]
        authority = self.authority
        authority.create()
        addresses = f"IP:{self.address},IP:127.0.0.1,IP:{service_ip}"
        names = f"{addresses},DNS:kubernetes.default.svc,DNS:kubernetes.default,DNS:localhost"
        authority.issue("apiserver", "/CN=kube-apiserver", names)
        authority.issue("apiserver-kubelet", "/O=system:masters/CN=kube-apiserver-kubelet-client")
        authority.issue("admin", "/O=system:masters/CN=admin")
        for name in ("kube-controller-manager", "kube-scheduler", "kube-proxy"):
            authority.issue(name, f"/CN=system:{name}")
        for name in ("admin", "kube-controller-manager", "kube-scheduler", "kube-proxy"):
            authority.kubeconfig(name, self.server, self.state / f"{name}.kubeconfig")

    def refuse_taken_port(self, name: str, address: str, port: int) -> None:
        """Another etcd on the same port would serve this API server, and nobody would notice."""
        if self.processes.pid(name):
            return
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                raise RuntimeError(f"{name} can't have {address}:{port}: {error}; end what listens there") from error

    def start_etcd(self) -> None:
        client, peer = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{self.etcd_port + 1}"
        self.refuse_taken_port("etcd", "127.0.0.1", self.etcd_port)
        self.processes.start(
            "etcd",
            [
                self.binaries / "etcd", "--data-dir", self.state / "etcd", "--unsafe-no-fsync", "--log-level", "warn",
                "--listen-client-urls", client, "--advertise-client-urls", client,
                "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                "--initial-cluster", f"default={peer}",
            ],
        )  # fmt: skip

    def start_api_server(self) -> None:
        pki = self.authority.folder
        (self.state / "audit-policy.yaml").write_text(AUDIT_POLICY)
        self.refuse_taken_port("kube-apiserver", self.address, self.port)
        self.processes.start(
            "kube-apiserver",
            [
                self.binaries / "kube-apiserver",
                f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
                f"--bind-address={self.address}",
                f"--advertise-address={self.address}",
                f"--secure-port={self.port}",
                f"--service-cluster-ip-range={self.service_range}",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                "--allow-privileged=true",
                "--enable-aggregator-routing=true",
                "--kubelet-preferred-address-types=InternalIP",  # a node's name doesn't resolve here
                f"--client-ca-file={pki}/ca.crt",
                f"--tls-cert-file={pki}/apiserver.crt",
                f"--tls-private-key-file={pki}/apiserver.key",
                f"--service-account-key-file={pki}/sa.key",
                f"--service-account-signing-key-file={pki}/sa.key",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--kubelet-certificate-authority={pki}/ca.crt",
                f"--kubelet-client-certificate={pki}/apiserver-kubelet.crt",
                f"--kubelet-client-key={pki}/apiserver-kubelet.key",
                "--default-not-ready-toleration-seconds=10",
                "--default-unreachable-toleration-seconds=10",
                f"--audit-policy-file={self.state}/audit-policy.yaml",
                f"--audit-log-path={self.audit_log}",
            ],
        )

        def ready() -> bool:
            if not self.processes.alive("kube-apiserver"):
                raise RuntimeError(f"kube-apiserver ended:\n{self.processes.log_tail('kube-apiserver')}")
            return self.kubectl("get", "--raw", "/readyz", check=False) == "ok"

        wait("the API server", ready)

    def start_controller_manager(self) -> None:
        pki = self.authority.folder
        self.processes.start(
            "kube-controller-manager",
            [
                self.binaries / "kube-controller-manager",
                f"--kubeconfig={self.state}/kube-controller-manager.kubeconfig",
                "--use-service-account-credentials",
                f"--service-account-private-key-file={pki}/sa.key",
                f"--root-ca-file={pki}/ca.crt",
                f"--cluster-signing-cert-file={pki}/ca.crt",
                f"--cluster-signing-key-file={pki}/ca.key",
                "--secure-port=0",
                "--pvclaimbinder-sync-period=1s",  # else a static volume binds after up to 15 s
                "--node-monitor-period=1s",
                "--node-monitor-grace-period=8s",
                "--leader-elect=false",
                *self.controller_options,
            ],
        )

    def start_scheduler(self) -> None:
        self.processes.start(
            "kube-scheduler",
            [
                self.binaries / "kube-scheduler",
                f"--kubeconfig={self.state}/kube-scheduler.kubeconfig",
                "--secure-port=0",
                "--leader-elect=false",
            ],
        )


def free_ports(count: int) -> int:
    """The first of so many ports of loopback, one after another, on which nobody listens."""
    while True:
        with ExitStack() as probes:
            try:
                first = 0
                for offset in range(count):
                    probe = probes.enter_context(socket.socket())
                    probe.bind(("127.0.0.1", first + offset if first else 0))
                    first = first or probe.getsockname()[1]
            except OSError:
                continue
            return first
