//! The provider's key set (RFC 7517, section 5): immutable, found by `kid`, with a generation.
//!
//! A set is a snapshot. A refresh builds a new one and swaps it in atomically, so no reader ever
//! waits. The generation tells whether a cached verification was made with this snapshot; [`KeySet::has`]
//! tells whether an older verification's key is still in it.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use crate::jose::algorithm::Algorithm;
use crate::jose::json::{Document, JsonError, Kind};
use crate::jose::jwk::{Prepare, PublicKey, kid_of};
use crate::jose::signature::PreparedKey;
use crate::validate::error::shown;

/// Maximum size of the text of a key set, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// Maximum number of keys in one set. Entra ID publishes about ten.
pub const MAX_KEYS: usize = 512;

/// Maximum number of header spellings that one set remembers: a few per key, as issuers write one or two.
const REMEMBERED_HEADERS: usize = 32;

/// Why a text is not a usable key set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySetError {
    /// Over [`MAX_BYTES`].
    TooLarge,
    /// Not strict JSON.
    NotJson(JsonError),
    /// Not an object with an array `keys`.
    NoKeysMember,
    /// Over [`MAX_KEYS`].
    TooManyKeys,
    /// No entry can be used; what is wrong with the first one.
    NoUsableKey(Option<String>),
}

impl std::fmt::Display for KeySetError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLarge => write!(f, "key set is larger than {MAX_BYTES} bytes"),
            Self::NotJson(error) => write!(f, "key set holds {}", error.reason()),
            Self::NoKeysMember => f.write_str("key set is not an object with an array 'keys'"),
            Self::TooManyKeys => write!(f, "key set has more than {MAX_KEYS} keys"),
            Self::NoUsableKey(None) => f.write_str("key set is empty"),
            Self::NoUsableKey(Some(reason)) => write!(f, "key set has no usable key: the first {reason}"),
        }
    }
}

impl std::error::Error for KeySetError {}

/// An entry that was not taken into the set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// Its id, cut and made safe, where it has a usable one.
    pub kid: Option<String>,
    /// Why: continues the sentence "the key ...".
    pub reason: &'static str,
}

/// What a token's header says about its key, once it has been read and checked.
#[derive(Debug, Clone)]
pub struct Selected {
    /// The key.
    pub key: Arc<PublicKey>,
    /// The algorithm, which the key can do.
    pub algorithm: Algorithm,
}

/// An immutable set of keys.
#[derive(Debug)]
pub struct KeySet {
    generation: u64,
    keys: Vec<Arc<PublicKey>>,
    by_kid: HashMap<String, usize>,
    dropped: Vec<Dropped>,
    /// Header segments whose tokens verified, byte for byte: the same bytes select the same key again.
    headers: [OnceLock<(Box<[u8]>, Selected)>; REMEMBERED_HEADERS],
}

impl KeySet {
    /// Read a JWKS. Entries that cannot be used are dropped and counted; the others keep working.
    ///
    /// `generation` must differ for every set that one validator sees.
    ///
    /// # Errors
    /// [`KeySetError`] where nothing usable is left.
    pub fn parse(jwks: &[u8], generation: u64) -> Result<Self, KeySetError> {
        Self::prepared_by(jwks, generation, PreparedKey::new)
    }

    /// Like [`Self::parse`], with a function that prepares keys: tests use their own fast library.
    pub(crate) fn prepared_by(jwks: &[u8], generation: u64, prepare: Prepare) -> Result<Self, KeySetError> {
        if jwks.len() > MAX_BYTES {
            return Err(KeySetError::TooLarge);
        }
        let document = Document::parse(jwks).map_err(KeySetError::NotJson)?;
        let entries = document.root().get("keys").filter(|keys| keys.kind() == Kind::Array);
        let entries = entries.ok_or(KeySetError::NoKeysMember)?.elements();
        if entries.clone().nth(MAX_KEYS).is_some() {
            return Err(KeySetError::TooManyKeys);
        }
        let mut dropped = Vec::new();
        let mut candidates = Vec::new();
        for entry in entries {
            match PublicKey::prepared_by(entry, prepare) {
                Ok(key) => candidates.push(Arc::new(key)),
                Err(reason) => {
                    let kid = kid_of(entry).ok().flatten().as_deref().map(shown);
                    dropped.push(Dropped { kid, reason });
                }
            }
        }
        let mut set = Self {
            generation,
            keys: Vec::with_capacity(candidates.len()),
            by_kid: HashMap::new(),
            dropped,
            headers: [const { OnceLock::new() }; REMEMBERED_HEADERS],
        };
        set.take_unambiguous(candidates);
        if set.keys.is_empty() {
            let first = set.dropped.first().map(|dropped| dropped.reason.to_owned());
            return Err(KeySetError::NoUsableKey(first));
        }
        Ok(set)
    }

    /// Two different keys under one `kid` are ambiguous: neither is used. The same key twice is one key.
    fn take_unambiguous(&mut self, candidates: Vec<Arc<PublicKey>>) {
        let mut thumbprints: HashMap<&str, Option<[u8; 32]>> = HashMap::new();
        for key in &candidates {
            if let Some(kid) = key.kid() {
                let seen = thumbprints.entry(kid).or_insert(Some(*key.thumbprint()));
                if *seen != Some(*key.thumbprint()) {
                    *seen = None;
                }
            }
        }
        let ambiguous: Vec<String> =
            thumbprints.iter().filter(|(_, seen)| seen.is_none()).map(|(kid, _)| (*kid).to_owned()).collect();
        for key in candidates {
            match key.kid() {
                Some(kid) if ambiguous.iter().any(|other| other == kid) => {
                    self.dropped.push(Dropped { kid: Some(shown(kid)), reason: "shares its kid with another key" });
                }
                Some(kid) if self.by_kid.contains_key(kid) => {}
                kid => {
                    if let Some(kid) = kid {
                        self.by_kid.insert(kid.to_owned(), self.keys.len());
                    }
                    self.keys.push(key);
                }
            }
        }
    }

    /// What distinguishes this snapshot from others.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The keys, in the order of the text.
    #[must_use]
    pub fn keys(&self) -> &[Arc<PublicKey>] {
        &self.keys
    }

    /// What was not taken, and why.
    #[must_use]
    pub fn dropped(&self) -> &[Dropped] {
        &self.dropped
    }

    /// The key of that id. A token without `kid` is only unambiguous in a set of one key.
    #[must_use]
    pub fn find(&self, kid: Option<&str>) -> Option<&Arc<PublicKey>> {
        match (kid, &self.keys[..]) {
            (Some(kid), _) => self.by_kid.get(kid).map(|index| &self.keys[*index]),
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }

    /// Is this very key still in the set, for the same issuer and algorithms?
    #[must_use]
    pub fn has(&self, key: &PublicKey) -> bool {
        match key.kid() {
            Some(kid) => self.find(Some(kid)).is_some_and(|own| own.is_same_as(key)),
            None => self.keys.iter().any(|own| own.is_same_as(key)),
        }
    }

    /// What this header segment selected before, byte for byte.
    #[inline]
    pub(crate) fn remembered(&self, header: &[u8]) -> Option<&Selected> {
        self.headers.iter().map_while(OnceLock::get).find(|(known, _)| **known == *header).map(|(_, selected)| selected)
    }

    /// Remember a header segment. Call only after its token has verified, so that attackers cannot fill the
    /// few places.
    pub(crate) fn remember(&self, header: &[u8], selected: &Selected) {
        for slot in &self.headers {
            match slot.get() {
                Some((known, _)) if **known == *header => return,
                Some(_) => {}
                None => {
                    // Another thread may be first; then this one takes the next place.
                    if slot.set((header.into(), selected.clone())).is_ok() {
                        return;
                    }
                }
            }
        }
    }
}
