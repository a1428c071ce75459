"""What earlier stages have told of their results, for those that must not be worse."""

from __future__ import annotations

from pathlib import Path

from llm_trainer.checkpoint.record import read_record
from llm_trainer.config import StageConfig, TrainingSettings
from llm_trainer.stages.thresholds import Metrics, earlier_stages, metrics_of


def told_before(config: StageConfig, settings: TrainingSettings) -> dict[str, Metrics]:
    """Of the earlier stages that thresholds name, as their records tell; nothing of one without a result."""
    stages = Path(config.run_folder) / "stages"
    ends = {name: record.end for name in earlier_stages(settings.evaluation) if (record := read_record(stages / name))}
    return {
        name: metrics_of(end.evaluation, end.scores) if (end := ends.get(name)) else {}
        for name in earlier_stages(settings.evaluation)
    }
