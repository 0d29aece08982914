//! The closed set of signature algorithms (RFC 7518, section 3.1; RFC 8037; RFC 9864; RFC 9964).
//!
//! Symmetric algorithms and `none` do not exist here, so no confusion of a public key with a secret is
//! possible (CVE-2024-33663). A token's header only selects among the algorithms that the policy allows and
//! the key supports. Each key verifies one algorithm ([`Accepted::serves`]).

use std::fmt;

/// A signature algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256: what Entra ID signs with.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256 and a salt of the same length.
    Ps256,
    /// RSASSA-PSS with SHA-384 and a salt of the same length.
    Ps384,
    /// RSASSA-PSS with SHA-512 and a salt of the same length.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// `EdDSA`, which RFC 9864 deprecates: the name does not say which curve. Here it always means Ed25519; Ed448 is
    /// not offered.
    EdDsa,
    /// `Ed25519`: the same under its fully specified name (RFC 9864, section 2.2).
    Ed25519,
    /// ML-DSA-44 (FIPS 204) with an empty context (RFC 9964).
    MlDsa44,
    /// ML-DSA-65.
    MlDsa65,
    /// ML-DSA-87.
    MlDsa87,
}

impl Algorithm {
    /// All of them, in the order of their RFCs.
    pub const ALL: [Self; 13] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
        Self::Ed25519,
        Self::MlDsa44,
        Self::MlDsa65,
        Self::MlDsa87,
    ];

    /// The name in the `alg` header parameter.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
            Self::Ed25519 => "Ed25519",
            Self::MlDsa44 => "ML-DSA-44",
            Self::MlDsa65 => "ML-DSA-65",
            Self::MlDsa87 => "ML-DSA-87",
        }
    }

    /// The algorithm of that exact name (names are case-sensitive: RFC 7515, section 4.1.1).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// True for the six RSA algorithms.
    #[must_use]
    pub const fn is_rsa(self) -> bool {
        matches!(self, Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512)
    }

    /// True for the three ML-DSA algorithms.
    #[must_use]
    pub const fn is_ml_dsa(self) -> bool {
        matches!(self, Self::MlDsa44 | Self::MlDsa65 | Self::MlDsa87)
    }

    /// Both names of an algorithm that has two, else the one: `EdDSA` with a key on Ed25519 and `Ed25519` are the same
    /// operation with the same key (RFC 9864, section 2.2).
    #[must_use]
    pub const fn names(self) -> AlgorithmSet {
        match self {
            Self::EdDsa | Self::Ed25519 => AlgorithmSet::of(Self::EdDsa).union(AlgorithmSet::of(Self::Ed25519)),
            other => AlgorithmSet::of(other),
        }
    }
}

/// A set of algorithms, as small as a number.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct AlgorithmSet(u16);

impl AlgorithmSet {
    /// The set of one.
    #[must_use]
    pub const fn of(algorithm: Algorithm) -> Self {
        Self(1 << algorithm as u8)
    }

    /// What is in either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both sets.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Is it in the set?
    #[must_use]
    pub const fn contains(self, algorithm: Algorithm) -> bool {
        self.0 & (1 << algorithm as u8) != 0
    }

    /// No algorithm at all?
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The members, in the order of [`Algorithm::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Algorithm> {
        Algorithm::ALL.into_iter().filter(move |algorithm| self.contains(*algorithm))
    }
}

impl FromIterator<Algorithm> for AlgorithmSet {
    fn from_iter<I: IntoIterator<Item = Algorithm>>(algorithms: I) -> Self {
        Self(algorithms.into_iter().fold(0, |set, algorithm| set | 1 << algorithm as u8))
    }
}

impl fmt::Display for AlgorithmSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, algorithm) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            f.write_str(algorithm.name())?;
        }
        Ok(())
    }
}

impl fmt::Debug for AlgorithmSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

/// The algorithms that a policy accepts, in the order of its preference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    order: Vec<Algorithm>,
    set: AlgorithmSet,
}

impl Accepted {
    /// These algorithms. Where a key could serve several of them, the first one counts.
    #[must_use]
    pub fn new(order: Vec<Algorithm>) -> Self {
        Self { set: order.iter().copied().collect(), order }
    }

    /// Is it accepted at all?
    #[must_use]
    pub const fn contains(&self, algorithm: Algorithm) -> bool {
        self.set.contains(algorithm)
    }

    /// May a key that could do all of `possible` verify this algorithm? A key serves one algorithm, whatever its tokens
    /// say: the first accepted one that it can do (draft-ietf-oauth-rfc8725bis, section 3.1). So an RSA key without
    /// `alg` does not verify both RS256 and PS256.
    #[inline]
    #[must_use]
    pub fn serves(&self, algorithm: Algorithm, possible: AlgorithmSet) -> bool {
        self.contains(algorithm) && self.of_key(possible).contains(algorithm)
    }

    /// What a key serves that could do all of `possible`: one algorithm under its accepted names, or none.
    #[inline]
    #[must_use]
    pub fn of_key(&self, possible: AlgorithmSet) -> AlgorithmSet {
        let first = self.order.iter().find(|algorithm| possible.contains(**algorithm));
        first.map_or(AlgorithmSet::default(), |first| first.names().intersection(self.set).intersection(possible))
    }
}

impl fmt::Display for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.set.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_closed_and_case_sensitive() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::from_name(algorithm.name()), Some(algorithm));
        }
        for name in
            ["none", "None", "NONE", "HS256", "rs256", "RS256 ", "ES512", "ES256K", "Ed448", "ed25519", "ML-DSA-66", ""]
        {
            assert_eq!(Algorithm::from_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_set_holds_what_was_put_in() {
        let set: AlgorithmSet = [Algorithm::Rs256, Algorithm::EdDsa].into_iter().collect();
        assert!(set.contains(Algorithm::Rs256) && set.contains(Algorithm::EdDsa));
        assert!(!set.contains(Algorithm::Ps256) && !set.is_empty());
        assert_eq!(set.to_string(), "RS256, EdDSA");
    }

    #[test]
    fn a_key_serves_the_first_accepted_algorithm_that_it_can_do() {
        let rsa: AlgorithmSet = Algorithm::ALL.into_iter().filter(|algorithm| algorithm.is_rsa()).collect();
        let accepted = Accepted::new(vec![Algorithm::Es256, Algorithm::Ps256, Algorithm::Rs256]);
        assert!(accepted.serves(Algorithm::Ps256, rsa) && !accepted.serves(Algorithm::Rs256, rsa));
        assert!(accepted.serves(Algorithm::Rs256, AlgorithmSet::of(Algorithm::Rs256)), "its alg says so");
        assert!(!accepted.serves(Algorithm::Es256, rsa), "not a key for it");
        assert!(!accepted.serves(Algorithm::Rs384, AlgorithmSet::of(Algorithm::Rs384)), "not accepted");
        assert!(accepted.of_key(AlgorithmSet::of(Algorithm::EdDsa)).is_empty());
        assert_eq!(accepted.to_string(), "RS256, PS256, ES256");
    }

    #[test]
    fn the_two_names_of_ed25519_are_one_algorithm_but_only_accepted_names_count() {
        let key = Algorithm::Ed25519.names();
        let both = Accepted::new(vec![Algorithm::EdDsa, Algorithm::Ed25519]);
        assert!(both.serves(Algorithm::EdDsa, key) && both.serves(Algorithm::Ed25519, key));
        for (accepted, other) in [(Algorithm::EdDsa, Algorithm::Ed25519), (Algorithm::Ed25519, Algorithm::EdDsa)] {
            let one = Accepted::new(vec![accepted]);
            assert!(one.serves(accepted, key) && !one.serves(other, key), "{accepted:?}");
        }
    }
}
