//! What qudo promises, written once against the public interface and run on every engine: in
//! memory, SQLite, PostgreSQL alone and behind a transaction pooler, MariaDB, MySQL, and on a mixed set of several databases at once.

#![allow(missing_docs, unreachable_pub, reason = "a test is read, not called")]

mod abilities;
mod bed;
mod databases;
mod enqueue;
mod exceptions;
#[cfg(all(feature = "tokio", feature = "zstd", feature = "aead"))]
mod extending;
mod hooks;
mod reply;
mod session;
mod statements;
mod transactional;
mod work;

macro_rules! on {
    ($(#[$cfg:meta])* $engine:ident { $($group:ident { $($name:ident,)* })* }) => {
        $(#[$cfg])*
        mod $engine {
            $(mod $group {
                $(#[test]
                fn $name() {
                    crate::bed::run(stringify!($engine), crate::$group::$name);
                })*
            })*
        }
    };
}

macro_rules! behaviours {
    ($($suite:tt)*) => {
        on!(memory { $($suite)* });
        on!(#[cfg(feature = "sqlite")] sqlite { $($suite)* });
        on!(#[cfg(feature = "postgres")] postgres { $($suite)* });
        on!(#[cfg(feature = "postgres")] pooled { $($suite)* });
        on!(#[cfg(feature = "mysql")] mariadb { $($suite)* });
        on!(#[cfg(feature = "mysql")] mysql { $($suite)* });
        on!(mixed { $($suite)* });
        granted!($($suite)*);
    };
}

/// What clients, workers and operators do, with the rights of docs/grants: all groups but those that make
/// tables or go beside the accounts.
macro_rules! granted {
    (statements $statements:tt enqueue $enqueue:tt work $work:tt reply $reply:tt
     exceptions $exceptions:tt $($others:tt)*) => {
        on!(#[cfg(feature = "postgres")] granted_postgres {
            enqueue $enqueue work $work reply $reply exceptions $exceptions
        });
        on!(#[cfg(feature = "mysql")] granted_mariadb {
            enqueue $enqueue work $work reply $reply exceptions $exceptions
        });
        on!(#[cfg(feature = "mysql")] granted_mysql {
            enqueue $enqueue work $work reply $reply exceptions $exceptions
        });
    };
    // A part that goes beside the others.
    ($($others:tt)*) => {};
}

behaviours! {
    statements {
        the_statements_of_an_engine_are_read_along,
    }
    enqueue {
        a_job_is_stored_looked_up_and_worked_once,
        arguments_of_every_shape_arrive_as_they_were_sent,
        a_client_that_does_not_link_the_ability_enqueues_by_name_with_json,
        higher_priority_runs_first_and_equals_run_in_order,
        a_delayed_job_waits_until_it_is_due,
        a_job_due_in_the_past_runs_at_once,
        a_key_that_a_live_job_holds_is_not_stored_again,
        a_key_is_free_again_when_its_job_is_done_failed_or_dequeued,
        one_key_for_two_abilities_is_two_keys,
        a_key_stays_held_while_its_job_waits_for_a_retry,
        threads_that_race_for_a_key_store_one_job,
        an_id_enqueued_twice_is_stored_once,
        many_jobs_are_stored_at_once_and_conflicts_are_told_one_by_one,
        a_suppressed_job_is_not_stored,
        a_job_for_a_named_database_goes_there_and_an_unknown_name_is_refused,
        a_bulk_of_jobs_for_all_places_goes_where_each_alone_would_go,
        what_cannot_be_stored_is_refused_by_name,
        a_waiting_job_can_be_dequeued_and_a_running_one_cannot,
        reenqueue_changes_when_a_waiting_job_runs,
        jobs_are_listed_by_ability_with_limit_and_offset,
        jobs_are_counted_by_ability_and_state,
        threads_that_enqueue_at_once_lose_nothing,
    }
    work {
        nothing_to_do_is_no_error,
        a_manager_without_abilities_is_told_how_to_link_them,
        jobs_of_abilities_that_a_manager_lacks_are_left_for_others,
        a_failing_job_is_retried_up_to_max_retries_and_ends_in_the_exception_log,
        the_next_attempt_waits_for_the_retry_delay,
        the_retry_delay_may_be_computed_from_the_job,
        an_aborted_job_never_runs_again,
        a_panic_is_a_failed_attempt_and_the_thread_lives_on,
        an_argument_that_does_not_decode_is_kept_in_the_exception_log,
        replace_completes_one_job_and_enqueues_others,
        replacements_are_told_to_the_observer,
        an_idle_worker_runs_a_retry_as_soon_as_it_is_due,
        an_argument_larger_than_a_server_takes_is_refused_and_the_database_stays_in_use,
        an_end_that_cannot_be_stored_sends_the_job_to_the_exception_log,
        a_replacement_whose_key_is_taken_is_not_told_as_stored,
        a_run_that_fails_replaces_nothing,
        a_job_may_be_replaced_by_one_with_the_same_key,
        snooze_spends_no_attempt,
        job_status_is_kept_on_request_and_only_then,
        a_job_enqueues_more_through_its_manager,
    }
    reply {
        the_return_value_reaches_the_client,
        several_replies_arrive_in_order_before_the_return_value,
        a_ticket_is_rebuilt_from_an_id,
        check_tells_how_far_a_job_is,
        a_job_without_a_reply_answers_with_nothing,
        the_reply_of_a_failed_job_is_its_error,
        waiting_ends_with_its_limit,
        an_attempt_that_fails_leaves_no_reply,
        old_replies_are_removed,
    }
    exceptions {
        the_log_is_read_newest_first_with_limit_offset_and_ability,
        a_failed_job_is_enqueued_again_once,
        a_failure_that_was_retried_cannot_be_enqueued_again,
        redrive_is_refused_while_a_live_job_holds_the_key,
    }
    hooks {
        pre_enqueue_may_change_the_draft,
        pre_enqueue_may_veto,
        post_enqueue_sees_the_stored_job,
        pre_work_may_abort_and_snooze,
        around_work_surrounds_the_ability,
        on_failure_may_change_the_decision,
        post_work_sees_every_outcome,
        a_hook_that_panics_has_one_effect_and_stops_nothing,
        a_panic_where_an_error_is_told_or_a_hook_is_chosen_fails_the_attempt_alone,
        hooks_run_in_order_and_can_be_unregistered,
    }
    session {
        every_job_is_worked_once_by_many_threads,
        two_managers_share_the_work_and_nothing_runs_twice,
        a_delayed_job_starts_when_it_is_due,
        an_idle_worker_starts_a_new_job_at_once,
        unstarted_jobs_are_given_back_at_shutdown_with_the_attempt_unspent,
        a_running_job_finishes_before_shutdown,
        a_job_that_outlives_the_stop_is_settled_when_it_ends,
        an_end_is_kept_while_the_tables_are_away,
        several_queues_are_served_in_turn,
        jobs_of_a_silent_worker_are_rescued_and_the_late_settle_changes_nothing,
        the_promise_of_a_worker_counts_and_not_the_setting_of_who_rescues,
        a_lease_that_ends_gives_the_job_to_another,
        a_job_that_outlives_its_workers_ends_in_the_exception_log,
        a_claim_whose_answer_was_lost_is_released,
        what_another_process_gives_back_starts_at_once,
        a_settle_that_is_repeated_changes_nothing,
        two_claims_of_one_job_in_one_settle_are_told_apart,
        a_group_of_large_ends_is_stored,
        what_is_completed_among_others_leaves_the_others_alone,
        long_jobs_are_not_hoarded,
    }
    databases {
        reports_tell_state_source_and_depth,
        a_drained_database_takes_no_new_jobs_and_works_those_it_has,
        when_all_are_drained_the_error_says_so,
        a_paused_database_keeps_its_jobs_until_it_is_resumed,
        a_key_is_looked_up_in_the_drained_home_before_it_moves_on,
        moved_jobs_keep_their_facts_and_tickets_follow,
        a_job_whose_key_is_held_there_stays_and_running_ones_are_left,
        a_key_moves_only_to_its_home,
        a_move_that_was_killed_anywhere_goes_on_and_doubles_nothing,
        what_an_overtaken_mover_brings_too_late_is_removed,
        two_movers_at_once_move_every_job_once,
        databases_are_added_and_removed_while_the_manager_works,
        a_database_without_tables_is_not_added,
        the_spool_takes_jobs_while_no_database_can_and_forwards_them,
        a_spooled_job_whose_key_was_taken_meanwhile_is_dropped,
        two_spools_that_forward_at_once_lose_and_double_nothing,
        a_forward_that_was_killed_half_way_goes_on_when_the_process_is_back,
        a_spooled_job_that_a_drained_database_has_half_is_not_lost,
        a_spooled_job_that_lives_in_a_drained_database_is_not_run_twice,
        a_spool_must_be_local_and_have_a_name_of_its_own,
        changes_of_state_are_told,
    }
    transactional {
        a_database_without_tables_is_refused_with_the_remedy,
        migrating_twice_is_harmless_and_reverting_removes_everything,
        a_job_of_a_committed_transaction_runs_and_wakes_a_worker,
        the_notification_of_a_callers_transaction_can_be_switched_off,
        a_job_of_a_rolled_back_transaction_never_was,
        a_key_is_unique_inside_the_callers_transaction_too,
        a_job_completes_in_the_transaction_of_its_effect,
        what_replaces_a_job_in_its_transaction_starts_at_once,
        an_end_in_a_transaction_is_told_and_kept_as_any_other,
        an_effect_that_fails_leaves_neither_itself_nor_the_end_of_the_job,
        a_panic_in_the_transaction_leaves_nothing_and_the_database_works_on,
        a_lost_lease_rolls_the_effect_back,
    }
}

#[cfg(all(feature = "tokio", feature = "zstd", feature = "aead"))]
mod extended {
    behaviours! {
        extending {
            jobs_of_a_former_name_are_still_run,
            the_unique_key_may_come_from_the_argument,
            an_argument_of_an_older_version_is_upgraded_step_by_step,
            an_argument_of_a_newer_version_is_left_to_newer_workers,
            a_run_that_fails_after_its_time_limit_has_failed_for_its_time,
            hooks_of_an_ability_are_called_for_its_jobs_alone,
            a_type_may_be_its_own_ability,
            an_ability_may_return_any_error,
            every_codec_carries_arguments_and_replies,
            a_failed_job_keeps_its_original_bytes_over_a_change_of_keys,
            waiting_jobs_that_nobody_here_can_do_are_named,
            async_abilities_run_on_the_runtime_of_the_application,
            t_011_plugin_function,
            t_011_plugin_object,
            t_011_plugin_with_options,
            t_011_plugin_that_is_missing_fails_the_attempt,
            an_allow_list_refuses_what_it_does_not_name,
            a_late_job_goes_to_the_exception_log,
            a_circuit_breaker_puts_jobs_off_without_spending_attempts,
            retry_hooks_decide_by_kind_and_attempt,
            t_010_hook_pre_enqueue,
            t_010_hook_post_enqueue,
            t_010_hook_pre_work,
            t_010_hook_post_work,
            t_010_hook_serialize_and_deserialize,
        }
    }
}
