"""The fault matrix: what can break, by row, and where the rows are proven that are not here.

``tests/chaos`` holds the tests of everything that is not named in :data:`ELSEWHERE` (tests of the
part that has to bear it) or in :data:`NOT_TESTED`.
"""

from __future__ import annotations

ROWS = {
    1: "reading scans killed at any patient",
    2: "one bad file among good ones",
    3: "a scan's parser dies or eats memory",
    4: "a scan's parser hangs",
    5: "a rank killed",
    6: "a rank hangs",
    7: "a rank ten times slower than the others",
    8: "a trial's actor killed",
    9: "a trial that is wrong",
    10: "the driver killed",
    11: "the driver asked to stop (SIGTERM, SIGINT, SIGUSR1)",
    12: "a second signal while stopping",
    13: "the cluster's head lost",
    14: "a node killed",
    15: "a node drained with notice",
    16: "two nodes that no longer hear each other",
    17: "a slow network",
    18: "MLflow down at the start",
    19: "MLflow dies during a sweep",
    20: "MLflow hangs",
    21: "MLflow's database locked",
    22: "MLflow refuses (403, 500)",
    23: "the disk full while a checkpoint is written",
    24: "too little disk for the study",
    25: "storage read-only",
    26: "storage that no longer answers",
    27: "a file truncated",
    28: "a bit flipped",
    29: "a manifest damaged or missing",
    30: "a checkpoint of another configuration",
    31: "a planted pickle",
    32: "not-a-number in a loss or gradient",
    33: "a generator that says one thing",
    34: "a rank out of memory",
    35: "Ray's object store full",
    36: "clocks two hours apart",
    37: "two submissions of one run",
    38: "the same Ray submission id twice",
    39: "resumed by another version",
    40: "resumed with another number of ranks",
    41: "Slurm's time limit",
    42: "a spot machine taken without notice",
    43: "processes left behind",
    44: "a flood of epochs and metrics",
    45: "a second fault while recovering from one",
    46: "few files, one CPU, a terminal that stops or goes away",
}

_CHECKPOINT = "tests/train/test_checkpoint.py::"
_STORE = "tests/store/test_integrity.py::"
_WRITER = "tests/store/test_writer.py::"
_LOOP = "tests/train/test_loop.py::"
_TRACKER = "tests/tracking/test_tracker_faults.py::"
_DATABASE = "tests/tracking/test_tracker_database.py::"
_SWEEP = "tests/sweep/test_sweep.py::"

ELSEWHERE: dict[int, tuple[str, ...]] = {
    1: (
        "tests/data/test_ingest.py::test_killed_at_any_patient_the_store_is_the_same_to_the_byte",
        _WRITER + "test_a_killed_writer_goes_on",
    ),
    2: ("tests/data/test_ingest.py::test_scans_without_mask_among_others_are_rejected",),
    3: (
        "tests/data/test_sandbox.py::test_crashing_parsers_are_tried_on_other_workers_first",
        "tests/data/test_sandbox.py::test_memory_is_limited",
    ),
    4: ("tests/data/test_sandbox.py::test_hanging_parsers_are_ended",),
    9: (_SWEEP + "test_failures_lose_no_finished_epoch_and_leave_siblings_alone",),
    13: ("tests/sweep/test_driver.py::test_a_lost_cluster_ends_the_driver",),
    18: (_TRACKER + "test_a_sweep_without_mlflow_is_told_later",),
    19: (
        _TRACKER + "test_a_server_that_comes_back_is_told_at_once",
        _DATABASE + "test_a_database_that_is_another_one_in_the_middle_gets_all_again",
        _DATABASE + "test_a_database_that_is_none_ends_nothing",
    ),
    20: (
        _TRACKER + "test_a_server_that_hangs_blocks_nobody",
        _TRACKER + "test_what_a_server_does_too_late_is_not_there_twice",
        _TRACKER + "test_a_server_that_is_slow_is_waited_for",
        _TRACKER + "test_more_news_than_fit_go_through_the_disk",
    ),
    21: (
        _DATABASE + "test_a_locked_database_blocks_nobody",
        _DATABASE + "test_a_database_locked_for_two_minutes",
    ),
    22: (_TRACKER + "test_a_server_that_refuses_is_explained_once",),
    24: ("tests/plan/test_disk.py::test_too_little_room_is_said_with_both_numbers",),
    29: (
        _CHECKPOINT + "test_a_missing_file_is_a_damage",
        _STORE + "test_a_manifest_that_is_none_is_refused",
        _STORE + "test_a_missing_file_is_named",
    ),
    30: (_CHECKPOINT + "test_another_configuration_is_refused_naming_both",),
    31: (
        _CHECKPOINT + "test_a_planted_pickle_is_never_run",
        _STORE + "test_no_other_column_type_is_accepted",
    ),
    32: (
        _LOOP + "test_a_bad_step_is_skipped_and_the_rate_halved_once",
        _LOOP + "test_a_second_bad_epoch_goes_back_to_the_last_checkpoint",
        _LOOP + "test_an_absurd_learning_rate_diverges_within_two_attempts",
        _LOOP + "test_ranks_agree_when_only_one_has_bad_rows",
        "tests/train/test_gan.py::test_not_a_number_is_stepped_over_then_a_result",
    ),
    33: ("tests/train/test_gan.py::test_a_generator_that_says_one_thing_is_flagged",),
    38: ("tests/cluster/test_submit.py::test_a_running_sweep_is_refused_then_stopped",),
    39: (
        _CHECKPOINT + "test_an_unknown_schema_is_refused",
        "tests/sweep/test_version.py::test_another_series_goes_on_only_when_it_is_allowed_to",
    ),
    40: ("tests/store/test_sampler.py::test_resume_is_exact_after_two_one_two_ranks",),
    41: (
        "tests/cluster/test_slurm.py::test_only_an_interrupted_run_is_requeued",
        "tests/cluster/test_slurm.py::test_the_time_limit_reaches_medaug",
    ),
}

NOT_TESTED: dict[int, str] = {
    42: "as row 14: the same kill",
}
