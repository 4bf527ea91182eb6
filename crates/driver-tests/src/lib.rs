//! The behaviour suite of the qudo job queue: what any [`Driver`](qudo::driver::Driver) is held to.
//!
//! The manager above a driver and the users above the manager rely on more than types say: that an insert is
//! idempotent, that a claim skips what another claim holds, that a settlement of a lease that was lost changes
//! nothing. Every driver of qudo's own runs this suite, and whoever writes one can:
//!
//! ```no_run
//! # mod mine { pub fn fresh() -> qudo_driver_tests::Fresh { qudo_driver_tests::Fresh::in_memory() } }
//! use qudo_driver_tests::{Bed, Fresh};
//!
//! /// Called once for each test, which `behaviour` is.
//! fn run(behaviour: fn(&Bed)) {
//!     // An empty database, by a name that the driver's `DriverRegistration` opens, and what removes it.
//!     let fresh: Fresh = mine::fresh();
//!     behaviour(&Bed::new([("mine".to_owned(), fresh)]));
//! }
//!
//! // One test for each behaviour: `enqueue::a_job_is_stored_looked_up_and_worked_once`, ...
//! qudo_driver_tests::suite!(crate::run);
//! ```
//!
//! A bed may hold several databases, also of several drivers. `tests/files.rs` of this crate runs the suite on
//! a driver that keeps everything in one file, `examples/file_driver`: read it before you write yours.
//!
//! A behaviour fails by a panic that says what it saw. None sleeps as proof: each waits for a condition, with
//! a [`DEADLINE`].

mod bed;

pub use bed::{Bed, DEADLINE, Fresh, Log, departed, eventually, rescue_silent, run_all};

macro_rules! groups {
    ($($(#[$doc:meta])* $group:ident,)*) => {
        $(
            $(#[$doc])*
            #[allow(missing_docs, clippy::missing_errors_doc, reason = "the name of a test says what it tests")]
            pub mod $group;
        )*
    };
}

groups! {
    /// The abilities that the behaviours use.
    abilities,
    /// What the port promises, asked of the driver itself.
    contract,
    /// Databases that are drained, paused, added, removed, and moved between.
    databases,
    /// A job that is run by its id.
    by_hand,
    /// Jobs that an operator cancels.
    cancels,
    /// What becomes of a job that is enqueued.
    enqueue,
    /// The log of failed attempts.
    exceptions,
    /// What a job is, which is the same wherever it appears, and who had it in hand.
    facts,
    /// Hooks around what a job goes through.
    hooks,
    /// What hooks and plugins are told after the commit, and when a service starts and stops.
    points,
    /// Numbers of runs.
    numbers,
    /// What jobs tell while they run.
    interim,
    /// Verbs over many jobs.
    operations,
    /// Lists of jobs, failures and runs: filters and pages.
    lists,
    /// Why a job does not run, or how it ended.
    reasons,
    /// What comes back to the client.
    reply,
    /// Services: many threads, many processes, leases, rescues.
    session,
    /// How a run ends.
    work,
}

/// Makes one test of each behaviour.
///
/// The first argument is the path, from `crate::` on, of a function `fn(fn(&Bed))` that makes a fresh [`Bed`] and
/// runs the behaviour on it. Groups may follow; without them it is all:
///
/// ```no_run
/// # use qudo_driver_tests::{Bed, Fresh};
/// # fn run(behaviour: fn(&Bed)) { behaviour(&Bed::new([("m".to_owned(), Fresh::in_memory())])); }
/// mod some {
///     qudo_driver_tests::suite!(crate::run; enqueue work reply);
/// }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! suite {
    ($run:path) => {
        $crate::suite!($run; contract enqueue work by_hand reply interim facts exceptions lists reasons cancels operations numbers hooks points session databases);
    };
    ($run:path; $($group:ident)*) => {
        $(mod $group {
            $crate::suite!(@ $group $run);
        })*
    };
    (@ contract $run:path) => {
        $crate::tests! { $run; $crate::contract:
            nothing_is_stored_leased_or_ordered_after_its_deadline,
            a_worker_that_was_heard_of_since_keeps_its_jobs,
            a_lease_past_its_end_is_taken_when_that_is_asked_for,
            leases_of_a_worker_without_a_row_are_taken_back,
            a_rescue_takes_no_more_than_its_limit,
            the_keys_of_a_group_are_free_when_it_is_settled,
            a_group_of_every_kind_is_settled_and_what_lies_between_its_jobs_stays,
            what_lies_between_the_jobs_of_a_plain_group_stays,
            which_of_many_jobs_live_is_told,
            what_is_kept_is_kept_for_its_time,
            of_too_many_failures_the_oldest_go_whatever_their_age,
            a_delay_of_nothing_makes_a_job_ready_at_once,
            what_arrived_once_is_not_brought_again,
            a_mover_that_was_overtaken_ends_no_departure_but_its_own,
            two_departures_of_a_job_do_not_meet_in_one_place,
            two_departures_that_are_brought_at_the_same_time_leave_each_job_in_one_place,
            a_job_that_leaves_is_not_taken_for_arrived,
            full_copies_that_are_moved_to_each_other_at_the_same_time_leave_one_at_least,
            a_job_of_an_id_that_arrived_before_is_moved_like_any_other,
            of_a_job_that_went_long_ago_and_came_back_only_the_old_trail_is_purged,
            each_live_job_is_told_with_its_one_place,
            tables_are_made_and_removed_as_they_are_told,
        }
    };
    (@ enqueue $run:path) => {
        $crate::tests! { $run; $crate::enqueue:
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
            jobs_are_counted_by_ability_and_state,
            threads_that_enqueue_at_once_lose_nothing,
        }
    };
    (@ work $run:path) => {
        $crate::tests! { $run; $crate::work:
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
    };
    (@ reply $run:path) => {
        $crate::tests! { $run; $crate::reply:
            the_return_value_reaches_the_client,
            several_replies_arrive_in_order_before_the_return_value,
            a_ticket_is_rebuilt_from_an_id,
            check_tells_how_far_a_job_is,
            a_removed_job_leaves_a_tombstone_as_long_as_replies,
            a_bare_id_never_says_that_a_job_completed_which_it_did_not_see,
            the_job_status_answers_for_a_bare_id,
            a_trail_tells_when_the_job_went_however_late_its_move_is_ended,
            a_copy_that_was_brought_and_taken_back_leads_to_where_the_job_stayed,
            a_late_copy_does_not_hide_where_the_job_went_on,
            a_move_that_is_taken_back_keeps_that_the_job_came_here,
            a_job_of_an_id_that_replied_before_is_removed_if_it_is_removed,
            a_job_without_a_reply_answers_with_nothing,
            the_reply_of_a_failed_job_is_its_error,
            waiting_ends_with_its_limit,
            an_attempt_that_fails_leaves_no_reply,
            old_replies_are_removed,
        }
    };
    (@ interim $run:path) => {
        $crate::tests! { $run; $crate::interim:
            what_a_job_sends_is_read_while_it_runs,
            a_stream_reads_what_a_job_sends,
            of_several_attempts_the_newest_is_read_or_all_are,
            a_failed_job_is_read_on_as_the_one_that_it_is_enqueued_again_as,
            how_far_a_job_is_is_told_while_it_runs,
            a_ticket_follows_the_job_that_took_the_place_of_its_own,
            a_saved_ticket_is_one_again_in_another_process,
            many_tickets_are_waited_for_at_once,
            only_who_holds_the_lease_tells_and_each_number_once,
            what_jobs_told_is_kept_as_long_as_replies,
            who_listens_for_news_hears_what_others_tell,
        }
    };
    (@ facts $run:path) => {
        $crate::tests! { $run; $crate::facts:
            what_a_job_is_stays_the_same_until_its_end,
            metadata_reaches_hooks_and_the_job_and_is_inherited,
            metadata_that_cannot_be_stored_is_refused,
            a_job_that_moves_takes_what_it_is_with_it,
            a_job_with_nothing_beside_it_says_so,
            the_log_says_which_error_in_which_version_of_which_process,
            a_worker_says_what_it_serves,
        }
    };
    (@ exceptions $run:path) => {
        $crate::tests! { $run; $crate::exceptions:
            a_failed_job_is_enqueued_again_once,
            a_failure_that_was_retried_cannot_be_enqueued_again,
            redrive_is_refused_while_a_live_job_holds_the_key,
        }
    };
    (@ lists $run:path) => {
        $crate::tests! { $run; $crate::lists:
            jobs_are_found_by_what_they_are_and_where_they_stand,
            a_running_job_is_found_by_its_worker,
            pages_lead_through_all_jobs_each_once,
            a_narrow_table_is_read_in_the_order_of_its_key,
            failures_are_found_newest_first_by_what_is_stored_of_them,
            failures_are_grouped_by_what_failed_and_why,
            what_became_of_runs_is_a_list_too,
            a_search_that_looked_at_enough_rows_says_how_many_and_goes_on,
        }
    };
    (@ reasons $run:path) => {
        $crate::tests! { $run; $crate::reasons:
            a_ready_job_waits_for_a_worker_that_has_its_ability_and_serves_its_queue,
            the_jobs_ahead_are_those_that_a_claim_takes_first,
            a_job_that_is_not_due_waits_for_its_time_or_for_its_next_attempt,
            a_running_job_is_in_the_hands_of_a_worker_that_lives_or_is_silent,
            a_job_that_completed_is_told_as_far_as_it_left_anything,
            a_job_that_failed_for_good_tells_of_its_redrive_or_of_the_key_that_forbids_it,
            a_job_that_was_moved_is_explained_where_it_went,
            a_job_on_its_way_and_a_job_in_the_spool_say_so,
            a_job_of_a_paused_queue_or_ability_says_by_which_order_it_waits,
            a_database_that_does_not_answer_hides_only_its_own_jobs,
        }
    };
    (@ cancels $run:path) => {
        $crate::tests! { $run; $crate::cancels:
            a_waiting_job_that_is_cancelled_ends_at_once_and_can_be_enqueued_again,
            a_running_job_is_told_and_is_cancelled_when_it_gives_up,
            a_running_job_that_completes_all_the_same_is_completed,
            a_job_that_is_cancelled_before_its_thread_begins_it_does_not_run,
            a_job_that_does_not_listen_is_ended_by_force,
            a_job_whose_order_outlived_its_run_ends_before_the_next,
            a_job_that_is_to_end_stays_where_its_order_is,
            an_order_for_a_job_that_ended_is_forgotten,
            a_job_of_which_no_database_knows_is_gone,
            an_order_is_not_for_a_later_job_of_the_same_id,
            an_order_is_carried_out_where_jobs_are_worked_one_by_one,
            a_ticket_follows_a_job_that_is_enqueued_again,
        }
    };
    (@ by_hand $run:path) => {
        $crate::tests! { $run; $crate::by_hand:
            a_job_is_run_by_its_id_whatever_its_time_and_whatever_is_paused,
            a_run_by_hand_that_fails_is_one_like_any_other,
            a_job_that_does_not_wait_cannot_be_run_and_it_is_said_why,
            two_who_run_one_job_at_once_run_it_once,
            a_job_that_is_to_end_is_not_run_by_hand,
            a_run_whose_lease_was_lost_is_told_as_such,
            a_claim_by_id_is_the_same_however_often_it_is_asked_and_can_be_released,
        }
    };
    (@ numbers $run:path) => {
        $crate::tests! { $run; $crate::numbers:
            runs_are_counted_by_queue_ability_and_outcome,
            a_run_of_a_single_job_is_counted_too,
            numbers_of_processes_add_up_and_reports_that_are_repeated_count_once,
            processes_that_report_the_same_pairs_at_once_wait_for_each_other,
            the_numbers_of_this_minute_outlive_a_clean_up,
            since_when_a_job_is_ready_is_known_through_all_that_becomes_of_it,
            the_oldest_ready_job_is_found_behind_younger_ones_and_paused_ones_do_not_count,
        }
    };
    (@ operations $run:path) => {
        $crate::tests! { $run; $crate::operations:
            jobs_that_wait_are_changed_many_at_a_time_and_each_is_answered,
            a_changed_priority_or_queue_is_that_of_the_next_claim,
            a_step_is_done_once_by_whoever_is_first,
            discarded_jobs_are_enqueued_again_many_at_a_time_each_once,
            a_preview_tells_what_an_operation_would_do_and_does_nothing,
            each_verb_does_to_the_jobs_of_a_filter_what_it_says,
            jobs_that_come_while_an_operation_runs_are_left_alone,
            an_operation_that_was_stopped_is_gone_on_with_by_its_id,
            two_redrives_of_the_same_failures_enqueue_each_once,
            jobs_of_a_filter_move_to_another_database,
            jobs_of_a_filter_are_cancelled_where_they_wait_and_where_they_run,
            operations_are_kept_for_as_long_as_failures,
        }
    };
    (@ hooks $run:path) => {
        $crate::tests! { $run; $crate::hooks:
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
    };
    (@ points $run:path) => {
        $crate::tests! { $run; $crate::points:
            post_settle_is_told_of_each_end_when_it_is_committed,
            a_run_whose_lease_was_lost_is_not_told_as_settled,
            jobs_that_replace_another_are_told_to_hooks_when_they_are_stored,
            a_redrive_and_a_move_call_no_hook_of_the_enqueue,
            the_spool_calls_the_hooks_of_the_enqueue_once,
            a_service_does_not_start_without_a_plugin_that_is_needed,
            hooks_reach_plugins_from_the_draft_to_the_end,
            a_service_starts_and_stops_its_plugins_hooks_and_threads,
        }
    };
    (@ session $run:path) => {
        $crate::tests! { $run; $crate::session:
            a_worker_that_is_ordered_to_be_quiet_claims_nothing_until_it_may,
            a_worker_that_is_ordered_to_stop_claims_nothing_and_is_asked,
            every_job_is_worked_once_by_many_threads,
            two_managers_share_the_work_and_nothing_runs_twice,
            a_delayed_job_starts_when_it_is_due,
            an_idle_worker_starts_a_new_job_at_once,
            unstarted_jobs_are_given_back_at_shutdown_with_the_attempt_unspent,
            a_running_job_finishes_before_shutdown,
            a_job_that_outlives_the_stop_is_settled_when_it_ends,
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
    };
    (@ databases $run:path) => {
        $crate::tests! { $run; $crate::databases:
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
            jobs_of_a_paused_queue_or_ability_wait_until_it_is_resumed,
            the_whole_is_seen_at_a_glance,
            databases_are_added_and_removed_while_the_manager_works,
            a_database_without_tables_is_not_added,
            the_spool_takes_jobs_while_no_database_can_and_forwards_them,
            a_spooled_job_whose_key_was_taken_meanwhile_is_dropped,
            two_spools_that_forward_at_once_lose_and_double_nothing,
            a_forward_that_was_killed_half_way_goes_on_when_the_process_is_back,
            a_spooled_job_that_a_drained_database_has_half_is_not_lost,
            a_spooled_job_that_lives_in_a_drained_database_is_not_run_twice,
            a_spool_must_be_local_and_have_a_name_of_its_own,
        }
    };
}

/// Makes tests of behaviours of one's own, which stand in one module; once in a module.
///
/// ```no_run
/// # use qudo_driver_tests::{Bed, Fresh};
/// # fn run(behaviour: fn(&Bed)) { behaviour(&Bed::new([("m".to_owned(), Fresh::in_memory())])); }
/// mod own {
///     pub fn it_works(bed: &qudo_driver_tests::Bed) {
///         assert!(bed.driver().count().unwrap().is_empty());
///     }
/// }
/// qudo_driver_tests::tests! { crate::run; crate::own: it_works, }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! tests {
    ($run:path; $module:path: $($name:ident,)*) => {
        use $module as behaviours;
        $(#[test]
        fn $name() {
            $run(behaviours::$name);
        })*
    };
}
