"""A result's README.md: what the model is made of, as a model card of the Hugging Face hub."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from llm_trainer.config import KINDS, FineTuning, StageConfig, TrainingSettings, kind_of, parse
from llm_trainer.config.remote import shown
from llm_trainer.data.manifest import DataManifest, read_manifest
from llm_trainer.protocol import Score
from llm_trainer.storage.request import InputFetched, read_inputs

CARD = "README.md"
LANGUAGE = re.compile(r"[a-z]{2,3}")  # what a card calls a language, of a BCP 47 tag


def write_card(folder: Path, config: StageConfig, settings: TrainingSettings, step: int, kind: str) -> None:
    """``kind``: of the result. Tells nothing of times and attempts: the same result has the same digest."""
    manifest = None if isinstance(settings, FineTuning) else read_manifest(config.data_folder)
    origins = Origins.of(config, settings, manifest)
    named = f"`{config.stage}` ({KINDS[kind_of(config)]}) of the LLMTraining `{config.namespace}/{config.training}`"
    parts = [
        front_matter(kind, manifest, origins),
        f"# {config.training}: {config.stage}\n",
        f"{what(kind)} of the stage {named}, after step {step}.\n",
        *section("Base", base(config, origins)),
        *section("Data", data(settings, manifest, origins)),
        *section("Figures", figures(Path(config.stage_folder) / "history.jsonl", step)),
        *section("Settings", settings_block(settings)),
    ]
    (folder / CARD).write_text("\n".join(parts), encoding="utf-8")


def what(kind: str) -> str:
    return {"adapter": "The low-rank adapter", "rewardModel": "The reward model"}.get(kind, "The language model")


@dataclass(frozen=True)
class Origins:
    """What the result was made from that was fetched from elsewhere, by the places that stand for it."""

    by_place: Mapping[str, InputFetched]
    models: Sequence[InputFetched]  # the base, or what the run has begun with
    data: Sequence[InputFetched]

    @classmethod
    def of(cls, config: StageConfig, settings: TrainingSettings, manifest: DataManifest | None) -> Origins:
        by_place = {each.place: each for each in read_inputs(Path(config.run_folder))}
        started = by_place.get(config.model.uri or "") if config.model else None
        first = [each for each in by_place.values() if each.use == "model"]
        models = [started] if started else first if config.model and config.model.uri and len(first) == 1 else []
        read = [settings.dataset.uri] if isinstance(settings, FineTuning) else []
        read += [source.uri for source in manifest.sources] if manifest else []
        return cls(by_place, models, [by_place[uri] for uri in dict.fromkeys(read) if uri in by_place])

    def told(self, uri: str) -> str:
        """As the user has written it, without a query."""
        return shown(self.by_place[uri].uri) if uri in self.by_place else uri

    def revision(self, uri: str) -> str:
        """Of what was fetched, with its licence where a hub has told it."""
        found = self.by_place.get(uri)
        if found is None:
            return ""
        return f", revision `{found.revision}`" + (f", licence {cell(found.license)}" if found.license else "")


def repositories(inputs: Iterable[InputFetched]) -> list[str]:
    """Of a hub, as its cards name them."""
    return sorted({parse(each.uri).authority for each in inputs if each.uri.startswith("hf://")})


def front_matter(kind: str, manifest: DataManifest | None, origins: Origins) -> str:
    sources = manifest.sources if manifest else []
    fetched = [*origins.models, *origins.data]
    bases = repositories(origins.models)
    languages = {found[0] for source in sources if (found := LANGUAGE.match(source.language))}
    named = {source.license for source in sources} | {each.license for each in fetched}
    licences = sorted(filter(None, named))
    card = ModelCardData(
        language=sorted(languages) or None,
        license="other" if licences else None,
        license_name="; ".join(licences) or None,
        library_name="peft" if kind == "adapter" else "transformers",
        base_model=bases[0] if len(bases) == 1 else None,
        datasets=repositories(each for each in origins.data if parse(each.uri).datasets) or None,
        pipeline_tag="text-classification" if kind == "rewardModel" else "text-generation",
        tags=["llm-operator", "lora"] if kind == "adapter" else ["llm-operator"],
    )
    return f"---\n{card.to_yaml()}\n---\n"


def section(title: str, lines: Iterable[str]) -> Iterator[str]:
    text = "\n".join(lines)
    if text:
        yield f"## {title}\n\n{text}\n"


def base(config: StageConfig, origins: Origins) -> Iterator[str]:
    if config.model and (uri := config.model.uri):
        digest = config.digests.get(uri)
        yield f"It starts from {code(origins.told(uri))}{f', {digest}' if digest else ''}{origins.revision(uri)}."
        for first in origins.models:
            if first.place != uri:
                yield f"\nIts first model was {code(origins.told(first.place))}{origins.revision(first.place)}."
    elif config.model and config.model.architecture:
        yield f"From scratch, of the family `{config.model.architecture.family}`:\n"
        if function := config.model.architecture.function:
            yield f"Its first weights are those of `{function}`.\n"
        yield block(config.model.architecture.config)


def data(settings: TrainingSettings, manifest: DataManifest | None, origins: Origins) -> Iterator[str]:
    if isinstance(settings, FineTuning):
        uri, held_out = settings.dataset.uri, settings.dataset.validation_fraction
        yield f"Rows of {code(origins.told(uri))}{origins.revision(uri)}, {held_out:.1%} of them held out."
    if manifest is None:
        return
    yield f"{manifest.tokens('train'):,} tokens to learn from, digest `{manifest.digest}`:\n"
    yield "| source | URI | language | domain | licence | documents |"
    yield "|---|---|---|---|---|---|"
    for one in manifest.sources:
        told = f"{origins.told(one.uri)}{origins.revision(one.uri)}"
        cells = (one.name, told, one.language, one.domain, one.license, f"{one.documents:,}")
        yield f"| {' | '.join(map(cell, cells))} |"


def figures(history: Path, step: int) -> Iterator[str]:
    """The last loss, and the last evaluation, up to the step."""
    rows = [row for row in map(parsed, read_lines(history)) if row.get("step", step + 1) <= step]
    shown: dict[str, Any] = {}
    for row in rows:
        shown |= {"training loss": row["loss"]} if "loss" in row else {}
        shown |= {f"held-out {name}": value for name, value in (row.get("evaluation") or {}).items()}
        shown |= dict(map(scored, row.get("scores") or ()))
    if shown:
        yield "| figure | value |"
        yield "|---|---|"
    for name, value in shown.items():
        # a figure that is no number is a text in the history
        yield f"| {cell(name)} | {format(value, '.4g') if isinstance(value, int | float) else value} |"


def scored(score: dict[str, Any]) -> tuple[str, Any]:
    """A task's score with its standard error, as a row of the history has it."""
    found = Score.model_validate(score)
    error = "" if found.stderr is None else f" ± {found.stderr:.2g}"
    return found.name, f"{found.value:.4g}{error} ({found.few_shot}-shot, {found.samples} questions)"


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
