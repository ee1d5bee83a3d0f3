//! How long to wait before a link is tried again.

use crate::Ms;

/// The first pause after a link broke.
const FIRST: Ms = 100;
/// The longest pause.
const LONGEST: Ms = 2000;

/// Pauses that double up to a limit, and begin anew once a link has worked.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    next: Ms,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { next: FIRST }
    }
}

impl Backoff {
    /// The pause before the next attempt, in ms.
    pub fn pause(&mut self) -> Ms {
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST);
        pause
    }

    /// The link works.
    pub fn reset(&mut self) {
        *self = Backoff::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit() {
        let mut backoff = Backoff::default();
        let pauses: Vec<Ms> = (0..7).map(|_| backoff.pause()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 2000, 2000]);
        backoff.reset();
        assert_eq!(backoff.pause(), 100);
    }
}
