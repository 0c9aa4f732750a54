//! What every log promises, over every log: one suite for the stores in memory, SQLite and PostgreSQL, and for the streams of NATS and
//! Redis over an outbox in SQLite.

mod asleep;
mod backend;
mod cluster;
mod memory;
mod postgres;
mod sqlite;
mod streams;
mod suite;
mod suite_consumers;
mod suite_events;
mod suite_order;

/// Every test of the suite, for one backend.
macro_rules! conforms {
    ($module:ident, $backend:ty: $($suite:ident { $($test:ident),* $(,)? })*) => {
        mod $module {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    crate::cluster::run::<$backend, _>(crate::$suite::$test).await;
                }
            )*)*
        }
    };
}

macro_rules! all_conform {
    ($($module:ident: $backend:ty),* $(,)?) => {
        $(conforms! { $module, $backend:
            suite {
                a_change_on_one_server_is_stale_on_every_other,
                a_caller_reads_its_own_write_and_others_after_waiting_for_its_position,
                a_failed_command_leaves_nothing_behind,
                a_repeated_command_is_done_once_whichever_server_gets_the_repeat,
                a_change_arrives_although_every_hint_is_lost,
                a_server_that_slept_while_the_log_was_trimmed_says_so_and_holds_nothing_stale,
                a_server_starts_at_the_logs_end_and_misses_nothing_from_then_on,
                a_poisoned_entry_is_told_and_the_rest_is_applied,
                a_caller_that_goes_at_any_point_leaves_all_or_nothing_and_never_something_stale,
            }
            suite_order {
                every_operation_is_applied_exactly_once_on_every_server,
                what_was_committed_before_another_began_is_applied_before_it,
                consumers_on_all_servers_see_one_order,
                many_operations_at_once_take_few_sweeps,
            }
            suite_consumers {
                of_two_consumers_with_one_name_the_second_waits_and_goes_on_where_the_first_was,
                a_consumer_that_fails_gets_the_same_operation_again_and_nothing_before_it,
                a_consumer_hears_of_a_gap,
            }
            suite_events {
                an_event_is_there_if_and_only_if_its_operation_is,
                an_event_is_done_by_one_server_and_by_another_when_that_one_is_gone,
                a_partition_is_done_in_order,
                a_delayed_event_is_not_done_before_its_time,
                a_duplicate_fails_is_skipped_or_updates_as_asked,
                of_many_who_skip_duplicates_none_fails_and_one_event_is_done,
                a_dead_event_is_listed_and_can_be_requeued,
            }
        })*
    };
}

all_conform! {
    in_memory: crate::memory::InMemory,
    on_sqlite: crate::sqlite::OnSqlite,
    on_postgres: crate::postgres::OnPostgres,
    on_nats: crate::streams::OnStream<crate::streams::Nats>,
    on_redis: crate::streams::OnStream<crate::streams::Redis>,
}
