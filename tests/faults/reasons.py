"""For every reason of the catalogue the test that provokes it as a fault."""

from __future__ import annotations

from typing import Final

from tests.faults.row import full

_SHORT: Final = {
    "INTERNAL": "transport/analyst_port::of_an_unforeseen_failure_only_its_class_is_told",
    "DOCUMENT": "party/serve::documents_are_read_again_on_demand",
    "DATA": "silo/registration",
    "POLICY_DENIED": "party/daemon::another_partys_policy_refuses",
    "TOO_FEW_PARTIES": "party/roster::too_few_parties_and_roles_that_do_nothing",
    "PRESET_NOT_APPROVED": "party/daemon::a_policy_refuses_before_anything_is_stored",
    "REQUEST_DECLINED": "party/daemon::an_operator_decides_where_the_policy_says_so",
    "MISMATCH": "faults/mismatches::one_thing_differs_at_one_party",
    "MISMATCH_ROSTER": "faults/mismatches::one_thing_differs_at_one_party",
    "MISMATCH_CODEBOOK": "faults/mismatches::one_thing_differs_at_one_party",
    "MISMATCH_QUERY": "faults/mismatches::one_thing_differs_at_one_party",
    "MISMATCH_DP": "faults/mismatches::one_thing_differs_at_one_party",
    "MISMATCH_LAYOUT": "faults/mismatches::one_thing_differs_at_one_party",
    "MISMATCH_ENGINE": "faults/ledgers::another_engine_is_refused_before_anything_is_counted",
    "MISMATCH_SNAPSHOT": "faults/mismatches::records_change_between_the_beginning_and_the_agreement",
    "PEER_UNAVAILABLE": "faults/signals::a_frozen_party_is_noticed_in_time",
    "NOT_RUNNING": "party/control::without_a_daemon_it_says_so",
    "STILL_WAITING": "client/client::waiting_ends_with_its_time_and_the_request_goes_on",
    "ROUND_TIMEOUT": "transport/link_endings::a_wait_ends_at_its_deadline",
    "SESSION_TIMEOUT": "faults/times::a_count_that_hangs_ends_the_session",
    "CERT_EXPIRED": "party/serve::an_expired_certificate_keeps_a_party_from_starting",
    "CERT_UNKNOWN": "party/serve::enrolment_and_revocation_hold_at_once",
    "PEER_ABORTED": "transport/link_endings::an_abort_ends_every_wait_everywhere_and_says_why",
    "SHUTTING_DOWN": "faults/signals::a_party_is_stopped_in_good_order",
    "INTEGRITY_ABORT": "faults/counting::a_wrong_share_of_an_opening",
    "INVALID_SHARE": "field/mersenne",
    "EQUIVOCATION": (
        "transport/link_contract::a_copy_of_a_control_message_is_ignored_and_another_content_is_equivocation"
    ),
    "PUBLICATION_ABORT": "faults/counting::a_wrong_share_of_an_opening",
    "PROTOCOL_ORDER": "transport/link_contract::running_too_far_ahead",
    "STREAM_REUSE": "sharing/streams",
    "BUDGET_EXCEEDED": "faults/load::fifty_questions_against_a_budget_for_ten",
    "LEDGER_WRITE": "faults/disks::a_disk_that_fails_in_the_commit_ends_the_process",
    "LEDGER_ROLLBACK": "faults/ledgers::an_older_copy_of_a_ledger_is_refused_until_it_has_recovered",
    "LEDGER_BROKEN": "faults/ledgers::a_spoilt_ledger_does_not_start",
    "IN_USE": "party/serve::a_second_service_on_the_folder_is_refused",
    "IDEMPOTENCY_MISMATCH": "faults/clients::another_question_under_the_same_key",
    "UNKNOWN_REQUEST": "party/owners::only_the_owner_sees_a_request",
    "REQUEST_STATE": "faults/clients::a_request_is_withdrawn_at_each_phase",
    "QUESTION_BUSY": "faults/rounds::a_party_that_still_holds_the_last_session_is_asked_again",
    "STALE_SESSION": "faults/rounds::a_ticket_is_never_used_again",
    "UNKNOWN_OR_FINISHED_SESSION": (
        "transport/switchboard_links::a_stream_waits_no_longer_than_the_patience_and_is_dialled_again"
    ),
    "RATE_LIMITED": (
        "transport/analyst_quotas::a_flood_is_refused_with_the_time_to_wait_and_reaches_nobody_else"
    ),
    "TOO_LARGE": "transport/analyst_port::what_grpc_refuses_by_itself_has_documented_codes",
    "LOCAL_COMPUTE_FAILED": "faults/counting::counting_that_fails",
}
"""Named as in `Row`; of a file alone, several of its tests do."""

REASONS: Final = {reason: full(test) for reason, test in _SHORT.items()}
"""Tests' names in full, by reason."""
