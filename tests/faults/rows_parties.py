"""Rows F19 – F36 of the fault matrix: what befalls parties, their machines and those who ask."""

from __future__ import annotations

from typing import Final

from tests.faults.row import Row

PARTIES: Final = (
    Row(
        "F19",
        "clocks that are wrong, or go back",
        "deadlines do not follow them; the ledger's time never goes back; differences are shown",
        (
            "faults/times::the_clock_jumps_during_a_session",
            "faults/times::a_count_that_hangs_ends_the_session",
            "ledger/requests::a_clock_that_goes_back_does_not_take_the_ledger_with_it",
            "transport/probe::a_clock_that_is_off",
            "transport/switchboard_lines::heartbeats_measure_round_trip_and_clocks",
        ),
        "one process, wire, ledger",
    ),
    Row(
        "F20",
        "documents that differ",
        "refused before anything is shared, naming the field; no debit",
        (
            "faults/mismatches::one_thing_differs_at_one_party",
            "faults/mismatches::every_field_that_is_compared_is_here",
            "faults/mismatches::another_codebook_at_one_party",
            "party/failures::documents_that_differ",
            "release/session::a_party_with_other_documents_stops_all_before_anything_is_shared",
            "party/serve::another_codebook_is_refused_and_leaves_no_trace",
        ),
        "processes, one process",
    ),
    Row(
        "F21",
        "no space on the disk",
        (
            "`LEDGER_WRITE`; nothing is sent; goes on when there is space; at the commit itself the others "
            "may have paid already: `PUBLICATION_ABORT`"
        ),
        (
            "faults/disks::no_space_for_what_a_session_writes",
            "faults/disks::a_party_on_a_full_disk_is_not_ready_until_there_is_space",
            "ledger/faults::no_space_for_reservations",
            "ledger/faults::no_space_for_what_a_session_stores",
            "ledger/faults::a_disk_that_is_really_full",
        ),
        "processes, ledger, *strace*, *mount*",
    ),
    Row(
        "F22",
        "the disk fails in a sync",
        "the process ends without another word; the next start verifies and goes on",
        (
            "faults/disks::a_disk_that_fails_in_the_commit_ends_the_process",
            "ledger/faults::a_sync_call_that_fails_ends_the_process_and_loses_nothing_that_was_told",
            "party/serve::a_failed_ledger_ends_the_process_and_the_next_start_goes_on",
        ),
        "processes, ledger, *strace*",
    ),
    Row(
        "F23",
        "killed at every sync call",
        "what was told is durable",
        (
            "faults/disks::a_kill_at_every_sync_call_of_a_release",
            "ledger/faults::a_kill_at_a_sync_call_loses_nothing_that_was_told",
            "ledger/files::what_a_crash_leaves_on_the_disk_after_every_transaction",
        ),
        "processes, ledger, *strace*",
    ),
    Row(
        "F24",
        "a ledger edited, cut or put back",
        "edited: it does not open; put back: peers refuse it with `LEDGER_ROLLBACK` until it has recovered",
        (
            "faults/ledgers::an_older_copy_of_a_ledger_is_refused_until_it_has_recovered",
            "faults/ledgers::a_spoilt_ledger_does_not_start",
            "ledger/files::an_edited_ledger_does_not_open",
            "ledger/files::half_a_file",
            "party/recovery::a_restored_backup_is_refused_until_it_has_recovered",
        ),
        "processes, one process, ledger",
    ),
    Row(
        "F25",
        "two services for one party",
        "the second is refused, by the folder and by the port",
        (
            "party/serve::a_second_service_on_the_folder_is_refused",
            "ledger/files::a_second_opener_is_told_who_is_there",
            "transport/switchboard_lines::a_second_server_on_the_port_is_refused",
        ),
        "processes, ledger, wire",
    ),
    Row(
        "F26",
        "a burst beyond the budget",
        "never more than the budget; as many as it holds; the others `BUDGET_EXCEEDED`",
        (
            "faults/load::fifty_questions_against_a_budget_for_ten",
            "simulator/registry::fifty_requests_against_a_budget_for_ten",
            "ledger/budgets::fifty_sessions_against_a_budget_for_ten",
            "party/daemon::a_burst_is_served_up_to_the_budget",
        ),
        "processes, one process, simulator, ledger",
    ),
    Row(
        "F27",
        "one question at two parties, or under two keys",
        "one session; the second request gets the first one's release",
        (
            "faults/clients::one_question_at_two_parties_at_once",
            "simulator/registry::the_same_question_is_answered_once",
            "party/daemon::the_same_question_again_costs_nothing",
        ),
        "processes, one process, simulator",
    ),
    Row(
        "F28",
        "malformed messages",
        "`INVALID_ARGUMENT`, in words that quote nothing",
        (
            "client/messages::over_the_wire_every_bad_message_is_an_invalid_argument",
            "transport/control::any_bytes_are_refused_or_canonical",
            "robustness/fuzz_lines::what_is_no_message_is_refused_in_one_way",
        ),
        "wire, one process",
    ),
    Row(
        "F29",
        "giant, compressed and countless messages",
        "refused by their length, or not read; memory grows by less than 64 MiB",
        (
            "robustness/wire_attacks::messages_of_a_gibibyte",
            "robustness/wire_attacks::a_bomb_of_gzip",
            "robustness/wire_attacks::a_megabyte_of_metadata",
            "robustness/wire_attacks::a_million_empty_messages",
            "transport/switchboard_floods::floods_by_a_peer",
        ),
        "processes, wire",
    ),
    Row(
        "F30",
        "random calls in random states",
        "documented reasons only, and every promise kept",
        (
            "robustness/fuzz_analyst::nonsense_from_an_analyst",
            "robustness/fuzz_lines::a_peer_gone_mad",
            "robustness/fuzz_links::sessions_with_spoilt_messages",
            "robustness/fuzz_wire::nonsense_over_grpc",
        ),
        "one process, wire",
    ),
    Row(
        "F31",
        "an analyst floods",
        "refused with the time to wait; peers and health do not notice",
        (
            "robustness/wire_attacks::a_flood_of_submissions",
            "robustness/wire_attacks::a_thousand_connections",
            "robustness/wire_attacks::handshakes_that_are_never_made",
            "transport/analyst_quotas::a_flood_is_refused_with_the_time_to_wait_and_reaches_nobody_else",
            "transport/analyst_quotas::another_server_in_the_process_is_not_held_up_by_a_flood",
        ),
        "wire",
    ),
    Row(
        "F32",
        "a call is cancelled",
        "what it began goes on; a request is withdrawn only by saying so",
        (
            "faults/clients::a_request_is_withdrawn_at_each_phase",
            "transport/analyst_quotas::a_client_that_goes_away_ends_its_wait_but_not_what_it_began",
            "party/daemon::a_request_can_be_withdrawn_until_it_is_released",
        ),
        "processes, one process, wire",
    ),
    Row(
        "F33",
        "SIGTERM",
        (
            "told to the supervisor; before the commit ABORTED, after it the party goes on at its next "
            "start; exit 0"
        ),
        (
            "faults/signals::a_party_is_stopped_in_good_order",
            "party/serve::stopping_is_clean_and_told_to_the_supervisor",
            "party/serve::probes_tell_alive_from_ready_and_a_restart_goes_on",
        ),
        "processes",
    ),
    Row(
        "F34",
        "counting fails; the snapshot is missing or altered; the source or the mapping has changed",
        (
            "`LOCAL_COMPUTE_FAILED` without a word of records; not ready at once (`DATA`); the snapshot "
            "is counted as it is, and the operator told that it is older"
        ),
        (
            "faults/counting::counting_that_fails",
            "faults/counting::a_source_file_that_changed_after_it_was_registered",
            "party/daemon::counting_that_fails_ends_the_session_and_says_nothing_about_records",
            "faults/counting::a_snapshot_that_is_not_whole_is_told_before_anybody_asks",
            "party/failures::data_that_changed_since",
        ),
        "processes, one process",
    ),
    Row(
        "F35",
        "engines and ledgers of two versions",
        "refused when lines connect or sessions agree; a newer ledger does not open in an older engine",
        (
            "faults/ledgers::another_engine_is_refused_before_anything_is_counted",
            "transport/switchboard_trust::another_protocol_version_is_refused",
            "ledger/files::a_ledger_of_a_newer_engine",
            "ledger/files::a_ledger_of_an_older_engine_is_brought_forward",
        ),
        "processes, wire, ledger",
    ),
    Row(
        "F36",
        "a party away for a day after the commit",
        (
            "before it has opened and signed, the release waits for it; once all have signed, it can be "
            "fetched; stored shares are destroyed only when all have it"
        ),
        (
            "scenarios/offline_for_a_day",
            "harness/memory::a_party_is_away_for_hours_before_it_has_stored_the_release",
            "party/bad_luck::a_release_can_be_fetched_before_the_last_party_has_stored_it",
            "ledger/sessions::who_has_stored_the_release",
        ),
        "simulator, one process, ledger",
    ),
)
