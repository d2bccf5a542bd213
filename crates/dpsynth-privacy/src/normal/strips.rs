//! Which strip [k/32, (k+1)/32) a deviate is tried in: k with probability proportional to exp(−k²/2·32²), exactly.
//!
//! By inversion. With wₖ = exp(−k²/2048) and Sₖ = w₀ + … + wₖ, a uniform V in [0, 1) names the strip k for which
//! cₖ₋₁ ≤ V < cₖ, where cₖ = Sₖ·8/325. Since S∞ = 40.606… is just below 325/8 = 40.625, V lies beyond all of them once in
//! two thousand times; then the deviate is begun anew, which spares a division by S∞.
//!
//! The cₖ are real numbers. They are known here as integers with a bound on their error, and V by its first digits: where
//! these do not decide a comparison, both get 32 more bits, for as long as it takes. So the choice is exact, although all
//! but one in ten million are made from a table of 32 bits.

use std::sync::LazyLock;

use num_bigint::BigUint;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::Rng;

/// Strips a unit.
pub(super) const PER_UNIT: u32 = 32;

/// 2·32²: the denominator of every exponent.
pub(super) const SQUARE: u32 = 2 * PER_UNIT * PER_UNIT;

/// Bits computed beyond those that are used.
const GUARD: u32 = 64;

/// The leading bits of V that index the table.
const INDEX: u32 = 12;

/// What is known of all cₖ·2ᵇ for some b: `sure[k]` ≤ cₖ·2ᵇ ≤ `beyond[k]`, and c∞·2ᵇ ≤ the last `beyond`.
pub(super) struct Bounds {
    pub sure: Vec<BigUint>,
    pub beyond: Vec<BigUint>,
}

/// What the first digits of V say.
#[derive(Debug, PartialEq)]
enum Choice {
    Strip(u32),
    /// V ≥ c∞.
    None,
    Unclear,
}

impl Bounds {
    /// For b = `bits`, up to 2¹⁶.
    ///
    /// All numbers are integers in units of 2⁻ᴾ, P = b + 64, and rounded down. Errors in these units:
    /// r = e^(−1/2048) by its alternating series, fewer than P terms of error 1 each and as little for what is left
    /// out: P. Factors are at most 1, so the errors of a product are at most the sum of its factors' errors and 1:
    /// r^(2i+1): (i + 1)(2P + 3); wᵢ: i²(2P + 4); Sₖ: k³(2P + 4). The series ends where wₖ is 0 in these units, with
    /// k < 38√P, and all that follows is below 2049·wₖ. Together this is less than 2⁶¹, an eighth of 2⁻ᵇ, as long as
    /// P ≤ 2¹⁷. A bound of a quarter is used.
    pub fn new(bits: u32) -> Self {
        let precision = bits + GUARD;
        let one = BigUint::from(1u32) << precision;
        let times = |a: &BigUint, b: &BigUint| (a * b) >> precision;

        let (mut positive, mut negative) = (one.clone(), BigUint::ZERO);
        let mut term = one.clone();
        for n in 1u32.. {
            term /= SQUARE * n;
            if term == BigUint::ZERO {
                break;
            }
            *(if n % 2 == 0 { &mut positive } else { &mut negative }) += &term;
        }
        let r = positive - negative;

        let margin = BigUint::from(1u32) << (GUARD - 2);
        let (mut sure, mut beyond) = (Vec::new(), Vec::new());
        let (squared, mut ratio) = (times(&r, &r), r);
        let (mut weight, mut sum) = (one, BigUint::ZERO);
        while weight != BigUint::ZERO {
            sum += &weight;
            let c = &sum * 8u32 / 325u32;
            sure.push((&c - &margin) >> GUARD);
            beyond.push(((c + &margin) >> GUARD) + 1u32);
            weight = times(&weight, &ratio);
            ratio = times(&ratio, &squared);
        }
        Bounds { sure, beyond }
    }

    /// The strip of a V whose first b bits are `digits`: V·2ᵇ lies in [digits, digits + 1).
    fn choose(&self, digits: &BigUint) -> Choice {
        // V ≥ c of all strips before k, for certain.
        let k = self.beyond.partition_point(|beyond| beyond <= digits);
        match self.sure.get(k) {
            None => Choice::None,
            Some(sure) if digits < sure => Choice::Strip(k as u32),
            Some(_) => Choice::Unclear,
        }
    }
}

/// [`Bounds`] of 32 bits, and the first strip that each beginning of V can mean.
pub(super) struct Strips {
    first: Box<[u16; 1 << INDEX]>,
    /// (`sure`, `beyond`) of each strip; the last entry stands for "none" and is never passed.
    bounds: Vec<(u64, u64)>,
}

static STRIPS: LazyLock<Strips> = LazyLock::new(Strips::new);

impl Strips {
    pub fn table() -> &'static Strips {
        &STRIPS
    }

    fn new() -> Self {
        let exact = Bounds::new(32);
        let small = |v: &BigUint| u64::try_from(v).expect("c is below 1");
        let mut bounds: Vec<(u64, u64)> = exact
            .sure
            .iter()
            .map(small)
            .zip(exact.beyond.iter().map(small))
            .collect();
        bounds.push((1 << 32, 1 << 32));
        let first = |i: usize| bounds.partition_point(|(_, beyond)| *beyond <= (i as u64) << (32 - INDEX)) as u16;
        let first: Vec<u16> = (0..1 << INDEX).map(first).collect();
        Strips {
            first: first.into_boxed_slice().try_into().expect("as long as it was made"),
            bounds,
        }
    }

    /// The strip of V, whose first 32 bits are `digit`; none where V ≥ c∞.
    #[inline]
    pub fn choose(&self, digit: u32, rng: &mut ChaCha20Rng) -> Option<u32> {
        let v = u64::from(digit);
        let mut k = usize::from(self.first[(digit >> (32 - INDEX)) as usize]);
        while self.bounds[k].1 <= v {
            k += 1;
        }
        if v >= self.bounds[k].0 {
            return Strips::choose_with_more(digit, rng);
        }
        (k + 1 < self.bounds.len()).then_some(k as u32)
    }

    #[cold]
    fn choose_with_more(digit: u32, rng: &mut ChaCha20Rng) -> Option<u32> {
        let mut digits = BigUint::from(digit);
        for bits in (64..).step_by(32) {
            digits = (digits << 32) + rng.next_u32();
            match Bounds::new(bits).choose(&digits) {
                Choice::Strip(k) => return Some(k),
                Choice::None => return None,
                Choice::Unclear => {}
            }
        }
        unreachable!("the loop has no end")
    }
}
