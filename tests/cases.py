"""Which tests hold the cases that were found by hand in real clusters: a small manifest each, by the name of its file.

The manifests lie beside the repository, and tests hold the kind and not only the case; this
table is how one finds them. A test here that no longer exists fails ``tests/unit/test_cases.py``.
"""

from __future__ import annotations

OPERATOR: dict[str, tuple[str, ...]] = {
    "bad-quantity": (
        "unit/api/test_resources.py::test_a_wrong_quantity_is_named",
        "api/test_quantities.py::test_what_a_pod_refuses_is_refused",
    ),
    "drain-while-loading": (
        "api/serving/test_life.py::test_a_pod_that_loads_can_be_evicted_and_one_that_answers_is_protected",
    ),
    "fields-people-need": (
        "unit/kube/test_templates.py::test_every_field_reaches_the_pod",
        "api/training/test_pods.py::test_pods_of_data_preparation_and_of_stages",
        "api/training/test_pods.py::test_pods_of_a_serving",
    ),
    "foreign-service": (
        "api/kube/test_foreign.py::test_a_users_object_in_the_place_of_a_servings_child",
        "api/kube/test_foreign.py::test_when_the_users_object_is_gone_ours_takes_its_place",
    ),
    "gpu-kinds": (
        "unit/api/test_resources.py::test_processes_follow_from_gpus_of_any_name",
        "api/test_quantities.py::test_what_a_pod_takes_is_taken",
    ),
    "invalid-edit-while-running": (
        "api/training/test_invalid_edits.py::test_the_attempt_runs_on",
        "api/training/test_invalid_edits.py::test_it_can_be_suspended",
        "api/training/test_invalid_edits.py::test_a_failure_is_noted",
    ),
    "job-count-quota": ("api/training/test_refusals.py::test_a_quota_of_two_jobs_is_enough",),
    "long-names": (
        "api/training/test_names.py::test_trainings_with_names_at_their_limits",
        "api/serving/test_life.py::test_names_at_their_limits",
    ),
    "policy-engine-mutates": (
        "api/training/test_policies.py::test_what_a_policy_writes_stays",
        "api/training/test_policies.py::test_a_job_that_went_while_the_operator_was_away",
    ),
    "quantity-formats": ("api/test_quantities.py::test_a_pod_judges_as_we_do",),
    "rank-0-unreachable": (
        "api/training/test_unreachable.py::test_no_training_waits_for_the_rank_0_of_another",
        "api/training/test_unreachable.py::test_the_status_says_so_until_rank_0_speaks",
    ),
    "refusal-with-changing-text": ("api/kube/test_failures.py::test_a_refusal_whose_text_changes_backs_off",),
    "restart-with-many": (
        "api/kube/test_operator.py::test_a_restart_with_many_trainings_writes_nothing_but_the_lease",
    ),
    "rollout-without-spare-gpu": (
        "api/serving/test_life.py::test_an_old_pod_goes_first_where_no_node_holds_one_more",
        "unit/serving/test_rollout.py::test_a_rollout_beyond_its_time_is_stuck",
    ),
    "rwo-claim-two-nodes": ("api/training/test_causes.py::test_a_disk_of_one_node_and_two_pods",),
    "scale-after-training-deleted": ("api/serving/test_life.py::test_it_follows_its_spec_when_its_training_is_gone",),
    "sidecar-keeps-pod-running": (
        "api/training/test_sidecars.py::test_a_stage_succeeds_by_the_last_word_of_rank_0",
        "api/training/test_sidecars.py::test_nothing_runs_on_after_a_failure",
    ),
    "spread-with-cpu-nodes": ("api/training/test_spread.py::test_where_two_pods_run",),
    "user-env-and-secrets": (
        "unit/kube/test_templates.py::test_what_is_ours_cannot_be_set",
        "api/training/test_pods.py::test_wrong_pods_are_refused",
        "api/training/test_pods.py::test_what_no_field_holds_is_not_kept",
    ),
    "watched-namespace-deleted": (
        "api/kube/test_namespaces.py::test_a_watched_namespace_that_is_deleted_stops_no_other_and_may_come_back",
    ),
}

SERVING: dict[str, tuple[str, ...]] = {
    "adapter-names-of-clients": (
        "unit/api/test_validation.py::test_a_right_serving_is_accepted",
        "api/test_crds.py::test_right_servings_are_accepted",
    ),
    "adapter-on-family-without-lora": ("unit/serving/test_families.py::test_an_adapter_never_takes_its_base_down",),
    "adapter-on-mixture-on-cpu": (
        "unit/serving/test_families.py::test_an_adapter_never_takes_its_base_down",
        "unit/serving/test_families.py::test_an_adapter_beside_a_mixture_goes_where_its_gpus_do",
    ),
    "api-key-and-probe": (
        "unit/serving/test_probes.py::test_the_key_is_that_of_its_container",
        "e2e/test_serving_image.py::test_the_key_of_the_environment",
    ),
    "chat-template-from-configmap": ("api/serving/test_life.py::test_a_chat_template_follows_its_config_map",),
    "data-type-unknown": ("api/test_crds.py::test_wrong_servings_are_refused",),
    "embedding-model": (
        "unit/serving/test_probes.py::test_an_answer",
        "e2e/test_serving_image.py::test_a_model_that_only_embeds",
    ),
    "first-request-hangs": (
        "unit/serving/test_watch.py::test_a_first_request_that_never_ends",
        "unit/serving/test_watch.py::test_an_engine_that_hangs_later",
        "e2e/test_serving_image.py::test_an_engine_that_hangs_is_ended",
    ),
    "heads-not-divisible": (
        "unit/serving/test_families.py::test_what_can_not_start_is_refused_before_a_pod",
        "unit/serving/test_families.py::test_what_can_not_start_never_replaces_what_serves",
        "e2e/test_serving_image.py::test_the_last_word_is_the_cause",
    ),
    "kv-cache-too-small": (
        "unit/serving/test_launcher.py::test_the_cache_follows_the_limit",
        "e2e/test_serving_image.py::test_the_cache_follows_the_limit_and_cached_files_are_no_use_of_it",
    ),
    "plan-of-a-serving": ("unit/test_plan.py::test_a_serving",),
    "replaced-in-place": (
        "unit/serving/test_rollout.py::test_a_restart_by_hand_is_a_rollout_that_is_not_undone",
        "unit/serving/test_rollout.py::test_pods_of_two_models_are_told",
    ),
    "runtime-class-and-labels": (
        "unit/kube/test_templates.py::test_every_field_reaches_the_pod",
        "api/training/test_pods.py::test_pods_of_a_serving",
    ),
    "several-names": (
        "unit/api/test_vllm_arguments.py::test_refused",
        "api/test_crds.py::test_right_servings_are_accepted",
        "api/test_crds.py::test_wrong_servings_are_refused",
    ),
    "startup-timeout-too-large": ("api/test_crds.py::test_wrong_servings_are_refused",),
    "tls-in-arguments": ("unit/api/test_vllm_arguments.py::test_refused",),
}

# Files of text and rows, conversations, folders of models.
DATA: dict[str, tuple[str, ...]] = {
    "alpaca": (
        "unit/trainer_data/test_formats.py::test_converted",
        "unit/trainer_data/test_examples.py::test_every_format",
    ),
    "answers-cut-off": ("unit/trainer_data/test_examples.py::test_rows_that_are_too_long",),
    "assistant-first": (
        "unit/trainer_data/test_rendering.py::test_what_a_template_refuses_or_leaves_out",
        "trainer/test_prepared_rows.py::test_rows_are_read_by_the_tokenizer_of_the_stage",
    ),
    "beginning-token-twice": ("unit/trainer_data/test_rendering.py::test_tokens_are_those_of_transformers",),
    "bom-crlf-nul": ("unit/trainer_data/test_readers.py::test_a_byte_order_mark_is_no_text_and_a_nul_is",),
    "bom-jsonl": ("unit/trainer_data/test_readers.py::test_lines_however_they_end",),
    "chosen-turns-prompt-text": ("unit/trainer_data/test_formats.py::test_converted",),
    "content-parts": (
        "unit/trainer_data/test_formats.py::test_refused",
        "unit/trainer_data/test_formats.py::test_converted",
    ),
    "cr-only": (
        "unit/trainer_data/test_readers.py::test_lines_however_they_end",
        "unit/trainer_data/test_readers.py::test_lines_are_counted_however_they_end",
    ),
    "dataset-changed-between-attempts": (
        "trainer/test_lifecycle.py::test_rows_that_changed_are_noticed",
        "unit/trainer/test_fingerprints.py::test_a_change_is_seen",
    ),
    "developer-role": (
        "unit/trainer_data/test_formats.py::test_converted",
        "unit/trainer_data/test_rendering.py::test_what_a_template_refuses_or_leaves_out",
    ),
    "empty-assistant": ("unit/trainer_data/test_formats.py::test_refused",),
    "empty-lines-and-null": (
        "unit/trainer_data/test_readers.py::test_lines_however_they_end",
        "unit/trainer_data/test_rows.py::test_a_bad_row_is_named",
    ),
    "eos-differs-from-end-of-turn": (
        "trainer/test_ends_of_turns.py::test_a_published_model_stops_at_the_end_of_a_turn",
        "trainer/test_ends_of_turns.py::test_an_answer_ends_with_its_turn",
    ),
    "fewer-rows-than-a-batch": ("unit/trainer_data/test_examples.py::test_fewer_rows_than_a_step_takes",),
    "gradient-accumulation": (
        "trainer/test_sft.py::test_batches_change_nothing",
        "trainer/test_lifecycle.py::test_how_a_batch_is_split_does_not_matter",
    ),
    "grpo-fewer-prompts-than-a-step": ("unit/trainer_data/test_examples.py::test_fewer_rows_than_a_step_takes",),
    "grpo-first-row-null": ("trainer/test_prepared_rows.py::test_a_column_lives_if_any_row_has_it",),
    "gzip": (
        "unit/trainer_data/test_any_file.py::test_a_file_that_is_cut_at_any_byte",
        "unit/trainer_data/test_prepare_stage.py::test_what_is_wrong",
    ),
    "held-out-figure-and-batch-size": (
        "trainer/test_sft.py::test_batches_change_nothing",
        "trainer/test_lifecycle.py::test_how_a_batch_is_split_does_not_matter",
    ),
    "hub-cache-links": ("unit/trainer_data/test_files.py::test_a_link_that_leads_nowhere_is_refused",),
    "identical-rows": ("unit/trainer_data/test_examples.py::test_identical_rows",),
    "kto-int-label": ("unit/trainer_data/test_formats.py::test_refused",),
    "kto-odd-rows": ("unit/trainer_data/test_examples.py::test_labels_and_odd_rows",),
    "lfs-pointer": (
        "unit/trainer_data/test_model_files.py::test_a_git_lfs_pointer",
        "unit/trainer_data/test_tokenizer.py::test_a_tokenizer_that_is_a_git_lfs_pointer",
        "unit/trainer_data/test_readers.py::test_a_git_lfs_pointer_is_told_as_such",
    ),
    "lone-surrogate-row": (
        "unit/trainer_data/test_readers.py::test_half_a_character_in_a_row_is_told_by_its_line",
        "unit/trainer_data/test_formats.py::test_refused",
    ),
    "long-run-of-letters": (
        "unit/trainer_data/test_tokenizer.py::test_what_a_long_line_costs_grows_with_its_length_alone",
        "unit/trainer_data/test_tokenizer.py::test_pieces_are_the_text_and_end_where_words_do",
    ),
    "lora-target-modules": (
        "trainer/test_lora_targets.py::test_names_of_no_layer",
        "trainer/test_lora_targets.py::test_no_names_are_all_layers",
    ),
    "margin-nan": (
        "unit/trainer_data/test_formats.py::test_refused",
        "trainer/test_lifecycle.py::test_a_stage_in_which_nothing_was_learned_fails",
    ),
    "no-padding-token": ("trainer/test_ends_of_turns.py::test_a_reward_is_read_where_it_was_learned",),
    "one-long-line": (
        "unit/trainer_data/test_tokenizer.py::test_what_a_long_line_costs_grows_with_its_length_alone",
        "unit/trainer_data/test_tokenizer.py::test_a_long_text_has_the_ids_that_it_has_as_a_whole",
    ),
    "one-text-file": ("unit/trainer_data/test_prepare.py::test_one_text_file_can_not_be_split",),
    "one-token-more-than-embeddings": ("unit/trainer_data/test_tokenizer_checks.py::test_more_tokens_than_embeddings",),
    "packed-documents": (
        "trainer/test_models.py::test_packed_is_unpacked",
        "trainer/test_any_family.py::test_documents_of_a_row_do_not_see_each_other",
        "unit/trainer/test_attention.py::test_flash_attention_is_told_where_documents_begin",
        "trainer/test_packing.py::test_packing_changes_no_loss",
        "trainer/test_packing.py::test_logits_of_examples_in_a_row_are_those_of_each_alone",
    ),
    "parquet-invalid-utf8": (
        "unit/trainer_data/test_readers.py::test_what_is_not_utf8_is_told_by_its_row_and_only_where_it_is_needed",
    ),
    "parquet-types": (
        "unit/trainer_data/test_readers.py::test_texts_of_every_type",
        "unit/trainer_data/test_readers.py::test_a_text_in_an_object_and_a_name_with_a_dot",
    ),
    "prompt-completion-merge": (
        "unit/trainer_data/test_examples.py::test_a_prompt_that_grows_into_its_answer_is_told",
    ),
    "prompt-text-completion-turns": ("unit/trainer_data/test_formats.py::test_converted",),
    "resume-in-a-later-epoch": (
        "trainer/test_sft.py::test_kill_in_mid_stage",
        "trainer/test_lifecycle.py::test_it_goes_on_in_a_later_epoch",
        "trainer/test_micro_batches.py::test_any_step_may_be_the_first",
    ),
    "role-key-extra": (
        "unit/trainer_data/test_formats.py::test_converted",
        "unit/trainer_data/test_examples.py::test_what_nobody_reads_is_told",
    ),
    "seed-large": (
        "unit/api/test_validation.py::test_a_wrong_training_is_refused_by_its_field",
        "api/test_crds.py::test_wrong_trainings_are_refused",
    ),
    "sharegpt": (
        "unit/trainer_data/test_formats.py::test_converted",
        "unit/trainer_data/test_examples.py::test_every_format",
    ),
    "special-token-in-text": (
        "unit/trainer_data/test_rendering.py::test_text_writes_no_control_tokens",
        "unit/trainer_data/test_rendering.py::test_what_is_spelled_is_encoded_as_by_itself",
    ),
    "templates-by-name": ("unit/trainer_data/test_rendering.py::test_templates_by_name",),
    "text-column": (
        "unit/trainer_data/test_formats.py::test_converted",
        "unit/trainer_data/test_examples.py::test_every_format",
    ),
    "tool-calls": (
        "unit/trainer_data/test_rendering.py::test_tool_calls_and_results",
        "unit/trainer_data/test_formats.py::test_converted",
    ),
    "tools-column-dropped": ("unit/trainer_data/test_rendering.py::test_tool_calls_and_results",),
    "utf16": ("unit/trainer_data/test_readers.py::test_utf_16_is_told_as_such",),
    "weights-under-other-names": (
        "trainer/test_weights.py::test_weights_under_other_names",
        "trainer/test_weights.py::test_data_preparation_looks_at_the_model",
        "unit/trainer_data/test_prepare_stage.py::test_what_is_wrong",
    ),
}
