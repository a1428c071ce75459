"""A pod's entry point: `python -m llm_trainer.storage.publish` brings a stage's result to a bucket or a hub.

Whole or not at all, and without sending again what is there already, so a pod that is killed costs what was in flight.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType

from llm_trainer.runtime.startup import importing

with importing():
    from llm_trainer.config import PUBLISH_VARIABLE, PublishConfig, parse
    from llm_trainer.protocol import ExitCode, PublishedResult, Termination
    from llm_trainer.runtime.errors import StorageError, classify
    from llm_trainer.runtime.last_words import report
    from llm_trainer.storage.credentials import Credential, read_credential
    from llm_trainer.storage.publication import Target, result_files
    from llm_trainer.storage.remote_files import TransientError


def target_of(config: PublishConfig) -> Target:
    remote = parse(config.to)
    credential = next(
        (
            read_credential(each.target, each.secret_name, Path(each.folder))
            for each in config.credentials
            if each.target == remote.target
        ),
        Credential(remote.target),
    )
    if remote.scheme == "hf":
        from llm_trainer.storage.upload_hub import HubTarget

        return HubTarget(config.to, remote, credential, private=config.private)
    from llm_trainer.storage.upload_bucket import BucketTarget

    return BucketTarget(config.to, remote, credential)


def publish(config: PublishConfig) -> PublishedResult:
    """Raises DataError for what no other try mends, StorageError for what may pass by."""
    files = result_files(config)
    print(f"publishing {config.result}, {files.size:,} bytes, to {config.to}", flush=True)
    try:
        return target_of(config).publish(files)
    except TransientError as error:
        raise StorageError(f"{error}; the next try goes on with what is there") from error


def leave(number: int, frame: FrameType | None) -> None:
    """Nothing is to be put in order: what is there counts at the next try."""
    report(Termination(reason="Preempted", message="asked to leave", exit_code=ExitCode.PREEMPTED))
    os._exit(ExitCode.PREEMPTED)


def main() -> int:
    signal.signal(signal.SIGTERM, leave)
    try:
        done = publish(PublishConfig.model_validate_json(os.environ[PUBLISH_VARIABLE]))
    except Exception as error:  # noqa: BLE001 -- whatever it is, the status must tell it
        code, reason, message = classify(error)
        print(message, file=sys.stderr, flush=True)
        report(Termination(reason=reason, message=message, exit_code=code))
        return code
    print(f"published, revision {done.revision}", flush=True)
    report(Termination(reason="Succeeded", published=done))
    return 0


if __name__ == "__main__":
    sys.exit(main())
