//! RSA keys whose private operation is cheap, and for any public exponent: for making signatures that are
//! nearly right, thousands a second.
//!
//! A modulus may have many small prime factors: the public operation, which is all that is tested, cannot tell.
//! By the Chinese remainder theorem a root is then a few dozen powers modulo 64-bit primes. Where a modulus
//! must have a special shape, one factor is larger: near the powers of two between which a modulus of its size
//! lies, carries and borrows run furthest. **Such keys protect nothing.**

use std::sync::LazyLock;

use entra_core::digest::sha256;
use num_bigint::BigUint;

/// Public exponents to choose from. The last has 33 bits, the most that AWS-LC takes.
pub const EXPONENTS: [u64; 7] = [65_537, 3, 5, 17, 257, 0x1_0000_0001, 0x1_FFFF_FFFF];

/// A modulus with its prime factors.
#[derive(Debug)]
pub struct Modulus {
    /// The modulus.
    pub n: BigUint,
    factors: Vec<Factor>,
}

#[derive(Debug)]
struct Factor {
    prime: Prime,
    /// 1 modulo this prime, 0 modulo the others.
    one: BigUint,
}

#[derive(Debug, Clone)]
enum Prime {
    Small(u64),
    Large(BigUint),
}

/// Moduli to choose from.
pub static MODULI: LazyLock<Vec<Modulus>> = LazyLock::new(|| {
    let two_to = |power: u32| BigUint::from(1_u8) << power;
    vec![
        composite(32, 1),                              // 2048 bits
        composite(48, 1),                              // 3072
        composite(64, 1),                              // 4096
        composite(32, 3),                              // 2050: the top byte has two bits
        composite(32, 257),                            // 2057: the top byte has one
        shaped(&(two_to(2048) - two_to(1800)), false), // begins with four words full of ones
        shaped(&(two_to(2047)), true),                 // begins with a one and four words of zeros
        shaped(&(two_to(2048) - two_to(1984)), true),  // a word of ones, then zeros
        composite(128, 1),                             // 8192
        composite(31, 1),                              // 1984: too short
        composite(16, 1),                              // 1024: the shortest that rind could do
        composite(129, 1),                             // 8256: too long
    ]
});

impl Modulus {
    fn of(primes: Vec<Prime>) -> Self {
        let n: BigUint = primes.iter().map(Prime::value).product();
        let with_one = |prime: Prime| {
            let others = &n / prime.value();
            let inverse = others.modinv(&prime.value()).expect("the primes are distinct");
            Factor { one: others * inverse, prime }
        };
        Self { factors: primes.into_iter().map(with_one).collect(), n }
    }

    /// Length in bits.
    #[must_use]
    pub fn bits(&self) -> usize {
        usize::try_from(self.n.bits()).expect("small")
    }

    /// Length in bytes: that of a signature.
    #[must_use]
    pub fn width(&self) -> usize {
        self.bits().div_ceil(8)
    }

    /// The number whose power with this exponent is `value`; None if the exponent has no inverse.
    #[must_use]
    pub fn root(&self, value: &BigUint, exponent: u64) -> Option<BigUint> {
        let mut sum = BigUint::ZERO;
        for factor in &self.factors {
            sum += &factor.one * factor.prime.root(value, exponent)?;
        }
        Some(sum % &self.n)
    }
}

impl Prime {
    fn value(&self) -> BigUint {
        match self {
            Self::Small(prime) => BigUint::from(*prime),
            Self::Large(prime) => prime.clone(),
        }
    }

    fn root(&self, value: &BigUint, exponent: u64) -> Option<BigUint> {
        match self {
            Self::Small(prime) => {
                let inverse = inverse(exponent % (prime - 1), prime - 1)?;
                let residue = u64::try_from(value % *prime).expect("below a 64-bit prime");
                Some(BigUint::from(power(residue, inverse, *prime)))
            }
            Self::Large(prime) => {
                let inverse = BigUint::from(exponent).modinv(&(prime - 1_u8))?;
                Some((value % prime).modpow(&inverse, prime))
            }
        }
    }
}

/// The bytes of a number, with leading zeros up to `width`.
#[must_use]
pub fn to_bytes(number: &BigUint, width: usize) -> Vec<u8> {
    let bytes = number.to_bytes_be();
    let mut out = vec![0; width.saturating_sub(bytes.len())];
    out.extend_from_slice(&bytes);
    out
}

/// A product of primes close below 2^64, and of a Fermat prime (or 1) to shift its length in bits.
fn composite(count: usize, extra: u64) -> Modulus {
    let primes = small_primes().take(count).chain((extra > 1).then_some(extra));
    Modulus::of(primes.map(Prime::Small).collect())
}

/// The first product above (or below) `start` that has 28 small factors and a large one.
fn shaped(start: &BigUint, above: bool) -> Modulus {
    let mut primes: Vec<Prime> = small_primes().take(28).map(Prime::Small).collect();
    let product: BigUint = primes.iter().map(Prime::value).product();
    let mut last = (start / product) | BigUint::from(1_u8);
    // Fermat's test: a composite would show at once, as no root would be one.
    let is_prime =
        |n: &BigUint| [2_u8, 3].iter().all(|base| BigUint::from(*base).modpow(&(n - 1_u8), n) == 1_u8.into());
    let suits = |n: &BigUint| EXPONENTS.iter().all(|exponent| BigUint::from(*exponent).modinv(&(n - 1_u8)).is_some());
    // The quotient was rounded down: the first step makes up for it.
    loop {
        if above {
            last += 2_u8;
        } else {
            last -= 2_u8;
        }
        if suits(&last) && is_prime(&last) {
            primes.push(Prime::Large(last));
            return Modulus::of(primes);
        }
    }
}

/// Primes of 64 bits, the upper 16 all ones, whose number is stretched from a hash.
fn small_primes() -> impl Iterator<Item = u64> {
    let candidates = (0_u32..).map(|index| {
        let digest = sha256(&[&index.to_be_bytes()[..], b"entra-fuzz"].concat());
        u64::from_be_bytes(*digest.first_chunk().expect("32 bytes")) | 0xFFFF << 48 | 1
    });
    candidates.filter(|candidate| suits_all_exponents(*candidate) && is_prime(*candidate))
}

fn suits_all_exponents(prime: u64) -> bool {
    EXPONENTS.into_iter().all(|exponent| inverse(exponent % (prime - 1), prime - 1).is_some())
}

fn multiply(a: u64, b: u64, modulus: u64) -> u64 {
    u64::try_from(u128::from(a) * u128::from(b) % u128::from(modulus)).expect("below the modulus")
}

fn power(base: u64, mut exponent: u64, modulus: u64) -> u64 {
    let (mut square, mut result) = (base % modulus, 1);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = multiply(result, square, modulus);
        }
        square = multiply(square, square, modulus);
        exponent >>= 1;
    }
    result
}

/// Euclid's extended algorithm.
fn inverse(number: u64, modulus: u64) -> Option<u64> {
    let (mut old, mut new) = ((i128::from(number), 1_i128), (i128::from(modulus), 0_i128));
    while new.0 != 0 {
        let quotient = old.0 / new.0;
        (old, new) = (new, (old.0 - quotient * new.0, old.1 - quotient * new.1));
    }
    (old.0 == 1).then(|| u64::try_from(old.1.rem_euclid(i128::from(modulus))).expect("below the modulus"))
}

/// Miller and Rabin, with bases that decide every 64-bit number (OEIS A014233).
fn is_prime(odd: u64) -> bool {
    let twos = (odd - 1).trailing_zeros();
    [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37].into_iter().all(|base| {
        let first = power(base, (odd - 1) >> twos, odd);
        let squares = std::iter::successors(Some(first), |x| Some(multiply(*x, *x, odd)));
        first == 1 || squares.take(twos as usize).any(|x| x == odd - 1)
    })
}
