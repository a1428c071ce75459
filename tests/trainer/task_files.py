"""A task of lm-eval with 20 questions of which a tiny model knows nothing, beside its data."""

from __future__ import annotations

import json
from pathlib import Path

CHOICES = """\
task: letters
dataset_path: json
dataset_kwargs:
  data_files: {test: letters/test.jsonl, shown: letters/shown.jsonl}
test_split: test
fewshot_split: shown
output_type: multiple_choice
doc_to_text: "{{question}} Answer:"
doc_to_target: answer
doc_to_choice: choices
metric_list:
- {metric: acc, aggregation: mean, higher_is_better: true}
- {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""
WRITTEN = """\
task: written
dataset_path: json
dataset_kwargs:
  data_files: {test: letters/test.jsonl}
test_split: test
output_type: generate_until
generation_kwargs: {until: ["\\n"], max_gen_toks: 8}
doc_to_text: "{{question | regex_replace('What', 'Which')}}"
doc_to_target: "{{choices[answer]}}"
filter_list:
- name: first
  filter: [{function: regex, regex_pattern: "(\\\\w+)"}, {function: take_first}]
metric_list:
- {metric: exact_match, aggregation: mean, higher_is_better: true}
"""


def write_tasks(folder: Path) -> None:
    """`letters.yaml` and `written.yaml`."""
    (folder / "letters").mkdir(parents=True, exist_ok=True)
    words = [f"word{chr(97 + number)}" for number in range(24)]
    rows = [
        {"question": f"What comes after {word}?", "choices": [word, words[(n + 1) % 24], "class"], "answer": 1 + n % 2}
        for n, word in enumerate(words)
    ]
    for name, part in (("test", rows[:20]), ("shown", rows[20:])):
        (folder / "letters" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    (folder / "letters.yaml").write_text(CHOICES)
    (folder / "written.yaml").write_text(WRITTEN)
