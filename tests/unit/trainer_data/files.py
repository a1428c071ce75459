"""What the tests of files share."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from llm_trainer.data.files import SUFFIXES, Place, find_files
from llm_trainer.data.readers import Part, Row, read_rows_of
from llm_trainer.data.rows import SUFFIXES as ROW_SUFFIXES
from llm_trainer.data.sources import read_documents

FIELD = "spec.data.sources[0].uri"
PLAIN = [f"plain document number {number} about apples and pears" for number in range(3)]
PAIRS = [["prompt", "completion"]]


def documents(volumes: Path, uri: str, text_field: str = "text") -> list[str | None]:
    return [raw.text for raw in read_documents(find_files(uri, FIELD, str(volumes), SUFFIXES), text_field)]


def rows_of(volumes: Path, uri: str, columns: list[str] | None = None) -> list[tuple[Place, Row]]:
    files = find_files(uri, FIELD, str(volumes), ROW_SUFFIXES)
    return [row for path in files.paths for row in read_rows_of(files, Part(path), columns)]


def lines(texts: list[str], end: str = "\n") -> bytes:
    return end.join(json.dumps({"text": text}) for text in texts).encode()


def write_table(table: pa.Table, path: Path) -> None:
    match path.suffix:
        case ".parquet":
            pq.write_table(table, path)
        case ".arrow" if path.stem == "stream":
            with pa.ipc.new_stream(path, table.schema) as writer:
                writer.write_table(table)
        case _:
            with pa.ipc.new_file(path, table.schema) as writer:
                writer.write_table(table)
