//! Proof that the checks can fail: each deliberate mistake in the private step (`src/mutation.rs`) is caught by one of
//! them, and the true step passes them all. Part of the crate's own tests, which alone can switch a mistake on.

mod checks;
#[path = "../support/mod.rs"]
mod support;

use checks::Check;
use dpsynth_privacy::mutation::{Mutation, with};

/// The true step passes `check`, the mistaken one does not.
fn caught(mutation: Mutation, check: Check) {
    with(None, check).unwrap_or_else(|found| panic!("the true step was blamed: {found}"));
    let found = with(Some(mutation), check).expect_err("the mistake went unnoticed");
    println!("{mutation:?}: {found}");
}

#[test]
fn no_noise_is_caught() {
    caught(Mutation::NoNoise, checks::p3_noise_is_drawn_once_at_its_full_size);
}

#[test]
fn noise_over_the_root_of_accumulation_is_caught() {
    caught(
        Mutation::NoiseOverRootOfAccumulation,
        checks::p3_noise_is_drawn_once_at_its_full_size,
    );
}

#[test]
fn noise_for_each_micro_batch_is_caught() {
    caught(
        Mutation::NoiseForEachMicroBatch,
        checks::p3_noise_is_drawn_once_at_its_full_size,
    );
}

#[test]
fn clipping_after_the_mean_is_caught() {
    caught(
        Mutation::ClipAfterMean,
        checks::p5_one_record_moves_the_sum_by_at_most_c,
    );
}

#[test]
fn shuffled_batches_are_caught() {
    caught(Mutation::ShuffledBatches, checks::p1_batches_are_poisson);
}

#[test]
fn noise_reused_after_resume_is_caught() {
    caught(
        Mutation::NoiseReusedAfterResume,
        checks::p7_a_resumed_run_draws_new_noise,
    );
}

#[test]
fn dividing_by_the_drawn_batch_size_is_caught() {
    caught(
        Mutation::DivideByDrawnBatch,
        checks::p2_the_divisor_is_the_expected_size,
    );
}

#[test]
fn one_record_counted_twice_is_caught() {
    caught(
        Mutation::RecordCountedTwice,
        checks::p5_one_record_moves_the_sum_by_at_most_c,
    );
}

#[test]
fn padding_that_leaks_into_another_records_norm_is_caught() {
    caught(Mutation::PaddingLeaks, checks::p5_one_record_moves_the_sum_by_at_most_c);
}

#[test]
fn clipping_loras_factors_apart_is_caught() {
    caught(
        Mutation::FactorsClippedApart,
        checks::p5_one_record_moves_the_sum_by_at_most_c,
    );
}

#[test]
fn skipping_empty_batches_is_caught() {
    caught(
        Mutation::SkipEmptyBatches,
        checks::p6_an_empty_batch_is_a_step_like_any_other,
    );
}

#[test]
fn a_unit_that_is_summed_in_place_of_averaged_is_caught() {
    caught(
        Mutation::UnitSummedNotAveraged,
        checks::p5_one_unit_of_many_records_moves_the_sum_by_at_most_c,
    );
}

#[test]
fn truncation_that_keeps_the_first_is_caught() {
    caught(
        Mutation::TruncationKeepsTheFirst,
        checks::p1_truncation_keeps_everyone_equally_often,
    );
}

#[test]
fn a_histogram_without_noise_is_caught() {
    caught(
        Mutation::HistogramWithoutNoise,
        checks::p5_histograms_have_the_noise_of_their_unit,
    );
}

#[test]
fn a_clean_mean_added_in_the_trainer_is_caught() {
    caught(
        Mutation::CleanMeanAdded,
        checks::p3_the_trainer_steps_by_what_was_released,
    );
}

#[test]
fn a_trainer_without_noise_is_caught() {
    caught(
        Mutation::CleanMeanInstead,
        checks::p3_the_trainer_steps_by_what_was_released,
    );
}

#[test]
fn a_learning_rate_that_follows_the_loss_is_caught() {
    caught(
        Mutation::LearningRateFromLoss,
        checks::p3_the_trainer_steps_by_what_was_released,
    );
}

#[test]
fn a_key_from_clock_and_step_is_caught() {
    caught(Mutation::KeyFromClock, checks::p4_no_two_runs_share_a_key);
}

#[test]
fn a_sampling_rate_two_per_cent_too_high_is_caught() {
    caught(
        Mutation::SamplingRateTooHigh,
        checks::p1_units_are_drawn_at_the_planned_rate,
    );
}

#[test]
fn a_denominator_of_the_whole_micro_batch_is_caught() {
    caught(
        Mutation::SharedDenominator,
        checks::p3_a_record_contributes_the_same_in_any_micro_batch,
    );
}

#[test]
fn noise_three_per_cent_short_is_caught() {
    caught(Mutation::NoiseShort, checks::p12_the_noise_is_as_wide_as_charged);
}

#[test]
fn a_count_of_units_without_noise_is_caught() {
    caught(Mutation::CountWithoutNoise, checks::p8_counts_of_units_have_noise);
}

#[test]
fn a_sum_over_all_units_without_noise_is_caught() {
    caught(Mutation::SumsWithoutNoise, checks::p3_sums_over_all_units_have_noise);
}

#[test]
fn a_histogram_that_forgets_the_unit_is_caught() {
    caught(
        Mutation::HistogramForgetsUnits,
        checks::p5_histograms_have_the_noise_of_their_unit,
    );
}
