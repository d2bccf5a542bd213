//! Deliberate mistakes in the private step, to see that the tests catch them (`tests/mutants/`).
//!
//! Only a build with `--cfg mutants` has this module, and no build of the program is one: it is not a cargo feature, so
//! nothing that depends on the crate can switch it on.

use std::cell::Cell;

/// What can be made wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// The sum goes out as it is.
    NoNoise,
    /// The noise shrinks with the root of the number of micro-batches.
    NoiseOverRootOfAccumulation,
    /// Every micro-batch gets a draw of its own, each of the noise over the number of micro-batches.
    NoiseForEachMicroBatch,
    /// The mean of a micro-batch is clipped, its records are not.
    ClipAfterMean,
    /// Batches are consecutive pieces of a shuffled epoch.
    ShuffledBatches,
    /// A process that takes up a run begins again with the first step's noise.
    NoiseReusedAfterResume,
    /// The divisor is the number of drawn units.
    DivideByDrawnBatch,
    /// A record of the batch is in it twice.
    RecordCountedTwice,
    /// Padding is predicted too, so that a record's gradient depends on how long the longest of its batch is.
    PaddingLeaks,
    /// LoRA's A and B are clipped to C each.
    FactorsClippedApart,
    /// A step that drew nobody is not taken.
    SkipEmptyBatches,
    /// A unit contributes the sum of its records' clipped gradients, not their mean.
    UnitSummedNotAveraged,
    /// Of a batch that is too large the first units are kept, not random ones.
    TruncationKeepsTheFirst,
    /// Labels are counted without noise.
    HistogramWithoutNoise,
    /// The histogram's noise is for units of one record.
    HistogramForgetsUnits,
    /// Matched units are counted without noise.
    CountWithoutNoise,
    /// Sums over all units go out without noise.
    SumsWithoutNoise,
    /// Half of the clean mean is added to what the mechanism released.
    CleanMeanAdded,
    /// The method is given the clean mean, although noise was drawn.
    CleanMeanInstead,
    /// A key is made from the clock's seconds and the step.
    KeyFromClock,
    /// A unit is drawn 2 % more often than is accounted for.
    SamplingRateTooHigh,
    /// A record's loss is divided by the tokens of its micro-batch.
    SharedDenominator,
    /// The learning rate follows the loss of the batch.
    LearningRateFromLoss,
    /// The noise is 3 % short.
    NoiseShort,
}

thread_local! {
    static CURRENT: Cell<Option<Mutation>> = const { Cell::new(None) };
    static MICRO_BATCHES: Cell<usize> = const { Cell::new(1) };
}

/// What the clock says.
pub fn seconds() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}

/// The mistake that is switched on for this thread.
pub fn current() -> Option<Mutation> {
    CURRENT.get()
}

/// Whether `mutation` is switched on for this thread.
pub fn is(mutation: Mutation) -> bool {
    current() == Some(mutation)
}

/// Runs `work` with a mistake switched on, or with none.
pub fn with<R>(mutation: Option<Mutation>, work: impl FnOnce() -> R) -> R {
    struct Off;
    impl Drop for Off {
        fn drop(&mut self) {
            CURRENT.set(None);
        }
    }
    let _off = Off;
    CURRENT.set(mutation);
    work()
}

/// Notes of how many micro-batches the next step's sum is made.
pub fn saw_micro_batches(count: usize) {
    MICRO_BATCHES.set(count.max(1));
}

/// Of how many micro-batches the last sum was made.
pub fn micro_batches() -> usize {
    MICRO_BATCHES.get()
}
