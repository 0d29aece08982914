//! The bounded cache of acquired and exchanged tokens.
//!
//! Belongs here: how long a token may be handed out, when its renewal is due and which caller makes it, and the JSON
//! body of the response. Does not belong here: how a token is obtained, what its key is made of (`digest::of_parts`),
//! clocks.
//!
//! There are two clocks, on purpose. A token's lifetime uses the monotonic clock: a jump of the wall clock neither
//! revives nor expires it. The subject token's expiry is a wall-clock time, because it comes from a claim.
//! If a time is not a number, no token is returned: everything here fails closed.

use std::fmt;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::cache::s3_fifo::{Limits, S3Fifo};
use crate::digest::Digest;
use crate::jose::json;

/// A token is handed out until this many seconds before it expires: it still has to reach an API and be valid there,
/// by another clock.
pub const SAFETY_MARGIN: f64 = 120.0;

/// A token with at most this lifetime, in seconds, is handed out for the first half of its lifetime instead.
pub const SHORT_LIFE: f64 = 240.0;

/// A token with a longer lifetime, in seconds, is not cached. Tokens from Entra ID live for a day at most, so a longer
/// lifetime is an error of the provider.
pub const MAX_LIFE: f64 = 366.0 * 86_400.0;

/// A renewal is due after this part of the time for which the token is handed out, unless the caller decides otherwise.
/// For a token of an hour that leaves ten minutes for attempts before any request has to wait for one.
pub const RENEWAL_DUE: f64 = 0.8;

/// Responses count in whole seconds, and a token with 0 seconds left is useless.
const LEAST_LIFE: f64 = 1.0;

const BODY_BEFORE_TOKEN: &str = r#"{"access_token":"#;
const BODY_AFTER_TOKEN: &str = r#","expires_in":"#;
const BODY_END: &str = r#","token_type":"Bearer"}"#;

/// The two clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Now {
    /// Seconds since the epoch, by the wall clock.
    pub unix: f64,
    /// Seconds, by a clock that never jumps.
    pub monotonic: f64,
}

/// How long a token is valid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// Seconds until the token expires, from now on.
    pub expires_in: f64,
    /// Seconds until its renewal is due; `None` for the rule of [`RENEWAL_DUE`].
    pub renew_in: Option<f64>,
    /// When the token that it was exchanged for expires, in seconds since the epoch; `None` if there is none.
    pub subject_expires_at: Option<f64>,
}

/// Current contents and counts since the cache was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenCacheStats {
    /// Tokens now.
    pub entries: usize,
    /// How many of them were exchanged for a subject token.
    pub exchanged: usize,
    /// Bytes now, overheads included.
    pub bytes: usize,
    /// Lookups that found a token.
    pub hits: u64,
    /// Lookups that did not.
    pub misses: u64,
    /// Tokens that were evicted because the cache was full.
    pub evictions: u64,
    /// Tokens that were removed because they, or their subject tokens, had expired.
    pub expired: u64,
}

/// One cached token.
struct Entry {
    /// The response's body up to the number of seconds; it holds the token in its JSON spelling.
    body: Box<str>,
    /// The token itself, if its JSON spelling differs; a JWT needs no escapes.
    token: Option<Box<str>>,
    /// Its lifetime, and its start on the monotonic clock. The expiry is not stored: the sum would be rounded, and a
    /// new one-hour token could show 3599 seconds.
    life: f64,
    since: f64,
    /// On the monotonic clock: when it stops being handed out.
    fresh_until: f64,
    /// On the wall clock; infinite where there is no subject token.
    subject_expires_at: f64,
    renewal: Renewal,
    /// Only where there is a subject token.
    _counted: Option<Counted>,
}

/// Counts an entry for as long as it exists.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn by(number: &Arc<AtomicUsize>) -> Self {
        number.fetch_add(1, Relaxed);
        Self(Arc::clone(number))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Entry {
    fn new(access_token: &str, terms: Terms, monotonic: f64, exchanged: &Arc<AtomicUsize>) -> Self {
        let life = terms.expires_in;
        let margin = if life <= SHORT_LIFE { life / 2.0 } else { SAFETY_MARGIN };
        let fresh = life - margin;
        let mut body = Vec::with_capacity(BODY_BEFORE_TOKEN.len() + access_token.len() + 2 + BODY_AFTER_TOKEN.len());
        body.extend_from_slice(BODY_BEFORE_TOKEN.as_bytes());
        json::write_string(&mut body, access_token);
        body.extend_from_slice(BODY_AFTER_TOKEN.as_bytes());
        let body = String::from_utf8(body).expect("it was put together from strings");
        let escaped = spelled_token(&body) != access_token;
        Self {
            body: body.into_boxed_str(),
            token: escaped.then(|| access_token.into()),
            life,
            since: monotonic,
            fresh_until: monotonic + fresh,
            subject_expires_at: terms.subject_expires_at.unwrap_or(f64::INFINITY),
            renewal: Renewal::due_at(monotonic + terms.renew_in.unwrap_or(fresh * RENEWAL_DUE)),
            _counted: terms.subject_expires_at.map(|_| Counted::by(exchanged)),
        }
    }

    /// Its remaining seconds.
    fn left(&self, monotonic: f64) -> f64 {
        self.life - (monotonic - self.since)
    }

    fn is_alive(&self, monotonic: f64) -> bool {
        self.left(monotonic) >= LEAST_LIFE
    }

    fn subject_is_alive(&self, unix: f64) -> bool {
        unix < self.subject_expires_at
    }

    /// Neither it nor its subject token has expired.
    fn lives(&self, now: Now) -> bool {
        self.is_alive(now.monotonic) && self.subject_is_alive(now.unix)
    }

    fn is_fresh(&self, monotonic: f64) -> bool {
        monotonic < self.fresh_until
    }

    /// The memory that the entry occupies, with the two counters of its `Arc`.
    fn cost(&self) -> usize {
        size_of::<Self>()
            + 2 * size_of::<usize>()
            + self.body.len()
            + self.token.as_ref().map_or(0, |token| token.len())
    }
}

/// The token within the body, as JSON spells it.
fn spelled_token(body: &str) -> &str {
    &body[BODY_BEFORE_TOKEN.len() + 1..body.len() - BODY_AFTER_TOKEN.len() - 1]
}

/// When a renewal is due, on the monotonic clock; taken by exactly one caller.
struct Renewal(AtomicU64);

impl Renewal {
    /// A caller has taken it, and has not reported a failure.
    const TAKEN: u64 = f64::INFINITY.to_bits();

    fn due_at(time: f64) -> Self {
        Self(AtomicU64::new(time.to_bits()))
    }

    /// True for the first caller for whom it is due.
    fn take(&self, monotonic: f64) -> bool {
        let due = self.0.load(Relaxed);
        f64::from_bits(due) <= monotonic && self.0.compare_exchange(due, Self::TAKEN, Relaxed, Relaxed).is_ok()
    }

    /// Make it due again at `time`. A renewal that was not taken is postponed, never brought forward: it may belong to
    /// a token that was cached in the meantime.
    fn put_off(&self, time: f64) {
        let _ = self.0.fetch_update(Relaxed, Relaxed, |due| match f64::from_bits(due) {
            known if due == Self::TAKEN || known < time => Some(time.to_bits()),
            _ => None,
        });
    }
}

/// A token that may be handed out now.
#[derive(Clone)]
pub struct CachedToken {
    entry: Arc<Entry>,
    expires_in: u64,
    renewal_due: bool,
}

impl CachedToken {
    /// The token.
    #[must_use]
    pub fn access_token(&self) -> &str {
        self.entry.token.as_deref().unwrap_or_else(|| spelled_token(&self.entry.body))
    }

    /// Whole seconds that the token had left when it was found, rounded down; at least 1.
    #[must_use]
    pub const fn expires_in(&self) -> u64 {
        self.expires_in
    }

    /// Whether this caller has to renew the token in the background. True for one caller only.
    #[must_use]
    pub const fn renewal_due(&self) -> bool {
        self.renewal_due
    }

    /// Append the JSON body of the response: `{"access_token":"...","expires_in":1,"token_type":"Bearer"}`.
    pub fn render_into(&self, out: &mut Vec<u8>) {
        const DIGITS: usize = 20;
        out.reserve(self.entry.body.len() + DIGITS + BODY_END.len());
        out.extend_from_slice(self.entry.body.as_bytes());
        // Writing to a vector cannot fail.
        let _ = write!(out, "{}", self.expires_in);
        out.extend_from_slice(BODY_END.as_bytes());
    }
}

impl fmt::Debug for CachedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedToken")
            .field("expires_in", &self.expires_in)
            .field("renewal_due", &self.renewal_due)
            .finish_non_exhaustive()
    }
}

/// The cache. Thread-safe.
pub struct TokenCache {
    entries: S3Fifo<Digest, Arc<Entry>>,
    /// Lookups that found a token, but do not count as hits: it was within its safety margin.
    unfresh: AtomicU64,
    /// Misses that are counted twice, because the lookup was repeated.
    asked_again: AtomicU64,
    expired: AtomicU64,
    /// Entries that were exchanged for a subject token.
    exchanged: Arc<AtomicUsize>,
}

impl TokenCache {
    /// An empty cache. `seed` must be random for each process ([`S3Fifo::new`]).
    #[must_use]
    pub fn new(limits: Limits, seed: [u64; 2]) -> Self {
        Self {
            entries: S3Fifo::new(limits, seed),
            unfresh: AtomicU64::new(0),
            asked_again: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            exchanged: Arc::default(),
        }
    }

    /// Cache a token, which is valid from `monotonic` on for as long as its terms say. It replaces the key's token.
    ///
    /// False if it is not cached: its remaining lifetime is 0 or more than [`MAX_LIFE`] (then the key keeps its token),
    /// or it alone is larger than the cache.
    pub fn put(&self, key: &Digest, access_token: &str, terms: Terms, monotonic: f64) -> bool {
        if !monotonic.is_finite() {
            return false;
        }
        if !(LEAST_LIFE..=MAX_LIFE).contains(&terms.expires_in) {
            return false;
        }
        let entry = Arc::new(Entry::new(access_token, terms, monotonic, &self.exchanged));
        let cost = entry.cost();
        self.entries.insert(key, entry, cost)
    }

    /// The token, unless it is within its safety margin, or its subject token has expired.
    #[inline]
    pub fn get(&self, key: &Digest, now: Now) -> Option<CachedToken> {
        let entry = self.living(key, now)?;
        if !entry.is_fresh(now.monotonic) {
            self.unfresh.fetch_add(1, Relaxed);
            return None;
        }
        let renewal_due = entry.renewal.take(now.monotonic);
        Some(cached(entry, renewal_due, now))
    }

    /// Like [`Self::get`], for a caller that passes the request on if there is no token: the second lookup counts the
    /// miss.
    #[inline]
    pub fn get_first(&self, key: &Digest, now: Now) -> Option<CachedToken> {
        let token = self.get(key, now);
        if token.is_none() {
            self.asked_again.fetch_add(1, Relaxed);
        }
        token
    }

    /// As [`Self::get`], but within the safety margin too, for when the provider fails. No renewal is asked for,
    /// because the caller has just failed to make one; and nothing is counted, because [`Self::get`] has done so.
    #[inline]
    pub fn get_stale(&self, key: &Digest, now: Now) -> Option<CachedToken> {
        let entry = self.living(key, now);
        self.asked_again.fetch_add(1, Relaxed);
        let entry = entry?;
        self.unfresh.fetch_add(1, Relaxed);
        Some(cached(entry, false, now))
    }

    /// A renewal failed: it is due again `retry_in` seconds after `monotonic`, for one caller.
    pub fn renewal_failed(&self, key: &Digest, monotonic: f64, retry_in: f64) {
        if let Some(entry) = self.entries.peek(key) {
            entry.renewal.put_off(monotonic + retry_in);
        }
    }

    /// Remove expired tokens from one of `parts` parts of the cache ([`S3Fifo::sweep`]), so that they do not stay in
    /// memory because no one asks for them. Returns how many.
    pub fn sweep(&self, now: Now, parts: usize) -> usize {
        let removed = self.entries.sweep(parts, |entry| !entry.lives(now));
        self.expired.fetch_add(removed as u64, Relaxed);
        removed
    }

    /// Remove the token.
    pub fn remove(&self, key: &Digest) {
        self.entries.remove(key);
    }

    /// Current contents and counts.
    #[must_use]
    pub fn stats(&self) -> TokenCacheStats {
        // Read before the hits, which include it.
        let unfresh = self.unfresh.load(Relaxed);
        let asked_again = self.asked_again.load(Relaxed);
        let stats = self.entries.stats();
        TokenCacheStats {
            entries: stats.entries,
            exchanged: self.exchanged.load(Relaxed),
            bytes: stats.bytes,
            hits: stats.hits.saturating_sub(unfresh),
            misses: (stats.misses + unfresh).saturating_sub(asked_again),
            evictions: stats.evictions,
            expired: self.expired.load(Relaxed),
        }
    }

    /// The entry, if neither it nor its subject token has expired; otherwise it is removed.
    fn living(&self, key: &Digest, now: Now) -> Option<Arc<Entry>> {
        self.entries.get_if(key, |entry| {
            let alive = entry.lives(now);
            if !alive {
                self.expired.fetch_add(1, Relaxed);
            }
            alive
        })
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

fn cached(entry: Arc<Entry>, renewal_due: bool, now: Now) -> CachedToken {
    // `now` may be before the token was cached: threads read the clock, and then wait for each other.
    let left = entry.left(now.monotonic).min(entry.life);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between LEAST_LIFE and MAX_LIFE")]
    let expires_in = left as u64;
    CachedToken { entry, expires_in, renewal_due }
}

#[cfg(test)]
mod tests {

    use proptest::prelude::*;

    use super::*;
    use crate::digest::sha256;

    const KEY: Digest = [7; 32];
    const UNIX: f64 = 1_800_000_000.0;
    const START: f64 = 5_000.0;

    fn cache() -> TokenCache {
        TokenCache::new(Limits { entries: 1000, bytes: 1 << 20 }, [1, 2])
    }

    fn lives(expires_in: f64) -> Terms {
        Terms { expires_in, renew_in: None, subject_expires_at: None }
    }

    /// This many seconds after the token was cached, by both clocks.
    fn after(seconds: f64) -> Now {
        Now { unix: UNIX + seconds, monotonic: START + seconds }
    }

    fn body(token: &CachedToken) -> String {
        let mut body = Vec::new();
        token.render_into(&mut body);
        String::from_utf8(body).unwrap()
    }

    #[test]
    fn a_token_is_handed_out_until_its_safety_margin() {
        // (life, seconds for which it is handed out): 120 s before its end, or half of a life of up to 240 s.
        for (life, fresh) in [(3900.0, 3780.0), (241.0, 121.0), (240.0, 120.0), (100.0, 50.0), (4.0, 2.0)] {
            let cache = cache();
            assert!(cache.put(&KEY, "token", lives(life), START));
            assert!(cache.get(&KEY, after(fresh - 0.001)).is_some(), "{life}");
            assert!(cache.get(&KEY, after(fresh)).is_none(), "{life}");
            assert!(cache.get_stale(&KEY, after(fresh)).is_some(), "{life}");
            assert!(cache.get_stale(&KEY, after(life - 1.0)).is_some(), "{life}");
            assert!(cache.get_stale(&KEY, after(life - 0.999)).is_none(), "{life}");
        }
    }

    #[test]
    fn what_is_left_is_counted_from_now_and_rounded_down() {
        let cache = cache();
        cache.put(&KEY, "token", lives(3600.0), START);
        for (seconds, left) in [(-5.0, 3600), (0.0, 3600), (0.1, 3599), (1.0, 3599), (3479.5, 120)] {
            assert_eq!(cache.get(&KEY, after(seconds)).unwrap().expires_in(), left, "{seconds}");
        }
        assert_eq!(cache.get_stale(&KEY, after(3599.0)).unwrap().expires_in(), 1);
    }

    #[test]
    fn a_token_shows_its_whole_life_at_once_however_long_the_machine_has_run() {
        // With some of these the sum of clock and life is rounded down.
        for uptime in (0..1000).map(|step| 0.1 + f64::from(step) * 1234.567) {
            let cache = cache();
            cache.put(&KEY, "token", lives(3600.0), uptime);
            let token = cache.get(&KEY, Now { unix: UNIX, monotonic: uptime }).unwrap();
            assert_eq!(token.expires_in(), 3600, "{uptime}");
        }
    }

    #[test]
    fn a_miss_that_is_handed_on_counts_once() {
        let cache = cache();
        cache.put(&KEY, "token", lives(3600.0), START);
        for (seconds, hits, misses) in [(0.0, 1, 0), (3500.0, 1, 1), (3600.0, 1, 2)] {
            if cache.get_first(&KEY, after(seconds)).is_none() {
                assert!(cache.get(&KEY, after(seconds)).is_none());
            }
            assert_eq!((cache.stats().hits, cache.stats().misses), (hits, misses), "{seconds}");
        }
    }

    #[test]
    fn an_ended_token_is_removed_when_it_is_found() {
        let cache = cache();
        cache.put(&KEY, "token", lives(3600.0), START);
        assert!(cache.get(&KEY, after(3600.0)).is_none());
        let stats = cache.stats();
        assert_eq!((stats.entries, stats.bytes, stats.expired, stats.misses, stats.hits), (0, 0, 1, 1, 0));
    }

    #[test]
    fn an_exchanged_token_goes_with_its_subject_token() {
        for ask in [TokenCache::get, TokenCache::get_stale] {
            let cache = cache();
            let terms = Terms { subject_expires_at: Some(UNIX + 60.0), ..lives(3600.0) };
            cache.put(&KEY, "token", terms, START);
            assert!(ask(&cache, &KEY, after(59.9)).is_some());
            assert!(ask(&cache, &KEY, after(60.0)).is_none());
            // It stays away, even if the wall clock is set back.
            assert!(ask(&cache, &KEY, after(0.0)).is_none());
            assert_eq!(cache.stats().expired, 1);
        }
    }

    #[test]
    fn a_jump_of_the_wall_clock_neither_resurrects_nor_kills() {
        let cache = cache();
        cache.put(&KEY, "token", lives(3600.0), START);
        for jump in [-3600.0, 3600.0, -1e12, 1e12] {
            let now = Now { unix: UNIX + jump, monotonic: START + 10.0 };
            assert_eq!(cache.get(&KEY, now).unwrap().expires_in(), 3590);
        }
        assert!(cache.get(&KEY, Now { unix: UNIX - 1e12, monotonic: START + 3600.0 }).is_none());
    }

    #[test]
    fn the_body_is_that_of_the_contract() {
        let cache = cache();
        cache.put(&KEY, "eyJ0.eyJp.c2ln", lives(3600.0), START);
        let token = cache.get(&KEY, after(0.5)).unwrap();
        assert_eq!(body(&token), r#"{"access_token":"eyJ0.eyJp.c2ln","expires_in":3599,"token_type":"Bearer"}"#);
        assert_eq!(token.access_token(), "eyJ0.eyJp.c2ln");
    }

    proptest! {
        /// Opaque tokens may hold anything: the body is JSON that holds exactly the token.
        #[test]
        fn any_token_survives_the_body(token in any::<String>(), life in 241..100_000_u32) {
            let cache = cache();
            prop_assert!(cache.put(&KEY, &token, lives(f64::from(life)), START));
            let cached = cache.get(&KEY, after(0.0)).unwrap();
            prop_assert_eq!(cached.access_token(), &token);
            let parsed: serde_json::Value = serde_json::from_str(&body(&cached)).unwrap();
            let expected = serde_json::json!({"access_token": token, "expires_in": life, "token_type": "Bearer"});
            prop_assert_eq!(parsed, expected);
        }

        /// Whatever the provider and the clocks say, no token is handed out after it or its subject token has expired.
        #[test]
        fn nothing_is_handed_out_too_late(
            life in prop_oneof![any::<f64>(), 0.0..5000.0],
            subject in proptest::option::of(prop_oneof![any::<f64>(), UNIX - 10.0..UNIX + 5000.0]),
            renew_in in proptest::option::of(any::<f64>()),
            seconds in prop_oneof![any::<f64>(), 0.0..5000.0],
        ) {
            let cache = cache();
            let terms = Terms { expires_in: life, renew_in, subject_expires_at: subject };
            let kept = cache.put(&KEY, "token", terms, START);
            prop_assert_eq!(kept, (1.0..=MAX_LIFE).contains(&life));
            let now = after(seconds);
            if let Some(token) = cache.get_stale(&KEY, now) {
                prop_assert!(kept && now.monotonic < START + life);
                prop_assert!(subject.is_none_or(|end| now.unix < end));
                prop_assert!(token.expires_in() >= 1);
                #[allow(clippy::cast_precision_loss)]
                let left = token.expires_in() as f64;
                prop_assert!(left <= life && now.monotonic.max(START) + left <= START + life + 1e-6);
            } else {
                prop_assert!(cache.get(&KEY, now).is_none());
            }
        }
    }

    #[test]
    fn a_token_of_no_usable_life_leaves_what_was_there() {
        let cache = cache();
        cache.put(&KEY, "good", lives(3600.0), START);
        for life in [0.0, -1.0, 0.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, MAX_LIFE + 1.0] {
            assert!(!cache.put(&KEY, "bad", lives(life), START), "{life}");
        }
        for clock in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(!cache.put(&KEY, "bad", lives(3600.0), clock));
        }
        assert_eq!(cache.get(&KEY, after(0.0)).unwrap().access_token(), "good");
        assert!(cache.put(&KEY, "token of a year", lives(365.0 * 86_400.0), START));
        assert!(!cache.put(&KEY, "token of two years", lives(2.0 * 365.0 * 86_400.0), START));
    }

    #[test]
    fn clocks_that_are_no_numbers_find_nothing() {
        let cache = cache();
        let terms = Terms { subject_expires_at: Some(UNIX + 60.0), ..lives(3600.0) };
        let nan = f64::NAN;
        for now in [Now { unix: nan, monotonic: START }, Now { unix: UNIX, monotonic: nan }] {
            cache.put(&KEY, "token", terms, START);
            assert!(cache.get(&KEY, now).is_none());
            cache.put(&KEY, "token", terms, START);
            assert!(cache.get_stale(&KEY, now).is_none());
        }
        cache.put(&KEY, "token", Terms { subject_expires_at: Some(nan), ..terms }, START);
        assert!(cache.get(&KEY, after(0.0)).is_none());
    }

    #[test]
    fn renewal_is_due_for_one_caller_until_it_fails_or_succeeds() {
        let cache = cache();
        let due = |seconds| cache.get(&KEY, after(seconds)).unwrap().renewal_due();
        cache.put(&KEY, "token", Terms { renew_in: Some(100.0), ..lives(3600.0) }, START);
        assert!(!due(99.9));
        assert!(due(100.0));
        assert!(!due(100.0) && !due(1000.0));

        cache.renewal_failed(&KEY, START + 1000.0, 30.0);
        assert!(!due(1029.9));
        assert!(due(1030.0));
        assert!(!due(2000.0));

        cache.put(&KEY, "next", Terms { renew_in: Some(100.0), ..lives(3600.0) }, START + 2000.0);
        assert!(!due(2050.0));
        assert!(due(2100.0));
    }

    #[test]
    fn without_a_word_from_the_caller_renewal_is_due_at_four_fifths() {
        for (life, due_after) in [(3900.0, 3024.0), (240.0, 96.0)] {
            let cache = cache();
            cache.put(&KEY, "token", lives(life), START);
            assert!(!cache.get(&KEY, after(due_after - 0.1)).unwrap().renewal_due());
            assert!(cache.get(&KEY, after(due_after + 0.1)).unwrap().renewal_due());
        }
    }

    #[test]
    fn a_failure_puts_off_what_is_due_sooner_and_brings_nothing_forward() {
        let cache = cache();
        let due = |seconds| cache.get(&KEY, after(seconds)).unwrap().renewal_due();
        cache.put(&KEY, "token", Terms { renew_in: Some(10.0), ..lives(3600.0) }, START);
        cache.renewal_failed(&KEY, START, 60.0);
        assert!(!due(59.9) && due(60.0));
        // The renewal that failed was for the token before this one.
        cache.put(&KEY, "next", Terms { renew_in: Some(1000.0), ..lives(3600.0) }, START);
        cache.renewal_failed(&KEY, START, 60.0);
        assert!(!due(999.9) && due(1000.0));
        cache.renewal_failed(&sha256(b"unknown"), START, 60.0);
    }

    #[test]
    fn asking_for_a_stale_token_takes_no_renewal_away() {
        let cache = cache();
        cache.put(&KEY, "token", Terms { renew_in: Some(10.0), ..lives(3600.0) }, START);
        assert!(!cache.get_stale(&KEY, after(20.0)).unwrap().renewal_due());
        assert!(cache.get(&KEY, after(20.0)).unwrap().renewal_due());
    }

    #[test]
    fn of_many_threads_one_is_to_renew() {
        const ROUNDS: u64 = 100_000;
        let renewal = Renewal::due_at(START);
        let (arrivals, taken) = (AtomicU64::new(0), AtomicU64::new(0));
        // Threads that wait for one another by spinning meet within nanoseconds; woken from a lock they never would.
        let meet = |count: u64| {
            arrivals.fetch_add(1, Relaxed);
            for spin in 1.. {
                if arrivals.load(Relaxed) >= count {
                    break;
                }
                if spin % 1024 == 0 {
                    std::thread::yield_now(); // there may be one core only
                }
            }
        };
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let (meet, renewal, taken) = (&meet, &renewal, &taken);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        meet(round * 4 + 2);
                        // Who is first, and by how much, differs from round to round.
                        (0..thread * (round % 64)).for_each(|_| std::hint::spin_loop());
                        taken.fetch_add(renewal.take(START).into(), Relaxed);
                        meet(round * 4 + 4);
                        renewal.put_off(START);
                    }
                });
            }
        });
        assert_eq!(taken.into_inner(), ROUNDS);
    }

    #[test]
    fn hits_and_misses_are_those_of_the_questions() {
        let cache = cache();
        cache.put(&KEY, "token", lives(3600.0), START);
        cache.get(&KEY, after(0.0)); // a hit
        cache.get(&KEY, after(3500.0)); // within the margin: a miss
        cache.get_stale(&KEY, after(3500.0)); // the same question
        cache.get_stale(&sha256(b"unknown"), after(0.0)); // the same question as below
        cache.get(&sha256(b"unknown"), after(0.0)); // a miss
        cache.renewal_failed(&KEY, START, 1.0); // no question
        cache.get(&KEY, after(3700.0)); // ended: a miss
        let TokenCacheStats { hits, misses, evictions, expired, entries, bytes, .. } = cache.stats();
        assert_eq!((hits, misses, evictions, expired, entries, bytes), (1, 3, 0, 1, 0, 0));
    }

    #[test]
    fn expired_tokens_leave_memory_although_no_one_asks_for_them() {
        let cache = TokenCache::new(Limits { entries: 10_000, bytes: 64 << 20 }, [1, 2]);
        for number in 0..1000_u32 {
            let terms = match number % 4 {
                0 => lives(60.0),
                1 => Terms { subject_expires_at: Some(UNIX + 60.0), ..lives(3600.0) },
                2 => Terms { subject_expires_at: Some(UNIX + 600.0), ..lives(3600.0) },
                _ => lives(3600.0),
            };
            cache.put(&sha256(&number.to_le_bytes()), "token", terms, START);
        }
        assert_eq!((0..60).map(|_| cache.sweep(after(58.0), 60)).sum::<usize>(), 0);
        assert_eq!((0..60).map(|_| cache.sweep(after(60.0), 60)).sum::<usize>(), 500);
        assert_eq!((cache.stats().entries, cache.stats().expired, cache.stats().evictions), (500, 500, 0));
        // Neither hits nor misses: nothing was asked for.
        assert_eq!((cache.stats().hits, cache.stats().misses), (0, 0));
    }

    #[test]
    fn exchanged_tokens_are_counted_while_they_are_cached() {
        let cache = cache();
        let exchanged = Terms { subject_expires_at: Some(UNIX + 60.0), ..lives(3600.0) };
        let found = || (cache.stats().entries, cache.stats().exchanged);
        cache.put(&KEY, "token", lives(3600.0), START);
        assert_eq!(found(), (1, 0));
        cache.put(&sha256(b"exchanged"), "token", exchanged, START);
        cache.put(&sha256(b"exchanged"), "its renewal", exchanged, START);
        assert_eq!(found(), (2, 1));
        cache.put(&KEY, "exchanged, too", exchanged, START);
        assert_eq!(found(), (2, 2));
        cache.remove(&KEY);
        cache.get(&sha256(b"exchanged"), after(61.0));
        assert_eq!(found(), (0, 0));
    }

    #[test]
    fn memory_stays_within_its_limit_and_is_accounted_for() {
        let limits = Limits { entries: 100_000, bytes: 1 << 20 };
        let cache = TokenCache::new(limits, [1, 2]);
        let token = "t".repeat(2000);
        cache.put(&KEY, &token, lives(3600.0), START);
        // The size of the token, and less than a kilobyte besides.
        assert!((2000..3000).contains(&cache.stats().bytes), "{:?}", cache.stats());
        for number in 0..2000_u32 {
            cache.put(&sha256(&number.to_le_bytes()), &token, lives(3600.0), START);
            assert!(cache.stats().bytes <= limits.bytes);
        }
        assert!(cache.stats().evictions > 1000);
        assert!(!cache.put(&KEY, &"t".repeat(2 << 20), lives(3600.0), START));
    }

    #[test]
    fn an_entry_is_charged_with_every_byte_that_it_occupies() {
        let exchanged = Arc::default();
        let entry = |token: &str| Entry::new(token, lives(3600.0), START, &exchanged);
        let counters = size_of::<[AtomicU64; 2]>();
        assert_eq!(entry("").cost(), size_of::<Entry>() + counters + entry("").body.len());
        assert_eq!(entry(&"t".repeat(1000)).cost(), entry("").cost() + 1000);
        // The token stands in the body, with escapes, and beside it, without.
        assert_eq!(entry(&"\"".repeat(1000)).cost(), entry("").cost() + 3000);
    }

    #[test]
    fn a_body_needs_one_allocation_of_its_size() {
        let cache = cache();
        cache.put(&KEY, &"t".repeat(2000), lives(3600.0), START);
        let mut body = Vec::new();
        cache.get(&KEY, after(0.0)).unwrap().render_into(&mut body);
        assert!(body.capacity() < body.len() + 20, "{} for {}", body.capacity(), body.len());
    }

    #[test]
    fn no_debug_shows_the_token() {
        let cache = cache();
        cache.put(&KEY, "canary", lives(3600.0), START);
        let token = cache.get(&KEY, after(0.0)).unwrap();
        assert!(!format!("{token:?} {cache:?}").contains("canary"));
        cache.remove(&KEY);
        assert!(cache.get_stale(&KEY, after(0.0)).is_none());
        assert_eq!(token.access_token(), "canary", "who has a token keeps it");
    }
}
