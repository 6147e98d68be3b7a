//! A node's own clock: it runs faster or slower than the world's, starts anywhere, and may jump
//! ahead. It never goes back, which is what the runtime's monotonic clock promises.

/// See the module. Times are milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    world: u64,
    local: u64,
    /// Local milliseconds in a thousand of the world's.
    rate: u64,
}

impl Clock {
    /// Shows `local` at the world's `now`.
    pub(crate) fn new(now: u64, local: u64, rate: u64) -> Self {
        assert!(rate > 0, "a clock that stands still");
        Self { world: now, local, rate }
    }

    /// What it shows.
    pub(crate) fn local(&self, now: u64) -> u64 {
        self.local + (now - self.world) * self.rate / 1_000
    }

    /// The first moment of the world at which it shows this, or more.
    pub(crate) fn world(&self, local: u64) -> u64 {
        let Some(wait) = local.checked_sub(self.local) else { return self.world };
        wait.checked_mul(1_000).map_or(u64::MAX, |wait| self.world + wait.div_ceil(self.rate))
    }

    /// It jumps ahead.
    pub(crate) fn jump(&mut self, now: u64, by: u64) {
        *self = Self { world: now, local: self.local(now) + by, rate: self.rate };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for rate in [900, 1_000, 1_100] {
            let mut clock = Clock::new(50, 7_000, rate);
            clock.jump(80, 1_000);
            for local in 8_000..8_300 {
                let world = clock.world(local);
                assert!(clock.local(world) >= local, "rate {rate}: too early for {local}");
                let early = world <= 80 || clock.local(world - 1) < local;
                assert!(early, "rate {rate}: too late for {local}");
            }
            assert_eq!(clock.world(u64::MAX), u64::MAX);
        }
    }
}
