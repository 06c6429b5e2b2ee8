//! Chance that can be repeated: everything that a schedule leaves to chance is drawn from here.

/// A generator of numbers that follow from its seed and nothing else (SplitMix64, by Steele, Lea and Flood).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The dice of one schedule of a run.
    pub fn new(seed: u64, number: u64) -> Self {
        let mut run = Self(seed);
        let start = run.next();
        let mut schedule = Self(start ^ number.wrapping_mul(0xd1b5_4a32_d192_ed03));
        schedule.next();
        schedule
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A number from `least` to `most`, both possible.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }

    /// One of several.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_and_number_always_fall_the_same_way() {
        let throw = |seed, number| {
            let mut dice = Dice::new(seed, number);
            (0..20).map(|_| dice.between(1, 6)).collect::<Vec<_>>()
        };
        assert_eq!(throw(7, 3), throw(7, 3));
        assert_ne!(throw(7, 3), throw(7, 4));
        assert_ne!(throw(7, 3), throw(8, 3));
        assert!((0..50).flat_map(|number| throw(1, number)).all(|eyes| (1..=6).contains(&eyes)));
    }
}
