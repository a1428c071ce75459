"""CEL rules of an LLMTraining."""

from __future__ import annotations

from llm_operator.api.rules import NAME, PODS, STAGE_PODS, Path, Rule, exactly_one, pod_rules, stage_pod_rules
from llm_trainer.config import KINDS, SharedSettings

# Data preparation alone has no stage before it: while it stands as failed, what it reads may be corrected.
# CEL's optional types would say it shorter, but the API server estimates their cost without the bounds of the schema.
KNOWN = "has(oldSelf.status) && has(oldSelf.status.stages)"
STARTED = f"{KNOWN} && oldSelf.status.stages.exists(s, has(s.startTime) && s.state != 'Failed')"


def same(one: str, other: str, *fields: str) -> str:
    """That two objects have the same in these fields."""
    return " && ".join(
        f"has({one}.{field}) == has({other}.{field}) && (!has({one}.{field}) || {one}.{field} == {other}.{field})"
        for field in fields
    )


def fixed(field: str) -> Rule:
    """A field of the spec that can't change once the first pod was made, unless data preparation failed."""
    return Rule(
        f"!({STARTED}) || ({same('self.spec', 'oldSelf.spec', field)})",
        f"{field} can't change once the training has started; make a new LLMTraining",
        f".spec.{field}",
    )


ONLINE = ("ppo", "grpo")  # kinds with rewards
STAGE_RULES = (
    exactly_one(*KINDS.values()),
    Rule("self.name != 'data'", "'data' is the name of data preparation; use another", ".name"),
    Rule(
        "!has(self.microBatchSize) || self.globalBatchSize % self.microBatchSize == 0",
        "must be divisible by microBatchSize × nodes × processes per node",
        ".globalBatchSize",
    ),
    Rule(
        "!has(self.rewardModel) || !has(self.evaluation) || (!has(self.evaluation.prompts) && "
        "!has(self.evaluation.tasks) && !self.evaluation.corpus)",
        "prompts, tasks and corpus are for stages that make a language model",
        ".evaluation",
    ),
    Rule(
        "!has(self.kto) || !has(self.microBatchSize) || self.microBatchSize >= 2",
        "should be greater than or equal to 2 in a kto stage, whose loss compares those of a batch",
        ".microBatchSize",
    ),
    Rule(
        "!has(self.pretrain) || !has(self.pretrain.tune) || !has(self.pretrain.tune.microBatchSize) || "
        "!has(self.pretrain.tune.microBatchSize.maximum) || self.pretrain.tune.microBatchSize.maximum >= "
        "(has(self.microBatchSize) ? self.microBatchSize : 1)",
        "must not be less than microBatchSize, from which on it is tried",
        ".pretrain.tune.microBatchSize.maximum",
    ),
    Rule(
        "!has(self.pretrain) || !has(self.pretrain.tune) || !has(self.pretrain.tune.baseWidth) || (!has(self.lora) && "
        "(!has(self.optimizer) || (self.optimizer.type == 'adamw' && !has(self.optimizer.function))))",
        "is for AdamW and all weights; remove it, or optimizer.type: muon, optimizer.function and lora",
        ".pretrain.tune.baseWidth",
    ),
    Rule(
        "!has(self.optimizer) || self.optimizer.type == 'adamw' || has(self.pretrain)",
        "must be adamw; muon is for pretrain stages",
        ".optimizer.type",
    ),
    Rule(
        "!has(self.optimizer) || !has(self.optimizer.muonLearningRate) || self.optimizer.type == 'muon'",
        "is unused by adamw; remove it, or set type: muon",
        ".optimizer.muonLearningRate",
    ),
    Rule(
        "!has(self.optimizer) || !has(self.optimizer.function) || self.optimizer.type == 'adamw'",
        "stands in the place of adamw; remove it, or type: muon",
        ".optimizer.function",
    ),
    *(
        Rule(
            f"self.{field} == 1 || has(self.pretrain) || has(self.sft)",
            "is for pretrain and sft; leave it out",
            f".{field}",
        )
        for field in ("sequenceParallel", "tensorParallel")
    ),
    Rule(
        "self.tensorParallel == 1 || self.sequenceParallel == 1",
        "does not go with sequenceParallel; use one of them",
        ".tensorParallel",
    ),
    Rule(
        "self.tensorParallel == 1 || self.zeroStage == 1 || self.zeroStage == 2",
        "does not go with tensorParallel; use 1 or 2",
        ".zeroStage",
    ),
    Rule("self.tensorParallel == 1 || !has(self.lora)", "does not go with tensorParallel; use 1", ".lora"),
    Rule(
        "!has(self.pretrain) || self.pretrain.sequenceLength % self.sequenceParallel == 0",
        "is not divisible by sequenceParallel",
        ".pretrain.sequenceLength",
    ),
    Rule(
        "!has(self.lossWatch) || !(has(self.lossWatch.reduceOnPlateau) || has(self.lossWatch.earlyStop)) || "
        "has(self.pretrain) || has(self.sft) || has(self.rewardModel)",
        "reduceOnPlateau and earlyStop look at the held-out loss of pretrain, sft and rewardModel; remove them",
        ".lossWatch",
    ),
    Rule(
        "!has(self.grpo) || self.globalBatchSize % self.grpo.numGenerations == 0",
        "must be a multiple of grpo.numGenerations",
        ".globalBatchSize",
    ),
    Rule(
        "!has(self.ppo) || !has(self.ppo.rolloutBatchSize) || self.ppo.rolloutBatchSize % self.globalBatchSize == 0",
        "must be a multiple of globalBatchSize",
        ".ppo.rolloutBatchSize",
    ),
)
EVALUATION = Rule(
    "(self.gate == 'none') == (!has(self.thresholds) || self.thresholds.size() == 0)",
    "gate: warn and block need thresholds, and thresholds one of them",
    ".gate",
)
THRESHOLD = (
    Rule("has(self.min) || has(self.max) || has(self.atLeast)", "must have min, max or atLeast"),
    Rule("!has(self.min) || !has(self.max) || self.min <= self.max", "must not be more than max", ".min"),
)
LOSS_WEIGHTS = Rule(
    "!has(self.lossWeights) || (has(self.lossType) ? self.lossWeights.size() == self.lossType.size() "
    ": self.lossWeights.size() == 1)",
    "must have a weight for each of lossType",
    ".lossWeights",
)
MIXTURE = ("spec", "stages", "*", "pretrain", "mixture")
SHARES = Rule("!has(self.weights) || !has(self.temperature)", "at most one of weights and temperature may be set")
WEIGHTS = Rule("self.exists(w, w.weight > 0.0)", "sum to zero, so that nothing would be read; make one of them larger")
MIXTURE_RULES: dict[Path, tuple[Rule, ...]] = {
    MIXTURE: (SHARES,),
    (*MIXTURE, "weights"): (WEIGHTS,),
    (*MIXTURE, "schedule", "*"): (
        exactly_one("fromShare", "fromTokens"),
        SHARES,
        Rule("has(self.weights) || has(self.temperature)", "needs weights or a temperature; temperature: 1 is by size"),
    ),
    (*MIXTURE, "schedule", "*", "weights"): (WEIGHTS,),
}
SHARED = tuple(field.alias or name for name, field in SharedSettings.model_fields.items())
FIXED_OF_STAGE = ("resources", "pods", *SHARED, *KINDS.values())  # once it has started: all but its name and nodes
TRAINING_RULES: dict[Path, tuple[Rule, ...]] = {
    (): (
        NAME,
        fixed("model"),
        fixed("tokenizer"),
        fixed("data"),
        fixed("storage"),
        fixed("resumeFrom"),
        Rule(
            f"!({KNOWN}) || oldSelf.status.stages.all(t, "
            "!has(t.startTime) || t.name == 'data' || (t.state == 'Failed' "
            "? self.spec.stages.exists(s, s.name == t.name) : oldSelf.spec.stages.filter(o, o.name == t.name).all(o, "
            f"self.spec.stages.exists(s, s.name == o.name && {same('s', 'o', *FIXED_OF_STAGE)}))))",
            "a stage that has started can't change but for its nodes, unless it failed, nor be removed or renamed; "
            "make a new LLMTraining, or change the stages after it",
            ".spec.stages",
        ),
    ),
    ("spec",): (
        Rule(
            "!self.stages.exists(s, has(s.pretrain)) || has(self.data)",
            "is required by a pretrain stage; set data.sources",
            ".data",
        ),
        Rule(
            "!has(self.model.architecture) || has(self.tokenizer)",
            "is required with model.architecture; set train or uri",
            ".tokenizer",
        ),
        Rule(
            "!has(self.tokenizer) || !has(self.tokenizer.train) || has(self.data)",
            "is required to train a tokenizer; set data.sources or tokenizer.uri",
            ".data",
        ),
        Rule(
            "!has(self.resumeFrom) || self.resumeFrom.uri.startsWith('pvc://' + "
            "self.storage.persistentVolumeClaim.claimName + '/')",
            "must be in the claim of spec.storage, which the training goes on to write to",
            ".resumeFrom.uri",
        ),
        Rule(
            "!has(self.publish) || self.publish.all(p, !has(p.stage) || self.stages.exists(s, s.name == p.stage))",
            "names a stage that does not exist",
            ".publish",
        ),
    ),
    ("spec", "publish", "*"): (
        Rule("!self.to.startsWith('hf://datasets/')", "must be a repository of models; write hf://ORG/NAME", ".to"),
    ),
    ("spec", "model"): (exactly_one("architecture", "uri"),),
    ("spec", "tokenizer"): (exactly_one("train", "uri"),),
    ("spec", "tracking", "*"): (exactly_one("tensorboard", "mlflow", "wandb"),),
    ("spec", "data"): (
        Rule(
            "!has(self.quality) || !has(self.quality.language) || self.sources.all(s, s.language != '')",
            "needs a language of each source for quality.language; set them",
            ".sources",
        ),
    ),
    ("spec", "data", "quality", "gopher"): (
        Rule("self.minimumWords <= self.maximumWords", "must not be more than maximumWords", ".minimumWords"),
        Rule(
            "self.minimumMeanWordLength <= self.maximumMeanWordLength",
            "must not be more than maximumMeanWordLength",
            ".minimumMeanWordLength",
        ),
    ),
    ("spec", "stages", "*"): STAGE_RULES,
    ("spec", "stages", "*", "model"): (exactly_one("stage", "uri"),),
    ("spec", "stages", "*", "evaluation"): (EVALUATION,),
    ("spec", "stages", "*", "evaluation", "thresholds", "*"): THRESHOLD,
    ("spec", "stages", "*", "pretrain"): (exactly_one("steps", "tokens"),),
    ("spec", "stages", "*", "pretrain", "tune", "learningRate"): (
        Rule("self.minimum < self.maximum", "must be less than maximum", ".minimum"),
    ),
    **MIXTURE_RULES,
    ("spec", "stages", "*", "dpo"): (LOSS_WEIGHTS,),
    **{("spec", "stages", "*", kind, "rewards", "*"): (exactly_one("model", "function"),) for kind in ONLINE},
    **{("spec", "stages", "*", kind, "rewards", "*", "model"): (exactly_one("stage", "uri"),) for kind in ONLINE},
    ("spec", "stages", "*", "ppo", "critic"): (exactly_one("stage", "uri"),),
    **pod_rules(*PODS),
    **{path: rules for pods in STAGE_PODS for path, rules in stage_pod_rules(*pods).items()},
}
