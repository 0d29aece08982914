//! Test vectors that others wrote, through this crate's own functions.
//!
//! The data is not part of the project: it is read from the folder that `ENTRA_FAST_VECTORS` names, else from
//! `../shared/vectors` next to the checkout, and if that is absent the tests say that they were skipped.
//! Every test states its counts in the output. What belongs here: external data. What must not: tests of our
//! own making, which live beside the code and in the Python suites.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use entra_core::error::Error;
use entra_core::jose::algorithm::Algorithm;
use entra_core::jose::base64url;
use entra_core::jose::confirmation::Confirmation;
use entra_core::jose::json::{Document, Kind};
use entra_core::jose::jwk::PublicKey;
use entra_core::jose::keyset::KeySet;
use entra_core::jose::signature::Signatures;
use entra_core::jose::signing_key::SigningKey;
use entra_core::jose::token::Compact;
use entra_core::validate::claims::Claims;
use entra_core::validate::policy::{Policy, Settings};
use entra_core::validate::verify::verify_signature;
use serde_json::{Value, json};

/// A line that is seen without `--nocapture` too: the harness captures only what goes through `println!`.
fn report(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "vectors: {line}").expect("standard output");
}

/// A folder of the vectors; None, and a line that says so, where there are none.
fn folder(name: &str) -> Option<PathBuf> {
    let (root, demanded) = match std::env::var_os("ENTRA_FAST_VECTORS") {
        Some(root) => (PathBuf::from(root), true),
        None => (Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"), false),
    };
    let path = root.join(name);
    if path.is_dir() {
        return Some(path);
    }
    assert!(!demanded, "ENTRA_FAST_VECTORS names a folder without {name}");
    report(&format!("{name}: SKIPPED, there is no ../shared/vectors/{name} and ENTRA_FAST_VECTORS is not set"));
    None
}

fn read_json(path: &Path) -> Value {
    let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// (group, test) of a file of Project Wycheproof; its own count must be met.
fn wycheproof(file: &str) -> Option<Vec<(Value, Value)>> {
    let document = read_json(&folder("wycheproof")?.join(file));
    let mut cases = Vec::new();
    for group in document["testGroups"].as_array().expect("testGroups") {
        for test in group["tests"].as_array().expect("tests") {
            cases.push((group.clone(), test.clone()));
        }
    }
    assert_eq!(Some(cases.len() as u64), document["numberOfTests"].as_u64(), "{file}");
    Some(cases)
}

fn tc_id(test: &Value) -> u64 {
    test["tcId"].as_u64().expect("tcId")
}

fn policy(algorithms: &[Algorithm]) -> Policy {
    let settings = Settings {
        issuers: vec!["https://issuer.example".to_owned()],
        audiences: Some(vec!["audience".to_owned()]),
        algorithms: algorithms.to_vec(),
        ..Settings::default()
    };
    Policy::new(settings).expect("a policy")
}

/// Does the signature of this token verify with this key set (its JSON)? The vectors' payloads are no claims.
fn checked(token: &str, jwks: &Value, policy: &Policy) -> Result<(), String> {
    let keys = KeySet::parse(jwks.to_string().as_bytes(), 1).map_err(|error| error.to_string())?;
    let compact = Compact::split(token.as_bytes(), 1 << 16).map_err(|error| error.to_string())?;
    match verify_signature(&compact, &keys, policy) {
        Ok((selected, _)) => {
            assert!(keys.has(&selected.key));
            // What was remembered of this header must not change the second result.
            verify_signature(&compact, &keys, policy).map(|_| ()).map_err(|error| error.to_string())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// The `alg` of a token's header, read with another parser.
fn named_algorithm(token: &str) -> Option<String> {
    let header = base64url::decode(token.split('.').next()?.as_bytes()).ok()?;
    let header: Value = serde_json::from_slice(&header).ok()?;
    header["alg"].as_str().map(str::to_owned)
}

/// The public half of a group's key; for symmetric keys there is nothing but the key itself.
fn public_half(group: &Value) -> Value {
    group.get("public").unwrap_or(&group["private"]).clone()
}

/// Vectors that a strict verifier cannot or must not follow, as documented beside the data: 367 and 370 are
/// byte-identical to the valid 357; 372 and 373 hold a `?` within base64url; 346 and 350 contradict their
/// key's `alg`; 347 and 351 have a key for `ES521`, which does not exist.
const KNOWN_DEVIATIONS: [u64; 8] = [346, 347, 350, 351, 367, 370, 372, 373];

#[test]
fn wycheproof_json_web_signature() {
    let Some(cases) = wycheproof("json_web_signature_test.json") else { return };
    let everything = policy(&Algorithm::ALL);
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for (group, test) in &cases {
        let token = test["jws"].as_str().expect("jws");
        let checked = checked(token, &json!({"keys": [public_half(group)]}), &everything);
        let offered = named_algorithm(token).is_some_and(|name| Algorithm::from_name(&name).is_some());
        let outcome = match (test["result"] == "valid", &checked) {
            (true, Ok(())) => "valid and accepted",
            (true, Err(_)) if KNOWN_DEVIATIONS.contains(&tc_id(test)) => "valid, documented deviation, rejected",
            (true, Err(_)) if !offered => "valid, algorithm not offered, rejected",
            (true, Err(why)) => panic!("tcId {} should be accepted: {why}", tc_id(test)),
            (false, Err(_)) if KNOWN_DEVIATIONS.contains(&tc_id(test)) => "invalid, documented deviation, rejected",
            (false, Err(_)) => "invalid and rejected",
            (false, Ok(())) => panic!("tcId {} is a FALSE ACCEPT", tc_id(test)),
        };
        *counts.entry(outcome).or_default() += 1;
    }
    report(&format!("wycheproof json_web_signature: {} vectors, 0 false accepts: {counts:?}", cases.len()));
    let expected = BTreeMap::from([
        ("valid and accepted", 32),
        ("valid, algorithm not offered, rejected", 8),
        ("valid, documented deviation, rejected", 6),
        ("invalid and rejected", 353),
        ("invalid, documented deviation, rejected", 2),
    ]);
    assert_eq!(counts, expected);
    assert_eq!(cases.len(), 401);
}

/// The default policy: whatever is not RS256 is rejected, however valid.
#[test]
fn wycheproof_json_web_signature_with_rs256_only() {
    let Some(cases) = wycheproof("json_web_signature_test.json") else { return };
    let default = policy(&[Algorithm::Rs256]);
    let (mut accepts, mut rejects) = (0, 0);
    for (group, test) in &cases {
        let token = test["jws"].as_str().expect("jws");
        if checked(token, &json!({"keys": [public_half(group)]}), &default).is_ok() {
            assert_eq!(test["result"], "valid", "tcId {} is a FALSE ACCEPT", tc_id(test));
            assert_eq!(named_algorithm(token).as_deref(), Some("RS256"), "tcId {}", tc_id(test));
            accepts += 1;
        } else {
            rejects += 1;
        }
    }
    report(&format!(
        "wycheproof json_web_signature, RS256 only: {accepts} accepted, {rejects} rejected, 0 false accepts"
    ));
    assert_eq!((accepts, rejects), (8, 393));
}

#[test]
fn wycheproof_json_web_key() {
    let Some(cases) = wycheproof("json_web_key_test.json") else { return };
    let everything = policy(&Algorithm::ALL);
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for (group, test) in &cases {
        let token = test["jws"].as_str().expect("jws");
        let checked = checked(token, &public_half(group), &everything);
        let symmetric = named_algorithm(token).is_some_and(|name| name.starts_with("HS"));
        let outcome = match (test["result"] == "valid", &checked) {
            (true, Ok(())) => "valid and accepted",
            (true, Err(_)) if symmetric => "valid, symmetric, rejected",
            (true, Err(why)) => panic!("tcId {} should be accepted: {why}", tc_id(test)),
            // The reason must be the key: each of these sets holds one bad key, and it must not get in.
            (false, Err(why)) if symmetric => {
                assert_ne!(why, "", "tcId {}", tc_id(test));
                "invalid, symmetric, rejected"
            }
            (false, Err(why)) => {
                assert!(why.contains("no usable key"), "tcId {}: {why}", tc_id(test));
                "invalid, key not taken"
            }
            (false, Ok(())) => panic!("tcId {} is a FALSE ACCEPT", tc_id(test)),
        };
        *counts.entry(outcome).or_default() += 1;
    }
    report(&format!("wycheproof json_web_key: {} vectors, 0 false accepts: {counts:?}", cases.len()));
    let expected = BTreeMap::from([
        ("valid and accepted", 1),
        ("valid, symmetric, rejected", 4),
        ("invalid, symmetric, rejected", 11),
        ("invalid, key not taken", 10),
    ]);
    assert_eq!(counts, expected);
    assert_eq!(cases.len(), 26);
}

fn bytes(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().expect("hexadecimal digits");
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal")).collect()
}

fn encoded(bytes: &[u8]) -> Value {
    Value::String(base64url::encode(bytes))
}

/// The key of a group as Entra ID would publish it: bare parameters, no `alg`.
fn bare_jwk(group: &Value) -> Value {
    let key = &group["publicKey"];
    if let Some(curve) = key["curve"].as_str().filter(|curve| curve.starts_with("secp")) {
        let point = bytes(&key["uncompressed"]);
        let (x, y) = point[1..].split_at(point.len() / 2);
        let name = if curve == "secp256r1" { "P-256" } else { "P-384" };
        json!({"kty": "EC", "crv": name, "x": encoded(x), "y": encoded(y)})
    } else if key["curve"] == "edwards25519" {
        json!({"kty": "OKP", "crv": "Ed25519", "x": encoded(&bytes(&key["pk"]))})
    } else {
        // The modulus is written with the leading zero of DER.
        json!({"kty": "RSA", "n": encoded(&bytes(&key["modulus"])), "e": encoded(&bytes(&key["publicExponent"]))})
    }
}

fn labelled_valid(test: &Value) -> bool {
    test["result"] == "valid"
}

/// Every vector of a file through [`PublicKey::verify`], with the fast library (where there is one) and with AWS-LC
/// alone. `valid` says which must be accepted.
fn signatures(file: &str, algorithm: Algorithm, valid: fn(&Value) -> bool, expected: [u32; 2]) {
    let Some(cases) = wycheproof(file) else { return };
    let (mut accepts, mut rejects) = (0, 0);
    for (group, test) in &cases {
        let jwk = Document::parse(bare_jwk(group).to_string()).expect("JSON");
        let key = PublicKey::from_jwk(jwk.root()).unwrap_or_else(|why| panic!("{file}: the key {why}"));
        let (message, signature) = (bytes(&test["msg"]), bytes(&test["sig"]));
        let verifies = |algorithm, signatures| key.verify(algorithm, signatures, &message, &signature).is_some();
        let checked = verifies(algorithm, Signatures::AwsLc);
        assert_eq!(verifies(algorithm, Signatures::Fast), checked, "{file}, tcId {}", tc_id(test));
        let label = &test["result"];
        assert_eq!(checked, valid(test), "{file}, tcId {} is labelled {label}: {}", tc_id(test), test["comment"]);
        if checked {
            accepts += 1;
        } else {
            rejects += 1;
        }
        // What verifies under one algorithm verifies under no other one, but for the two names of Ed25519.
        for other in Algorithm::ALL.into_iter().filter(|other| checked && !algorithm.names().contains(*other)) {
            for signatures in Signatures::ALL {
                assert!(!verifies(other, signatures), "{file}, tcId {} as {other:?}", tc_id(test));
            }
        }
    }
    assert_eq!(Confirmation::of_process().figures().disagreed, 0, "{file}: the libraries disagree");
    report(&format!(
        "wycheproof {file}: {} vectors, {accepts} accepted, {rejects} rejected, all as expected",
        cases.len()
    ));
    assert_eq!([accepts, rejects], expected, "{file}");
}

/// `acceptable` marks a missing NULL in the `DigestInfo`: a second encoding of one signature, so rejected.
#[test]
fn wycheproof_rsa_pkcs1() {
    signatures("rsa_signature_2048_sha256_test.json", Algorithm::Rs256, labelled_valid, [9, 250]);
    signatures("rsa_signature_2048_sha384_test.json", Algorithm::Rs384, labelled_valid, [7, 251]);
    signatures("rsa_signature_2048_sha512_test.json", Algorithm::Rs512, labelled_valid, [8, 251]);
    signatures("rsa_signature_3072_sha256_test.json", Algorithm::Rs256, labelled_valid, [8, 251]);
    signatures("rsa_signature_4096_sha256_test.json", Algorithm::Rs256, labelled_valid, [7, 251]);
}

/// RFC 7518, section 3.5: the salt is as long as the hash. Any other salt is rejected, however valid.
#[test]
fn wycheproof_rsa_pss() {
    // Of the file without salts one vector is labelled invalid because it has a salt of 32 bytes: a good PS256.
    let salted = |test: &Value| test["comment"] == "s_len changed to 32";
    signatures("rsa_pss_2048_sha256_mgf1_32_test.json", Algorithm::Ps256, labelled_valid, [63, 45]);
    signatures("rsa_pss_4096_sha512_mgf1_64_test.json", Algorithm::Ps512, labelled_valid, [132, 47]);
    signatures("rsa_pss_2048_sha256_mgf1_0_test.json", Algorithm::Ps256, salted, [1, 102]);
}

#[test]
fn wycheproof_ecdsa_p1363() {
    signatures("ecdsa_secp256r1_sha256_p1363_test.json", Algorithm::Es256, labelled_valid, [173, 89]);
    signatures("ecdsa_secp384r1_sha384_p1363_test.json", Algorithm::Es384, labelled_valid, [193, 87]);
}

#[test]
fn wycheproof_ed25519() {
    signatures("ed25519_test.json", Algorithm::EdDsa, labelled_valid, [88, 63]);
    signatures("ed25519_test.json", Algorithm::Ed25519, labelled_valid, [88, 63]);
}

/// RFC 9964, section 5: the context is empty. A signature with another one is rejected, however valid.
fn ml_dsa(file: &str, algorithm: Algorithm, expected: [u32; 3]) {
    let Some(cases) = wycheproof(file) else { return };
    let (mut accepts, mut rejects, mut keys_refused) = (0, 0, 0);
    for (group, test) in &cases {
        let jwk = json!({"kty": "AKP", "alg": algorithm.name(), "pub": encoded(&bytes(&group["publicKey"]))});
        let jwk = Document::parse(jwk.to_string()).expect("JSON");
        let with_context = test["ctx"].as_str().is_some_and(|context| !context.is_empty());
        let valid = labelled_valid(test) && !with_context;
        let Ok(key) = PublicKey::from_jwk(jwk.root()) else {
            assert!(!valid, "{file}, tcId {}: the key was refused", tc_id(test));
            keys_refused += 1;
            continue;
        };
        let (message, signature) = (bytes(&test["msg"]), bytes(&test["sig"]));
        for signatures in Signatures::ALL {
            let checked = key.verify(algorithm, signatures, &message, &signature).is_some();
            assert_eq!(checked, valid, "{file}, tcId {}: {}", tc_id(test), test["comment"]);
        }
        if valid {
            accepts += 1;
        } else {
            rejects += 1;
        }
        for other in Algorithm::ALL.into_iter().filter(|other| *other != algorithm) {
            assert!(key.verify(other, Signatures::Fast, &message, &signature).is_none(), "{file} as {other:?}");
        }
    }
    report(&format!(
        "wycheproof {file}: {} vectors, {accepts} accepted, {rejects} rejected, {keys_refused} with a key that is refused",
        cases.len()
    ));
    assert_eq!([accepts, rejects, keys_refused], expected, "{file}");
}

#[test]
fn wycheproof_ml_dsa() {
    ml_dsa("mldsa_44_verify_test.json", Algorithm::MlDsa44, [75, 101, 4]);
    ml_dsa("mldsa_65_verify_test.json", Algorithm::MlDsa65, [77, 129, 4]);
    ml_dsa("mldsa_87_verify_test.json", Algorithm::MlDsa87, [69, 168, 4]);
}

/// Two valid texts have duplicate members, which RFC 7519, section 4 lets a parser of claims reject.
const DUPLICATES: [&str; 2] = ["y_object_duplicated_key.json", "y_object_duplicated_key_and_value.json"];

#[test]
fn json_test_suite() {
    let Some(folder) = folder("JSONTestSuite/test_parsing") else { return };
    let mut files: Vec<_> =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for file in &files {
        let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
        let text = fs::read(file).expect("a readable file");
        let parsed = Document::parse(text.clone());
        // The same through the claims parser, which takes objects only.
        let claims = Claims::dangerous_unverified(base64url::encode(&text).as_bytes());
        let is_object = parsed.as_ref().is_ok_and(|document| document.root().kind() == Kind::Object);
        assert_eq!(claims.is_ok(), is_object, "{name}");
        assert!(claims.is_ok() || matches!(claims, Err(Error::ClaimsNotAnObject { .. })), "{name}");
        let outcome = match (&name[..2], &parsed) {
            ("y_", Ok(_)) if is_object => "y: object, accepted",
            ("y_", Ok(_)) => "y: no object, read but refused as claims",
            ("y_", Err(_)) if DUPLICATES.contains(&name) => "y: duplicate members, rejected",
            ("n_", Err(_)) => "n: rejected",
            ("i_", Ok(_)) => "i: accepted",
            ("i_", Err(_)) => "i: rejected",
            (_, checked) => panic!("{name}: {checked:?}"),
        };
        *counts.entry(outcome).or_default() += 1;
    }
    report(&format!("JSONTestSuite: {} texts, none crashed: {counts:?}", files.len()));
    let sum = |prefix: &str| -> u32 {
        counts.iter().filter(|(outcome, _)| outcome.starts_with(prefix)).map(|(_, count)| count).sum()
    };
    assert_eq!((sum("y"), sum("n"), sum("i")), (95, 188, 35));
    assert_eq!((counts["n: rejected"], counts["y: duplicate members, rejected"]), (188, 2));
}

/// A file of the cookbook: the examples of RFC 7520 and RFC 7797.
fn cookbook(file: &str) -> Option<Value> {
    Some(read_json(&folder("jose-cookbook")?.join(file)))
}

/// The public half of a private RSA key.
fn without_private_part(jwk: &Value) -> Value {
    json!({"kty": jwk["kty"], "kid": jwk["kid"], "use": jwk["use"], "n": jwk["n"], "e": jwk["e"]})
}

#[test]
fn rfc_7520_keys() {
    let usable = |file: &str| {
        let jwk = Document::parse(cookbook(file)?.to_string()).expect("JSON");
        Some(PublicKey::from_jwk(jwk.root()).map(|key| key.kid().map(str::to_owned)))
    };
    let Some(rsa) = usable("jwk/3_3.rsa_public_key.json") else { return };
    assert_eq!(rsa, Ok(Some("bilbo.baggins@hobbiton.example".to_owned())));
    for (file, reason) in [
        ("jwk/3_1.ec_public_key.json", "curve"),    // P-521 is not offered
        ("jwk/3_2.ec_private_key.json", "private"), // anyone who reads a key set could sign
        ("jwk/3_4.rsa_private_key.json", "private"),
        ("jwk/3_5.symmetric_key_mac_computation.json", "symmetric"),
        ("jwk/3_6.symmetric_key_encryption.json", "use"),
    ] {
        let refused = usable(file).expect("the file").expect_err(file);
        assert!(refused.contains(reason), "{file}: {refused}");
    }
    let private = cookbook("jwk/3_4.rsa_private_key.json").expect("the file");
    let signing = SigningKey::from_jwk(private.to_string().as_bytes()).expect("a private key can sign");
    assert_eq!(signing.kid(), Some("bilbo.baggins@hobbiton.example"));
    report("RFC 7520, section 3: 6 keys, 1 verifies, 1 signs, 5 kept out of a key set");
}

#[test]
fn rfc_7520_signatures() {
    // A key without `alg` serves one algorithm, and the cookbook signs with one key by two.
    let everything = policy(&Algorithm::ALL);
    let pss_first = policy(&[Algorithm::Ps384, Algorithm::Rs256]);
    let Some(pkcs1) = cookbook("jws/4_1.rsa_v15_signature.json") else { return };
    let rsa = json!({"keys": [without_private_part(&pkcs1["input"]["key"])]});
    let example = |file: &str| cookbook(file).expect("the file");
    let compact = |example: &Value| example["output"]["compact"].as_str().expect("compact").to_owned();

    assert_eq!(checked(&compact(&pkcs1), &rsa, &everything), Ok(()));
    let pss = compact(&example("jws/4_2.rsa-pss_signature.json"));
    assert_eq!(checked(&pss, &rsa, &pss_first), Ok(()));
    assert_eq!(checked(&pss, &rsa, &everything), Err("token algorithm 'PS384' is not allowed".to_owned()));
    assert_eq!(checked(&compact(&pkcs1), &rsa, &pss_first), Err("token algorithm 'RS256' is not allowed".to_owned()));

    // Not offered: ES512, HS256, and HS256 with its content elsewhere.
    let refusals = [
        ("jws/4_3.ecdsa_signature.json", "'ES512' is not allowed"),
        ("jws/4_4.hmac-sha2_integrity_protection.json", "'HS256' is not allowed"),
        ("jws/4_5.signature_with_detached_content.json", "'HS256' is not allowed"),
    ];
    for (file, reason) in refusals {
        let why = checked(&compact(&example(file)), &rsa, &everything).expect_err(file);
        assert!(why.contains(reason), "{file}: {why}");
    }
    // A detached payload leaves an empty segment, which the signature does not cover.
    let full = compact(&pkcs1);
    let (header, signature) = (full.split_once('.').expect("a token").0, full.rsplit_once('.').expect("a token").1);
    let detached = format!("{header}..{signature}");
    assert_eq!(checked(&detached, &rsa, &everything), Err("token signature is invalid".to_owned()));

    // The JSON serialization is not a compact token, not even of a key that would verify it.
    let mut serialized = 0;
    for file in [
        "jws/4_1.rsa_v15_signature.json",
        "jws/4_6.protecting_specific_header_fields.json",
        "jws/4_7.protecting_content_only.json",
        "jws/4_8.multiple_signatures.json",
    ] {
        for form in ["json", "json_flat"] {
            if let Some(json) = example(file)["output"].get(form) {
                let why = checked(&json.to_string(), &rsa, &everything).expect_err(file);
                assert!(why.contains("not a JWT") || why.contains("encrypted"), "{file}: {why}");
                serialized += 1;
            }
        }
    }
    // The first of several signatures, taken out of the JSON, is a token of its own.
    let several = example("jws/4_8.multiple_signatures.json");
    let several = &several["output"]["json"];
    let first = &several["signatures"][0];
    let part = |value: &Value| value.as_str().expect("a segment").to_owned();
    let token = [part(&first["protected"]), part(&several["payload"]), part(&first["signature"])].join(".");
    assert_eq!(checked(&token, &rsa, &everything), Ok(()));
    report(&format!(
        "RFC 7520, section 4: 3 signatures accepted, 4 rejected, {serialized} JSON serializations rejected"
    ));
}

#[test]
fn rfc_7797_unencoded_payloads() {
    let everything = policy(&Algorithm::ALL);
    let Some(compact) = cookbook("rfc7797/hmac-sha2_b64_false.json") else { return };
    let json_only = cookbook("rfc7797/4.2.hmac-sha2_b64_false.json").expect("the file");
    let rsa = cookbook("jwk/3_3.rsa_public_key.json").expect("the file");
    let rsa = json!({"keys": [rsa]});
    let mut tokens = vec![compact["output"]["compact"].as_str().expect("compact").to_owned()];
    for example in [&compact, &json_only] {
        tokens.extend(["json", "json_flat"].map(|form| example["output"][form].to_string()));
    }
    for token in &tokens {
        let why = checked(token, &rsa, &everything).expect_err(token);
        assert!(why.contains("not accepted") || why.contains("not a JWT"), "{why}");
    }
    report(&format!("RFC 7797: {} examples of b64=false, all rejected", tokens.len()));
}
