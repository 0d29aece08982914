//! RS256 and PS256: rind, AWS-LC and a textbook model must agree on every signature.
//!
//! The input is a small program. Its first bytes choose a key, an algorithm and a message; then come steps that spoil
//! the encoded message before it is signed (so that nearly right paddings are reached, which mutating a signature
//! never would), the signature, the message, or the key. The model is RFC 8017, sections 8.2.2 and 8.1.2 on big
//! integers: a modulus of 2048 to 8192 bits, the length, `s < n`, and `s^e mod n` equal to the one right encoding, or
//! one that EMSA-PSS with a salt of 32 bytes takes.

use std::sync::LazyLock;

use entra_core::digest::sha256;
use entra_core::jose::algorithm::Algorithm;
use entra_core::jose::signature::{Material, PreparedKey, Signatures, has_fast_library};
use num_bigint::BigUint;

use crate::Outcome;
use crate::roots::{EXPONENTS, MODULI, Modulus, to_bytes};

/// RFC 8017, section 9.2, note 1: what stands before a SHA-256 hash.
const DIGEST_INFO: [u8; 19] =
    [0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20];

/// Other prefixes that a lax parser may take for it.
const OTHER_DIGEST_INFOS: [&[u8]; 8] = [
    // No parameters instead of NULL (the exception that RFC 8017, appendix A.2.4 allows only for old hashes).
    &[0x30, 0x2f, 0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x04, 0x20],
    // Lengths in the long form: BER, but not DER.
    &[
        0x30, 0x81, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00,
        0x04, 0x20,
    ],
    &[
        0x30, 0x32, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04,
        0x81, 0x20,
    ],
    // An indefinite length.
    &[0x30, 0x80, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20],
    // SHA-512, SHA-224 and SHA-1, with the length of a SHA-256 hash.
    &[0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03, 0x05, 0x00, 0x04, 0x20],
    &[0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x04, 0x05, 0x00, 0x04, 0x20],
    &[0x30, 0x2d, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00, 0x04, 0x20],
    // The bare hash.
    &[],
];

/// Maximum number of steps of one input.
const MAX_STEPS: usize = 8;

/// Says once which libraries are compared, as it depends on the processor.
static ANNOUNCED: LazyLock<()> = LazyLock::new(|| {
    if [Algorithm::Rs256, Algorithm::Ps256].into_iter().all(has_fast_library) {
        eprintln!("rsa_differential: rind, AWS-LC and the model are compared");
    } else {
        eprintln!("rsa_differential: NOT COMPARING RIND, which cannot run here; only AWS-LC and the model are");
    }
});

/// See the module's description.
pub fn run(data: &[u8]) -> Outcome {
    LazyLock::force(&ANNOUNCED);
    let mut input = Input(data);
    let choice = usize::from(input.byte());
    let modulus = &MODULI[choice % MODULI.len()];
    let padding = if choice / MODULI.len() % 2 == 0 { Padding::Pkcs1 } else { Padding::Pss };
    let exponent = EXPONENTS[usize::from(input.byte()) % EXPONENTS.len()];
    let length = usize::from(input.word() % 4096);
    let filler = input.byte();
    let message: Vec<u8> = (0..length).map(|index| filler.wrapping_add(index.to_le_bytes()[0])).collect();
    let mut attempt = Attempt::new(modulus, exponent, padding, message);
    let mut encoded = match padding {
        Padding::Pkcs1 => encoding(&attempt.message, modulus.width()),
        Padding::Pss => PssParts::of(&attempt.message).encoding(modulus.bits() - 1),
    };
    // The steps before the first 0 spoil the encoding, those after it what came of it.
    for _ in 0..MAX_STEPS {
        match (padding, input.byte()) {
            (_, 0) => break,
            (Padding::Pkcs1, step) => spoil_encoding(&mut encoded, step, &mut input),
            (Padding::Pss, step) => spoil_pss_encoding(&mut encoded, &attempt, step, &mut input),
        }
    }
    attempt.sign(&BigUint::from_bytes_be(&encoded));
    for _ in 0..MAX_STEPS {
        match input.byte() {
            0 => break,
            step => attempt.spoil(step, &mut input),
        }
    }
    attempt.judge().into()
}

/// EMSA-PKCS1-v1_5 (RFC 8017, section 9.2).
#[must_use]
pub(crate) fn encoding(message: &[u8], width: usize) -> Vec<u8> {
    let mut encoded = vec![0xff; width];
    encoded[0] = 0;
    encoded[1] = 1;
    write_tail(&mut encoded, &[&[0], &DIGEST_INFO[..], &sha256(message)].concat());
    encoded
}

/// What makes the encoded message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Padding {
    Pkcs1,
    Pss,
}

/// What EMSA-PSS encodes (RFC 8017, section 9.1.1), each part free to be wrong.
struct PssParts {
    hash: Vec<u8>,
    salt: Vec<u8>,
    separator: u8,
    trailer: u8,
}

impl PssParts {
    fn of(message: &[u8]) -> Self {
        Self { hash: sha256(message).to_vec(), salt: vec![0x5a; 32], separator: 1, trailer: 0xbc }
    }

    /// For `bits`, which are one less than those of the modulus; in as many bytes as hold them.
    fn encoding(&self, bits: usize) -> Vec<u8> {
        let width = bits.div_ceil(8);
        let digest = sha256(&[&[0; 8], &self.hash[..], &self.salt].concat());
        let mut block = vec![0; width - 33];
        write_tail(&mut block, &[&[self.separator], &self.salt[..]].concat());
        mask(&mut block, &digest);
        block[0] &= 0xff >> (8 * width - bits);
        [&block[..], &digest, &[self.trailer]].concat()
    }
}

/// MGF1 with SHA-256 (RFC 8017, appendix B.2.1), onto the block.
fn mask(block: &mut [u8], seed: &[u8]) {
    for (chunk, counter) in block.chunks_mut(32).zip(0_u32..) {
        let mask = sha256(&[seed, &counter.to_be_bytes()].concat());
        chunk.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    }
}

/// EMSA-PSS (RFC 8017, section 9.1.2) with a salt of 32 bytes.
fn is_pss_encoding(encoded: &[u8], bits: usize, message: &[u8]) -> bool {
    let width = bits.div_ceil(8);
    // Where the modulus has a byte more than this encoding, that byte is zero (section 8.1.2, step 2c).
    let Some(encoded) = encoded.strip_prefix(&vec![0; encoded.len() - width][..]) else { return false };
    let (block, rest) = encoded.split_at(width - 33);
    let (digest, trailer) = rest.split_at(32);
    let free = 0xff_u8 >> (8 * width - bits);
    if trailer != [0xbc] || block[0] & !free != 0 {
        return false;
    }
    let mut block = block.to_vec();
    mask(&mut block, digest);
    block[0] &= free;
    let (zeros, salt) = block.split_at(width - 33 - 33);
    let right = sha256(&[&[0; 8], &sha256(message)[..], &salt[1..]].concat());
    zeros.iter().all(|byte| *byte == 0) && salt[0] == 1 && digest == right
}

fn spoil_pss_encoding(encoded: &mut Vec<u8>, attempt: &Attempt<'_>, step: u8, input: &mut Input<'_>) {
    let mut parts = PssParts::of(&attempt.message);
    let bits = attempt.modulus.bits() - 1;
    match step % 10 {
        1 => set(encoded, input),
        2 => flip(encoded, input),
        // Another length of the salt, which RFC 7518, section 3.5 forbids.
        3 => {
            parts.salt = vec![input.byte(); usize::from(input.byte() % 65)];
            *encoded = parts.encoding(bits);
        }
        4 => {
            parts.separator = input.byte();
            *encoded = parts.encoding(bits);
        }
        5 => {
            parts.trailer = input.byte();
            *encoded = parts.encoding(bits);
        }
        6 => {
            parts.hash = sha256(&[input.byte()]).to_vec();
            *encoded = parts.encoding(bits);
        }
        // One bit more or less than the modulus has room for.
        7 => *encoded = parts.encoding(bits + 1),
        8 => *encoded = parts.encoding(bits - 1),
        // The bits that must be zero.
        9 => encoded[0] |= input.byte(),
        _ => *encoded = encoding(&attempt.message, attempt.modulus.width()),
    }
}

fn write_tail(encoded: &mut [u8], tail: &[u8]) {
    let start = encoded.len() - tail.len();
    encoded[start..].copy_from_slice(tail);
}

fn spoil_encoding(encoded: &mut [u8], step: u8, input: &mut Input<'_>) {
    let width = encoded.len();
    let hash = encoded[width - 32..].to_vec();
    match step % 8 {
        1 => encoded[input.position(width)] = input.byte(),
        2 => encoded[input.position(width)] ^= 1 << (input.byte() % 8),
        3 => {
            let info = OTHER_DIGEST_INFOS[usize::from(input.byte()) % OTHER_DIGEST_INFOS.len()];
            encoded[2..].fill(0xff);
            write_tail(encoded, &[&[0], info, &hash].concat());
        }
        // Bleichenbacher's forgery of 2006 (CVE-2006-4339): short padding, and freedom behind the hash.
        4 => {
            let padding = 8 + input.position(width - 70);
            let garbage = input.byte();
            encoded[2..].fill(garbage);
            encoded[2..2 + padding].fill(0xff);
            let tail = [&[0], &DIGEST_INFO[..], &hash].concat();
            encoded[2 + padding..2 + padding + tail.len()].copy_from_slice(&tail);
        }
        5 => encoded[1] = input.byte(),                              // block type
        6 => encoded[width - 33 - DIGEST_INFO.len()] = input.byte(), // separator
        7 => {
            let shift = input.position(width);
            encoded.rotate_left(shift);
        }
        _ => encoded[0] = input.byte(),
    }
}

/// A key, a message and a signature, all as a stranger would send them.
struct Attempt<'m> {
    modulus: &'m Modulus,
    exponent: u64,
    padding: Padding,
    message: Vec<u8>,
    signature: Vec<u8>,
    n: Vec<u8>,
    e: Vec<u8>,
}

impl<'m> Attempt<'m> {
    fn new(modulus: &'m Modulus, exponent: u64, padding: Padding, message: Vec<u8>) -> Self {
        let n = modulus.n.to_bytes_be();
        let e = BigUint::from(exponent).to_bytes_be();
        Self { modulus, exponent, padding, message, signature: Vec::new(), n, e }
    }

    fn sign(&mut self, encoded: &BigUint) {
        let reduced = encoded % &self.modulus.n;
        let signature = self.modulus.root(&reduced, self.exponent).unwrap_or(reduced);
        self.signature = to_bytes(&signature, self.modulus.width());
    }

    fn spoil(&mut self, step: u8, input: &mut Input<'_>) {
        let n = &self.modulus.n;
        let width = self.modulus.width();
        let signature = BigUint::from_bytes_be(&self.signature);
        match step % 24 {
            1 => self.signature = to_bytes(&(signature + n), width),
            2 => self.signature = to_bytes(&(signature + n * u32::from(input.byte())), width),
            3 => self.signature = to_bytes(&(n - signature % n), width),
            4 => self.signature.insert(0, 0),
            5 => self.signature = signature.to_bytes_be(), // without leading zeros
            6 => self.signature.truncate(input.position(width)),
            7 => self.signature.push(input.byte()),
            8 => set(&mut self.signature, input),
            9 => flip(&mut self.signature, input),
            10 => self.signature = to_bytes(&BigUint::from(input.byte()), width),
            11 => self.signature = to_bytes(&(n - 1_u8 - input.byte()), width),
            12 => self.signature = to_bytes(&(n + input.byte()), width),
            13 => self.signature.fill(0xff),
            14 => self.signature.clear(),
            15 => self.signature.reverse(),
            16 => self.signature.extend_from_within(..),
            17 => flip(&mut self.message, input),
            18 => self.message.push(input.byte()),
            19 => self.n.insert(0, 0),
            20 => flip(&mut self.n, input),
            21 => self.n = MODULI[usize::from(input.byte()) % MODULI.len()].n.to_bytes_be(),
            22 => {
                let count = usize::from(input.byte() % 10);
                self.e = input.bytes(count).to_vec();
            }
            23 => self.e.insert(0, 0),
            _ => self.n.truncate(input.position(width)),
        }
    }

    /// Ask all, and compare.
    fn judge(&self) -> bool {
        let material = Material::Rsa { n: self.n.clone(), e: self.e.clone() };
        let algorithm = match self.padding {
            Padding::Pkcs1 => Algorithm::Rs256,
            Padding::Pss => Algorithm::Ps256,
        };
        let chosen = PreparedKey::new(&material, algorithm);
        let reference = PreparedKey::with_aws_lc(&material, algorithm);
        let (chosen, reference) = match (chosen, reference) {
            (Ok(chosen), Ok(reference)) => (chosen, reference),
            (Err(_), Err(_)) => return false,
            (chosen, reference) => panic!("the key: {:?} here, {:?} there", chosen.is_ok(), reference.is_ok()),
        };
        let aws_lc = reference.verify(Signatures::AwsLc, &self.message, &self.signature).is_some();
        // What the fast library says before anybody confirms it; else a sampled confirmation would hide a difference.
        let own = chosen.unconfirmed(&self.message, &self.signature).unwrap_or(aws_lc);
        assert_eq!(own, aws_lc, "the fast library and AWS-LC disagree");
        let confirmed = chosen.verify(Signatures::Fast, &self.message, &self.signature).is_some();
        assert_eq!(confirmed, aws_lc, "the confirmed answer is another one");
        assert_eq!(own, self.model(), "the libraries and the model disagree");
        own
    }

    /// RFC 8017, sections 8.2.2 and 8.1.2.
    fn model(&self) -> bool {
        let n = BigUint::from_bytes_be(&self.n);
        let width = usize::try_from(n.bits().div_ceil(8)).expect("small");
        let signature = BigUint::from_bytes_be(&self.signature);
        let fits = (2048..=8192).contains(&n.bits());
        if !fits || self.signature.len() != width || signature >= n {
            return false;
        }
        // Square and multiply from the top bit: for such short exponents faster than what the library does.
        let exponent = BigUint::from_bytes_be(&self.e);
        let power = (0..exponent.bits()).rev().fold(BigUint::from(1_u8), |power, bit| {
            let square = &power * &power % &n;
            if exponent.bit(bit) { square * &signature % &n } else { square }
        });
        let power = to_bytes(&power, width);
        match self.padding {
            Padding::Pkcs1 => power == encoding(&self.message, width),
            Padding::Pss => {
                let bits = usize::try_from(n.bits()).expect("small") - 1;
                is_pss_encoding(&power, bits, &self.message)
            }
        }
    }
}

fn set(bytes: &mut [u8], input: &mut Input<'_>) {
    let (position, value) = (input.position(bytes.len()), input.byte());
    if let Some(byte) = bytes.get_mut(position) {
        *byte = value;
    }
}

fn flip(bytes: &mut [u8], input: &mut Input<'_>) {
    let (position, bit) = (input.position(bytes.len()), input.byte() % 8);
    if let Some(byte) = bytes.get_mut(position) {
        *byte ^= 1 << bit;
    }
}

/// The rest of the input; zeros behind its end.
struct Input<'d>(&'d [u8]);

impl<'d> Input<'d> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    fn position(&mut self, length: usize) -> usize {
        usize::from(self.word()) % length.max(1)
    }

    fn bytes(&mut self, count: usize) -> &'d [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// Programs to begin with: every key, algorithm and exponent as it should be, then each step once.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let pss = u8::try_from(MODULI.len()).expect("few");
    for modulus in 0..2 * pss {
        for exponent in 0..u8::try_from(EXPONENTS.len()).expect("few") {
            seeds.push(vec![modulus, exponent, 0, 100, b'm']);
        }
    }
    for step in 1..=8 {
        seeds.push([&[0, 1, 0, 55, b'm', step][..], &[0, 9, 1, 0, 0]].concat());
    }
    for step in 1..=10 {
        // Also a modulus of 2057 bits, whose top byte the encoding leaves empty.
        seeds.push([&[pss, 1, 0, 55, b'm', step][..], &[7, 9, 1, 0, 0]].concat());
        seeds.push([&[pss + 4, 0, 0, 55, b'm', step][..], &[7, 32, 1, 0, 0]].concat());
    }
    for info in 0..8 {
        seeds.push(vec![0, 1, 0, 56, b'm', 3, info, 0, 0]);
    }
    for step in 1..=24 {
        // A modulus just above 2^2047: there s + n still fits into the signature.
        seeds.push([&[6, 0, 0, 64, b'm', 0, step][..], &[0, 1, 1, 0]].concat());
        seeds.push([&[pss + 6, 0, 0, 64, b'm', 0, step][..], &[0, 1, 1, 0]].concat());
    }
    seeds
}
