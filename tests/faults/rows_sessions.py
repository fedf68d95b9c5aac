"""Rows F1 – F18 of the fault matrix: what befalls sessions and connections."""

from __future__ import annotations

from typing import Final

from tests.faults.row import Row

SESSIONS: Final = (
    Row(
        "F1",
        "killed while agreeing",
        "others end the session and give the hold back; nothing is debited",
        (
            "faults/killed::a_party_is_killed_at_a_named_place",
            "simulator/registry::seeds",
        ),
        "processes, simulator",
    ),
    Row(
        "F2",
        "killed after reserving",
        (
            "at its next start the session is ABORTED; its ticket never runs again; the request is tried "
            "in a new session, unless others had committed meanwhile: then those have paid, nothing is "
            "opened, and it is returned with `PUBLICATION_ABORT`"
        ),
        (
            "faults/killed::a_party_is_killed_at_a_named_place",
            "faults/rounds::a_ticket_is_never_used_again",
            "party/serve::a_killed_party_takes_up_where_it_was",
            "simulator/registry::a_party_killed_on_the_way",
        ),
        "processes, one process, simulator",
    ),
    Row(
        "F3",
        "killed in the middle of any round",
        "before its commit as F2; after it as F4",
        (
            "faults/rounds::a_party_is_killed_at_each_round",
            "faults/counting::a_party_is_killed_in_the_middle_of_computing",
            "release/faults::a_party_that_vanishes",
            "simulator/registry::seeds",
        ),
        "processes, one process, simulator",
    ),
    Row(
        "F4",
        "killed after the commit, before COMMIT was sent",
        "spent; COMMIT is sent after the restart, and the release follows from the stored shares",
        (
            "faults/killed::a_party_is_killed_at_a_named_place",
            "simulator/registry::a_party_killed_on_the_way",
            "ledger_model/budget_protocol::the_protocol_keeps_every_promise_whoever_colludes",
        ),
        "processes, simulator, search",
    ),
    Row(
        "F5",
        "killed while publishing",
        "published again from what was stored: the same bytes",
        (
            "faults/killed::a_party_is_killed_at_a_named_place",
            "simulator/registry::a_party_killed_on_the_way",
            "simulator/registry::seeds",
        ),
        "processes, simulator",
    ),
    Row(
        "F6",
        "the analyst's program dies and asks again",
        "one request, one debit, the same answer",
        (
            "faults/clients::a_client_that_died_asks_again",
            "faults/clients::a_client_and_its_party_die_and_it_asks_again",
            "client/client::a_client_that_dies_after_handing_in_finds_its_request_again",
            "party/daemon::the_same_question_again_costs_nothing",
        ),
        "processes, one process, wire",
    ),
    Row(
        "F7",
        "one key for two questions",
        "`IDEMPOTENCY_MISMATCH`; nothing changes",
        (
            "faults/clients::another_question_under_the_same_key",
            "ledger/requests::another_question_under_the_same_key_is_refused_and_changes_nothing",
            "party/daemon::the_same_question_again_costs_nothing",
        ),
        "processes, one process, ledger",
    ),
    Row(
        "F8",
        "connection reset in the middle of a frame",
        "the session is tried again, or completed if it had committed; attempts are never mixed",
        (
            "scenarios/broken_connection",
            "harness/shipped::networks_that_break_delay_and_part",
            "transport/switchboard_links::a_peer_that_dies_during_a_link_is_lost_in_it_and_the_next_link_works",
        ),
        "network, simulator, wire",
    ),
    Row(
        "F9",
        "a slow party",
        "within the round's deadline it is waited for; beyond it the session ends and is tried again",
        (
            "scenarios/slow_party",
            "harness/shipped::networks_that_break_delay_and_part",
            "transport/link_endings::a_wait_ends_at_its_deadline",
        ),
        "processes, network, simulator, wire",
    ),
    Row(
        "F10",
        "a frozen peer",
        "noticed after 25 s at most, by keepalive or by the lines' heartbeats",
        (
            "faults/signals::a_frozen_party_is_noticed_in_time",
            "transport/switchboard_lines::a_peer_that_is_silent_is_lost_and_one_that_beats_is_not",
        ),
        "processes, wire",
    ),
    Row(
        "F11",
        "a partition that heals",
        "before the commit the session ends and is tried again when it has healed; after it, it is completed",
        (
            "scenarios/partition",
            "harness/shipped::networks_that_break_delay_and_part",
            "runtime/memory_switchboard::a_link_waits_for_late_peers_and_for_a_cable_to_be_healed",
        ),
        "network, simulator",
    ),
    Row(
        "F12",
        "a message twice",
        (
            "of a control message the same content is ignored, another is `EQUIVOCATION`; a data message a "
            "second time is `PROTOCOL_ORDER`; on a line it is ignored by its number"
        ),
        (
            "transport/link_contract::a_copy_of_a_control_message_is_ignored_and_another_content_is_equivocation",
            "transport/link_contract::a_data_message_comes_once",
            "ledger/peers::a_message_is_received_once",
        ),
        "wire, ledger",
    ),
    Row(
        "F13",
        "messages of a finished session",
        "refused; no state changes",
        (
            "faults/rounds::all_messages_of_a_finished_session_come_again",
            "transport/link_contract::messages_of_another_session_are_refused",
            "ledger/sessions::every_change_from_every_state",
        ),
        "one process, wire, ledger",
    ),
    Row(
        "F14",
        "messages out of order",
        "kept within bounds, else refused",
        (
            "transport/link_contract::a_message_may_be_asked_for_before_or_after_it_comes_and_in_any_order",
            "transport/link_contract::running_too_far_ahead",
        ),
        "wire",
    ),
    Row(
        "F15",
        "corrupt messages",
        "`PROTOCOL_ORDER`, naming the peer; `INVALID_SHARE` for elements outside the field",
        (
            "protocols/arithmetic::a_share_outside_the_field_is_refused_in_a_product",
            "transport/grpc_frames::spoiled_frames",
            "transport/frames::any_bytes_are_a_frame_or_refused",
            "release/faults::a_message_cut_short",
        ),
        "wire, one process",
    ),
    Row(
        "F16",
        "a wrong share in an opening",
        (
            "the session ends with `INTEGRITY_ABORT`, after the commit when publishing has failed so three "
            "times; nobody else holds a release; spent where it had committed, and the request is returned "
            "with `PUBLICATION_ABORT`"
        ),
        (
            "faults/counting::a_wrong_share_of_an_opening",
            "release/faults::any_one_wrong_share_of_a_value",
            "release/faults::a_wrong_share_of_the_pattern",
            "release/faults::a_wrong_share_of_a_value_at_an_input_only_silo",
        ),
        "processes, one process",
    ),
    Row(
        "F17",
        "strangers, forged leaves, an analyst at the peers' port",
        (
            "the handshake fails: counted, and at the peers' port logged as a number; whom TLS lets in and "
            "no card names is refused with `CERT_UNKNOWN`, and logged with the fingerprint"
        ),
        (
            "transport/switchboard_trust::strangers_analysts_and_forgeries_fail_the_handshake_and_are_counted",
            "transport/switchboard_trust::a_leaf_signed_by_a_trusted_authority_is_known_by_its_fingerprint",
            "transport/analyst_port::whoever_is_not_enrolled_does_not_complete_the_handshake",
        ),
        "wire",
    ),
    Row(
        "F18",
        "expiry during a session; overlap of a rotation",
        "running sessions are completed; a party does not start with it; renewed, it serves again",
        (
            "scenarios/certificate_expires",
            "party/serve::an_expired_certificate_keeps_a_party_from_starting",
            "transport/switchboard_trust::certificates_are_replaced_while_a_link_runs",
        ),
        "processes, wire",
    ),
)
