"""Faults that were found in the code of other suites, and for each the tests that would find it here."""

from typing import NamedTuple


class Fault(NamedTuple):
    """What went wrong, where it was read, and the tests that answer it, as file::name without `tests/test_`."""

    what: str
    where: str
    tests: tuple[str, ...]


MEASUREMENT = (
    Fault(
        "no synchronisation, no warm-up, forward timed with gradients and dropout on",
        "CAB efficiency_test.py",
        (
            "measure::test_the_latency_of_a_device_that_works_on_its_own_is_seen",
            "measure::test_work_that_was_left_over_before_is_not_counted",
            "measure::test_warming_up_lasts_until_steps_agree",
            "measure::test_inference_has_gradients_and_dropout_off",
            "efficiency::test_the_latency_of_an_asynchronous_device_is_seen_by_waiting_for_it",
            "efficiency::test_a_forward_pass_has_neither_gradients_nor_dropout_and_training_has_both",
        ),
    ),
    Fault(
        "peak memory never reset between lengths, so that it can only grow",
        "CAB efficiency_test.py",
        (
            "memory::test_peaks_do_not_depend_on_the_order_of_sizes",
            "memory::test_the_processes_peak_is_reset_between_sizes",
            "memory::test_on_cuda_the_peak_is_above_the_start_and_reset_between_sizes",
            "efficiency::test_lengths_in_descending_order_have_the_same_peaks",
        ),
    ),
    Fault(
        "forward timed by time.time() without synchronisation",
        "Neural-Solver-Library, steady design",
        (
            "measure::test_the_latency_of_a_device_that_works_on_its_own_is_seen",
            "peers::test_no_stopwatch_of_the_house_is_a_wall_clock",
        ),
    ),
    Fault(
        "the first interval of throughput contains compilation",
        "long-range-arena",
        (
            "measure::test_a_model_that_is_slow_once_is_not_slow_in_the_timing",
            "measure::test_a_single_hiccup_does_not_reach_the_median_but_stays_in_the_samples",
            "efficiency::test_a_step_that_is_slow_once_is_seen_in_its_own_column_and_not_in_the_median",
        ),
    ),
    Fault(
        "the best of several batch sizes until memory ends, mean only",
        "WhatTransformerToFavor",
        (
            "measure::test_a_cost_row_has_every_column_and_its_own_samples",
            "efficiency_row::test_a_row_has_batch_and_spread_and_what_was_agreed",
        ),
    ),
    Fault(
        "one iteration timed after warm-up",
        "NATTEN --optimize",
        (
            "measure::test_fewer_than_thirty_repeats_are_noisy",
            "efficiency::test_fewer_than_thirty_samples_are_noisy",
            "measure::test_steady_steps_are_repeated_for_a_second_and_thirty_times_at_least",
        ),
    ),
    Fault(
        "a column of FLOPs filled with MACs on failure, and a log line says so",
        "WhatTransformerToFavor metrics.py",
        (
            "flops::test_weights_without_counted_work_are_refused",
            "efficiency::test_a_count_that_fails_is_nan_with_its_reason",
            "flops::test_full_attention_is_four_products_of_tokens_and_two_of_pairs",
        ),
    ),
    Fault(
        "the counter returns 0, or far too little",
        "WhatTransformerToFavor on timm; fvcore in xFormers",
        (
            "flops::test_no_mechanism_with_weights_counts_as_no_work",
            "efficiency::test_no_counted_work_is_an_error_for_what_has_weights",
            "flops::test_a_complex_matrix_product_is_four_real_ones",
            "flops::test_a_transform_of_n_points_is_five_n_log_n_and_half_of_it_for_real_ones",
        ),
    ),
)
TASKS = (
    Fault(
        "a failed or missing cell becomes 0.0 and enters the average",
        "xFormers batch_fetch_results.py",
        (
            "report::test_a_hole_is_seen_and_the_mean_is_over_the_others",
            "report::test_a_variant_without_numbers_stays_in_words",
            "collect::test_every_cell_has_a_row_whatever_became_of_it",
        ),
    ),
    Fault(
        "hyper-parameters chosen on the split that is reported",
        "zoology, mad-lab",
        (
            "choose::test_an_unfair_or_unknown_choice_is_refused",
            "choose::test_the_report_keeps_trials_out_of_its_tables_and_tells_what_they_gave",
            "peers::test_no_task_lets_a_knob_be_chosen_by_what_is_reported",
        ),
    ),
    Fault(
        "the test loader used as validation in every epoch",
        "Neural-Solver-Library exp_steady.py",
        (
            "darcy::test_the_test_fields_are_read_once_and_after_training",
            "darcy::test_no_field_is_in_two_splits_nor_under_two_data_seeds",
            "images::test_no_two_splits_hold_images_that_are_nearly_the_same",
            "image_sets::test_an_image_of_the_test_split_is_not_trained_on_under_another_name",
            "listops::test_no_expression_is_in_two_splits_even_where_there_are_few",
            "pathfinder::test_splits_share_no_image",
            "charlm::test_an_example_stays_the_same_however_many_are_made_and_splits_never_meet",
        ),
    ),
    Fault(
        "no seed, or one fixed seed for all",
        "Neural-Solver-Library, WTF-Benchmark, zoology, mad-lab, FLARE, LRA",
        (
            "run::test_the_same_spec_gives_the_same_numbers_to_the_last_bit_and_another_seed_does_not",
            "run::test_the_seed_draws_the_weights_and_is_handed_to_the_training",
        ),
    ),
    Fault(
        "type=bool flags, of which any text is true",
        "Neural-Solver-Library",
        (
            "peers::test_a_switch_takes_truth_values_alone",
            "peers::test_the_word_false_in_a_sweep_file_is_refused_or_false",
        ),
    ),
    Fault(
        "the input channel counted into the error",
        "PDEBench #41",
        (
            "darcy::test_relative_errors_are_those_worked_out_by_hand",
            "darcy::test_the_numbers_of_a_constant_answer_are_those_worked_out_by_hand",
            "segment::test_mean_iou_is_scikits_over_the_classes_that_occur",
            "charlm::test_bits_and_chances_are_what_counting_by_hand_gives",
            "mlm::test_perplexities_and_chances_are_what_counting_by_hand_gives",
        ),
    ),
    Fault(
        "another test split and resolution than the baseline: 0.0051 became 0.0153 with the right one",
        "LatentNeuralOperator, pull 6",
        (
            "collect::test_rows_of_different_data_are_refused_for_one_task",
            "run::test_a_trained_cell_has_numbers_the_hash_of_its_data_and_where_it_ran",
        ),
    ),
    Fault(
        "a restored checkpoint is suspected of scoring at random",
        "long-range-arena #15, #60",
        (
            "resume::test_a_killed_training_ends_as_one_that_never_was",
            "checkpoint::test_what_was_saved_comes_back_to_the_last_bit_and_the_file_stays",
            "train_start::test_weights_come_back_to_the_last_bit_buffers_too",
            "mechanisms::test_weights_survive_saving_and_loading",
        ),
    ),
    Fault(
        "linear models that keep softmax in late stages",
        "qhfan/RALA #9, fudan-zvg/SOFT #12",
        (
            "peers::test_pairs_under_a_softmax_grow_no_faster_than_the_order_that_is_declared",
            "peers::test_what_is_said_to_have_no_softmax_over_tokens_has_none",
        ),
    ),
    Fault(
        "a compiled or fast path gives wrong values",
        "fla #52, #547",
        (
            "proofs::test_a_sweep_of_a_wrong_mechanism_is_refused_before_anything_is_written",
            "oracles::test_output_and_every_gradient_equal_the_slow_form",
            "contract::test_code_that_does_not_compile_is_red",
        ),
    ),
    Fault(
        "the relative error of an approximation never below 100 %",
        "performer-pytorch #46",
        (
            "limits_linear::test_the_error_of_random_features_against_softmax_falls_like_their_number_to_the_minus_half",
            "atlas::test_a_limit_that_is_full_attention_has_no_error",
            "atlas_rows::test_a_forgotten_scale_is_seen",
        ),
    ),
    Fault(
        "efficiency in energy claimed, none measured",
        "green-attention-bench",
        (
            "peers::test_energy_is_estimated_from_nothing",
            "efficiency::test_energy_is_nan_and_says_why_where_nothing_measures_it",
        ),
    ),
    Fault(
        "the control without attention won, 70.4 to 64.1",
        "Transformer-Attention-Bench",
        ("peers::test_every_sweep_that_ships_has_a_control_or_says_why_not",),
    ),
    Fault(
        "a ranking by single runs",
        "xFormers LRA table",
        (
            "report::test_nothing_is_bold_unless_an_interval_separates",
            "ranking::test_one_seed_ranks_nothing_and_says_so",
            "ranking::test_of_tied_variants_none_is_called_best_in_more_than_5_of_100",
        ),
    ),
)
HOUSES = (
    Fault(
        "a kernel chosen by a swallowed import error",
        "zoology",
        (
            "registry::test_a_broken_file_is_refused_in_one_sentence_as_often_as_it_is_asked_for",
            "registry::test_a_broken_file_is_an_entry_of_the_catalogue_with_its_reason_and_hides_no_other",
        ),
    ),
    Fault("tests without an assertion", "xFormers", ("peers::test_every_test_can_fail",)),
    Fault(
        "ids from differences to defaults, so that a changed default takes old rows for its own",
        "dora",
        (
            "peers::test_an_id_holds_every_knob_and_not_only_what_differs_from_defaults",
            "sweep::test_everything_that_can_change_a_number_is_in_the_id",
        ),
    ),
    Fault(
        "rows written in place",
        "asv",
        (
            "store::test_a_commit_killed_at_any_call_leaves_the_whole_row_or_none",
            "store::test_a_late_writer_cannot_replace_a_row_and_its_own_is_kept_and_compared",
            "run::test_the_outcome_appears_whole_or_not_at_all",
        ),
    ),
    Fault(
        "causal kernels that pad keys with zeros and do not mask them, so that early tokens are damped",
        "yanmingk/FMA",
        (
            "limits_fma_sequence::test_every_allowed_pair_is_covered_once",
            "limits_fma_sequence::test_phantoms_that_count_as_tokens_weigh_half_the_sequence_until_its_middle",
        ),
    ),
    Fault(
        "a length fixed at construction",
        "yanmingk/FMA",
        ("declarations::test_weights_depend_on_the_shape_exactly_where_declared",),
    ),
    Fault(
        "imports that cannot resolve",
        "yanmingk/FMA",
        ("tasks::test_every_task_is_found_by_its_file_name_and_has_what_the_bench_asks_for",),
    ),
    Fault(
        "levels merged with weights 1 / (j + 1), not by a plain sum, and no word of it",
        "MANO as its code circulates",
        (
            "limits_mano::test_mano_is_a_weighted_sum_over_levels",
            "peers::test_the_rule_by_which_levels_are_merged_is_in_every_row",
        ),
    ),
    Fault(
        "cells that no window covers become 0/0",
        "MANO as its code circulates",
        (
            "limits_mano::test_mano_accepts_what_windows_cover_and_refuses_the_rest",
            "limits_mano::test_overlapping_windows_are_averaged_by_their_number_over_each_token",
        ),
    ),
)
FAULTS = (*MEASUREMENT, *TASKS, *HOUSES)
