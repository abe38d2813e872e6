//! What seems to be chance, and is the same again for the same seed.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, RandomState};
use std::time::Duration;

use crate::options::Options;

/// Between two crashes, and between a crash and the moment when Redis is back: at least, and at most.
const PAUSE: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

/// Out of which a run's chances are made.
#[derive(Debug, Clone, Copy)]
pub struct Seed(u64);

impl Seed {
    /// The one that was asked for, or another one each time.
    pub fn of(options: &Options) -> Self {
        // Seeded by the system.
        Seed(options.seed.unwrap_or_else(|| RandomState::new().hash_one(std::process::id())))
    }

    /// How the same run is asked for once more.
    pub fn introduction(self) -> String {
        format!("--seed {}", self.0)
    }

    /// How long this lasts in this round.
    pub fn pause(self, number: usize, what: &str) -> Duration {
        let share = self.chance(number, what) as f64 / u64::MAX as f64;
        let [least, most] = PAUSE;
        least + (most - least).mul_f64(share)
    }

    /// Whether this is so in this round: in every second one or so.
    pub fn tosses(self, number: usize, what: &str) -> bool {
        self.chance(number, what).is_multiple_of(2)
    }

    fn chance(self, number: usize, what: &str) -> u64 {
        BuildHasherDefault::<DefaultHasher>::default().hash_one((self.0, number, what))
    }
}
