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
        "api/kube/test_operator.py::test_a_watched_namespace_that_is_deleted_stops_no_other_and_may_come_back",
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

DATA: dict[str, tuple[str, ...]] = {
    "lora-target-modules": (
        "trainer/test_lora_targets.py::test_names_of_no_layer",
        "trainer/test_lora_targets.py::test_no_names_are_all_layers",
    ),
    "packed-documents": (
        "trainer/test_any_family.py::test_documents_of_a_row_do_not_see_each_other",
        "unit/trainer/test_attention.py::test_flash_attention_is_told_where_documents_begin",
    ),
    "weights-under-other-names": (
        "trainer/test_weights.py::test_weights_under_other_names",
        "trainer/test_weights.py::test_data_preparation_looks_at_the_model",
    ),
}
