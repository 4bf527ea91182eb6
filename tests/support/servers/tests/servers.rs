//! What a private server promises, shown once and run on each engine.

mod suite;

/// Makes one test of each behaviour in the suite for one engine.
macro_rules! behaves {
    ($name:ident, $engine:ty, $($behaviour:ident),+ $(,)?) => {
        mod $name {
            $(
                #[test]
                fn $behaviour() {
                    crate::suite::$behaviour::<$engine>();
                }
            )+
        }
    };
}

/// Names the behaviours once, for all engines.
macro_rules! on_each_engine {
    ($($behaviour:ident),+ $(,)?) => {
        behaves!(postgres, qudo_test_servers::Postgres, $($behaviour),+);
        behaves!(mariadb, qudo_test_servers::Mariadb, $($behaviour),+);
        behaves!(mysql, qudo_test_servers::Mysql, $($behaviour),+);
    };
}

on_each_engine! {
    answers_queries_and_makes_databases,
    takes_as_many_connections_as_asked,
    a_kill_ends_backends_in_mid_query_and_loses_no_commit,
    a_stopped_server_starts_again_on_the_same_port,
    a_paused_server_is_silent_until_it_is_resumed,
    a_panic_leaves_neither_process_nor_directory_even_of_a_paused_server,
    two_servers_live_side_by_side,
    a_server_that_does_not_start_shows_its_log,
}
