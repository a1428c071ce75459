"""What the trainer takes of libraries that they don't promise: each private name, and each body that ours follows.

An upgrade may change them without a word. `tests/trainer/test_upstream.py` fails when the source of one is no longer
the one that was read; whoever upgrades reads it again, sees that the reason below still holds, and writes its digest.
"""

from __future__ import annotations

from typing import NamedTuple


class Upstream(NamedTuple):
    """``source``: what is watched, as module:name; ``names``: private names of it that are called or replaced."""

    source: str
    digest: str  # of its source text: the first 12 digits of the sha256
    why: str
    names: tuple[str, ...] = ()


SFT, DPO = "trl.trainer.sft_trainer:SFTTrainer", "trl.trainer.dpo_trainer:DPOTrainer"
KTO, REWARD = "trl.trainer.kto_trainer:KTOTrainer", "trl.trainer.reward_trainer:RewardTrainer"
GRPO, TRAINER = "trl.trainer.grpo_trainer:GRPOTrainer", "transformers.trainer:Trainer"
MODEL = "transformers.modeling_utils:PreTrainedModel"
COLUMNS = ("_set_signature_columns_if_needed", "_signature_columns")
REFERENCE = ("_precompute_ref_logps", "_precompute_engine")

WATCHED = (
    Upstream(f"{TRAINER}.train", "e8a272bcd2db", "`TrlStage` prepares the model as it does"),
    Upstream(f"{TRAINER}._inner_training_loop", "9ef1f2a6b8d4", "in its place runs our loop"),
    Upstream(f"{TRAINER}._run_epoch", "74c2be7cb7f8", "`MicroBatchOrder` gives its micro-batches"),
    Upstream(f"{TRAINER}.training_step", "920f4f1bf0e0", "goes backward by accelerate's wrapper alone"),
    Upstream(f"{TRAINER}.set_initial_training_values", "83e6e858bf35", "its seven values"),
    Upstream(
        f"{TRAINER}._prepare_inputs",
        "b28ea48b3290",
        "moves a batch of the collator's to the device",
        ("_prepare_inputs",),
    ),
    Upstream(
        "accelerate.accelerator:Accelerator.backward",
        "048a58c16975",
        "`BackwardOfEngine` is its deepspeed_engine_wrapped",
    ),
    Upstream(
        "accelerate.utils.deepspeed:DeepSpeedEngineWrapper.backward", "c0a15bc3d483", "`Engine.learn` does the same"
    ),
    Upstream(
        f"{SFT}._set_signature_columns_if_needed", "9767b9ca1c65", "held-out rows have the collator's columns", COLUMNS
    ),
    Upstream(f"{SFT}.compute_loss", "fc5223add31c", "`sft.Trainer` follows it for a loss of the user's"),
    Upstream(f"{DPO}._set_signature_columns_if_needed", "c853d2c20496", "the same", COLUMNS),
    Upstream(f"{KTO}._set_signature_columns_if_needed", "9b58d0f46cd1", "the same", COLUMNS),
    Upstream(f"{REWARD}._set_signature_columns_if_needed", "16464cae3b17", "the same", COLUMNS),
    Upstream(f"{SFT}._prepare_dataset", "109e3dfdf8e4", "rows are tokens already", ("_prepare_dataset",)),
    Upstream(f"{DPO}._prepare_dataset", "24efb2432f23", "the same", ("_prepare_dataset",)),
    Upstream(f"{KTO}._prepare_dataset", "f6a1a90b8798", "the same", ("_prepare_dataset",)),
    Upstream(f"{REWARD}._prepare_dataset", "81fbc3b830bc", "the same", ("_prepare_dataset",)),
    Upstream(f"{DPO}._precompute_ref_logps", "3d9b63f31ca3", "`ReferenceTrainer` replaces it", REFERENCE),
    Upstream(f"{KTO}._precompute_ref_logps", "c349048a733f", "the same", REFERENCE),
    Upstream(f"{GRPO}.training_step", "15ea836c392b", "counts the micro-batches of a rollout"),
    Upstream(f"{GRPO}._prepare_inputs", "40caff99c2cf", "writes a rollout at the first micro-batch of a step"),
    Upstream(f"{GRPO}._tokenize_prompts", "1056d2a0a7b4", "what a prompt spells is text", ("_tokenize_prompts",)),
    Upstream(f"{GRPO}._generate", "bea6bc4f3207", "answers to held-out prompts", ("_generate",)),
    Upstream(f"{GRPO}._calculate_rewards", "5017fb893c0c", "is told to the watchdog", ("_calculate_rewards",)),
    Upstream(
        f"{GRPO}._generate_and_score_completions",
        "3d5cec813b83",
        "runs in the stage's precision",
        ("_generate_and_score_completions",),
    ),
    Upstream(
        f"{GRPO}.log", "14517d3dbad2", "figures of held-out answers are not to be told as a step's", ("_metrics",)
    ),
    Upstream(
        "transformers.configuration_utils:PreTrainedConfig._attn_implementation.fget",
        "7e84402e207b",
        "which attention a model was given",
        ("_attn_implementation",),
    ),
    Upstream(f"{MODEL}._sdpa_can_dispatch", "5ee1ce93988e", "whether a family takes SDPA", ("_supports_sdpa",)),
    Upstream(
        f"{MODEL}._flash_attn_can_dispatch", "662a860424ca", "whether it takes flash-attn", ("_supports_flash_attn",)
    ),
    Upstream("deepspeed:set_optimizer_flags", "4dc5665add5f", "`mend_deepspeed` replaces it"),
    Upstream(
        "deepspeed.runtime.engine:DeepSpeedEngine._zero3_consolidated_16bit_state_dict",
        "03c7f17460f6",
        "the whole weights of ZeRO-3",
        ("_zero3_consolidated_16bit_state_dict",),
    ),
    Upstream(
        "deepspeed.runtime.engine:DeepSpeedEngine.module_state_dict", "76c3212bda2a", "`leave_out_frozen` replaces it"
    ),
    Upstream(
        "deepspeed.runtime.engine:DeepSpeedEngine.step", "e0f0fc3679fc", "what `Engine.step` leaves out counts as one"
    ),
    Upstream("torch.distributed.distributed_c10d:_object_to_tensor", "06adb0c0b06c", "pickles by", ("_pickler",)),
    Upstream("torch.distributed.distributed_c10d:_tensor_to_object", "cee5afd0fdc0", "unpickles by", ("_unpickler",)),
)
IMPORTED = (  # an upgrade that takes them away shows at import
    "torch._C._distributed_c10d",
    "peft.utils.transformers_weight_conversion._MODEL_TO_CONVERSION_PATTERN",
    "peft.utils.transformers_weight_conversion._MOE_TARGET_MODULE_MAPPING",
)
