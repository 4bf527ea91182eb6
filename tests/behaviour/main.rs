//! What qudo promises, written once against the public interface (in `crates/driver-tests`, for any driver) and run
//! on every engine: in memory, SQLite, PostgreSQL alone and behind a transaction pooler, MariaDB, MySQL, and on a
//! mixed set of several databases at once; beside it what only some engines have.

#![allow(missing_docs, unreachable_pub, reason = "a test is read, not called")]

mod engines;
#[cfg(all(feature = "tokio", feature = "zstd", feature = "aead"))]
mod extending;
mod outage;
mod statements;
mod transactional;

/// The suite on one bed of engines.
macro_rules! on {
    ($(#[$cfg:meta])* $engine:ident $(; $($group:ident)*)?) => {
        $(#[$cfg])*
        mod $engine {
            pub fn run(behaviour: fn(&qudo_driver_tests::Bed)) {
                crate::engines::run(stringify!($engine), behaviour);
            }

            qudo_driver_tests::suite!(crate::$engine::run $(; $($group)*)?);
            on!(@ $engine $($($group)*)?);
        }
    };
    // With the rights of docs/grants: without what makes tables or goes beside the accounts.
    (@ $engine:ident $($group:ident)+) => {};
    (@ $engine:ident) => {
        mod statements {
            qudo_driver_tests::tests! { crate::$engine::run; crate::statements:
                the_statements_of_an_engine_are_read_along,
            }
        }
        mod outage {
            qudo_driver_tests::tests! { crate::$engine::run; crate::outage:
                an_end_is_kept_while_the_tables_are_away,
                changes_of_state_are_told,
            }
        }
        mod transactional {
            qudo_driver_tests::tests! { crate::$engine::run; crate::transactional:
                a_database_without_tables_is_refused_with_the_remedy,
                migrating_twice_is_harmless_and_reverting_removes_everything,
                a_job_of_a_committed_transaction_runs_and_wakes_a_worker,
                the_notification_of_a_callers_transaction_can_be_switched_off,
                a_job_of_a_rolled_back_transaction_never_was,
                a_key_is_unique_inside_the_callers_transaction_too,
                a_job_completes_in_the_transaction_of_its_effect,
                what_replaces_a_job_in_its_transaction_starts_at_once,
                a_job_does_not_complete_without_a_replacement_that_its_transaction_refused,
                an_end_in_a_transaction_is_told_and_kept_as_any_other,
                an_effect_that_fails_leaves_neither_itself_nor_the_end_of_the_job,
                a_panic_in_the_transaction_leaves_nothing_and_the_database_works_on,
                a_lost_lease_rolls_the_effect_back,
            }
        }
        #[cfg(all(feature = "tokio", feature = "zstd", feature = "aead"))]
        mod extending {
            qudo_driver_tests::tests! { crate::$engine::run; crate::extending:
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
                tasks_enqueue_and_await_replies_of_other_processes_on_a_runtime_of_one_thread,
                an_async_body_is_dropped_when_its_job_is_cancelled,
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
    };
}

on!(memory);
on!(
    #[cfg(feature = "sqlite")]
    sqlite
);
on!(
    #[cfg(feature = "postgres")]
    postgres
);
on!(
    #[cfg(feature = "postgres")]
    pooled
);
on!(
    #[cfg(feature = "mysql")]
    mariadb
);
on!(
    #[cfg(feature = "mysql")]
    mysql
);
on!(mixed);
on!(#[cfg(feature = "postgres")] granted_postgres; enqueue work reply exceptions);
on!(#[cfg(feature = "mysql")] granted_mariadb; enqueue work reply exceptions);
on!(#[cfg(feature = "mysql")] granted_mysql; enqueue work reply exceptions);
