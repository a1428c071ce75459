"""`kubectl llm` by a real kubectl against a real API server: what it shows, changes, refuses, and what it costs."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kubectl_llm.kubectl import ExitCode
from tests.app_specs import PLAIN
from tests.cluster.control_plane import ControlPlane
from tests.cluster.settings import REPOSITORY
from tests.specs import SERVING, TRAINING

_numbers = itertools.count(1)
GROUP = "llm-operator.io"
STAGE: dict[str, Any] = {"name": "base", "kind": "pretrain", "state": "Running"}


def at(step: int) -> dict[str, Any]:
    """A status."""
    told = {**STAGE, "progress": {"step": step, "steps": 10, "loss": "2.5"}}
    return {"phase": "Running", "stage": "base", "stages": [told]}


RUNNING = at(3)
USER = "plugin-tests"


@dataclass(frozen=True)
class Shell:
    """Of a user who has the plugin on the PATH. ``kubeconfig``: theirs."""

    plane: ControlPlane
    path: str
    namespace: str
    kubeconfig: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PATH": self.path, "KUBECONFIG": str(self.kubeconfig)}

    def command(self, *words: str) -> list[str]:
        return [str(self.plane.binaries / "kubectl"), "llm", *words]

    def run(self, *words: str, anywhere: bool = False) -> subprocess.CompletedProcess[str]:
        where = () if anywhere else ("-n", self.namespace)
        return subprocess.run(
            self.command(*words, *where), env=self.environment, capture_output=True, text=True, check=False, timeout=60
        )

    def says(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, *words: str) -> tuple[int, str]:
        done = self.run(*words)
        assert done.returncode != 0, done.stdout
        assert done.stderr.startswith("kubectl llm: "), done.stderr
        assert done.stderr.count("\n") == 1, "one line"
        return done.returncode, done.stderr

    def make(self, kind: str, name: str, spec: dict[str, Any], status: dict[str, Any] | None = None) -> None:
        manifest = {"apiVersion": f"{GROUP}/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        file = self.kubeconfig.parent / f"{name}.json"
        file.write_text(json.dumps(manifest))
        self.plane.kubectl("-n", self.namespace, "create", "-f", file)
        if status is not None:
            self.tell(kind, name, status)

    def tell(self, kind: str, name: str, status: dict[str, Any]) -> None:
        self.plane.kubectl("-n", self.namespace, "patch", f"{kind.lower()}s.{GROUP}", name, "--subresource=status",
                           "--type=merge", "-p", json.dumps({"status": status}))  # fmt: skip

    def spec(self, name: str) -> dict[str, Any]:
        text = self.plane.kubectl("-n", self.namespace, "get", f"llmtrainings.{GROUP}", name, "-o", "json")
        found: dict[str, Any] = json.loads(text)["spec"]
        return found


@pytest.fixture
def shell(api_server: ControlPlane, tmp_path: Path) -> Shell:
    api_server.authority.issue(USER, f"/O=system:masters/CN={USER}")
    theirs = api_server.authority.kubeconfig(USER, api_server.server, tmp_path / USER)
    return a_shell(api_server, tmp_path, theirs.read_text())


def a_shell(plane: ControlPlane, folder: Path, kubeconfig: str) -> Shell:
    (folder / "bin").mkdir()
    for name, module in (("kubectl-llm", "kubectl_llm"), ("kubectl_complete-llm", "kubectl_llm.completion")):
        script = folder / "bin" / name
        main = f"import sys; sys.path.insert(0, {str(REPOSITORY / 'kubectl_plugin')!r})\n"
        entry = f"from {module}{'.__main__' if module == 'kubectl_llm' else ''} import main\nmain()\n"
        script.write_text(f"#!{sys.executable} -I\n{main}{entry}")
        script.chmod(0o755)
    file = folder / "kubeconfig"
    file.write_text(kubeconfig)
    namespace = f"plugin-{next(_numbers)}"
    plane.kubectl("create", "namespace", namespace)
    path = f"{folder / 'bin'}:{plane.binaries}:{os.environ['PATH']}"
    return Shell(plane, path, namespace, file)


def test_what_it_shows(shell: Shell) -> None:
    assert "no LLMTraining" in shell.says("status")
    shell.make("LLMTraining", "chat", TRAINING)
    assert "no operator has looked at it yet" in shell.says("status", "chat")
    shell.tell("LLMTraining", "chat", RUNNING)
    shell.make("LLMServing", "chat", SERVING)
    told = shell.says("status")
    assert "training chat  Running\n" in told
    assert "3/10 30%" in told
    assert "serving chat  Pending" in told
    assert "training" not in shell.says("status", "llms/chat")
    assert [one["kind"] for one in json.loads(shell.says("status", "chat", "-o", "json"))["items"]] == [
        "LLMTraining", "LLMServing"]  # fmt: skip
    assert "3/10" in shell.says("progress")
    assert "chat      Running" not in shell.says("top", "--all-namespaces")
    assert f"{shell.namespace}/chat" in shell.says("top", "--all-namespaces")
    assert "\x1b" not in told, "no colour where nobody looks"


def test_a_named_one_that_failed_is_an_exit_code(shell: Shell) -> None:
    failed = {"phase": "Failed", "conditions": [{"type": "Failed", "status": "True", "reason": "DataError",
              "message": "corpus.jsonl:3: no text", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}  # fmt: skip
    shell.make("LLMTraining", "chat", TRAINING, failed)
    done = shell.run("status", "chat")
    assert done.returncode == ExitCode.FAILED
    assert "DataError: corpus.jsonl:3: no text" in done.stdout
    assert shell.run("status").returncode == 0, "a list is no question about one of them"


def test_what_it_changes(shell: Shell) -> None:
    shell.make("LLMTraining", "chat", TRAINING, RUNNING)
    assert "asked to stop" in shell.says("suspend", "chat")
    assert shell.spec("chat")["suspend"] is True
    assert "suspended already" in shell.says("suspend", "chat")
    assert "goes on" in shell.says("resume", "chat")
    assert shell.spec("chat")["suspend"] is False
    assert "chat is Running" in shell.refused("retry", "chat")[1]
    shell.tell("LLMTraining", "chat", {"phase": "Failed"})
    assert "taken up at stage base" in shell.says("retry", "chat")
    assert shell.spec("chat")["restartToken"]


def test_what_is_not_there(shell: Shell) -> None:
    for words in (
        ("status", "ghost"),
        ("progress", "ghost"),
        ("logs", "ghost"),
        ("suspend", "ghost"),
        ("chat", "ghost"),
    ):
        code, told = shell.refused(*words)
        assert (code, "ghost" in told) == (ExitCode.NOT_FOUND, True), told
    shell.make("LLMTraining", "chat", TRAINING)
    assert "begun no stage yet" in shell.refused("logs", "chat")[1]
    shell.make("LLMServing", "chat", SERVING)
    assert "answers nobody yet" in shell.refused("chat", "chat", "hello")[1]


def test_a_user_without_rights(api_server: ControlPlane, tmp_path: Path) -> None:
    api_server.authority.issue("nobody", "/CN=nobody")
    theirs = api_server.authority.kubeconfig("nobody", api_server.server, tmp_path / "nobody").read_text()
    shell = a_shell(api_server, tmp_path, theirs)
    code, told = shell.refused("status")
    assert code == ExitCode.FORBIDDEN, told
    assert 'User "nobody" cannot list' in told


def test_nobody_answers(api_server: ControlPlane, tmp_path: Path) -> None:
    gone = api_server.kubeconfig.read_text().replace(f":{api_server.port}", ":1")
    code, told = a_shell(api_server, tmp_path, gone).refused("status")
    assert code == ExitCode.UNREACHABLE, told


def test_a_cluster_without_the_definitions(shell: Shell) -> None:
    """kubectl asks the server what it has; what it doesn't have is the same as of a cluster without ours."""
    file = shell.kubeconfig.parent / "bin" / "kubectl-llm"
    file.write_text(file.read_text().replace("import main\n", "import main\nimport kubectl_llm.__main__ as entry\n"
                                             "entry.KINDS = ('llmothers.llm-operator.io',)\n"))  # fmt: skip
    code, told = shell.refused("status")
    assert code == ExitCode.NOT_INSTALLED
    assert "install the chart" in told


def test_a_cluster_of_an_operator_that_is_older_than_apps(shell: Shell) -> None:
    """What there is is shown; who asks for an app by name is told."""
    file = shell.kubeconfig.parent / "bin" / "kubectl-llm"
    later = "llmapps-of-later.llm-operator.io"
    file.write_text(file.read_text().replace(
        "import main\n", f"import main\nimport kubectl_llm.__main__ as entry, kubectl_llm.talk as talk\n"
        f"entry.KINDS = (*entry.KINDS[:2], {later!r})\ntalk.APPS = {later!r}\n"))  # fmt: skip
    shell.make("LLMTraining", "chat", TRAINING, RUNNING)
    assert "training chat" in shell.says("status")
    assert "training chat" in shell.says("status", "chat")
    assert "chat" in shell.says("top")
    code, told = shell.refused("status", f"{later}/help")
    assert code == ExitCode.NOT_INSTALLED
    assert "upgrade the chart" in told
    assert "no serving and no app ghost" in shell.refused("chat", "ghost", "hello")[1]


def test_an_app(shell: Shell) -> None:
    shell.make("LLMApp", "help", PLAIN)
    assert "no operator has looked at it yet" in shell.says("status", "llmapp/help")
    assert "app help answers nobody yet" in shell.refused("chat", "help", "hello")[1]
    waits = {"type": "Ready", "status": "False", "reason": "ServingNotFound", "message": "no LLMServing chat",
             "lastTransitionTime": "2026-01-01T00:00:00Z"}  # fmt: skip
    shell.tell("LLMApp", "help", {"phase": "Waiting", "conditions": [waits]})
    assert "ServingNotFound: no LLMServing chat" in shell.says("status", "help")
    assert "answers nobody yet: ServingNotFound" in shell.refused("chat", "llmapp/help", "hello")[1]
    code, told = shell.refused("chat", "help", "hello", "--system", "Be brief.")
    assert (code, "spec.prompt" in told) == (ExitCode.USAGE, True)
    assert json.loads(shell.says("status", "help", "-o", "json"))["items"][0]["kind"] == "LLMApp"
    assert "app    help" in shell.says("top")
    shell.make("LLMServing", "help", SERVING)
    code, told = shell.refused("chat", "llms/help", "hello")
    assert "serving help answers nobody yet" in told


def test_progress_costs_one_watch_at_most(shell: Shell) -> None:
    shell.make("LLMTraining", "chat", TRAINING, RUNNING)
    before = len(asked(shell))
    with watching(shell) as seen:
        seen("3/10")
        for step in range(4, 9):
            shell.tell("LLMTraining", "chat", at(step))
            seen(f"{step}/10")
        shell.plane.kubectl("-n", shell.namespace, "delete", f"llmtrainings.{GROUP}", "chat")
        seen("no LLMTraining")
    verbs = asked(shell)[before:]
    assert sorted(set(verbs)) == ["list", "watch"], verbs
    assert len(verbs) == 2, f"a list and a watch, whatever happens: {verbs}"


def watching(shell: Shell) -> Any:
    return _Watching(shell)


class _Watching:
    """`progress --watch`, until the block ends."""

    def __init__(self, shell: Shell) -> None:
        self.process = subprocess.Popen(shell.command("progress", "--watch", "-n", shell.namespace),
                                        env=shell.environment, stdout=subprocess.PIPE, text=True)  # fmt: skip

    def __enter__(self) -> Callable[[str], None]:
        lines: Iterator[str] = iter(self.process.stdout or ())

        def seen(text: str) -> None:
            for line in lines:
                if text in line:
                    return
            pytest.fail(f"{text} was never shown")

        return seen

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(2)
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


def asked(shell: Shell) -> list[str]:
    """Verbs of the plugin's user on our kinds in this namespace, by the API server's audit log."""
    time.sleep(0.5)  # it is written beside the answers
    events = [json.loads(line) for line in shell.plane.audit_log.read_text().splitlines()]
    return [
        event["verb"] for event in events
        if event.get("stage") in ("ResponseStarted", "ResponseComplete") and event["verb"] in ("get", "list", "watch")
        and event["user"]["username"] == USER and (event.get("objectRef") or {}).get("namespace") == shell.namespace
        and not (event["verb"] == "watch" and event["stage"] == "ResponseComplete")
    ]  # fmt: skip


def test_words_for_a_shell(shell: Shell) -> None:
    """kubectl asks the plugin's own completion, which asks the cluster for names."""
    shell.make("LLMTraining", "chat", TRAINING)
    asked = [str(shell.plane.binaries / "kubectl"), "__complete", "llm"]
    for words, wanted in (([""], "status"), (["logs", "-n", shell.namespace, "c"], "chat")):
        done = subprocess.run([*asked, *words], env=shell.environment, capture_output=True, text=True, check=True)
        assert wanted in done.stdout, done
