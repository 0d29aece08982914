//! The fast path: answer plain requests from the caches, or decline. Without I/O.
//!
//! One call takes the bytes of a connection and appends to `out` the responses to all requests at their start that can
//! be answered here: introspection of any token whose key is known, and tokens that are in the cache. It declines
//! everything else without consuming any bytes, and the slow path answers. That includes every invalid request. The
//! bytes of a response are the same on both paths; one contract suite runs on both.
//!
//! Does not belong here: what the fields of a request mean and who may send it (`contract`), where a request ends
//! (`http1`).

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::contract::{CallerCheck, Endpoint, Fields, TokenRequest, all_bytes, scope_for, with_fields};
use super::http_date::{Moment, digits, write_digits};
use super::http1::{Recognised, Request, recognise};
use crate::cache::fingerprint::{Fingerprint, Fingerprinter};
use crate::cache::s3_fifo::{Limits, S3Fifo};
use crate::cache::token_cache::{Now, TokenCache};
use crate::digest::{Digest, of_parts};
use crate::error::{CODES, Error};
use crate::validate::introspection;
use crate::validate::validator::{Recalled, Validator};

/// A call stops after this many bytes of responses, although there may be more requests: otherwise a client that sends
/// thousands of requests at once and reads nothing would make the server hold all their responses.
pub const MAX_ANSWERS_BYTES: usize = 64 * 1024;

/// A call stops before it verifies more tokens than this: otherwise a client that sends hundreds of requests at once
/// would keep all other connections waiting. This many RSA-2048 signatures take about half a millisecond.
pub const MAX_VERIFICATIONS_PER_CALL: u32 = 32;

/// All calls together verify at most this many tokens until [`FastPath::begin_turn`], so that the event loop gets to
/// its timers and its other sockets within a few milliseconds, however many connections send at once.
pub const MAX_VERIFICATIONS_PER_TURN: u32 = 128;

/// Maximum number of keys of the token cache that are remembered under the values that they were computed from.
const REMEMBERED_KEYS: Limits = Limits { entries: 32_768, bytes: 8 << 20 };

/// A fast path belongs to one provider, and exists only where that is enabled.
const ONE_PROVIDER: bool = true;

/// The application that the sidecar serves.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The provider's name, as in the keys of the token cache.
    pub provider: String,
    /// Whether `<cluster>:<namespace>:<app>` stands for a scope.
    pub rewrites_targets: bool,
    /// The application's tenant, as in the keys of the token cache.
    pub tenant: String,
    /// The application's client id, as in the keys of the token cache.
    pub client_id: String,
}

/// The sources of a call's answers.
#[derive(Debug, Clone, Copy)]
pub struct Caches<'c> {
    /// Validates tokens; None until there is a validator.
    pub validator: Option<&'c Validator>,
    /// Acquired tokens.
    pub tokens: &'c TokenCache,
}

/// A token that should be renewed now, in the background.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    /// The target of the token.
    pub target: String,
    /// The user's token, if it is an exchange.
    pub subject_token: Option<String>,
}

/// Why a call stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Everything was answered.
    Done,
    /// The rest is the beginning of a plain request; it holds the request's length if that is known, else 0.
    Partial(usize),
    /// The next request, of exactly this length, is for the slow path.
    Framed(usize),
    /// As `Framed`, but only because new keys may verify the token: its signing key is unknown, or its signature does not
    /// verify with the key that is known under that id. Once there are new keys, the request can be answered here.
    KeyNeeded(usize),
    /// The rest is for the slow path, and so is everything else that arrives on this connection.
    Unknown,
    /// The call, or all calls of this turn, did as much as they may: [`MAX_ANSWERS_BYTES`],
    /// [`MAX_VERIFICATIONS_PER_CALL`], [`MAX_VERIFICATIONS_PER_TURN`]. The rest waits for the next turn.
    Full,
}

/// What a call did.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The length of all answered requests.
    pub consumed: usize,
    /// How many requests were answered.
    pub answered: u64,
    /// The same by endpoint, in the order of [`Endpoint::ALL`].
    pub by_endpoint: [u64; 3],
    /// Why the call stopped there.
    pub stop: Stop,
    /// What should be renewed.
    pub renewals: Vec<Renewal>,
    /// Whether [`FastPath::begin_turn`] should be called once the event loop has been through its other work: half of
    /// the turn's verifications are used up.
    pub turn_due: bool,
}

impl Outcome {
    /// Whether the bytes were exactly one request, and it was answered with nothing left to do.
    #[must_use]
    pub fn is_one_whole_answer(&self) -> bool {
        self.answered == 1 && self.stop == Stop::Done && self.renewals.is_empty() && !self.turn_due
    }
}

/// The result of a request that was not declined.
enum Answer {
    /// It was written.
    Written,
    /// It was written, and its token should be renewed.
    RenewalDue(Renewal),
    /// Nothing was written: new keys may help.
    KeyNeeded,
    /// Nothing was written: the token would have to be verified, and no verification is left.
    Full,
}

/// Until when no keys are fetched for tokens that the known keys do not verify, in monotonic seconds. Until then such
/// tokens are answered here: a flood of them must not take time from other requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CoolDowns {
    /// For tokens whose signing key is unknown.
    pub unknown_key: f64,
    /// For tokens whose signature does not verify with the key that is known under their `kid`.
    pub failed_signature: f64,
}

/// Counts of what the fast path answered, for the metrics.
#[derive(Debug)]
pub struct Figures {
    /// Upper bounds of the buckets of durations, in seconds; one more bucket takes the rest.
    bounds: Vec<f64>,
    durations: [Durations; 3],
    active: AtomicU64,
    rejections: Rejections,
}

/// How many tokens were rejected for which reason, with an example of each reason for the log.
///
/// Counting takes one addition. An example is kept only if none was since the last look at them.
#[derive(Debug)]
struct Rejections {
    /// In the order of [`CODES`].
    counts: [AtomicU64; CODES.len()],
    /// A bit for each code of which an example is wanted.
    wanted: AtomicU64,
    examples: Mutex<Vec<Error>>,
}

const _: () = assert!(CODES.len() <= 64, "a code has no bit in `Rejections::wanted`");

impl Rejections {
    fn new() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; CODES.len()],
            wanted: AtomicU64::new(u64::MAX),
            examples: Mutex::new(Vec::new()),
        }
    }

    fn add(&self, error: &Error) {
        let index = error.index();
        self.counts[index].fetch_add(1, Relaxed);
        let bit = 1 << index;
        if self.wanted.load(Relaxed) & bit != 0 && self.wanted.fetch_and(!bit, Relaxed) & bit != 0 {
            self.examples.lock().unwrap_or_else(PoisonError::into_inner).push(error.clone());
        }
    }
}

/// A histogram of one endpoint's durations.
#[derive(Debug)]
struct Durations {
    buckets: Vec<AtomicU64>,
    nanoseconds: AtomicU64,
}

impl Figures {
    fn new(bounds: Vec<f64>) -> Self {
        let durations = || Durations {
            buckets: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            nanoseconds: AtomicU64::new(0),
        };
        let durations = [durations(), durations(), durations()];
        Self { bounds, durations, active: AtomicU64::new(0), rejections: Rejections::new() }
    }

    /// Record how long the requests of an outcome took and return the duration of each. They waited `waited` seconds
    /// for keys, and the call took `elapsed` for all of them. The fast path has no clock, so its caller measures.
    pub fn record(&self, outcome: &Outcome, waited: f64, elapsed: Duration) -> Duration {
        let Some(count) = u32::try_from(outcome.answered).ok().filter(|count| *count > 0) else {
            return Duration::ZERO;
        };
        let each = Duration::try_from_secs_f64(waited).unwrap_or_default() + elapsed / count;
        let seconds = each.as_secs_f64();
        let bucket = self.bounds.iter().position(|bound| seconds <= *bound).unwrap_or(self.bounds.len());
        let nanoseconds = u64::try_from(each.as_nanos()).unwrap_or(u64::MAX);
        for (durations, count) in self.durations.iter().zip(outcome.by_endpoint) {
            if count > 0 {
                durations.buckets[bucket].fetch_add(count, Relaxed);
                durations.nanoseconds.fetch_add(nanoseconds.saturating_mul(count), Relaxed);
            }
        }
        each
    }

    /// How many requests of an endpoint fell into each bucket, and how many seconds they took together.
    #[must_use]
    pub fn durations(&self, endpoint: Endpoint) -> (Vec<u64>, f64) {
        let durations = &self.durations[endpoint as usize];
        let buckets = durations.buckets.iter().map(|count| count.load(Relaxed)).collect();
        (buckets, Duration::from_nanos(durations.nanoseconds.load(Relaxed)).as_secs_f64())
    }

    /// Introspections that were answered with an active token.
    #[must_use]
    pub fn active(&self) -> u64 {
        self.active.load(Relaxed)
    }

    /// Introspections that were answered with an inactive token, by the code of its error.
    pub fn rejections(&self) -> impl Iterator<Item = (&'static str, u64)> {
        CODES.iter().zip(&self.rejections.counts).map(|((code, _), count)| (*code, count.load(Relaxed)))
    }

    /// An example of each error since the last call.
    #[must_use]
    pub fn take_examples(&self) -> Vec<Error> {
        let mut examples = self.rejections.examples.lock().unwrap_or_else(PoisonError::into_inner);
        self.rejections.wanted.store(u64::MAX, Relaxed);
        std::mem::take(&mut examples)
    }
}

/// The fast path of one sidecar.
#[derive(Debug)]
pub struct FastPath {
    identity: Identity,
    callers: CallerCheck,
    figures: Figures,
    tracing: bool,
    fingerprinter: Fingerprinter,
    /// Keys of the token cache by target and subject token: a fingerprint of both takes less than a third of the time
    /// of a SHA-256 digest over the subject token.
    keys: S3Fifo<Fingerprint, Digest>,
    /// Monotonic seconds, as bits of a float: see [`CoolDowns`].
    unknown_key_until: AtomicU64,
    failed_signature_until: AtomicU64,
    /// How many tokens may still be verified in this turn.
    left_in_turn: AtomicU32,
}

impl FastPath {
    /// A fast path for an application. `bounds` are those of the buckets of [`Figures`], in seconds, ascending.
    /// With `tracing`, requests that ask for spans are declined, because the slow path creates them.
    /// `seed` must be random for each process ([`S3Fifo::new`]).
    #[must_use]
    pub fn new(identity: Identity, callers: CallerCheck, bounds: Vec<f64>, tracing: bool, seed: [u64; 2]) -> Self {
        Self {
            identity,
            callers,
            figures: Figures::new(bounds),
            tracing,
            fingerprinter: Fingerprinter::new(),
            keys: S3Fifo::new(REMEMBERED_KEYS, seed),
            unknown_key_until: AtomicU64::new(f64::NEG_INFINITY.to_bits()),
            failed_signature_until: AtomicU64::new(f64::NEG_INFINITY.to_bits()),
            left_in_turn: AtomicU32::new(MAX_VERIFICATIONS_PER_TURN),
        }
    }

    /// What it has counted.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// These are the cool-downs from now on.
    pub fn set_cool_downs(&self, cool_downs: CoolDowns) {
        self.unknown_key_until.store(cool_downs.unknown_key.to_bits(), Relaxed);
        self.failed_signature_until.store(cool_downs.failed_signature.to_bits(), Relaxed);
    }

    /// A new turn begins: the event loop has been through its other work.
    pub fn begin_turn(&self) {
        self.left_in_turn.store(MAX_VERIFICATIONS_PER_TURN, Relaxed);
    }

    /// Are the turn's verifications used up? Then tokens that were not seen before have to wait for the next one.
    #[must_use]
    pub fn turn_is_over(&self) -> bool {
        self.left_in_turn.load(Relaxed) == 0
    }

    /// Answer what can be answered of `bytes`, in order.
    pub fn serve(&self, bytes: &[u8], caches: Caches<'_>, now: Now, out: &mut Vec<u8>) -> Outcome {
        let mut outcome = Outcome {
            consumed: 0,
            answered: 0,
            by_endpoint: [0; 3],
            stop: Stop::Done,
            renewals: Vec::new(),
            turn_due: false,
        };
        let before = out.len();
        // One thread calls at a time (`turn`), so the rest of the turn can be taken and given back.
        let left_in_turn = self.left_in_turn.load(Relaxed);
        let mut left = left_in_turn.min(MAX_VERIFICATIONS_PER_CALL);
        let left_before = left;
        while outcome.consumed < bytes.len() {
            if out.len() - before >= MAX_ANSWERS_BYTES {
                outcome.stop = Stop::Full;
                break;
            }
            match recognise(&bytes[outcome.consumed..]) {
                Recognised::Request(request, length) => {
                    match self.answer(&request, caches, now, &mut left, out) {
                        Some(Answer::Written) => {}
                        Some(Answer::RenewalDue(renewal)) => outcome.renewals.push(renewal),
                        Some(Answer::KeyNeeded) => {
                            outcome.stop = Stop::KeyNeeded(length);
                            break;
                        }
                        Some(Answer::Full) => {
                            outcome.stop = Stop::Full;
                            break;
                        }
                        None => {
                            outcome.stop = Stop::Framed(length);
                            break;
                        }
                    }
                    outcome.by_endpoint[request.endpoint as usize] += 1;
                    outcome.consumed += length;
                    outcome.answered += 1;
                }
                Recognised::Partial { needed } => {
                    outcome.stop = Stop::Partial(needed);
                    break;
                }
                Recognised::Framed(length) => {
                    outcome.stop = Stop::Framed(length);
                    break;
                }
                Recognised::Unknown => {
                    outcome.stop = Stop::Unknown;
                    break;
                }
            }
        }
        if left != left_before {
            const HALF: u32 = MAX_VERIFICATIONS_PER_TURN / 2;
            let now_left = left_in_turn - (left_before - left);
            self.left_in_turn.store(now_left, Relaxed);
            outcome.turn_due = left_in_turn > HALF && now_left <= HALF;
        }
        outcome
    }

    /// None declines; then nothing was written. `left`: how many tokens may still be verified.
    fn answer(
        &self,
        request: &Request<'_>,
        caches: Caches<'_>,
        now: Now,
        left: &mut u32,
        out: &mut Vec<u8>,
    ) -> Option<Answer> {
        // `recognise` declines a request with any other header that the caller check looks at.
        if (self.tracing && request.sampled) || !self.callers.allows_host(request.host) {
            return None;
        }
        with_fields(request.content_type, request.body, |fields| {
            self.answer_fields(request.endpoint, fields, caches, now, left, out)
        })
        .ok()?
    }

    fn answer_fields(
        &self,
        endpoint: Endpoint,
        fields: &Fields<'_>,
        caches: Caches<'_>,
        now: Now,
        left: &mut u32,
        out: &mut Vec<u8>,
    ) -> Option<Answer> {
        match endpoint {
            Endpoint::Introspect => {
                let token = fields.introspected_token(ONE_PROVIDER).ok()?;
                Some(self.introspect(token, caches.validator?, now, left, out))
            }
            Endpoint::Token => self.hand_out(fields.token_request(ONE_PROVIDER).ok()?, caches.tokens, now, out),
            Endpoint::Exchange => self.hand_out(fields.exchange_request(ONE_PROVIDER).ok()?, caches.tokens, now, out),
        }
    }

    fn introspect(&self, token: &str, validator: &Validator, now: Now, left: &mut u32, out: &mut Vec<u8>) -> Answer {
        let result = match validator.recall(token.as_bytes(), now.unix) {
            Recalled::Known(result) => result,
            Recalled::Unknown(_) if *left == 0 => return Answer::Full,
            Recalled::Unknown(fingerprint) => {
                *left -= 1;
                validator.verify_and_cache(token.as_bytes(), fingerprint, now.unix)
            }
        };
        match result {
            Ok(verified) => {
                self.figures.active.fetch_add(1, Relaxed);
                write_answer(out, now.unix, |out| introspection::active_into(verified.claims(), out));
            }
            Err(error) if self.new_keys_may_help(&error, token, validator, now) => return Answer::KeyNeeded,
            Err(error) => {
                self.figures.rejections.add(&error);
                let body = introspection::inactive(&error.to_string());
                write_answer(out, now.unix, |out| out.extend_from_slice(&body));
            }
        }
        Answer::Written
    }

    fn new_keys_may_help(&self, error: &Error, token: &str, validator: &Validator, now: Now) -> bool {
        let until = match error {
            Error::KeysUnavailable => return true,
            Error::UnknownKey { .. } => &self.unknown_key_until,
            Error::SignatureInvalid => &self.failed_signature_until,
            _ => return false,
        };
        now.monotonic >= f64::from_bits(until.load(Relaxed))
            && validator.unverified_could_pass(token.as_bytes(), now.unix)
    }

    fn hand_out(&self, request: TokenRequest<'_>, tokens: &TokenCache, now: Now, out: &mut Vec<u8>) -> Option<Answer> {
        let TokenRequest { target, user_token, skip_cache, claims } = request;
        if skip_cache || claims.is_some() {
            return None;
        }
        // Only a request without a user's token has an empty one here, so the two purposes never share a fingerprint.
        let fingerprint = self.fingerprinter.of_pair(user_token.unwrap_or_default().as_bytes(), target.as_bytes());
        let remembered = self.keys.get_unless_busy(&fingerprint);
        let key = match remembered {
            Some(key) => key,
            None => self.cache_key(target, user_token)?,
        };
        let token = tokens.get_first(&key, now)?;
        if remembered.is_none() {
            self.keys.insert_unless_busy(&fingerprint, key, 0);
        }
        write_answer(out, now.unix, |out| token.render_into(out));
        Some(if token.renewal_due() {
            Answer::RenewalDue(Renewal { target: target.to_owned(), subject_token: user_token.map(str::to_owned) })
        } else {
            Answer::Written
        })
    }

    /// The key of the token cache; None if the target or the user's token is not acceptable.
    fn cache_key(&self, target: &str, user_token: Option<&str>) -> Option<Digest> {
        let scope = scope_for(target, self.identity.rewrites_targets).ok()?;
        let subject = user_token.unwrap_or_default();
        if !all_bytes(subject.as_bytes(), |byte| byte.is_ascii_graphic()) {
            return None;
        }
        let purpose = if user_token.is_some() { "on_behalf_of" } else { "client_credentials" };
        let Identity { provider, tenant, client_id, .. } = &self.identity;
        let parts = [provider, tenant, client_id, &*scope, subject, ""].map(str::as_bytes);
        Some(of_parts(purpose, parts))
    }
}

/// Append a whole answer. The header lines and their order are those of the slow path.
fn write_answer(out: &mut Vec<u8>, unix: f64, body: impl FnOnce(&mut Vec<u8>)) {
    const HEAD: &[u8] =
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nContent-Length: ";
    // The length stands before the body, so its digits are filled in afterwards; the rest is moved where there
    // are more or fewer digits than reserved, which is rare.
    const DIGITS: usize = 4;
    out.reserve(2048);
    out.extend_from_slice(HEAD);
    let digits_at = out.len();
    out.extend_from_slice(&[b'0'; DIGITS]);
    out.extend_from_slice(b"\r\nDate: ");
    write_http_date(out, unix);
    out.extend_from_slice(b"\r\n\r\n");
    let body_at = out.len();
    body(out);
    let length = out.len() - body_at;
    if (1000..10_000).contains(&length) {
        out[digits_at..digits_at + DIGITS].copy_from_slice(&digits::<DIGITS>(length as u64));
    } else {
        out.splice(digits_at..digits_at + DIGITS, length.to_string().into_bytes());
    }
}

/// An IMF-fixdate (RFC 9110, section 5.6.7).
fn write_http_date(out: &mut Vec<u8>, unix: f64) {
    const DAYS: [&[u8; 5]; 7] = [b"Thu, ", b"Fri, ", b"Sat, ", b"Sun, ", b"Mon, ", b"Tue, ", b"Wed, "];
    const MONTHS: [&[u8; 5]; 12] = [
        b" Jan ", b" Feb ", b" Mar ", b" Apr ", b" May ", b" Jun ", b" Jul ", b" Aug ", b" Sep ", b" Oct ", b" Nov ",
        b" Dec ",
    ];
    let moment = Moment::of(unix);
    out.extend_from_slice(DAYS[usize::try_from(moment.weekday).unwrap_or(0)]);
    write_digits::<2>(out, moment.day);
    out.extend_from_slice(MONTHS[usize::try_from(moment.month).unwrap_or(0)]);
    write_digits::<4>(out, moment.year);
    out.push(b' ');
    write_digits::<2>(out, moment.hour);
    out.push(b':');
    write_digits::<2>(out, moment.minute);
    out.push(b':');
    write_digits::<2>(out, moment.second);
    out.extend_from_slice(b" GMT");
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cache::s3_fifo::Limits;
    use crate::cache::token_cache::Terms;
    use crate::jose::keyset::KeySet;
    use crate::validate::policy::{Policy, Settings};

    const NOW: Now = Now { unix: 1_795_248_000.0, monotonic: 100.0 };

    fn fast_path() -> FastPath {
        FastPath::new(
            Identity {
                provider: "entra_id".into(),
                rewrites_targets: true,
                tenant: "tid".into(),
                client_id: "cid".into(),
            },
            CallerCheck::new(["sidecar.internal".to_owned()]),
            vec![0.001, 0.1],
            false,
            [1, 2],
        )
    }

    fn tokens() -> TokenCache {
        let tokens = TokenCache::new(Limits { entries: 10, bytes: 10_000 }, [1, 2]);
        let key = |purpose, subject: &str| {
            of_parts(purpose, ["tid", "cid", "api://c.n.a/.default", subject].map(str::as_bytes))
        };
        let terms = Terms { expires_in: 3600.0, renew_in: None, subject_expires_at: None };
        assert!(tokens.put(&key("client_credentials", ""), "app-token", terms, 100.0));
        assert!(tokens.put(&key("on_behalf_of", "user-token"), "obo-token", terms, 100.0));
        tokens
    }

    fn post(path: &str, content_type: &str, body: &str) -> String {
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost:3000\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    fn form(path: &str, body: &str) -> String {
        post(path, "application/x-www-form-urlencoded", body)
    }

    fn serve(bytes: &str) -> (String, Outcome) {
        let (fast_path, tokens, mut out) = (fast_path(), tokens(), Vec::new());
        let outcome = fast_path.serve(bytes.as_bytes(), Caches { validator: None, tokens: &tokens }, NOW, &mut out);
        (String::from_utf8(out).unwrap(), outcome)
    }

    fn answered(request: &str) -> bool {
        let (out, outcome) = serve(request);
        assert_eq!(outcome.answered == 1, out.starts_with("HTTP/1.1 200 OK\r\n"));
        assert_eq!(outcome.answered == 1, outcome.stop == Stop::Done);
        outcome.answered == 1
    }

    #[test]
    fn a_cached_token_is_handed_out_in_every_spelling_of_its_target() {
        for request in [
            form("/api/v1/token", "identity_provider=entra_id&target=c:n:a"),
            form("/api/v1/token", "identity_provider=azuread&target=c%3An%3Aa&skip_cache=false&other=1"),
            form("/api/v1/token", "target=api%3a%2F%2Fc.n.a%2F.default&identity_provider=entra_id"),
            post("/api/v1/token", "application/json", r#"{"identity_provider":"entra_id","target":"c:n:a"}"#),
            post(
                "/api/v1/token",
                "application/json",
                r#"{"target":"api:\/\/c.n.a/.default","identity_provider":"azuread","skip_cache":false,"x":[1]}"#,
            ),
        ] {
            let (out, outcome) = serve(&request);
            assert_eq!((outcome.consumed, outcome.stop), (request.len(), Stop::Done));
            assert_eq!((outcome.answered, outcome.by_endpoint, outcome.renewals), (1, [1, 0, 0], vec![]));
            assert_eq!(
                out,
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nContent-Length: 68\r\n\
                 Date: Sat, 21 Nov 2026 08:00:00 GMT\r\n\r\n\
                 {\"access_token\":\"app-token\",\"expires_in\":3600,\"token_type\":\"Bearer\"}"
            );
        }
        let (out, _) =
            serve(&form("/api/v1/token/exchange", "identity_provider=entra_id&target=c:n:a&user_token=user-token"));
        assert!(out.contains("obo-token"));
    }

    #[test]
    fn a_remembered_key_serves_its_very_request_only() {
        let (fast_path, tokens) = (fast_path(), tokens());
        let caches = Caches { validator: None, tokens: &tokens };
        let ask = |path: &str, body: &str| {
            let mut out = Vec::new();
            fast_path.serve(
                form(path, &format!("identity_provider=entra_id&{body}")).as_bytes(),
                caches,
                NOW,
                &mut out,
            );
            String::from_utf8(out).unwrap()
        };
        for _ in 0..2 {
            assert!(ask("/api/v1/token/exchange", "target=c:n:a&user_token=user-token").contains("obo-token"));
            assert!(ask("/api/v1/token", "target=c:n:a").contains("app-token"));
            // The same bytes in all, with another border; another purpose; another user or target.
            for (path, body) in [
                ("/api/v1/token/exchange", "target=nc:n:a&user_token=user-toke"),
                ("/api/v1/token/exchange", "target=:n:a&user_token=user-tokenc"),
                ("/api/v1/token/exchange", "target=c:n:a&user_token="),
                ("/api/v1/token/exchange", "target=c:n:a&user_token=user-tokeo"),
                ("/api/v1/token/exchange", "target=c:n:b&user_token=user-token"),
                ("/api/v1/token", "target=user-tokenc:n:a"),
            ] {
                assert_eq!(ask(path, body), "", "{path} {body}");
            }
            // A machine-to-machine request never shares a key, whatever else it contains.
            assert!(ask("/api/v1/token", "target=c:n:a&user_token=user-token").contains("app-token"));
        }
    }

    #[test]
    fn what_needs_the_provider_or_an_error_is_declined() {
        for body in [
            "identity_provider=entra_id&target=c:n:b",
            "identity_provider=entra_id&target=c:n:a&skip_cache=true",
            "identity_provider=entra_id&target=c:n:a&skip_cache=1",
            "identity_provider=entra_id&target=c:n:a&claims=%7B%22access_token%22:%7B%7D%7D",
            "identity_provider=entra_id&target=c:n:a&claims=x",
            "identity_provider=entra_id&target=c:n:a&claims=",
            "identity_provider=entra_id&target=c:n:a&target=c:n:a",
            "identity_provider=maskinporten&target=c:n:a",
            "identity_provider=entra_id&target=c:n:a&%74arget=c:n:a",
            "identity_provider=entra_id&target=c:n:%zz",
            "identity_provider=entra_id&target=c:n:%e9",
            "identity_provider=entra_id&target=c:n:a%2",
            "identity_provider=entra_id&target=c:n",
            "identity_provider=entra_id&target=c::a",
            "identity_provider=entra_id",
        ] {
            assert!(!answered(&form("/api/v1/token", body)), "{body}");
        }
        // Empty fields are ignored, and the only provider needs no name.
        for body in
            ["identity_provider=entra_id&target=c:n:a&", "identity_provider=entra_id&target=c:n:a&x", "target=c:n:a"]
        {
            assert!(answered(&form("/api/v1/token", body)), "{body}");
        }
        for body in [
            r#"{"identity_provider":"entra_id","target":"c:n:a","target":"c:n:a"}"#,
            r#"{"identity_provider":"entra_id","target":"c:n:a","skip_cache":"false"}"#,
            r#"{"identity_provider":["entra_id"],"target":"c:n:a"}"#,
            r#"["entra_id"]"#,
            r#"{"identity_provider":"entra_id","target":"c:n:a"} x"#,
        ] {
            assert!(!answered(&post("/api/v1/token", "application/json", body)), "{body}");
        }
        let introspection = "identity_provider=entra_id&token=a.b.c";
        assert!(!answered(&form("/api/v1/introspect", introspection)), "there is no validator yet");
        for subject in ["", "user%20token", "user%0atoken"] {
            let body = format!("identity_provider=entra_id&target=c:n:a&user_token={subject}");
            assert!(!answered(&form("/api/v1/token/exchange", &body)), "{body}");
        }
    }

    #[test]
    fn only_hosts_that_may_call_are_answered() {
        let with_host = |host: &str| {
            answered(&form("/api/v1/token", "identity_provider=entra_id&target=c:n:a").replace("localhost:3000", host))
        };
        for host in ["localhost", "LOCALHOST:1", "127.0.0.1:7164", "[::ffff:127.0.0.1]:80", "Sidecar.Internal:1"] {
            assert!(with_host(host), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "localhost:",
            ":80",
            "127.0.0.1:x",
            "10.0.0.1",
            "localhost:123456",
            "::1",
            "127.1",
        ] {
            assert!(!with_host(host), "{host}");
        }
    }

    #[test]
    fn a_pipeline_is_answered_in_order_up_to_the_first_that_is_declined() {
        let one = form("/api/v1/token", "identity_provider=entra_id&target=c:n:a");
        let other = form("/api/v1/token", "identity_provider=entra_id&target=c:n:b");
        let (out, outcome) = serve(&format!("{one}{one}{other}{one}"));
        assert_eq!((out.matches("HTTP/1.1 200 OK").count(), outcome.answered), (2, 2));
        assert_eq!((outcome.consumed, outcome.stop), (2 * one.len(), Stop::Framed(other.len())));
        let (_, outcome) = serve(&format!("{one}{}", &one[..30]));
        assert_eq!((outcome.consumed, outcome.stop), (one.len(), Stop::Partial(0)));
    }

    #[test]
    fn a_call_stops_when_there_are_many_answers_and_goes_on_with_the_next() {
        let (fast_path, tokens) = (fast_path(), tokens());
        let one = form("/api/v1/token", "identity_provider=entra_id&target=c:n:a");
        let many = one.repeat(1000);
        let caches = Caches { validator: None, tokens: &tokens };
        let (mut at, mut answered, mut calls) = (0, 0, 0);
        while at < many.len() {
            let mut out = Vec::new();
            let outcome = fast_path.serve(&many.as_bytes()[at..], caches, NOW, &mut out);
            assert!(out.len() < MAX_ANSWERS_BYTES + 1000);
            at += outcome.consumed;
            assert_eq!(outcome.stop, if at < many.len() { Stop::Full } else { Stop::Done });
            answered += outcome.answered;
            calls += 1;
        }
        assert_eq!(answered, 1000);
        assert!(calls > 2);
    }

    #[test]
    fn a_sampled_request_is_declined_only_while_tracing() {
        let request = form("/api/v1/token", "identity_provider=entra_id&target=c:n:a");
        let traceparent = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nHost:";
        let sampled = request.replace("Host:", traceparent);
        let unsampled = sampled.replace("7-01", "7-00");
        for (tracing, request, answered) in
            [(false, &sampled, 1), (false, &unsampled, 1), (true, &sampled, 0), (true, &unsampled, 1)]
        {
            let tokens = tokens();
            let fast_path = FastPath { tracing, ..fast_path() };
            let caches = Caches { validator: None, tokens: &tokens };
            let outcome = fast_path.serve(request.as_bytes(), caches, NOW, &mut Vec::new());
            assert_eq!(outcome.answered, answered);
            assert_eq!(outcome.stop, if answered == 1 { Stop::Done } else { Stop::Framed(request.len()) });
        }
    }

    #[test]
    fn one_caller_is_told_to_renew() {
        let (fast_path, tokens) = (fast_path(), tokens());
        let request = form("/api/v1/token", "identity_provider=entra_id&target=c:n:a");
        let later = Now { unix: NOW.unix, monotonic: 100.0 + 3400.0 };
        let mut renewals = Vec::new();
        for _ in 0..3 {
            let outcome = fast_path.serve(
                request.as_bytes(),
                Caches { validator: None, tokens: &tokens },
                later,
                &mut Vec::new(),
            );
            assert_eq!(outcome.answered, 1);
            renewals.extend(outcome.renewals);
        }
        assert_eq!(renewals, [Renewal { target: "c:n:a".into(), subject_token: None }]);
    }

    #[test]
    fn figures_count_what_was_answered() {
        let (fast_path, tokens) = (fast_path(), tokens());
        let one = form("/api/v1/token", "identity_provider=entra_id&target=c:n:a");
        let caches = Caches { validator: None, tokens: &tokens };
        let outcome = fast_path.serve(format!("{one}{one}").as_bytes(), caches, NOW, &mut Vec::new());
        let figures = fast_path.figures();
        assert_eq!(figures.record(&outcome, 0.0, Duration::from_millis(4)), Duration::from_millis(2));
        assert_eq!(figures.record(&outcome, 8.0, Duration::from_secs(2)), Duration::from_secs(9));
        assert_eq!(fast_path.figures().durations(Endpoint::Token), (vec![0, 2, 2], 18.004));
        assert_eq!(fast_path.figures().durations(Endpoint::Introspect), (vec![0, 0, 0], 0.0));
        assert_eq!(fast_path.figures().active(), 0);
        assert_eq!(fast_path.figures().rejections().filter(|(_, count)| *count > 0).count(), 0);
    }

    #[test]
    fn rejected_tokens_are_counted_by_code_with_one_example_per_look() {
        let rejections = Rejections::new();
        let wrong = |actual: &str| Error::WrongAudience { expected: "mine".into(), actual: actual.into() };
        let figures = Figures { rejections, ..Figures::new(vec![]) };
        for error in [wrong("first"), wrong("second"), Error::SignatureInvalid] {
            figures.rejections.add(&error);
        }
        let counted: Vec<_> = figures.rejections().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("signature_invalid", 1), ("wrong_audience", 2)]);
        assert_eq!(figures.take_examples(), [wrong("first"), Error::SignatureInvalid]);
        assert_eq!(figures.take_examples(), []);
        figures.rejections.add(&wrong("third"));
        assert_eq!(figures.take_examples(), [wrong("third")]);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (unix, expected) in [
            (0.0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777.9, "Sun, 06 Nov 1994 08:49:37 GMT"), // RFC 9110, section 5.6.7
            (951_782_400.0, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (4_107_542_399.0, "Sun, 28 Feb 2100 23:59:59 GMT"),
            (1_767_225_599.0, "Wed, 31 Dec 2025 23:59:59 GMT"),
        ] {
            let mut out = Vec::new();
            write_http_date(&mut out, unix);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    fn validator() -> Validator {
        let settings = Settings {
            issuers: vec!["issuer".to_owned()],
            audiences: Some(vec!["audience".to_owned()]),
            ..Settings::default()
        };
        let validator = Validator::new(Policy::new(settings).unwrap(), Limits { entries: 10, bytes: 1 << 20 }, [1, 2]);
        let private: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/keys/rfc7515_a_2.json")).unwrap();
        let public = serde_json::json!({"keys": [{"kty": "RSA", "kid": "1", "n": private["n"], "e": private["e"]}]});
        validator.set_keys(Some(Arc::new(KeySet::parse(public.to_string().as_bytes(), 1).unwrap())));
        validator
    }

    #[test]
    fn verifications_are_counted_for_each_call_and_each_turn() {
        let (fast_path, tokens, validator) = (fast_path(), tokens(), validator());
        let caches = Caches { validator: Some(&validator), tokens: &tokens };
        let unseen = form("/api/v1/introspect", "identity_provider=entra_id&token=not.a.token");
        let handed_out = form("/api/v1/token", "identity_provider=entra_id&target=c:n:a");
        let serve = |bytes: &str| {
            let outcome = fast_path.serve(bytes.as_bytes(), caches, NOW, &mut Vec::new());
            assert_eq!(
                outcome.consumed as u64,
                outcome.by_endpoint[2] * unseen.len() as u64 + outcome.by_endpoint[0] * handed_out.len() as u64
            );
            (outcome.answered, outcome.stop, outcome.turn_due)
        };
        let (in_call, in_turn) = (u64::from(MAX_VERIFICATIONS_PER_CALL), u64::from(MAX_VERIFICATIONS_PER_TURN));
        let many = unseen.repeat(1000);
        // A cached token needs no verification, so it does not count.
        assert_eq!(serve(&format!("{handed_out}{many}")), (1 + in_call, Stop::Full, false));
        let mut used = in_call;
        while used < in_turn {
            assert!(!fast_path.turn_is_over());
            // Exactly one call says that a turn is due: the one that uses up the first half.
            assert_eq!(serve(&many), (in_call, Stop::Full, used + in_call == in_turn / 2));
            used += in_call;
        }
        assert!(fast_path.turn_is_over());
        assert_eq!(serve(&unseen), (0, Stop::Full, false));
        assert_eq!(serve(&format!("{handed_out}{handed_out}{unseen}{handed_out}")), (2, Stop::Full, false));
        fast_path.begin_turn();
        assert!(!fast_path.turn_is_over());
        assert_eq!(serve(&unseen), (1, Stop::Done, false));
    }
}
