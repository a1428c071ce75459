"""``python -m llm_operator prompt FILE --ask "…"``: what an LLMApp would send to its model, told without a cluster.

Documents are those of the file: inline ones and the ConfigMaps in it. Those of a claim are read from a folder of this
machine by ``--claim NAME=FOLDER``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from llm_app.config import IndexConfig, IndexSource
from llm_app.documents import DataError
from llm_app.index import build
from llm_app.prompt import Assembled, Passage, PromptTooLongError, assemble, text_of, tokens
from llm_operator import agent_prompts
from llm_operator.api.app import LLMAppSpec
from llm_operator.api.knowledge import KnowledgeBase, KnowledgeSource
from llm_operator.api.tools import OpenApiTool
from llm_operator.api.validation import InvalidSpecError, load_app
from llm_operator.apps.configuration import prompt_of
from llm_operator.manifest_files import read
from llm_operator.settings import Settings, SettingsError
from llm_trainer.config import claim_of, local_path

Manifest = dict[str, Any]


class CantTellError(Exception):
    """What is missing, and what to do."""


def main(arguments: Sequence[str]) -> int:
    """Prints the turns and what was found; 1 if the app can't work, 2 if something can't be read."""
    asked = options().parse_args(arguments)
    contents = read(asked.files)
    for line in (*contents.warnings, *contents.problems):
        print(line, file=sys.stderr)
    try:
        name, spec = app_of(contents.objects, asked.name)
        if spec.agents:
            documents = partial(document_of, contents.objects, folders_of(asked.claim))
            print("\n".join(agent_prompts.told(name, spec, asked.ask, asked.context, documents)))
            return 2 if contents.problems else 0
        with TemporaryDirectory() as folder:
            sources = Sources(contents.objects, folders_of(asked.claim), Path(folder))
            passages = [passage for one in spec.knowledge for passage in sources.search(one, asked.ask)]
        passages.sort(key=lambda passage: -passage.score)
        budget = asked.context and asked.context - spec.parameters.max_tokens
        made = assemble(prompt_of(spec.prompt), [{"role": "user", "content": asked.ask}], passages, budget)
    except (SettingsError, CantTellError) as error:
        print(error, file=sys.stderr)
        return 2
    except (InvalidSpecError, PromptTooLongError, DataError, agent_prompts.CantWorkError) as error:
        print(f"it can't work: {error}", file=sys.stderr)
        return 1
    print("\n".join(told(name, spec, made, passages)))
    return 2 if contents.problems else 0


def options() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser("llm_operator prompt", description="What an LLMApp would send to its model.")
    made.add_argument("files", nargs="+", metavar="FILE", help="as kubectl apply -f takes it")
    made.add_argument("--ask", required=True, metavar="TEXT", help="the user's message")
    made.add_argument("--name", metavar="APP", help="which LLMApp, if the file has several")
    made.add_argument(
        "--claim", action="append", default=[], metavar="NAME=FOLDER", help="where a claim's files are here"
    )
    made.add_argument("--context", type=int, metavar="TOKENS", help="of the model; maxModelLength of the LLMServing")
    return made


def app_of(objects: Sequence[Manifest], name: str | None) -> tuple[str, LLMAppSpec]:
    """Raises CantTellError, SettingsError or InvalidSpecError."""
    found = {name_of(one): one for one in objects if one.get("kind") == "LLMApp"}
    if name is None and len(found) != 1:
        there = ", ".join(found) or "none"
        raise CantTellError(f"one LLMApp is wanted, and there are: {there}; name one by --name")
    if name is not None and name not in found:
        raise CantTellError(f"there is no LLMApp {name}; there are {', '.join(found) or 'none'}")
    chosen = name if name is not None else next(iter(found))
    return chosen, load_app(found[chosen].get("spec"), Settings.from_environment().devices)


def name_of(manifest: Manifest) -> str:
    metadata = manifest.get("metadata")
    return str(metadata.get("name")) if isinstance(metadata, dict) else ""


def folders_of(given: Sequence[str]) -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for one in given:
        claim, equals, folder = one.partition("=")
        if not equals or not Path(folder).is_dir():
            raise CantTellError(f"--claim {one}: write NAME=FOLDER, with a folder that is there")
        folders[claim] = Path(folder).absolute()
    return folders


def maps_of(objects: Sequence[Manifest]) -> dict[str, Mapping[str, str]]:
    return {name_of(one): one.get("data") or {} for one in objects if one.get("kind") == "ConfigMap"}


def document_of(objects: Sequence[Manifest], claims: Mapping[str, Path], openapi: OpenApiTool) -> str:
    """Of a ConfigMap in the file, or of a claim that is here; empty if it is not."""
    if named := openapi.config_map:
        return str(maps_of(objects).get(named.name, {}).get(named.key, ""))
    claim = str(claim_of(openapi.uri or ""))
    if claim not in claims:
        return ""
    file = claims[claim] / (openapi.uri or "").removeprefix(f"pvc://{claim}/")
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise CantTellError(f"{openapi.uri}: {error}") from None


class Sources:
    """The documents that can be had here. ``folder`` is for those of ConfigMaps."""

    def __init__(self, objects: Sequence[Manifest], claims: Mapping[str, Path], folder: Path) -> None:
        self._maps = maps_of(objects)
        self._claims, self._folder = claims, folder

    def search(self, knowledge: KnowledgeBase, question: str) -> list[Passage]:
        """As a server does. Raises DataError."""
        sources = list(filter(None, (self._source(knowledge, source) for source in knowledge.sources)))
        if not sources:
            return []
        config = IndexConfig(
            knowledge=knowledge.name, revision="", folder="", chunking=knowledge.chunking, sources=sources
        )
        index, _ = build(config)
        return index.search(question, knowledge.retrieval.top_k, knowledge.retrieval.minimum_score)

    def _source(self, knowledge: KnowledgeBase, source: KnowledgeSource) -> IndexSource | None:
        """None if it is not here, which is told."""
        where = f"knowledge {knowledge.name}, source {source.name}"
        if knowledge.embedding:
            print(f"{where}: here its documents are found by words alone", file=sys.stderr)
        if source.inline:
            return IndexSource(name=source.name, documents=source.inline)
        if source.https:
            print(f"{where}: documents of the network are not read here; left out", file=sys.stderr)
            return None
        if source.config_map:
            data = self._maps.get(source.config_map.name)
            if data is None:
                print(f"{where}: ConfigMap {source.config_map.name} is in no file; left out", file=sys.stderr)
                return None
            return self._written(knowledge, source, data)
        claim = str(claim_of(source.uri or ""))
        if claim not in self._claims:
            print(f"{where}: {source.uri} is not here; --claim {claim}=FOLDER reads it; left out", file=sys.stderr)
            return None
        mounted = self._folder / "volumes" / claim  # so that documents have the names that a pod gives them
        mounted.parent.mkdir(exist_ok=True)
        if not mounted.exists():
            mounted.symlink_to(self._claims[claim])
        return IndexSource(name=source.name, path=local_path(source.uri or "", str(mounted.parent)))

    def _written(self, knowledge: KnowledgeBase, source: KnowledgeSource, data: Mapping[str, str]) -> IndexSource:
        """As a kubelet mounts it."""
        folder = self._folder / "sources" / knowledge.name / source.name
        folder.mkdir(parents=True)
        keys = (source.config_map and source.config_map.keys) or [*data]
        for key in keys:
            if key not in data:
                raise DataError(f"source {source.name}: its ConfigMap has no key {key!r}")
            (folder / Path(key).name).write_text(str(data[key]), encoding="utf-8")
        return IndexSource(name=source.name, path=str(folder), all_are_text=True)


def told(name: str, spec: LLMAppSpec, made: Assembled, found: Sequence[Passage]) -> Iterator[str]:
    serving = spec.model.serving
    budget = spec.parameters.max_tokens
    adapter = f"the adapter {serving.adapter} of " if serving.adapter else ""
    yield f"LLMApp {name} would send to {adapter}LLMServing {serving.name}:"
    for turn in made.turns:
        yield f"--- {turn['role']}"
        yield text_of(turn)
    yield f"--- about {sum(tokens(text_of(turn)) for turn in made.turns)} tokens, and {budget} for the answer"
    for number, passage in enumerate(found, 1):
        left_out = "" if number <= len(made.passages) else ", left out: no room"
        title = passage.title or passage.source
        yield f"[{number}] {passage.knowledge}, {passage.source}: {title}, score {passage.score:.2f}{left_out}"
