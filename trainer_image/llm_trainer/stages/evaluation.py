"""What a stage's `evaluation` adds to its held-out figures: the corpus, answers to prompts, tasks, and the gate.

Every rank does the same, so that models whose weights or layers are shared need no other way; of a task each asks its
share of the questions. Rank 0 judges and writes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import TypeAdapter
from transformers import PreTrainedTokenizerBase

from llm_trainer.checkpoint.random_states import kept_chance
from llm_trainer.config import CORPUS_METRIC, Pretrain, StageConfig, TrainingSettings
from llm_trainer.data.manifest import read_manifest
from llm_trainer.data.task_files import read_task
from llm_trainer.models.engine import Engine
from llm_trainer.models.held_out import held_out_figures
from llm_trainer.protocol import Score
from llm_trainer.runtime.errors import ConfigurationError, EvaluationError
from llm_trainer.runtime.run import Run
from llm_trainer.stages.continued import makers_of
from llm_trainer.stages.thresholds import Metrics, metrics_of, missed
from llm_trainer.stages.told_before import told_before

CORPUS_TOKENS = 1 << 17  # of an evaluation of a fine-tune: enough for three digits
TEXTS = TypeAdapter(list[str])

Learner = Callable[[], tuple[Engine, PreTrainedTokenizerBase]]  # what learns, and the tokenizer by which it reads


class Examiner:
    """One process of one attempt. Its methods are called by all ranks together."""

    def __init__(self, run: Run, settings: TrainingSettings) -> None:
        """Raises DataError for a task file that is wrong: it may be another than data preparation has read."""
        for number, task in enumerate(settings.evaluation.tasks):
            read_task(task, f"evaluation.tasks[{number}].uri", run.config.volumes_root)
        self.run, self.settings, self.evaluation = run, settings, settings.evaluation

    def look(self, step: int, learner: Learner) -> dict[str, float]:
        """Write the answers to the prompts down; held-out figures of the corpus, if they are asked for.

        Draws no chance that the training draws.
        """
        run, evaluation = self.run, self.evaluation
        if evaluation.prompts:
            from llm_trainer.stages.samples import samples_of

            with kept_chance(run.group.device):
                samples = samples_of(run, self.settings, *learner(), step)
            if run.group.is_first:
                run.history.append(step, samples=samples)
        return self._corpus(learner()[0]) if evaluation.corpus and not isinstance(self.settings, Pretrain) else {}

    def _corpus(self, engine: Engine) -> dict[str, float]:
        """Read in rows as long as pretraining has read them, so that its figures compare with these."""
        config = self.run.config
        manifest = read_manifest(config.data_folder)
        if manifest is None:
            raise ConfigurationError(f"evaluation.corpus: there is no prepared data in {config.run_uri}/data")
        length, budget = corpus_length(config, self.settings), self.evaluation.tokens or CORPUS_TOKENS
        figures = held_out_figures(engine, Path(config.data_folder), manifest, length, budget, self.run.watchdog.beat)
        return {name: value for name, value in figures.items() if name.startswith(CORPUS_METRIC)}

    def check(self, figures: dict[str, float]) -> None:
        """Before the first step. Raises ConfigurationError for a threshold that no result could meet."""
        own, earlier = metrics_of(figures, ()), self._earlier()
        tasks = {task.name for task in self.evaluation.tasks}
        for index, threshold in enumerate(self.evaluation.thresholds):
            here, metric = f"evaluation.thresholds[{index}]", threshold.metric
            if metric not in own and metric.partition("/")[0] not in tasks:
                known = ", ".join(sorted(own)) or "none, as nothing is held out"
                raise ConfigurationError(f"{here}.metric: {metric} isn't told by this stage; its figures are {known}")
            wanted = threshold.at_least
            if wanted and (wanted.metric or metric) not in earlier[wanted.stage]:
                known = ", ".join(sorted(earlier[wanted.stage])) or "none"
                raise ConfigurationError(
                    f"{here}.atLeast: stage {wanted.stage} told no {wanted.metric or metric}; its metrics are {known}"
                )

    def passes(self, step: int, figures: dict[str, float], learner: Learner, *, last: bool) -> bool:
        """Whether the result may be published. Raises EvaluationError for the stage's last one that may not."""
        scores = self._scores(step, learner)
        problems = self.run.group.first(self._judge(figures, scores) if self.run.group.is_first else [], TEXTS)
        if self.evaluation.thresholds and self.run.group.is_first:
            self.run.history.append(step, gate={"gate": self.evaluation.gate, "missed": problems})
        return self._lets_pass(step, problems, last=last)

    def _lets_pass(self, step: int, problems: Sequence[str], *, last: bool) -> bool:
        if not problems:
            return True
        said = f"step {step}: {'; '.join(problems)}"
        if self.evaluation.gate != "block":
            self.run.board.notice("ThresholdMissed", f"{said}; the result is published, as evaluation.gate is warn")
            return True
        if last:
            config = self.run.config
            raise EvaluationError(
                f"the result is not published. {said}. Checkpoints and history.jsonl stay in {config.run_uri}/stages/"
                f"{config.stage}; correct what the stage learns from, or evaluation.thresholds"
            )
        self.run.board.notice("ResultBlocked", f"the result is not published. {said}")
        return False

    def _judge(self, figures: dict[str, float], scores: Sequence[Score]) -> list[str]:
        return missed(self.evaluation.thresholds, metrics_of(figures, scores), self._earlier())

    def _earlier(self) -> dict[str, Metrics]:
        return told_before(self.run.config, self.settings)

    def _scores(self, step: int, learner: Learner) -> list[Score]:
        """Of the tasks; on rank 0, which shows them."""
        if not self.evaluation.tasks:
            return []
        from llm_trainer.stages.tasks import run_tasks

        run = self.run
        with kept_chance(run.group.device):
            scores = run_tasks(
                self.evaluation.tasks, *learner(), run.config.volumes_root, self.settings, run.watchdog.beat
            )
        for score in scores:
            run.board.metrics.evaluation.labels(run.config.stage, score.name).set(score.value)
        run.board.update(scores=scores)
        if run.group.is_first:
            run.history.append(step, scores=[score.model_dump(mode="json", by_alias=True) for score in scores])
            print(f"step {step}: " + ", ".join(f"{s.name} {s.value:.4f}" for s in scores), flush=True)
        return scores


def corpus_length(config: StageConfig, settings: TrainingSettings) -> int:
    """Of the rows in which the newest pretrain stage has read, of those that made the model; else of the stage's."""
    uri = config.model.uri if config.model else None
    for record, _ in makers_of(uri, config.volumes_root):
        if pretrain := record.config.get("pretrain"):
            return int(pretrain["sequenceLength"])
    return settings.length
