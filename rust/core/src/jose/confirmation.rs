//! Confirmation: AWS-LC verifies a sample of the faster library's results again.
//!
//! Belongs here: which answers of the fast library are confirmed, what is counted, and whether that library is still
//! trusted. Does not belong here: the signature operation itself (`signature`), log lines and metrics (the binding's
//! caller reads [`Confirmation::figures`], and [`Confirmation::when_distrusted`] registers the function that is called
//! when trust ends).
//!
//! A wrong acceptance is the worst defect that a validator can have, so AWS-LC confirms the first acceptance of each
//! prepared key, and one in [`ACCEPTANCES`] of all others. A wrong rejection is an outage, so one in [`REJECTIONS`] of
//! the rejections is confirmed too. When the two libraries disagree, the signature counts as invalid, and from then
//! on AWS-LC alone verifies: nothing restores the trust in this process.
//!
//! What an attacker can observe: a confirmed answer takes longer by one verification with AWS-LC, so precise
//! timing reveals which answers **were** confirmed. It does not reveal which ones **will be**: every draw is a byte of
//! AWS-LC's random generator, which stays unpredictable to someone who has seen all of its earlier output, and no
//! draw depends on the token, the key or the caller. Anyone who finds a signature that the fast library accepts wrongly
//! can therefore not choose the moments at which AWS-LC does not check: n such signatures all pass unnoticed with a
//! probability of (63/64)^n.
//!
//! The cost of confirmation: the draws of 64 answers take one call of the generator, about 0.7 us; there is no lock,
//! and threads share nothing that is written more often than once per confirmation. An attacker can send as many
//! invalid signatures as the network carries, but controls none of the draws: one rejection in 16 costs a second
//! verification, so a flood of forged tokens costs at most a tenth more than without confirmation.

use std::cell::RefCell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use aws_lc_rs::rand;

/// AWS-LC confirms on average one in this many acceptances by the fast library.
pub const ACCEPTANCES: u8 = 64;

/// AWS-LC confirms on average one in this many rejections by the fast library.
pub const REJECTIONS: u8 = 16;

/// What was confirmed so far, and whether the fast library is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// How often AWS-LC gave the same answer.
    pub agreed: u64,
    /// How often it did not. More than 1 only if several threads found a disagreement at the same time.
    pub disagreed: u64,
    /// May the fast library still be used?
    pub trusted: bool,
}

/// The trust in the fast library. There is one for the whole process ([`Confirmation::of_process`]), because a wrong
/// answer is a defect of the library or of the processor, not of one key or one policy.
#[derive(Debug, Default)]
pub struct Confirmation {
    distrusted: AtomicBool,
    agreed: AtomicU64,
    disagreed: AtomicU64,
    when_distrusted: OnceLock<fn()>,
}

impl Confirmation {
    /// Full trust, nothing counted.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            distrusted: AtomicBool::new(false),
            agreed: AtomicU64::new(0),
            disagreed: AtomicU64::new(0),
            when_distrusted: OnceLock::new(),
        }
    }

    /// The one that all keys of this process share.
    #[must_use]
    pub fn of_process() -> &'static Self {
        static PROCESS: Confirmation = Confirmation::new();
        &PROCESS
    }

    /// May the fast library still be used?
    #[must_use]
    #[inline]
    pub fn is_trusted(&self) -> bool {
        !self.distrusted.load(Relaxed)
    }

    /// Use AWS-LC alone from now on: for a process that learns of a disagreement in another process of the same
    /// service.
    pub fn distrust(&self) {
        if !self.distrusted.swap(true, Relaxed)
            && let Some(tell) = self.when_distrusted.get()
        {
            tell();
        }
    }

    /// Call this function when trust ends, once, on the thread that ended it. The first function stays.
    pub fn when_distrusted(&self, tell: fn()) {
        // A second function is ignored: the binding registers its own when it is loaded.
        let _ = self.when_distrusted.set(tell);
    }

    /// What was counted so far.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures {
            agreed: self.agreed.load(Relaxed),
            disagreed: self.disagreed.load(Relaxed),
            trusted: self.is_trusted(),
        }
    }

    /// Record that AWS-LC gave the same answer, or end the trust.
    pub(crate) fn record(&self, agreed: bool) {
        if agreed {
            self.agreed.fetch_add(1, Relaxed);
        } else {
            self.disagreed.fetch_add(1, Relaxed);
            self.distrust();
        }
    }
}

/// The number of draws from one call of the generator. A process forked from this one inherits the remaining draws;
/// they are too few to matter.
const DRAWS: usize = 64;

/// True once in `one_in` on average, which must be a power of two. See the module's description.
pub(crate) fn is_drawn(one_in: u8) -> bool {
    struct Pool {
        bytes: [u8; DRAWS],
        used: usize,
    }
    thread_local! {
        static POOL: RefCell<Pool> = const { RefCell::new(Pool { bytes: [0; DRAWS], used: DRAWS }) };
    }
    let draw = POOL.try_with(|pool| {
        let pool = &mut *pool.borrow_mut();
        if pool.used == DRAWS {
            rand::fill(&mut pool.bytes).ok()?;
            pool.used = 0;
        }
        let byte = pool.bytes.get(pool.used).copied();
        pool.used += 1;
        byte
    });
    // If no draw is available, everything is confirmed.
    draw.ok().flatten().is_none_or(|byte| byte.is_multiple_of(one_in))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_is_as_rare_as_it_should_be() {
        // Binomial with 2^16 draws: six standard deviations on either side, so one run in 10^9 fails by chance.
        for (one_in, expected, deviation) in [(ACCEPTANCES, 1024.0, 31.8), (REJECTIONS, 4096.0, 62.0)] {
            let drawn = f64::from((0..1 << 16).map(|_| u32::from(is_drawn(one_in))).sum::<u32>());
            assert!((drawn - expected).abs() < 6.2 * deviation, "one in {one_in}: {drawn} of 65,536");
        }
    }

    #[test]
    fn threads_draw_different_sequences() {
        let sequence = || (0..512).map(|_| is_drawn(2)).collect::<Vec<_>>();
        let other = std::thread::spawn(sequence).join().unwrap();
        assert_ne!(sequence(), other);
    }

    #[test]
    fn the_end_of_trust_is_told_once_and_stays() {
        static TOLD: AtomicU64 = AtomicU64::new(0);
        let confirmation = Confirmation::new();
        confirmation.when_distrusted(|| {
            TOLD.fetch_add(1, Relaxed);
        });
        confirmation.record(true);
        assert_eq!(confirmation.figures(), Figures { agreed: 1, disagreed: 0, trusted: true });
        assert_eq!(TOLD.load(Relaxed), 0);
        confirmation.record(false);
        confirmation.record(false);
        confirmation.distrust();
        confirmation.record(true);
        assert_eq!(confirmation.figures(), Figures { agreed: 2, disagreed: 2, trusted: false });
        assert_eq!(TOLD.load(Relaxed), 1);
    }
}
