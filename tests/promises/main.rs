//! What holds, each in a file that is named after it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test: helpers fail as the tests do"
)]

mod a_doctor_says_what_to_do;
mod a_switch_loses_nothing;
mod architecture;
mod bad_models_give_way;
mod callers_cannot_harm_a_model;
mod crashes_lose_nothing;
mod daemons_are_found;
mod damaged_bundles_are_refused;
mod damaged_checkpoints_are_named;
mod devices_pull_models;
mod equals_hugging_face;
mod existing_tools_read_us;
mod golden_tests_hold;
mod histories_are_gathered;
mod kernels_are_chosen;
mod large_requests_cost_little;
mod malformed_requests_are_named;
mod models_are_deployed;
mod nothing_asked_is_recorded;
mod only_signed_models_run;
mod only_what_changed_travels;
mod operators_look_and_drain;
mod other_clients_speak_to_us;
mod other_machines_need_certificates;
mod other_tools_understand_us;
mod pages_are_true;
mod paths_are_any_bytes;
mod published_repositories_are_served;
mod quantized_graphs_equal_the_oracle;
mod registries_carry_bundles;
mod results_do_not_depend_on_company;
mod rollouts_go_in_waves;
mod rollouts_survive_the_fleet;
mod served_checkpoints_equal_hugging_face;
mod settings_do_what_they_say;
mod stopping_is_orderly;
mod stored_damage_is_found;
mod systemd_is_told;
mod terminals_are_respected;
mod text_stays_text;
mod the_demo_model_answers;
mod the_history_survives;
mod the_journal_has_fields;
mod trust_attacks_are_refused;
mod waiting_has_bounds;
mod weights_stay_in_memory;
mod who_goes_away_frees_the_slot;
