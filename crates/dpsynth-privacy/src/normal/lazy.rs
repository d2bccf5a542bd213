//! A uniform deviate in [0, 1) whose digits, in base 2³², are drawn when a comparison asks for them.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::Rng;

/// First digit at once, the others when needed: comparisons are those of real numbers, not of rounded ones.
pub(super) struct Uniform {
    pub first: u32,
    more: Vec<u32>,
}

impl Uniform {
    #[inline]
    pub fn draw(rng: &mut ChaCha20Rng) -> Self {
        Uniform::starting(rng.next_u32())
    }

    /// One whose first digit is a word that was drawn already.
    #[inline]
    pub fn starting(first: u32) -> Self {
        Uniform {
            first,
            more: Vec::new(),
        }
    }

    /// Another deviate in its place.
    #[inline]
    pub fn restart(&mut self, first: u32) {
        self.first = first;
        self.more.clear();
    }

    /// The digit after the first `index + 1`.
    #[cold]
    pub fn later_digit(&mut self, index: usize, rng: &mut ChaCha20Rng) -> u32 {
        while self.more.len() <= index {
            self.more.push(rng.next_u32());
        }
        self.more[index]
    }

    #[inline]
    pub fn less_than(&mut self, other: &mut Uniform, rng: &mut ChaCha20Rng) -> bool {
        if self.first != other.first {
            return self.first < other.first;
        }
        self.less_than_later(other, rng)
    }

    #[cold]
    fn less_than_later(&mut self, other: &mut Uniform, rng: &mut ChaCha20Rng) -> bool {
        let mut index = 0;
        loop {
            let (a, b) = (self.later_digit(index, rng), other.later_digit(index, rng));
            if a != b {
                return a < b;
            }
            index += 1;
        }
    }

    /// Whether the digits from the third on, read as a number in [0, 1), are below `numerator`/`denominator` < 1.
    #[cold]
    pub fn rest_below(&mut self, numerator: u64, denominator: u64, rng: &mut ChaCha20Rng) -> bool {
        let mut rest = u128::from(numerator);
        let mut index = 1;
        loop {
            rest <<= 32;
            let (quotient, digit) = (rest / u128::from(denominator), u128::from(self.later_digit(index, rng)));
            if digit != quotient {
                return digit < quotient;
            }
            rest %= u128::from(denominator);
            index += 1;
        }
    }
}
