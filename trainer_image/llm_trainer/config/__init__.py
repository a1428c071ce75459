"""What one stage needs, fully resolved: the operator writes it as JSON, the pod reads it.

The settings of each stage are also what a user writes in an ``LLMTraining``, so that a field, its default and its
description exist once. This package imports nothing heavy: the operator's image has no torch.
"""

from llm_trainer.config.attempt import DatasetCheck, FunctionCheck, Model, ModelCheck, PrepareData, StageConfig
from llm_trainer.config.base import Name, Settings, Uri, claim_of, local_path
from llm_trainer.config.corpus import TOKENS_PER_SHARD, Data, Source, Tokenizer, TrainTokenizer
from llm_trainer.config.fine_tuning import Dataset, Dpo, FineTuning, Kto, Offline, RewardModel, Sft
from llm_trainer.config.reinforcement import Grpo, OnlineRl, Ppo, Ptx, Reward
from llm_trainer.config.stages import KINDS, Pretrain, StageKinds, functions_of, kind_of, settings_of
from llm_trainer.config.training import (
    EXPERT_PARALLEL_FAMILIES,
    Architecture,
    Checkpointing,
    CriticOptimizer,
    Lora,
    Optimizer,
    ResolvedOptimizer,
    Schedule,
    SharedSettings,
    StageModel,
    TrainingSettings,
    UserFunction,
)

__all__ = [
    "EXPERT_PARALLEL_FAMILIES",
    "KINDS",
    "TOKENS_PER_SHARD",
    "Architecture",
    "Checkpointing",
    "CriticOptimizer",
    "Data",
    "Dataset",
    "DatasetCheck",
    "Dpo",
    "FineTuning",
    "FunctionCheck",
    "Grpo",
    "Kto",
    "Lora",
    "Model",
    "ModelCheck",
    "Name",
    "Offline",
    "OnlineRl",
    "Optimizer",
    "Ppo",
    "PrepareData",
    "Pretrain",
    "Ptx",
    "ResolvedOptimizer",
    "Reward",
    "RewardModel",
    "Schedule",
    "Settings",
    "Sft",
    "SharedSettings",
    "Source",
    "StageConfig",
    "StageKinds",
    "StageModel",
    "Tokenizer",
    "TrainTokenizer",
    "TrainingSettings",
    "Uri",
    "UserFunction",
    "claim_of",
    "functions_of",
    "kind_of",
    "local_path",
    "settings_of",
]  # fmt: skip
