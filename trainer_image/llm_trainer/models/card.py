"""A result's README.md: what the model is made of, as a model card of the Hugging Face hub."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from llm_trainer.config import KINDS, FineTuning, StageConfig, TrainingSettings, kind_of
from llm_trainer.data.manifest import DataManifest, read_manifest

CARD = "README.md"
LANGUAGE = re.compile(r"[a-z]{2,3}")  # what a card calls a language, of a BCP 47 tag


def write_card(folder: Path, config: StageConfig, settings: TrainingSettings, step: int, kind: str) -> None:
    """``kind``: of the result. Tells nothing of times and attempts: the same result has the same digest."""
    manifest = None if isinstance(settings, FineTuning) else read_manifest(config.data_folder)
    named = f"`{config.stage}` ({KINDS[kind_of(config)]}) of the LLMTraining `{config.namespace}/{config.training}`"
    parts = [
        front_matter(kind, manifest),
        f"# {config.training}: {config.stage}\n",
        f"{what(kind)} of the stage {named}, after step {step}.\n",
        *section("Base", base(config)),
        *section("Data", data(settings, manifest)),
        *section("Figures", figures(Path(config.stage_folder) / "history.jsonl", step)),
        *section("Settings", settings_block(settings)),
    ]
    (folder / CARD).write_text("\n".join(parts), encoding="utf-8")


def what(kind: str) -> str:
    return {"adapter": "The low-rank adapter", "rewardModel": "The reward model"}.get(kind, "The language model")


def front_matter(kind: str, manifest: DataManifest | None) -> str:
    sources = manifest.sources if manifest else []
    languages = {found[0] for source in sources if (found := LANGUAGE.match(source.language))}
    licences = sorted({source.license for source in sources if source.license})
    card = ModelCardData(
        language=sorted(languages) or None,
        license="other" if licences else None,
        license_name="; ".join(licences) or None,
        library_name="peft" if kind == "adapter" else "transformers",
        pipeline_tag="text-classification" if kind == "rewardModel" else "text-generation",
        tags=["llm-operator", "lora"] if kind == "adapter" else ["llm-operator"],
    )
    return f"---\n{card.to_yaml()}\n---\n"


def section(title: str, lines: Iterable[str]) -> Iterator[str]:
    text = "\n".join(lines)
    if text:
        yield f"## {title}\n\n{text}\n"


def base(config: StageConfig) -> Iterator[str]:
    if config.model and config.model.uri:
        digest = config.digests.get(config.model.uri)
        yield f"It starts from {code(config.model.uri)}{f', {digest}' if digest else ''}."
    elif config.model and config.model.architecture:
        yield f"From scratch, of the family `{config.model.architecture.family}`:\n"
        if function := config.model.architecture.function:
            yield f"Its first weights are those of `{function}`.\n"
        yield block(config.model.architecture.config)


def data(settings: TrainingSettings, manifest: DataManifest | None) -> Iterator[str]:
    if isinstance(settings, FineTuning):
        yield f"Rows of {code(settings.dataset.uri)}, {settings.dataset.validation_fraction:.1%} of them held out."
    if manifest is None:
        return
    yield f"{manifest.tokens('train'):,} tokens to learn from, digest `{manifest.digest}`:\n"
    yield "| source | URI | language | domain | licence | documents |"
    yield "|---|---|---|---|---|---|"
    for one in manifest.sources:
        cells = (one.name, one.uri, one.language, one.domain, one.license, f"{one.documents:,}")
        yield f"| {' | '.join(map(cell, cells))} |"


def figures(history: Path, step: int) -> Iterator[str]:
    """The last loss, and the last evaluation, up to the step."""
    rows = [row for row in map(parsed, read_lines(history)) if row.get("step", step + 1) <= step]
    shown: dict[str, Any] = {}
    for row in rows:
        shown |= {"training loss": row["loss"]} if "loss" in row else {}
        shown |= {f"held-out {name}": value for name, value in (row.get("evaluation") or {}).items()}
    if shown:
        yield "| figure | value |"
        yield "|---|---|"
    for name, value in shown.items():
        # a figure that is no number is a text in the history
        yield f"| {cell(name)} | {format(value, '.4g') if isinstance(value, int | float) else value} |"


def settings_block(settings: TrainingSettings) -> Iterator[str]:
    yield block(settings.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"model"}))


def block(content: Any) -> str:
    return f"```json\n{json.dumps(content, indent=1, ensure_ascii=False)}\n```"


def code(text: str) -> str:
    return f"`{text.replace('`', '')}`"


def cell(text: str) -> str:
    """Of a table: one line without the mark between two cells."""
    return " ".join(text.split()).replace("|", "\\|")


def read_lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def parsed(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:  # a crash may have left it half-written
        return {}
    return row if isinstance(row, dict) else {}
