//! The provider's key set (RFC 7517, section 5): immutable, found by `kid`, with a generation.
//!
//! A set is a snapshot. A refresh builds a new one and swaps it in atomically, so no reader ever
//! waits. The generation tells whether a cached verification was made with this snapshot; [`KeySet::has`]
//! tells whether an older verification's key is still in it.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use crate::digest::Digest;
use crate::error::shown;
use crate::jose::algorithm::{Algorithm, AlgorithmSet};
use crate::jose::json::{Document, JsonError, Kind};
use crate::jose::jwk::{Prepare, PublicKey, kid_of};
use crate::jose::signature::PreparedKey;

/// Maximum size of the text of a key set, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// Maximum number of keys in one set. Entra ID publishes about ten.
pub const MAX_KEYS: usize = 512;

/// Why an entry is dropped whose `kid` another key has too: no token could say which of the two it means.
const AMBIGUOUS: &str = "shares its kid with another key";

/// How many header spellings are remembered in one set: a few per key, as issuers write one or two.
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
    /// Whether the header names the key by its `kid`; otherwise it is the only one.
    pub named: bool,
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
    /// [`KeySetError`] if nothing usable is left.
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
                Ok(key) => candidates.push(key),
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

    /// Two different keys under one `kid` are ambiguous: neither is taken. The same key twice is one key.
    fn take_unambiguous(&mut self, candidates: Vec<PublicKey>) {
        let mut thumbprints: HashMap<&str, Option<Digest>> = HashMap::new();
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
        let mut taken: Vec<PublicKey> = Vec::with_capacity(candidates.len());
        for key in candidates {
            if let Some(kid) = key.kid().filter(|kid| ambiguous.iter().any(|other| other == kid)) {
                self.dropped.push(Dropped { kid: Some(shown(kid)), reason: AMBIGUOUS });
                continue;
            }
            let same = |own: &&mut PublicKey| own.kid() == key.kid() && own.thumbprint() == key.thumbprint();
            match taken.iter_mut().find(same) {
                Some(own) => own.unite(key),
                None => taken.push(key),
            }
        }
        let mut of_same_key: HashMap<Digest, AlgorithmSet> = HashMap::new();
        for key in &taken {
            let union = of_same_key.entry(*key.thumbprint()).or_default();
            *union = union.union(key.algorithms());
        }
        for mut key in taken {
            if key.algorithms().is_empty() {
                let reason = "is listed twice, for different algorithms";
                self.dropped.push(Dropped { kid: key.kid().map(shown), reason });
                continue;
            }
            key.share_with(of_same_key[key.thumbprint()]);
            if let Some(kid) = key.kid() {
                self.by_kid.insert(kid.to_owned(), self.keys.len());
            }
            self.keys.push(Arc::new(key));
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

    /// How many entries were not taken because a different key has the same `kid`.
    #[must_use]
    pub fn ambiguous(&self) -> usize {
        self.dropped.iter().filter(|dropped| dropped.reason == AMBIGUOUS).count()
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

    /// Does another set have the same key, or none as well, under that id?
    #[must_use]
    pub fn agrees_with(&self, other: &Self, kid: Option<&str>) -> bool {
        match (self.find(kid), other.find(kid)) {
            (Some(own), Some(other)) => own.is_same_as(other),
            (own, other) => own.is_none() && other.is_none(),
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::jose::algorithm::Accepted;

    fn entry(kid: &str, member: &str, value: &str) -> Value {
        let jwk: Value = serde_json::from_str(include_str!("../../tests/keys/rfc7515_a_2.json")).unwrap();
        json!({"kty": "RSA", "kid": kid, "n": jwk["n"], "e": jwk["e"], member: value})
    }

    fn set(entries: &[Value]) -> Result<KeySet, KeySetError> {
        KeySet::parse(json!({ "keys": entries }).to_string().as_bytes(), 1)
    }

    #[test]
    fn the_same_key_twice_is_one_key_for_the_issuers_of_both_entries() {
        let (one, other, none) = (entry("k", "issuer", "a"), entry("k", "issuer", "b"), entry("k", "use", "sig"));
        for entries in [[&one, &other, &none], [&other, &none, &one], [&none, &one, &other]] {
            let set = set(&entries.map(Clone::clone)).unwrap();
            assert_eq!(set.keys().len(), 1);
            assert_eq!(set.keys()[0].issuers(), ["a", "b"]);
            assert_eq!(set.dropped(), []);
        }
    }

    #[test]
    fn the_same_key_twice_serves_the_algorithms_that_both_entries_allow() {
        let (rs, ps, any) = (entry("k", "alg", "RS256"), entry("k", "alg", "PS256"), entry("k", "use", "sig"));
        for entries in [[&rs, &any], [&any, &rs]] {
            let set = set(&entries.map(Clone::clone)).unwrap();
            assert_eq!(set.keys()[0].algorithms().iter().collect::<Vec<_>>(), [Algorithm::Rs256]);
        }
        for entries in [[&rs, &ps], [&ps, &rs]] {
            let error = set(&entries.map(Clone::clone)).unwrap_err();
            assert!(error.to_string().contains("different algorithms"), "{error}");
        }
    }

    #[test]
    fn a_key_under_two_ids_serves_one_algorithm_all_the_same() {
        let accepted = Accepted::new(vec![Algorithm::Rs256, Algorithm::Ps256]);
        let serves = |set: &KeySet, kid: &str, algorithm| set.find(Some(kid)).unwrap().serves(algorithm, &accepted);
        for (member, value) in [("alg", "RS256"), ("use", "sig")] {
            let set = set(&[entry("a", member, value), entry("b", "alg", "PS256")]).unwrap();
            assert!(serves(&set, "a", Algorithm::Rs256) && !serves(&set, "a", Algorithm::Ps256));
            assert!(!serves(&set, "b", Algorithm::Ps256) && !serves(&set, "b", Algorithm::Rs256));
        }
        let alone = set(&[entry("b", "alg", "PS256")]).unwrap();
        assert!(serves(&alone, "b", Algorithm::Ps256));
        // So a verification by `b` from before ends when `a` appears.
        let both = set(&[entry("a", "alg", "RS256"), entry("b", "alg", "PS256")]).unwrap();
        assert!(!both.has(alone.find(Some("b")).unwrap()));
    }

    #[test]
    fn different_keys_under_one_kid_are_both_dropped_and_counted() {
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let (one, good) = (entry("k", "use", "sig"), entry("good", "use", "sig"));
        let mut other = one.clone();
        other["n"] = json!(n);
        let set = set(&[one.clone(), good, other, one]).unwrap();
        assert_eq!((set.keys().len(), set.ambiguous(), set.dropped().len()), (1, 3, 3));
        assert!(set.find(Some("k")).is_none());
    }

    #[test]
    fn sets_agree_about_a_key_that_neither_changed_nor_came_nor_went() {
        let of = |entries: &[Value]| set(entries).unwrap();
        let (one, bound) = (of(&[entry("k", "use", "sig")]), of(&[entry("k", "issuer", "a")]));
        assert!(one.agrees_with(&of(&[entry("k", "use", "sig")]), Some("k")));
        assert!(one.agrees_with(&bound, Some("absent")));
        assert!(!one.agrees_with(&bound, Some("k")));
        assert!(!one.agrees_with(&of(&[entry("new", "use", "sig")]), Some("k")));
        assert!(!one.agrees_with(&bound, None), "a token without kid means the only key");
    }

    const ANOTHER: &str = include_str!("../../tests/keys/rfc7520_3_4.json");

    #[allow(clippy::needless_pass_by_value, reason = "so that the members stand in the call")]
    fn another(members: Value) -> Value {
        let jwk: Value = serde_json::from_str(ANOTHER).unwrap();
        let mut entry = json!({"kty": "RSA", "n": jwk["n"], "e": jwk["e"]});
        entry.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        entry
    }

    #[test]
    fn a_text_that_holds_no_usable_key_is_refused_with_the_reason() {
        let refused = |text: &str| KeySet::parse(text.as_bytes(), 1).unwrap_err().to_string();
        assert_eq!(refused("{"), format!("key set holds {}", Document::parse("{").unwrap_err().reason()));
        for text in ["[]", "{}", r#"{"keys":{}}"#, r#"{"keys":"k"}"#, "1"] {
            assert_eq!(refused(text), "key set is not an object with an array 'keys'", "{text}");
        }
        assert_eq!(refused(r#"{"keys":[]}"#), "key set is empty");
        let symmetric = r#"{"keys":[{"kty":"oct","kid":"s"},{}]}"#;
        let sentence = "key set has no usable key: the first is symmetric, and symmetric algorithms do not exist here";
        assert_eq!(refused(symmetric), sentence);
        let many = |count| format!(r#"{{"keys":[{}]}}"#, vec!["{}"; count].join(","));
        assert_eq!(refused(&many(MAX_KEYS + 1)), "key set has more than 512 keys");
        assert!(refused(&many(MAX_KEYS)).contains("no usable key"));
    }

    #[test]
    fn a_text_may_have_a_mebibyte_and_no_more() {
        let text = json!({ "keys": [entry("k", "use", "sig")] }).to_string();
        let padded = |bytes: usize| format!("{text}{}", " ".repeat(bytes - text.len()));
        assert!(KeySet::parse(padded(1 << 20).as_bytes(), 1).is_ok());
        let error = KeySet::parse(padded((1 << 20) + 1).as_bytes(), 1).unwrap_err();
        assert_eq!((&error, &*error.to_string()), (&KeySetError::TooLarge, "key set is larger than 1048576 bytes"));
    }

    #[test]
    fn a_set_tells_its_generation_its_keys_in_order_and_what_it_left_out() {
        let entries = [another(json!({"kid": "b"})), entry("a", "use", "sig"), entry("c", "use", "enc")];
        let text = json!({ "keys": entries }).to_string();
        let set = KeySet::parse(text.as_bytes(), 7).unwrap();
        assert_eq!(set.generation(), 7);
        assert_eq!(set.keys().iter().map(|key| key.kid()).collect::<Vec<_>>(), [Some("b"), Some("a")]);
        assert_eq!(set.dropped(), [Dropped { kid: Some("c".into()), reason: "is not for signatures (use)" }]);
        assert_eq!(set.ambiguous(), 0);
    }

    #[test]
    fn keys_are_one_only_if_both_id_and_numbers_agree() {
        let mut nameless = entry("", "use", "sig");
        nameless.as_object_mut().unwrap().remove("kid");
        let nameless = [nameless.clone(), another(json!({})), nameless];
        assert_eq!(set(&nameless).unwrap().keys().len(), 2, "without any id");
        let renamed = [entry("a", "use", "sig"), entry("b", "use", "sig"), entry("a", "use", "sig")];
        assert_eq!(set(&renamed).unwrap().keys().len(), 2, "under two ids");
    }

    #[test]
    fn a_token_without_kid_means_the_only_key() {
        let one = set(&[entry("a", "use", "sig")]).unwrap();
        let two = set(&[entry("a", "use", "sig"), another(json!({"kid": "b"}))]).unwrap();
        assert_eq!(one.find(None).and_then(|key| key.kid()), Some("a"));
        assert!(two.find(None).is_none());
        assert_eq!(two.find(Some("b")).and_then(|key| key.kid()), Some("b"));
        assert!(two.find(Some("c")).is_none());
    }

    #[test]
    fn a_set_has_a_key_while_it_is_published_for_the_same_purpose() {
        let nameless = || set(&[another(json!({}))]).unwrap();
        let (one, bound) = (set(&[entry("k", "use", "sig")]).unwrap(), set(&[entry("k", "issuer", "a")]).unwrap());
        assert!(one.has(&one.keys()[0]));
        assert!(!bound.has(&one.keys()[0]));
        assert!(nameless().has(&nameless().keys()[0]));
        assert!(!one.has(&nameless().keys()[0]));
    }

    #[test]
    fn a_header_that_verified_selects_the_same_key_again() {
        let set = set(&[entry("a", "use", "sig"), another(json!({"kid": "b"}))]).unwrap();
        let selected = |index: usize| {
            let key = Arc::clone(&set.keys()[index]);
            Selected { key, algorithm: Algorithm::Rs256, named: true }
        };
        let kid = |header: &[u8]| set.remembered(header).map(|selected| selected.key.kid().unwrap().to_owned());
        assert_eq!(kid(b"one"), None);
        set.remember(b"one", &selected(0));
        set.remember(b"two", &selected(1));
        assert_eq!((kid(b"one").as_deref(), kid(b"two").as_deref(), kid(b"three")), (Some("a"), Some("b"), None));
        // A header takes one place, however often its tokens verify: the others stay free.
        for _ in 0..2 * REMEMBERED_HEADERS {
            set.remember(b"one", &selected(0));
        }
        assert_eq!(set.headers.iter().filter(|slot| slot.get().is_some()).count(), 2);
        for number in 0..2 * REMEMBERED_HEADERS {
            set.remember(number.to_string().as_bytes(), &selected(0));
        }
        assert_eq!((kid(b"one").as_deref(), kid(b"29").as_deref(), kid(b"30")), (Some("a"), Some("a"), None));
    }
}
