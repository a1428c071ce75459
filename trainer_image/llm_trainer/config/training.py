"""What every stage that trains has in common, as a user writes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field, StringConstraints
from pydantic.alias_generators import to_camel

from llm_trainer.config.base import AnyUri, FunctionName, Name, Settings
from llm_trainer.config.evaluation import Evaluation
from llm_trainer.config.loss_watch import LossWatch

Precision = Literal["auto", "float32", "bfloat16"]
Family = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][A-Za-z0-9_-]*$", max_length=64)]
EXTRA_KEYS = frozenset({"head_dim"})  # that models read although their configuration class does not name them
SEQUENCE_PARALLEL_FAMILIES = ("gpt2", "llama", "qwen3", "mixtral", "qwen3_moe", "deepseek_v3")
TENSOR_PARALLEL_FAMILIES = ("llama", "qwen3")  # whose plan in transformers DeepSpeed's AutoTP knows
WIDTH_FAMILIES = ("gpt2", "llama", "mistral", "qwen2", "qwen3")  # whose rates a test has seen to scale with width
EXPERT_PARALLEL_FAMILIES = ("mixtral", "qwen3_moe", "deepseek_v3")  # for which DeepSpeed's AutoEP has a preset
UNCOMPILED_FAMILIES = ("mixtral", "qwen3_moe", "deepseek_v3", "mamba", "mamba2", "jamba")  # with experts or a state
ResultKind = Literal["model", "rewardModel"]
FunctionUse = Literal["reward", "loss", "optimizer"]


class Architecture(Settings):
    """A model from scratch: a family and the keys of its transformers config class."""

    family: Family = Field(description="The transformers model type of a causal language model.")
    config: dict[str, Any] = Field(
        default_factory=dict, description="Keys of the family's transformers config, as in its config.json."
    )
    function: FunctionName | None = Field(
        default=None, description="module:function that makes the model, with its weights, from config and tokenizer."
    )


class StageModel(Settings):
    """A model to start from. Exactly one of stage and uri."""

    stage: Name | None = Field(default=None, description="An earlier stage that yields a model.")
    uri: AnyUri | None = Field(
        default=None,
        description="An existing transformers folder: pvc://CLAIM/PATH, hf://ORG/NAME or s3://BUCKET/PATH.",
    )
    allow_pickle: bool = Field(
        default=False,
        description="Whether pickled weights at an hf:// or s3:// uri without safetensors are read, tensors alone.",
        exclude_if=lambda value: not value,
    )


class Optimizer(Settings):
    """AdamW, or Muon on the hidden matrices with AdamW on the rest. None: the default of the stage's kind."""

    type: Literal["adamw", "muon"] = Field(
        default="adamw", description="Muon (Jordan et al. 2024) is for pretrain stages."
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="Peak of AdamW. Default: 3e-4 for pretrain, 2e-5 for sft, 1e-4 for rewardModel, else 1e-6.",
    )
    beta1: float = Field(default=0.9, ge=0, lt=1, description="AdamW's first moment decay.")
    beta2: float | None = Field(
        default=None, ge=0, lt=1, description="AdamW's second moment decay. Default: 0.95 for pretrain, else 0.999."
    )
    epsilon: float = Field(default=1e-8, gt=0, description="AdamW's epsilon.")
    weight_decay: float | None = Field(
        default=None, ge=0, description="Decoupled weight decay. Default: 0.1 for pretrain, else 0."
    )
    gradient_clipping: float = Field(
        default=1.0, gt=0, description="Global norm to which gradients are clipped; not Muon's."
    )
    muon_learning_rate: float | None = Field(
        default=None, gt=0, description="Peak learning rate of Muon. Default: 0.02."
    )
    function: FunctionName | None = Field(
        default=None,
        description="module:function that makes a torch optimizer in AdamW's place, from groups, lr, betas, eps, "
        "weight_decay.",
    )


class ResolvedOptimizer(Optimizer):
    """An optimizer whose every value is known, with the defaults of pretraining."""

    learning_rate: float = Field(default=3e-4, gt=0, description="Peak learning rate of AdamW.")
    beta2: float = Field(default=0.95, ge=0, lt=1, description="AdamW's second moment decay.")
    weight_decay: float = Field(default=0.1, ge=0, description="Decoupled weight decay.")
    muon_learning_rate: float = Field(default=0.02, gt=0, description="Peak learning rate of Muon; unused by AdamW.")


class SftOptimizer(ResolvedOptimizer):
    """AdamW with TRL's defaults."""

    # transformers' trainers flatten the matrices that Muon needs
    type: Literal["adamw"] = Field(default="adamw", description="Muon is for pretrain stages.")
    learning_rate: float = Field(default=2e-5, gt=0, description="Peak learning rate; the default is TRL's.")
    beta2: float = Field(default=0.999, ge=0, lt=1, description="AdamW's second moment decay; the default is TRL's.")
    weight_decay: float = Field(default=0.0, ge=0, description="Decoupled weight decay; the default is TRL's.")


class RewardModelOptimizer(SftOptimizer):
    """AdamW with the defaults of TRL's RewardConfig."""

    learning_rate: float = Field(default=1e-4, gt=0, description="Peak learning rate; the default is TRL's.")


class PreferenceOptimizer(SftOptimizer):
    """AdamW with the defaults of TRL's DPOConfig, KTOConfig and GRPOConfig."""

    learning_rate: float = Field(default=1e-6, gt=0, description="Peak learning rate; the default is TRL's.")


class CriticOptimizer(SftOptimizer):
    """AdamW for the critic of PPO."""

    muon_learning_rate: ClassVar[float] = 0.02  # type: ignore[misc]  # no field of it: nothing would read it
    learning_rate: float = Field(default=9e-6, gt=0, description="Peak learning rate; the default is OpenRLHF's.")


class Lora(Settings):
    """Low-rank adapters, by peft: the model's own weights stay as they are."""

    rank: int = Field(default=16, ge=1, le=1024, description="Rank of the update; TRL's default.")
    alpha: int = Field(default=32, ge=1, le=65_536, description="Scale: alpha over rank, or its root; TRL's default.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout before the adapter; peft's default.")
    target_modules: list[str] = Field(
        default_factory=list,
        max_length=64,
        description="Modules to adapt, such as q_proj. Default: every linear layer but the output; experts of "
        "a mixture are none.",
    )
    experts: bool = Field(
        default=False,
        description="Adapt the experts of a mixture too; with dropout 0, without dora. vLLM serves it merged, so it is "
        "off by default.",
    )
    quantization: Literal["nf4"] | None = Field(
        default=None,
        description="Base weights in 4-bit NormalFloat, quantised doubly, by bitsandbytes (QLoRA, Dettmers et al. "
        "2023); CUDA only. Default: none.",
    )
    rslora: bool = Field(default=False, description="Scale by alpha over the root of the rank; Kalajdzievski 2023.")
    dora: bool = Field(default=False, description="Learn magnitude and direction apart; Liu et al. 2024.")
    merge: bool = Field(default=False, description="Publish the base model with the adapter merged into it.")


class Schedule(Settings):
    """Learning rate over the run: linear warm-up, then the named shape."""

    type: Literal["wsd", "cosine", "constant"] = Field(
        default="cosine", description="wsd: warm-up, stable, decay (linear over the last decayFraction)."
    )
    warmup_steps: int = Field(default=0, ge=0, le=1_000_000_000, description="Steps of linear warm-up from 0.")
    decay_fraction: float = Field(default=0.3, gt=0, le=1, description="wsd: share of the steps that decays.")
    minimum_ratio: float = Field(default=0.1, ge=0, le=1, description="Final learning rate over the peak.")


class Checkpointing(Settings):
    """When a checkpoint is committed and how many are kept. One is always committed at the end and on SIGTERM."""

    every_steps: int = Field(
        default=100, ge=1, le=1_000_000_000, description="Optimizer steps between two checkpoints."
    )
    keep: int = Field(default=2, ge=1, le=1000, description="Newest checkpoints to keep.")


class Reference(NamedTuple):
    """A model that a stage names: in which field, and what it must be."""

    field: str
    model: StageModel
    wanted: ResultKind


class UserFunction(NamedTuple):
    """A function that a stage's settings name: in which field of the kind, or of what all kinds share."""

    field: str
    name: str  # module:function
    use: FunctionUse


LossFunctionName = Annotated[
    FunctionName | None,
    Field(description="module:function, the loss in cross-entropy's place, called as transformers' compute_loss_func."),
]


class SharedSettings(Settings):
    """What a user writes beside the kind of a stage, as it is the same for every kind that trains."""

    model: StageModel | None = Field(
        default=None,
        description="Where the stage starts. Default: the stage before that yields a language model; of pretrain "
        "and of the first stage spec.model.",
    )
    seed: int = Field(default=0, ge=0, le=4_294_967_295, description="Seed of initialisation and data order.")
    micro_batch_size: int | None = Field(
        default=None, ge=1, le=65_536, description="Sequences per process and forward pass. Default: 2 for kto, else 1."
    )
    global_batch_size: int = Field(
        default=8,
        ge=1,
        le=16_777_216,
        description="Sequences per optimizer step over all processes; gradient accumulation follows. grpo: answers; "
        "ppo: answers of an update.",
    )
    zero_stage: int = Field(default=1, ge=0, le=3, description="DeepSpeed ZeRO stage.")
    sequence_parallel: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="Processes that share each row, for rows longer than a GPU holds; pretrain and sft. A divisor of "
        "processes and attention heads.",
    )
    tensor_parallel: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Processes that share the matrices of each layer, by DeepSpeed's AutoTP; pretrain and sft of dense "
        "families, with ZeRO 1 or 2. A divisor of processes, heads and intermediate_size.",
    )
    precision: Precision = Field(
        default="auto", description="auto: bfloat16 on GPUs that have it natively and on CPUs with AMX, else float32."
    )
    activation_checkpointing: bool | None = Field(
        default=None,
        description="Compute activations again for the gradients instead of keeping them. Default: on GPUs, but for "
        "pretrain.",
    )
    optimizer: Optimizer = Field(default_factory=Optimizer, description="Optimizer settings.")
    schedule: Schedule = Field(default_factory=Schedule, description="Learning rate schedule.")
    lora: Lora | None = Field(default=None, description="Train a low-rank adapter instead of the model.")
    checkpoint: Checkpointing = Field(default_factory=Checkpointing, description="Checkpoint settings.")
    loss_watch: LossWatch | None = Field(
        default=None,
        description="Roll back from a spike of the loss and jump over its data, lower the rate or stop on a plateau. "
        "Default: off.",
    )
    evaluation: Evaluation = Field(
        default_factory=Evaluation, description="When it is evaluated, on what, and what must hold of a result."
    )
    publish_every_steps: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000_000,
        description="Also publish a result every so many steps, so that a serving follows the training. Default: only "
        "the final one.",
    )


class TrainingSettings(SharedSettings):
    """All that a stage that trains is told: what every kind shares, with the kind's defaults, and the kind's own.

    ``length_field`` is the field with the longest row, in tokens; ``yields`` is what the stage makes: a language model
    that others may start from and a serving may serve, or a reward model.
    """

    yields: ClassVar[ResultKind] = "model"
    length_field: ClassVar[str] = "max_length"
    held_out: ClassVar[tuple[str, ...]] = ()  # names of its held-out figures
    checkpoints_on_gpus: ClassVar[bool] = True

    micro_batch_size: int = Field(default=1, ge=1, le=65_536, description="Sequences per process and forward pass.")
    optimizer: ResolvedOptimizer = Field(  # each kind has its defaults
        default_factory=ResolvedOptimizer, description="Optimizer settings."
    )

    @property
    def shared_work(self) -> dict[str, int]:
        """How many processes compute the same rows, each a part of the work; by the fields that say so."""
        return {"sequenceParallel": self.sequence_parallel, "tensorParallel": self.tensor_parallel}

    @property
    def processes_per_row(self) -> int:
        return self.sequence_parallel * self.tensor_parallel

    @property
    def length(self) -> int:
        """Tokens of the longest row."""
        return int(getattr(self, self.length_field))

    def checkpoints_activations(self, device: str) -> bool:
        """`device`: cpu or cuda."""
        given = self.activation_checkpointing
        return given if given is not None else self.checkpoints_on_gpus and device == "cuda"

    def length_name(self, stage: str) -> str:
        """How a user knows what the length follows from; `stage`, such as spec.stages[1].sft, is where."""
        return f"{stage}.{to_camel(self.length_field)}"

    def references(self) -> Iterator[Reference]:
        """The models that the kind names beside the one to start from."""
        yield from ()

    def functions(self) -> Iterator[UserFunction]:
        """Those of the user's that the stage calls."""
        if self.optimizer.function:
            yield UserFunction("optimizer.function", self.optimizer.function, "optimizer")
