//! Faults of the world: whatever Okta, the other services and the network do to a conversation, it has a defined end.
//!
//! The conversations, and what ends each of them:
//!
//! | conversation | goes on by itself | ends |
//! | --- | --- | --- |
//! | reading the log | for ever, from the same cursor; said once, shown by `status` | – |
//! | asking for facts | with growing pauses, for `give_up_after` | steps that need the fact fail, texts say that it is not known |
//! | changes in Okta, incidents, messages, mail | with growing pauses, for `give_up_after` | `failed`, with the reason |
//! | reading back what is in doubt | with growing pauses, for `give_up_after` | `needs_attention` |
//!
//! The tests, by fault. Where no file is named they are in this folder; `poll`, `flows`, `settle`, `crash` and `hostile`
//! are the files beside it; `contract` is the suite of `src/connectors`, which every connector that speaks HTTP passes.
//!
//! | fault | reading the log | facts | Okta changes, ServiceNow, Slack, mail |
//! | --- | --- | --- | --- |
//! | connection cut before processing | poll `a_connection_that_breaks_before_anything_is_done_passes` | `every_fault_of_a_look_up_has_its_end` | `a_request_that_is_lost_is_sent_again_where_it_can_be_known` |
//! | connection cut after processing | poll `…_when_all_is_done_passes` | the same | settle `a_request_whose_answer_was_lost_is_found_done_and_not_sent_again` |
//! | no answer within the time-out | poll `an_answer_that_is_too_slow_is_asked_for_again` | the same | settle `a_request_that_is_never_answered_…` |
//! | 400, 404 | poll `restarts`, `filters`; `an_address_that_is_no_org_is_shown_and_mended` | the same | contract `every_status_of_a_change_has_its_outcome` |
//! | 401, 403 | poll `access` | the same | contract; `a_credential_that_is_refused_is_waited_for_and_told_once` |
//! | 429, once and as a storm | poll `a_rate_limit_is_waited_out_…`; `a_storm_of_429_is_told_once_and_passes` | the same | settle `a_pause_that_a_service_asks_for_…`; `a_storm_of_refusals_is_told_once_and_each_effect_comes_once` |
//! | 500, 503 | poll `an_error_of_okta_passes`, `a_gateway_that_gives_up_passes` | the same; for ever: `facts_that_never_come_…` | settle `after_a_server_error_…`, `what_a_service_is_not_there_for_…`; for ever: settle `what_fails_for_too_long_…` |
//! | malformed body, wrong content type | poll `a_page_of_html_is_no_page`; `json_under_another_content_type_is_read_and_other_text_is_not` | the same | settle `a_page_of_a_proxy_is_never_taken_for_a_success`; contract `a_success_that_cannot_be_read_is_unknown` |
//! | truncated body | poll `a_page_that_breaks_off_is_read_again_as_a_whole` | the same | settle `an_answer_that_breaks_off_…` |
//! | endless body | poll `a_page_that_never_ends_is_given_up` | the same | contract `a_change_whose_answer_never_comes_whole_is_unknown` |
//! | body that trickles below every read time-out | `a_page_that_trickles_in_is_given_up` | the same | `an_answer_that_trickles_in_is_given_up_and_read_back` |
//! | page larger than is read of one | `a_page_that_is_too_large_is_read_in_parts_and_a_record_that_is_too_large_stepped_over` | – | – |
//! | redirect | poll `a_redirect_is_not_followed` | the same | contract `every_status_of_a_change_has_its_outcome`; `a_redirect_carries_no_credential_away` |
//! | cursor refused | poll `a_lost_cursor_begins_again_…` | – | – |
//! | events twice | poll `an_event_that_comes_twice_…` | – | – |
//! | events late, out of order | poll `an_event_that_was_published_long_before_…`; `a_late_event_does_not_undo_what_happened_after_it` | – | – |
//! | Okta's clock ahead or behind | poll `clocks`, `a_lost_cursor_begins_again_…` | – | – |
//! | our clock ahead, then right | `what_was_put_off_by_a_clock_that_ran_ahead_is_done_when_it_is_right_again`; `engine::clock`, `store::tests` | the same | the same |
//! | name or address not reachable, then reachable | `an_org_that_cannot_be_reached_is_told_once_and_nothing_is_lost`; `http` `a_name_that_does_not_resolve_…` | the same | the same; settle `what_cannot_be_connected_to_…` |
//! | doubt that cannot be read back | – | – | `a_doubt_that_can_never_be_read_back_is_left_to_a_person`, `a_service_that_was_taken_out_of_the_configuration_is_told_once` |
//! | new configuration whose token is refused | `a_reload_with_a_token_that_is_refused_leaves_the_old_one_at_work` | – | – |
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

#[path = "../support/mod.rs"]
mod support;

mod acting;
mod asking;
mod cable;
mod reading;
