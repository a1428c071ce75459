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
ENGINE = "deepspeed.runtime.engine:DeepSpeedEngine"
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
    Upstream(
        "trl.trainer.utils:add_fused_lm_head",
        "422d009f04b6",
        "on a CPU `TargetScores` takes its function's place",
        ("_use_triton", "_ChunkedLogProbFunction"),
    ),
    Upstream("trl.kernels:ChunkedLogProbFunction", "3661e8975a9f", "`TargetScores` says the same"),
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
    *(
        Upstream(f"{ENGINE}.{name}", digest, "`engine_files` and `resharding` take its files' place", names)
        for name, digest, names in (
            ("save_checkpoint", "2728646fe061", ()),
            ("load_checkpoint", "b06341e8eb59", ()),
            ("_load_checkpoint", "bf02f911c08f", ()),
            ("_save_zero_checkpoint", "54814261564e", ()),
            ("_load_zero_checkpoint", "178566fb831f", ()),
            ("_get_all_zero_checkpoint_state_dicts", "2e459ea4e934", ()),
            ("_get_all_ckpt_names", "2bd967942366", ("_get_all_ckpt_names",)),
            ("_get_zero_param_shapes", "9072c2c697a6", ("_get_zero_param_shapes",)),
        )
    ),
    *(
        Upstream(f"deepspeed.runtime.{source}", digest, "`resharding` makes what it reads")
        for source, digest in (
            ("zero.stage_1_and_2:DeepSpeedZeroOptimizer.state_dict", "9d17961a96cd"),
            ("zero.stage_1_and_2:DeepSpeedZeroOptimizer._load_legacy_checkpoint", "b548f8abe67b"),
            ("zero.stage3:DeepSpeedZeroOptimizer_Stage3._rigid_state_dict", "04afcb774be0"),
            ("zero.stage3:DeepSpeedZeroOptimizer_Stage3._rigid_load_state_dict", "77da80dc68ed"),
            ("bf16_optimizer:BF16_Optimizer.state_dict", "874f3362139d"),
            ("bf16_optimizer:BF16_Optimizer._load_legacy_checkpoint", "3b1f22341bb4"),
        )
    ),
    Upstream(
        "deepspeed.runtime.engine:DeepSpeedEngine.step", "e0f0fc3679fc", "what `Engine.step` leaves out counts as one"
    ),
    Upstream(
        "deepspeed.sequence.layer:_dim_zero_all_to_all",
        "7b069e027a32",
        "processes that share rows exchange by it",
        ("_dim_zero_all_to_all",),
    ),
    Upstream(
        "deepspeed.runtime.engine:DeepSpeedEngine._configure_tensor_parallel_states",
        "4e2edc50d526",
        "its look at the first rows, which pickles them, is taken away",
    ),
    Upstream("deepspeed.module_inject.layers:LinearLayer", "85bc9238b48b", "`stored_matrices` joins its shards"),
    Upstream("deepspeed.module_inject.layers:LinearAllreduce", "45d901780b64", "the same"),
    Upstream(
        "accelerate.accelerator:Accelerator.prepare_data_loader",
        "27fe34d17943",
        "`rows_of` tells it which rows are a process's, where some share theirs",
    ),
    Upstream(
        "peft.tuners.lora.layer:ParamWrapper._activate_lora",
        "2a63e37ecf37",
        "a layer of experts is compared with its adapter",
        ("_activate_lora",),
    ),
    Upstream(
        "transformers.modeling_utils:PreTrainedModel._initialize_weights",
        "1264214f75f1",
        "`scratch` draws each module's chance by it",
        ("_initialize_weights",),
    ),
    Upstream(
        "deepspeed.runtime.zero.partition_parameters:Init._convert_to_deepspeed_param",
        "109d5ce0cfbc",
        "`placement` spreads one weight by it",
        ("_convert_to_deepspeed_param",),
    ),
    Upstream(
        "transformers.integrations.deepspeed:set_hf_deepspeed_config",
        "39cb6a902887",
        "what it sets is taken away while an empty model is made",
        ("_hf_deepspeed_config_weak_ref",),
    ),
    Upstream(
        "transformers.modeling_utils:PreTrainedModel.save_pretrained",
        "62e9dbb5e8ff",
        "`shards` writes what it would",
        ("_keys_to_ignore_on_save",),
    ),
    Upstream(
        "torch.nn.modules.module:Module.register_parameter",
        "15f0bbc613c8",
        "weights find their place where it puts them",
        ("_parameters",),
    ),
    Upstream("torch.distributed.distributed_c10d:_object_to_tensor", "06adb0c0b06c", "pickles by", ("_pickler",)),
    Upstream("torch.distributed.distributed_c10d:_tensor_to_object", "cee5afd0fdc0", "unpickles by", ("_unpickler",)),
    Upstream(
        "lm_eval.utils:apply_template", "5980b059b01a", "renders by `env` of its module, in whose place is a sandbox"
    ),
    Upstream(
        "lm_eval.api.task:ConfigurableTask.__init__",
        "02ceddcde4e7",
        "runs nothing of what `task_files` lets through",
        ("_filters",),
    ),
    Upstream(
        "lm_eval.evaluator:evaluate",
        "160510a1896b",
        "draws and fetches nothing, and gathers by no collective of one rank",
    ),
    Upstream(
        "lm_eval.models.huggingface:HFLM._model_call", "b9d10be8df10", "a batch of prompts goes by it", ("_model_call",)
    ),
    Upstream(
        "lm_eval.models.huggingface:HFLM._model_generate",
        "9bf286f17b43",
        "a batch of answers goes by it",
        ("_model_generate",),
    ),
)
IMPORTED = (  # an upgrade that takes them away shows at import
    "torch._C._distributed_c10d",
    "deepspeed.sequence.layer._dim_zero_all_to_all",
    "peft.utils.transformers_weight_conversion._MODEL_TO_CONVERSION_PATTERN",
    "peft.utils.transformers_weight_conversion._MOE_TARGET_MODULE_MAPPING",
)
