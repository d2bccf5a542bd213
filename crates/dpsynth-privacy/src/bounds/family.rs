//! Mechanisms that differ from the claimed one in their noise alone.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::Result;
use crate::accountant::tradeoff::Curve;
use crate::accountant::{Adjacency, Phase, pld};

/// Members to a doubling of the noise.
const TO_A_DOUBLING: i32 = 32;
/// From a sixteenth of the noise to 64 times as much.
const MEMBERS: (i32, i32) = (-4 * TO_A_DOUBLING, 6 * TO_A_DOUBLING);

/// The claimed mechanism at more and at less noise.
///
/// What a test says of the whole trade-off function it says of one mechanism, not of an ε. The members are in order: with
/// more noise none gives away more. So the ε of the least noisy member that a test refutes is a lower bound on ε, for whoever
/// grants that the mechanism gives away no less than some member does and no more than the next (Mahloujifar, Melis and
/// Chaudhuri 2024 order the curves that they test alike).
pub struct Family {
    phases: Vec<Phase>,
    delta: f64,
    known: RefCell<HashMap<i32, Rc<Member>>>,
}

struct Member {
    curve: Curve,
    epsilon: f64,
}

impl Family {
    /// Of `phases`; epsilons are at `delta`.
    pub fn new(phases: &[Phase], delta: f64) -> Self {
        Family {
            phases: phases.to_vec(),
            delta,
            known: RefCell::default(),
        }
    }

    /// ε of the least noisy member that is refuted; 0 where none is. A test that refutes a member must refute every noisier
    /// one.
    pub fn epsilon_lower(&self, is_refuted: impl Fn(&Curve) -> bool) -> f64 {
        // What cannot be accounted for is not refuted.
        let refuted = |index: i32| self.member(index).is_ok_and(|member| is_refuted(&member.curve));
        let (mut not, mut is) = MEMBERS;
        if !refuted(is) {
            return 0.0;
        }
        while is - not > 1 {
            let mid = (is + not).div_euclid(2);
            if refuted(mid) { is = mid } else { not = mid }
        }
        self.member(is).map_or(0.0, |member| member.epsilon)
    }

    fn member(&self, index: i32) -> Result<Rc<Member>> {
        if let Some(member) = self.known.borrow().get(&index) {
            return Ok(member.clone());
        }
        let noise = 2f64.powf(f64::from(index) / f64::from(TO_A_DOUBLING));
        let phases: Vec<Phase> = (self.phases.iter())
            .map(|phase| phase.at_noise(noise))
            .collect::<Result<_>>()?;
        let member = Rc::new(Member {
            curve: Curve::new(&phases, Adjacency::AddOrRemoveOne)?,
            epsilon: pld::epsilon(&phases, Adjacency::AddOrRemoveOne, self.delta)?.epsilon_lower,
        });
        self.known.borrow_mut().insert(index, member.clone());
        Ok(member)
    }
}
