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
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::contract::{CallerCheck, Endpoint, Fields, TokenRequest, all_bytes, scope_for, with_fields};
use super::http_date::{Moment, digits, write_digits};
use super::http1::{Recognised, Request, recognise};
use super::providers::{Provider, Providers};
use super::spans::{Begun, Recorder, Span};
use super::trace_context::Parent;
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

/// A token that should be renewed now, in the background.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    /// The position of the provider.
    pub provider: usize,
    /// The target of the token.
    pub target: String,
    /// The user's token, if it is an exchange.
    pub subject_token: Option<String>,
    /// The services that the token is for.
    pub resources: Vec<String>,
    /// What the token is to allow, in detail.
    pub authorization_details: Option<String>,
}

impl Renewal {
    fn of(request: &TokenRequest<'_>) -> Self {
        Self {
            provider: request.provider,
            target: request.target.to_owned(),
            subject_token: request.user_token.map(str::to_owned),
            resources: request.resources.iter().map(|resource| resource.clone().into_owned()).collect(),
            authorization_details: request.authorization_details.map(str::to_owned),
        }
    }
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
    /// verify with the key that is known under that id. Once there are new keys of that provider, the request can be
    /// answered here.
    KeyNeeded {
        /// The request's length.
        length: usize,
        /// The position of the provider.
        provider: usize,
    },
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
    /// The spans of the answered requests that get one, still without their times: for [`Recorder::record`].
    pub spans: Vec<Span>,
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

/// Who makes the spans of requests, once there are any.
#[derive(Debug)]
pub enum Tracing {
    /// The fast path, for the requests that it answers.
    Recorded(Arc<Recorder>),
    /// The slow path, to which every request is left that may need one.
    Left {
        /// Whether `traceparent` is read.
        propagates: bool,
    },
}

/// The result of a request that was not declined.
enum Answer {
    /// It was written.
    Written,
    /// It was written, and its token should be renewed.
    RenewalDue(Renewal),
    /// Nothing was written: new keys of the provider at this position may help.
    KeyNeeded(usize),
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
}

/// Counts of the answers for one provider.
#[derive(Debug)]
pub struct ProviderFigures {
    /// Tokens from the cache: for the application itself, and exchanged ones.
    issued: AtomicU64,
    exchanged: AtomicU64,
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
    const fn new() -> Self {
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
        Self { bounds, durations }
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
}

impl ProviderFigures {
    const fn new() -> Self {
        Self {
            issued: AtomicU64::new(0),
            exchanged: AtomicU64::new(0),
            active: AtomicU64::new(0),
            rejections: Rejections::new(),
        }
    }

    /// Requests to an endpoint that were answered.
    #[must_use]
    pub fn answered(&self, endpoint: Endpoint) -> u64 {
        match endpoint {
            Endpoint::Token => self.issued.load(Relaxed),
            Endpoint::Exchange => self.exchanged.load(Relaxed),
            Endpoint::Introspect => self.active() + self.rejections().map(|(_, count)| count).sum::<u64>(),
        }
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

/// What belongs to one provider. Nothing of it is shared with another.
#[derive(Debug)]
struct Side {
    /// Validates its tokens, once its issuer is known.
    validator: OnceLock<Arc<Validator>>,
    /// Monotonic seconds, as bits of a float: see [`CoolDowns`].
    unknown_key_until: AtomicU64,
    failed_signature_until: AtomicU64,
    figures: ProviderFigures,
}

impl Side {
    const fn new() -> Self {
        const ALWAYS_OVER: u64 = f64::NEG_INFINITY.to_bits();
        Self {
            validator: OnceLock::new(),
            unknown_key_until: AtomicU64::new(ALWAYS_OVER),
            failed_signature_until: AtomicU64::new(ALWAYS_OVER),
            figures: ProviderFigures::new(),
        }
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
}

/// The fast path of one sidecar.
#[derive(Debug)]
pub struct FastPath {
    providers: Providers,
    /// In the order of the enabled providers.
    sides: Vec<Side>,
    callers: CallerCheck,
    figures: Figures,
    tracing: OnceLock<Tracing>,
    fingerprinter: Fingerprinter,
    /// Keys of the token cache by provider, target and subject token: a fingerprint of them takes less than a third of
    /// the time of a SHA-256 digest over the subject token.
    keys: S3Fifo<Fingerprint, Digest>,
    /// How many tokens may still be verified in this turn.
    left_in_turn: AtomicU32,
}

impl FastPath {
    /// A fast path for an application at its providers. `bounds` are those of the buckets of [`Figures`], in seconds, ascending.
    /// `seed` must be random for each process ([`S3Fifo::new`]).
    #[must_use]
    pub fn new(providers: Providers, callers: CallerCheck, bounds: Vec<f64>, seed: [u64; 2]) -> Self {
        Self {
            sides: providers.enabled().iter().map(|_| Side::new()).collect(),
            providers,
            callers,
            figures: Figures::new(bounds),
            tracing: OnceLock::new(),
            fingerprinter: Fingerprinter::new(),
            keys: S3Fifo::new(REMEMBERED_KEYS, seed),
            left_in_turn: AtomicU32::new(MAX_VERIFICATIONS_PER_TURN),
        }
    }

    /// What it has counted.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// What it has counted for the provider at a position; None if there is none.
    #[must_use]
    pub fn figures_of(&self, provider: usize) -> Option<&ProviderFigures> {
        self.sides.get(provider).map(|side| &side.figures)
    }

    /// Introspect tokens of the provider at a position with this validator from now on. The first one stays.
    pub fn attach(&self, provider: usize, validator: Arc<Validator>) {
        if let Some(side) = self.sides.get(provider) {
            let _ = side.validator.set(validator);
        }
    }

    /// These are the cool-downs of the provider at a position from now on.
    pub fn set_cool_downs(&self, provider: usize, cool_downs: CoolDowns) {
        if let Some(side) = self.sides.get(provider) {
            side.unknown_key_until.store(cool_downs.unknown_key.to_bits(), Relaxed);
            side.failed_signature_until.store(cool_downs.failed_signature.to_bits(), Relaxed);
        }
    }

    /// Requests get spans from now on. What was said first stays.
    pub fn trace(&self, tracing: Tracing) {
        let _ = self.tracing.set(tracing);
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

    /// Answer what can be answered of `bytes`, in order, with acquired tokens from `tokens`.
    pub fn serve(&self, bytes: &[u8], tokens: &TokenCache, now: Now, out: &mut Vec<u8>) -> Outcome {
        let mut outcome = Outcome {
            consumed: 0,
            answered: 0,
            by_endpoint: [0; 3],
            stop: Stop::Done,
            renewals: Vec::new(),
            spans: Vec::new(),
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
                    let mut span = None;
                    match self.answer(&request, tokens, now, &mut left, &mut span, out) {
                        Some(Answer::Written) => {}
                        Some(Answer::RenewalDue(renewal)) => outcome.renewals.push(renewal),
                        Some(Answer::KeyNeeded(provider)) => {
                            outcome.stop = Stop::KeyNeeded { length, provider };
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
                    outcome.spans.extend(span);
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

    /// None declines; then nothing was written. `left`: how many tokens may still be verified. `span`: becomes that of
    /// the request, if it gets one.
    fn answer(
        &self,
        request: &Request<'_>,
        tokens: &TokenCache,
        now: Now,
        left: &mut u32,
        span: &mut Option<Span>,
        out: &mut Vec<u8>,
    ) -> Option<Answer> {
        // `recognise` declines a request with any other header that the caller check looks at.
        if !self.callers.allows_host(request.host) {
            return None;
        }
        if let Some(tracing) = self.tracing.get() {
            match begin_span(tracing, request) {
                Begun::Unsampled => {}
                Begun::Sampled(begun) => *span = Some(begun),
                Begun::Left => return None,
            }
        }
        with_fields(request.content_type, request.body, |fields| {
            self.answer_fields(request.endpoint, fields, tokens, now, left, span.as_mut(), out)
        })
        .ok()?
    }

    #[allow(clippy::too_many_arguments, reason = "what a call has, and what a request has")]
    fn answer_fields(
        &self,
        endpoint: Endpoint,
        fields: &Fields<'_>,
        tokens: &TokenCache,
        now: Now,
        left: &mut u32,
        span: Option<&mut Span>,
        out: &mut Vec<u8>,
    ) -> Option<Answer> {
        let providers = &self.providers;
        let request = match endpoint {
            Endpoint::Introspect => {
                let (provider, token) = fields.introspected_token(providers).ok()?;
                if let Some(span) = span {
                    span.provider = provider;
                }
                return self.introspect(provider, token, now, left, out);
            }
            Endpoint::Token => fields.token_request(providers).ok()?,
            Endpoint::Exchange => fields.exchange_request(providers).ok()?,
        };
        let (provider, target) = (request.provider, request.target);
        let answer = self.hand_out(request, tokens, now, out)?;
        if let Some(span) = span {
            span.provider = provider;
            span.set_target(target);
        }
        Some(answer)
    }

    fn introspect(&self, provider: usize, token: &str, now: Now, left: &mut u32, out: &mut Vec<u8>) -> Option<Answer> {
        let side = &self.sides[provider];
        let validator = side.validator.get()?;
        let result = match validator.recall(token.as_bytes(), now.unix) {
            Recalled::Known(result) => result,
            Recalled::Unknown(_) if *left == 0 => return Some(Answer::Full),
            Recalled::Unknown(fingerprint) => {
                *left -= 1;
                validator.verify_and_cache(token.as_bytes(), fingerprint, now.unix)
            }
        };
        match result {
            Ok(verified) => {
                side.figures.active.fetch_add(1, Relaxed);
                write_answer(out, now.unix, |out| introspection::active_into(verified.claims(), out));
            }
            Err(error) if side.new_keys_may_help(&error, token, validator, now) => {
                return Some(Answer::KeyNeeded(provider));
            }
            Err(error) => {
                side.figures.rejections.add(&error);
                let body = introspection::inactive(&error.to_string());
                write_answer(out, now.unix, |out| out.extend_from_slice(&body));
            }
        }
        Some(Answer::Written)
    }

    fn hand_out(&self, request: TokenRequest<'_>, tokens: &TokenCache, now: Now, out: &mut Vec<u8>) -> Option<Answer> {
        if request.skip_cache || request.claims.is_some() {
            return None;
        }
        let (fingerprint, key) = self.cache_key(&request)?;
        let token = tokens.get_first(&key, now)?;
        if let Some(fingerprint) = fingerprint {
            self.keys.insert_unless_busy(&fingerprint, key, 0);
        }
        let figures = &self.sides[request.provider].figures;
        let count = if request.user_token.is_some() { &figures.exchanged } else { &figures.issued };
        count.fetch_add(1, Relaxed);
        write_answer(out, now.unix, |out| token.render_into(out));
        Some(if token.renewal_due() { Answer::RenewalDue(Renewal::of(&request)) } else { Answer::Written })
    }

    /// The key of the token cache, and the fingerprint under which it should be remembered if it leads to a token. None
    /// if the target or the user's token is not acceptable.
    fn cache_key(&self, request: &TokenRequest<'_>) -> Option<(Option<Fingerprint>, Digest)> {
        let provider = &self.providers.enabled()[request.provider];
        if !request.resources.is_empty() || request.authorization_details.is_some() {
            return Some((None, token_key(provider, request)?));
        }
        // Only a request without a user's token has an empty one here, so the two purposes never share a fingerprint.
        let subject = request.user_token.unwrap_or_default();
        let mut rest = Vec::with_capacity(1 + request.target.len());
        rest.push(u8::try_from(request.provider).ok()?);
        rest.extend_from_slice(request.target.as_bytes());
        let fingerprint = self.fingerprinter.of_pair(subject.as_bytes(), rest);
        match self.keys.get_unless_busy(&fingerprint) {
            Some(key) => Some((None, key)),
            None => Some((Some(fingerprint), token_key(provider, request)?)),
        }
    }
}

fn begin_span(tracing: &Tracing, request: &Request<'_>) -> Begun {
    let trace = &request.trace;
    match tracing {
        Tracing::Recorded(recorder) => recorder.begin(trace, request.endpoint),
        Tracing::Left { propagates } => {
            let parent = trace.traceparent.filter(|_| *propagates && !trace.repeated).and_then(Parent::of);
            if parent.is_some_and(|parent| !parent.sampled) { Begun::Unsampled } else { Begun::Left }
        }
    }
}

/// The key of a token in the token cache, of the same parts as `token_key` of the slow path. None if the target or the
/// user's token is not acceptable.
fn token_key(provider: &Provider, request: &TokenRequest<'_>) -> Option<Digest> {
    let scope = scope_for(request.target, provider.rewrites_targets).ok()?;
    let subject = request.user_token.unwrap_or_default();
    if !all_bytes(subject.as_bytes(), |byte| byte.is_ascii_graphic()) {
        return None;
    }
    let purpose = if request.user_token.is_some() { "on_behalf_of" } else { "client_credentials" };
    let details = request.authorization_details.unwrap_or_default();
    let parts = [&*provider.name, &*provider.tenant, &*provider.client_id, &*scope, subject, details];
    let parts = parts.into_iter().chain(request.resources.iter().map(|resource| &**resource));
    Some(of_parts(purpose, parts.map(str::as_bytes)))
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
    use super::*;
    use crate::cache::s3_fifo::Limits;
    use crate::cache::token_cache::Terms;
    use crate::jose::keyset::KeySet;
    use crate::sidecar::spans::Sampler;
    use crate::validate::policy::{Policy, Settings};

    const NOW: Now = Now { unix: 1_795_248_000.0, monotonic: 100.0 };

    /// A provider with everything but details, and one that issues tokens only.
    fn providers() -> Vec<Provider> {
        let first = Provider {
            name: "entra_id".into(),
            aliases: vec!["azuread".into()],
            issues: true,
            exchanges: true,
            rewrites_targets: true,
            accepts_claims: true,
            tenant: "tid".into(),
            client_id: "cid".into(),
            ..Provider::default()
        };
        let client_id = "other-cid".into();
        let second =
            Provider { name: "other".into(), issues: true, accepts_details: true, client_id, ..Provider::default() };
        vec![first, second]
    }

    fn fast_path() -> FastPath {
        fast_path_of(1)
    }

    /// For the first `count` of the providers.
    fn fast_path_of(count: usize) -> FastPath {
        let mut providers = providers();
        providers.truncate(count);
        FastPath::new(
            Providers::new(providers, Vec::new()),
            CallerCheck::new(["sidecar.internal".to_owned()]),
            vec![0.001, 0.1],
            [1, 2],
        )
    }

    fn tokens() -> TokenCache {
        let tokens = TokenCache::new(Limits { entries: 10, bytes: 10_000 }, [1, 2]);
        let key = |purpose, subject: &str| {
            of_parts(purpose, ["entra_id", "tid", "cid", "api://c.n.a/.default", subject, ""].map(str::as_bytes))
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
        let outcome = fast_path.serve(bytes.as_bytes(), &tokens, NOW, &mut out);
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
        let ask = |path: &str, body: &str| {
            let mut out = Vec::new();
            fast_path.serve(
                form(path, &format!("identity_provider=entra_id&{body}")).as_bytes(),
                &tokens,
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
        let (mut at, mut answered, mut calls) = (0, 0, 0);
        while at < many.len() {
            let mut out = Vec::new();
            let outcome = fast_path.serve(&many.as_bytes()[at..], &tokens, NOW, &mut out);
            assert!(out.len() < MAX_ANSWERS_BYTES + 1000);
            at += outcome.consumed;
            assert_eq!(outcome.stop, if at < many.len() { Stop::Full } else { Stop::Done });
            answered += outcome.answered;
            calls += 1;
        }
        assert_eq!(answered, 1000);
        assert!(calls > 2);
    }

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn traced(request: &str, headers: &str) -> String {
        request.replacen("Host:", &format!("{headers}\r\nHost:"), 1)
    }

    fn traceparent(flags: &str) -> String {
        format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-{flags}")
    }

    #[test]
    fn a_request_that_may_need_a_span_is_left_to_the_slow_path_where_that_makes_them() {
        let request = form("/api/v1/token", "identity_provider=entra_id&target=c:n:a");
        let (sampled, unsampled) = (traceparent("01"), traceparent("00"));
        let twice = format!("{unsampled}\r\n{unsampled}");
        for (headers, propagates, expected) in [
            ("X: y", true, 0),
            (&*sampled, true, 0),
            (&*unsampled, true, 1),
            ("traceparent: junk", true, 0),
            (&*twice, true, 0),
            (&*unsampled, false, 0),
        ] {
            let (fast_path, tokens, request) = (fast_path(), tokens(), traced(&request, headers));
            let serve = || fast_path.serve(request.as_bytes(), &tokens, NOW, &mut Vec::new());
            assert_eq!((serve().answered, serve().spans), (1, vec![]), "nothing is traced yet");
            fast_path.trace(Tracing::Left { propagates });
            let outcome = serve();
            assert_eq!((outcome.answered, outcome.spans.len()), (expected, 0), "{headers} {propagates}");
            assert_eq!(outcome.stop, if expected == 1 { Stop::Done } else { Stop::Framed(request.len()) });
        }
    }

    fn tracing_fast_path() -> FastPath {
        let fast_path = fast_path_of(2);
        let sampler = Sampler { parent_based: true, bound: 1 << 64 };
        fast_path.trace(Tracing::Recorded(Arc::new(Recorder::new(sampler, true, 10, 10))));
        fast_path
    }

    #[test]
    fn each_answer_to_a_sampled_request_has_its_span() {
        let (fast_path, tokens) = (tracing_fast_path(), tokens());
        fast_path.attach(1, validator());
        let token = form("/api/v1/token", "identity_provider=entra_id&target=c:n:a");
        let exchange = form("/api/v1/token/exchange", "identity_provider=entra_id&target=c:n:a&user_token=user-token");
        let introspection = form("/api/v1/introspect", "identity_provider=other&token=not.a.token");
        let missing = form("/api/v1/token", "identity_provider=entra_id&target=c:n:b");
        let sampled = traceparent("01") + "\r\ntracestate: a=1";
        let pipeline = [
            traced(&token, &traceparent("00")),
            traced(&exchange, &sampled),
            introspection,
            traced(&token, &sampled),
            traced(&missing, &sampled),
        ];
        let outcome = fast_path.serve(pipeline.concat().as_bytes(), &tokens, NOW, &mut Vec::new());
        assert_eq!((outcome.answered, outcome.stop), (4, Stop::Framed(pipeline[4].len())));
        let facts = |span: &Span| (span.endpoint, span.provider, span.target.clone(), span.parent, span.state.clone());
        let (parent, state) = (Some(0x00f0_67aa_0ba9_02b7_u64.to_be_bytes()), Some("a=1".into()));
        let target = Some("c:n:a".into());
        assert_eq!(
            outcome.spans.iter().map(facts).collect::<Vec<_>>(),
            [
                (Endpoint::Exchange, 0, target.clone(), parent, state.clone()),
                (Endpoint::Introspect, 1, None, None, None),
                (Endpoint::Token, 0, target, parent, state),
            ]
        );
        let is_callers = |span: &Span| u128::from_be_bytes(span.trace_id) == u128::from_str_radix(TRACE, 16).unwrap();
        assert_eq!(outcome.spans.iter().map(is_callers).collect::<Vec<_>>(), [true, false, true]);
    }

    #[test]
    fn a_trace_that_is_named_twice_is_for_the_slow_path() {
        let (fast_path, tokens) = (tracing_fast_path(), tokens());
        let request = form("/api/v1/token", "identity_provider=entra_id&target=c:n:a");
        let twice = traced(&request, "tracestate: a=1\r\ntracestate: b=2");
        let outcome = fast_path.serve(twice.as_bytes(), &tokens, NOW, &mut Vec::new());
        assert_eq!((outcome.answered, outcome.stop, outcome.spans), (0, Stop::Framed(twice.len()), vec![]));
    }

    #[test]
    fn what_was_said_first_about_tracing_stays() {
        let (fast_path, tokens) = (tracing_fast_path(), tokens());
        fast_path.trace(Tracing::Left { propagates: true });
        let request = form("/api/v1/token", "identity_provider=entra_id&target=c:n:a");
        let outcome = fast_path.serve(request.as_bytes(), &tokens, NOW, &mut Vec::new());
        assert_eq!((outcome.answered, outcome.spans.len()), (1, 1));
    }

    #[test]
    fn one_caller_is_told_to_renew() {
        let (fast_path, tokens) = (fast_path(), tokens());
        let request = form("/api/v1/token", "identity_provider=entra_id&target=c:n:a");
        let later = Now { unix: NOW.unix, monotonic: 100.0 + 3400.0 };
        let mut renewals = Vec::new();
        for _ in 0..3 {
            let outcome = fast_path.serve(request.as_bytes(), &tokens, later, &mut Vec::new());
            assert_eq!(outcome.answered, 1);
            renewals.extend(outcome.renewals);
        }
        let (target, resources) = ("c:n:a".to_owned(), Vec::new());
        let renewal = Renewal { provider: 0, target, subject_token: None, resources, authorization_details: None };
        assert_eq!(renewals, [renewal]);
    }

    #[test]
    fn figures_count_what_was_answered() {
        let (fast_path, tokens) = (fast_path(), tokens());
        let one = form("/api/v1/token", "identity_provider=entra_id&target=c:n:a");
        let outcome = fast_path.serve(format!("{one}{one}").as_bytes(), &tokens, NOW, &mut Vec::new());
        let figures = fast_path.figures();
        assert_eq!(figures.record(&outcome, 0.0, Duration::from_millis(4)), Duration::from_millis(2));
        assert_eq!(figures.record(&outcome, 8.0, Duration::from_secs(2)), Duration::from_secs(9));
        assert_eq!(fast_path.figures().durations(Endpoint::Token), (vec![0, 2, 2], 18.004));
        assert_eq!(fast_path.figures().durations(Endpoint::Introspect), (vec![0, 0, 0], 0.0));
        let figures = fast_path.figures_of(0).unwrap();
        assert_eq!(Endpoint::ALL.map(|endpoint| figures.answered(endpoint)), [2, 0, 0]);
        assert_eq!(figures.active(), 0);
        assert_eq!(figures.rejections().filter(|(_, count)| *count > 0).count(), 0);
        assert!(fast_path.figures_of(1).is_none());
    }

    #[test]
    fn rejected_tokens_are_counted_by_code_with_one_example_per_look() {
        let wrong = |actual: &str| Error::WrongAudience { expected: "mine".into(), actual: actual.into() };
        let figures = ProviderFigures::new();
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
    fn the_answers_of_one_call_are_limited_whatever_was_there_before() {
        let many = form("/api/v1/token", "identity_provider=entra_id&target=c:n:a").repeat(1000);
        for before in [0, 60_000] {
            let mut out = vec![b'x'; before];
            let outcome = fast_path().serve(many.as_bytes(), &tokens(), NOW, &mut out);
            let one = (out.len() - before) / usize::try_from(outcome.answered).unwrap();
            // The last answer exceeds the limit, and no other one does.
            assert!((65_536..65_536 + one).contains(&(out.len() - before)), "{}", out.len());
        }
    }

    #[test]
    fn the_key_of_a_token_is_remembered_once_it_has_led_to_one() {
        let (fast_path, tokens) = (fast_path(), tokens());
        for (target, remembered) in [("c:n:unknown", 0), ("c:n:a", 1), ("c:n:a", 1), ("api://c.n.a/.default", 2)] {
            let request = form("/api/v1/token", &format!("target={target}"));
            fast_path.serve(request.as_bytes(), &tokens, NOW, &mut Vec::new());
            assert_eq!(fast_path.keys.stats().entries, remembered, "{target}");
        }
    }

    #[test]
    fn what_was_not_answered_took_no_time() {
        let fast_path = fast_path();
        let outcome = fast_path.serve(b"POST ", &tokens(), NOW, &mut Vec::new());
        assert_eq!(fast_path.figures().record(&outcome, 1.0, Duration::from_secs(1)), Duration::ZERO);
        for endpoint in Endpoint::ALL {
            assert_eq!(fast_path.figures().durations(endpoint), (vec![0, 0, 0], 0.0));
        }
    }

    #[test]
    fn introspected_tokens_are_counted_whether_they_are_active_or_not() {
        let (fast_path, tokens) = (fast_path(), tokens());
        fast_path.attach(0, validator());
        let key = include_bytes!("../../tests/keys/rfc7515_a_2.json");
        let key = crate::jose::signing_key::SigningKey::from_jwk(key).unwrap();
        // The claims are as long as those of Entra ID, and longer than the reserved digits of their length allow for.
        for (padding, times) in [(0, 1), (1_000, 2), (12_000, 3)] {
            let claims = serde_json::json!({
                "iss": "issuer", "aud": "audience", "iat": NOW.unix, "exp": NOW.unix + 60.0, "x": "x".repeat(padding),
            });
            let token = key.sign(br#"{"alg":"RS256","kid":"1"}"#, claims.to_string().as_bytes()).unwrap();
            let mut out = Vec::new();
            let request = form("/api/v1/introspect", &format!("token={token}"));
            let outcome = fast_path.serve(request.as_bytes(), &tokens, NOW, &mut out);
            assert_eq!((outcome.by_endpoint, outcome.stop), ([0, 0, 1], Stop::Done));
            let out = String::from_utf8(out).unwrap();
            let (head, body) = out.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
            let mut expected = claims;
            expected["active"] = true.into();
            assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap(), expected);
            assert_eq!(fast_path.figures_of(0).unwrap().active(), times);
        }
        let rejected = form("/api/v1/introspect", "token=not.a.token");
        fast_path.serve(rejected.repeat(2).as_bytes(), &tokens, NOW, &mut Vec::new());
        let figures = fast_path.figures_of(0).unwrap();
        assert_eq!((figures.active(), figures.answered(Endpoint::Introspect)), (3, 5));
    }

    #[test]
    fn no_cached_token_answers_a_request_for_a_new_one() {
        let ask = |path: &str, more: &str| {
            answered(&form(path, &format!("identity_provider=entra_id&target=c:n:a&user_token=user-token{more}")))
        };
        for path in ["/api/v1/token", "/api/v1/token/exchange"] {
            assert!(ask(path, "&skip_cache=false"));
            for more in ["&skip_cache=true", "&claims=%7B%7D", "&skip_cache=true&claims=%7B%7D"] {
                assert!(!ask(path, more), "{path} {more}");
            }
        }
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

    fn validator() -> Arc<Validator> {
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
        Arc::new(validator)
    }

    #[test]
    fn details_are_part_of_the_key_of_a_token_and_of_its_renewal() {
        let (fast_path, tokens) = (fast_path_of(2), tokens());
        let terms = Terms { expires_in: 3600.0, renew_in: None, subject_expires_at: None };
        let bodies = [
            ("target=t", &["t", "", ""][..]),
            ("target=t&resource=r", &["t", "", "", "r"]),
            ("target=t&resource=s", &["t", "", "", "s"]),
            ("target=t&authorization_details=%5B%5D", &["t", "", "[]"]),
            ("target=t&resource=r&authorization_details=%5B%5D", &["t", "", "[]", "r"]),
        ];
        for (number, (_, parts)) in bodies.iter().enumerate() {
            let parts = ["other", "", "other-cid"].iter().chain(*parts).map(|part| part.as_bytes());
            assert!(tokens.put(&of_parts("client_credentials", parts), &format!("token-{number}"), terms, 100.0));
        }
        let ask = |body: &str, monotonic: f64| {
            let request = form("/api/v1/token", &format!("identity_provider=other&{body}"));
            let mut out = Vec::new();
            let now = Now { unix: NOW.unix, monotonic };
            let renewals = fast_path.serve(request.as_bytes(), &tokens, now, &mut out).renewals;
            (String::from_utf8(out).unwrap(), renewals)
        };
        for _ in 0..2 {
            for (number, (body, _)) in bodies.iter().enumerate().rev() {
                assert!(ask(body, 100.0).0.contains(&format!("\"token-{number}\"")), "{body}");
            }
        }
        let (_, renewals) = ask(bodies[4].0, 100.0 + 3400.0);
        let expected = Renewal {
            provider: 1,
            target: "t".to_owned(),
            subject_token: None,
            resources: vec!["r".to_owned()],
            authorization_details: Some("[]".to_owned()),
        };
        assert_eq!(renewals, [expected]);
    }

    #[test]
    fn new_keys_are_needed_of_the_provider_that_is_meant_and_until_its_cool_down() {
        let (fast_path, tokens) = (fast_path_of(2), tokens());
        fast_path.attach(0, validator());
        fast_path.attach(1, validator());
        let token = |kid: &str, audience: &str| {
            let header = format!(r#"{{"alg":"RS256","kid":"{kid}"}}"#);
            let claims = format!(r#"{{"iss":"issuer","aud":"{audience}","iat":1795247000,"exp":1795249000}}"#);
            let part = |text: &str| crate::jose::base64url::encode(text.as_bytes());
            format!("{}.{}.{}", part(&header), part(&claims), part(&"x".repeat(256)))
        };
        let stop = |provider: &str, token: &str, monotonic: f64| {
            let request = form("/api/v1/introspect", &format!("identity_provider={provider}&token={token}"));
            let outcome =
                fast_path.serve(request.as_bytes(), &tokens, Now { unix: NOW.unix, monotonic }, &mut Vec::new());
            match outcome.stop {
                Stop::KeyNeeded { length, provider } => {
                    assert_eq!((length, outcome.answered), (request.len(), 0));
                    Some(provider)
                }
                stop => {
                    assert_eq!((stop, outcome.answered), (Stop::Done, 1));
                    None
                }
            }
        };
        let (unknown, failed) = (token("2", "audience"), token("1", "audience"));
        for token in [&unknown, &failed] {
            assert_eq!((stop("entra_id", token, 100.0), stop("other", token, 100.0)), (Some(0), Some(1)));
        }
        // No key makes a token for another audience acceptable.
        assert_eq!(stop("other", &token("2", "else"), 100.0), None);
        fast_path.set_cool_downs(1, CoolDowns { unknown_key: 200.0, failed_signature: 150.0 });
        fast_path.set_cool_downs(2, CoolDowns { unknown_key: 900.0, failed_signature: 900.0 }); // there is none
        for (monotonic, unknown_key, failed_signature) in
            [(149.9, None, None), (150.0, None, Some(1)), (199.9, None, Some(1)), (200.0, Some(1), Some(1))]
        {
            let found = (stop("other", &unknown, monotonic), stop("other", &failed, monotonic));
            assert_eq!(found, (unknown_key, failed_signature), "{monotonic}");
            assert_eq!(stop("entra_id", &unknown, monotonic), Some(0));
        }
        // Without keys there is nothing to wait for but keys, whatever the cool-down.
        fast_path.sides[1].validator.get().unwrap().set_keys(None);
        assert_eq!(stop("other", &failed, 100.0), Some(1));
        let rejected = |provider| fast_path.figures_of(provider).unwrap().answered(Endpoint::Introspect);
        assert_eq!((rejected(0), rejected(1)), (0, 5));
    }

    #[test]
    fn verifications_are_counted_for_each_call_and_each_turn() {
        let (fast_path, tokens) = (fast_path(), tokens());
        fast_path.attach(0, validator());
        let unseen = form("/api/v1/introspect", "identity_provider=entra_id&token=not.a.token");
        let handed_out = form("/api/v1/token", "identity_provider=entra_id&target=c:n:a");
        let serve = |bytes: &str| {
            let outcome = fast_path.serve(bytes.as_bytes(), &tokens, NOW, &mut Vec::new());
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
