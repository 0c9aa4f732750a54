//! The RPC conformance page, as a client of ours sees it, against the server as a process: every method, over every transport and in every format.
//!
//! A check is a function of a [`Site`](setup::Site), which has a process of its own, and says nothing of transports and formats: what fails is named by
//! its test, `over_websocket::msgpack6c::a_failing_stream_...`.

mod calls;
mod computed;
mod functions;
mod matrix;
mod restart;
mod setup;
mod streams;
mod typescript;
mod values;

/// Every check, over one transport and in one format.
macro_rules! conforms {
    ($transport:ident, $module:ident, $format:ident: $($suite:ident { $($check:ident),* $(,)? })*) => {
        mod $module {
            $($(
                #[tokio::test]
                async fn $check() {
                    let site = crate::setup::Site::start(crate::setup::Transport::$transport, wellspring_rpc::wire::Format::$format).await;
                    crate::$suite::$check(site).await;
                }
            )*)*
        }
    };
}

macro_rules! in_a_format {
    ($transport:ident, $module:ident, $format:ident) => {
        conforms! { $transport, $module, $format:
            calls {
                numbers_are_added,
                a_method_without_a_result_has_none,
                a_failure_has_a_type_and_a_message,
                a_method_that_is_not_there_is_a_failure_that_says_so,
                arguments_that_are_missing_are_null_and_more_are_passed_over,
                arguments_of_another_type_fail_their_call_and_nothing_else,
                a_call_that_nobody_answers_is_heard,
                a_slow_call_holds_up_nobody,
                answers_come_when_they_are_there,
                a_call_that_is_given_up_here_is_given_up_there,
                a_thousand_calls_at_once_get_each_its_own_answer,
                a_regular_method_cannot_be_subscribed_to,
                a_compute_method_can_be_called_like_any_other,
                of_many_calls_that_are_given_up_the_others_are_answered,
            }
            values {
                nothing_and_truth_come_back,
                integers_of_every_width_come_back,
                floats_come_back,
                texts_come_back_whatever_is_in_them,
                lists_and_maps_within_each_other_come_back,
                megabytes_come_back_and_what_is_too_large_is_not_sent,
            }
            typescript {
                overloads_differ_by_how_many_parameters_they_have,
                names_truths_fractions_and_echoes_are_as_they_should_be,
                what_is_thrown_has_its_message_and_its_type,
                a_slow_echo_is_counted_when_it_begins,
                a_counter_follows_what_is_set_and_added,
                what_two_clients_add_at_once_is_all_there,
                streams_of_integers_have_them_all,
            }
            computed {
                a_counter_is_zero_until_it_is_set,
                a_value_is_stale_when_it_is_set_and_no_other_is,
                a_value_that_is_set_to_what_it_is_is_stale_all_the_same,
                a_failure_is_a_value_that_ends,
                a_value_that_changes_while_it_is_made_is_given_and_ends,
                every_client_hears_of_a_change,
                clients_of_every_format_have_the_same_values,
                a_value_that_nobody_has_here_is_not_held_there,
                thousands_of_values_end_each_by_its_own_change,
            }
            functions {
                a_function_here_follows_values_there,
                a_value_is_computed_there_once_for_all_who_read_it_here,
                a_value_outlives_a_cut_and_is_not_asked_for_again,
                whatever_is_cut_a_function_comes_to_the_last_value,
            }
            streams {
                a_stream_has_all_its_items_in_their_order,
                windows_of_any_size_lose_nothing,
                a_stream_of_nothing_ends,
                a_failing_stream_gives_what_it_has_and_then_its_failure,
                a_stream_that_is_left_is_gone_there,
                many_streams_go_on_beside_each_other,
                a_stream_goes_on_after_a_cut_where_it_was,
                a_stream_that_must_not_go_on_fails_at_a_cut,
                a_stream_does_not_outlive_the_server,
            }
            restart {
                a_server_that_starts_anew_has_forgotten_everything,
                calls_under_way_are_run_by_the_server_that_starts_anew,
                values_end_when_the_server_starts_anew,
                a_value_under_way_is_computed_by_the_server_that_starts_anew,
                calls_that_are_made_while_nobody_listens_wait,
                a_function_here_follows_one_server_after_the_other,
                a_server_that_hangs_is_found_out_and_found_again_when_it_goes_on,
            }
            matrix {
                f1_a_value_asked_for_without_a_connection_is_computed_once,
                f2_a_value_whose_connection_is_cut_meanwhile_is_computed_once,
                f3_a_value_that_is_there_when_the_connection_comes_back_is_given_and_ends_later,
                f4_a_value_that_has_ended_by_then_is_given_and_is_stale,
                f5_a_value_that_ends_after_a_cut_is_stale,
                f6_a_value_that_ends_during_a_cut_is_stale_afterwards,
                r1_a_call_made_without_a_connection_runs_once,
                r2_a_call_whose_connection_is_cut_meanwhile_runs_once,
                r3_a_call_that_is_over_when_the_connection_comes_back_runs_once,
                calls_that_wait_through_many_cuts_run_once_each,
            }
        }
    };
}

macro_rules! all_conform {
    ($($over:ident: $transport:ident),* $(,)?) => {$(
        mod $over {
            in_a_format! { $transport, json5np, Json5np }
            in_a_format! { $transport, json5, Json5 }
            in_a_format! { $transport, msgpack6, Msgpack6 }
            in_a_format! { $transport, msgpack6c, Msgpack6c }
        }
    )*};
}

all_conform! {
    over_websocket: WebSocket,
}
