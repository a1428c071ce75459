"""Run folders as trainings leave them, made by the code that leaves them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from llm_trainer.checkpoint.record import StageRecord, write_record
from llm_trainer.data.manifest import DataManifest, QualityRecord, Shard, SourceCounts, write_manifest
from llm_trainer.protocol import Notice, Progress, Result
from llm_trainer.runtime.history import dump_json

HALF = "\ud800"  # of a pair: JSON can spell it, UTF-8 can't
HOSTILE = "</pre><script>alert(1)</script>\x00\x0b ``` | **bold** ![](http://x/y) 漢字 "
DIGEST = f"sha256:{'a' * 64}"
BEGAN = 1_700_000_000.0


def config(stage: str, kind: str, settings: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"training": "chat", "namespace": "team", "uid": "u", "stage": stage, "attempt": 1, "nodes": 2,
            "processesPerNode": 4, "device": "cuda", "runUri": "pvc://models/run", kind: settings, **more}  # fmt: skip


def leave(folder: Path, config: dict[str, Any], rows: list[dict[str, Any]], end: Progress | None = None) -> Path:
    stage: Path = folder / "stages" / config["stage"]
    stage.mkdir(parents=True)
    write_record(stage, StageRecord(config=config, digests={"data": DIGEST}, end=end))
    (stage / "history.jsonl").write_text("".join(dump_json(row) + "\n" for row in rows))
    return stage


def steps(count: int, first: int = 1, attempt: int = 1, began: float = BEGAN) -> list[dict[str, Any]]:
    return [
        {"step": step, "time": began + 10 + step, "attempt": attempt, "loss": 9 / math.sqrt(step),
         "learningRate": 1e-3, "gradNorm": 1.0 + step % 3, "tokensPerSecond": 1e4, "applied": True,
         "figures": {"router/balanceLoss": 2.0}}
        for step in range(first, first + count)
    ]  # fmt: skip


def result(stage: str, kind: str = "model", **more: Any) -> Progress:
    made = Result(uri=f"pvc://models/run/stages/{stage}/results/1", digest=DIGEST, kind=kind, step=60, **more)
    return Progress(stage=stage, attempt=1, step=60, result=made, heartbeat=BEGAN + 500,
                    notices=[Notice(reason="TakenOver", message=HOSTILE)])  # fmt: skip


def a_run(folder: Path) -> Path:
    """Data, a pretrain stage that was killed once, an adapter under way; every word in it is an attack."""
    (folder / "data").mkdir(parents=True)
    sources = [
        SourceCounts(name=f"web {HOSTILE}"[:60], uri="pvc://c/x", language="ja", domain="web", duplicates=3),
        SourceCounts(name="books", uri="pvc://c/y", language="en", domain="books", license="CC0", documents=7),
    ]
    shards = [
        Shard(file=f"{s.name}.bin", split="train", source=s.name, language=s.language, domain=s.domain, tokens=1000 * n,
              documents=7, bytes=9, sha256="0")
        for n, s in enumerate(sources, start=1)
    ]  # fmt: skip
    quality = QualityRecord(report="quality/report.html", sha256="0", dropped={"gopher.words": 12})
    write_manifest(folder / "data", DataManifest(vocabulary_size=9, eos_token_id=0, dtype="uint16", sources=sources,
                                                 shards=shards, quality=quality, digest=DIGEST))  # fmt: skip
    spent = {"Starting": 10.0, "Preparing": 20.0}
    leave(folder, config("data", "prepareData", {"tokenizer": {}}),
          [{"step": 0, "time": BEGAN - 70, "attempt": 1, "began": BEGAN - 100, "spent": spent}],
          result("data", "data"))  # fmt: skip
    held_out = [
        {"step": step, "time": BEGAN + 12 + step, "attempt": 1,
         "evaluation": {"loss": 9 / (1 + step), f"bitsPerByte/{HOSTILE}": 1.0}}
        for step in (0, 20)
    ]  # fmt: skip
    dropped = {"attempt": 1, "began": BEGAN, "time": BEGAN + 45, "spent": {"Starting": 10.0, "Training": 20.0}}
    restart = {"step": 20, "time": BEGAN + 70, "attempt": 2, "began": BEGAN + 60, "spent": {"Starting": 10.0},
               "lost": {"steps": 15, "seconds": 15.0, "attempts": [dropped]}}  # fmt: skip
    ended = {"Starting": 10.0, "Training": 80.0, "Evaluating": 5.0, "Saving": 3.0, "Exporting": 2.0}
    more = [{"step": 41, "time": BEGAN + 120, "attempt": 2, "action": "RollBack", "message": HOSTILE},
            {"step": 42, "time": BEGAN + 121, "attempt": 2, "loss": "NaN", "gradNorm": "Infinity"},
            {"step": 60, "time": BEGAN + 160, "attempt": 2, "gate": {"missed": ["loss 3 > 2"]},
             "scores": [{"task": "tiny", "metric": "acc", "value": 0.5, "stderr": 0.02}],
             "samples": [{"prompt": HOSTILE, "answer": HALF + HOSTILE * 5}]},
            {"step": 60, "time": BEGAN + 160, "attempt": 2, "began": BEGAN + 60, "spent": ended}]  # fmt: skip
    tuned: dict[str, Any] = {"step": 0, "time": BEGAN + 13, "attempt": 1, "message": HOSTILE,
             "tune": {"sizes": [1, 2], "tokensPerSecond": [1234.5, "NaN"], "peakBytes": [7]}}  # fmt: skip
    rows = [*held_out[:1], tuned, *steps(20), *held_out[1:], restart, *steps(20, 21, 2, BEGAN + 50), *more]
    leave(folder, config("base", "pretrain", {"sequenceLength": 64, "steps": 60}), rows, result("base"))
    adapter = leave(folder, config("legal", "sft", {"dataset": {"uri": "pvc://c/z"}}), steps(3, began=BEGAN + 900),
                    result("legal", "adapter", base="pvc://models/base"))  # fmt: skip
    with (adapter / "history.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    return folder
