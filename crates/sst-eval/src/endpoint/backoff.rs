//! How long to wait before a request is repeated: exponential, with jitter, or as long as the server says.
//!
//! Repetition i of a request waits between half of and all of min(cap, first 2^i): the spread keeps requests that failed
//! together from coming back together. The draw is keyed by (seed, request, i), so that a run can be repeated.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::Duration;

/// A server may ask for a longer wait than ours, but not for ever.
const LONGEST: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    pub first: Duration,
    pub cap: Duration,
    pub seed: u64,
}

impl Backoff {
    pub fn new(seed: u64) -> Self {
        Self {
            first: Duration::from_millis(500),
            cap: Duration::from_secs(30),
            seed,
        }
    }

    /// The wait before repetition `i`, counted from 0, of the request with this key; `asked` is what the server asked for.
    pub fn wait(&self, request: u64, i: u32, asked: Option<Duration>) -> Duration {
        let full = self.cap.min(self.first.saturating_mul(1 << i.min(20)));
        let mut random = ChaCha8Rng::seed_from_u64(self.seed.wrapping_add(request).wrapping_add(u64::from(i)));
        let own = full.mul_f64(0.5 + 0.5 * random.random::<f64>());
        // Never less than the server asked for, and never all clients at the same instant.
        asked.map_or(own, |asked| asked.min(LONGEST) + own.min(asked / 4))
    }
}

/// The value of `Retry-After`: seconds, or a date to be read beside the server's own `Date`.
pub(super) fn retry_after(value: &str, now: Option<&str>) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let until = httpdate::parse_http_date(value.trim()).ok()?;
    let now = now.and_then(|date| httpdate::parse_http_date(date.trim()).ok())?;
    until.duration_since(now).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_spread_by_the_key() {
        let backoff = Backoff::new(7);
        for i in 0..40 {
            let full = (0.5 * f64::from(2u32.pow(i.min(10)))).min(30.0);
            let wait = backoff.wait(1, i, None).as_secs_f64();
            assert!(wait >= 0.5 * full && wait <= full, "{i}: {wait}");
            assert_eq!(wait, backoff.wait(1, i, None).as_secs_f64());
            assert_ne!(wait, backoff.wait(2, i, None).as_secs_f64());
        }
    }

    #[test]
    fn the_server_is_given_the_time_that_it_asks_for() {
        let backoff = Backoff::new(0);
        let wait = backoff.wait(1, 0, Some(Duration::from_secs(4)));
        assert!(
            wait >= Duration::from_secs(4) && wait <= Duration::from_secs(5),
            "{wait:?}"
        );
        assert!(backoff.wait(1, 0, Some(Duration::MAX)) <= LONGEST + backoff.cap);
    }

    #[test]
    fn both_spellings_of_retry_after_are_read() {
        assert_eq!(retry_after(" 2 ", None), Some(Duration::from_secs(2)));
        assert_eq!(retry_after("-1", None), None);
        let (now, then) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:50:07 GMT");
        assert_eq!(retry_after(then, Some(now)), Some(Duration::from_secs(30)));
        assert_eq!(retry_after(now, Some(then)), None);
        assert_eq!(retry_after("soon", Some(now)), None);
    }
}
