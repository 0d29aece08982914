//! Writes the corpora that fuzzing begins with, `seeds CORPUS`, and shows that every target's seeds are both
//! accepted and refused: if a fixture or a format broke, a target would run forever and test nothing.

use std::error::Error;
use std::fs;
use std::path::Path;

// Linked for what the instrumentation calls: everything here is built for fuzzing.
use libfuzzer_sys as _;

use entra_fuzz::{Outcome, claims_json, contract, key_set, rsa_differential, signing_key, token, token_differential};

type Target = (&'static str, fn() -> Vec<Vec<u8>>, fn(&[u8]) -> Outcome);

const TARGETS: [Target; 7] = [
    ("token", token::seeds, token::run),
    ("claims_json", claims_json::seeds, claims_json::run),
    ("contract", contract::seeds, contract::run),
    ("key_set", key_set::seeds, key_set::run),
    ("signing_key", signing_key::seeds, signing_key::run),
    ("rsa_differential", rsa_differential::seeds, rsa_differential::run),
    ("token_differential", token_differential::seeds, token_differential::run),
];

fn main() -> Result<(), Box<dyn Error>> {
    let corpus = std::env::args_os().nth(1).ok_or("usage: seeds CORPUS")?;
    for (name, seeds, run) in TARGETS {
        let folder = Path::new(&corpus).join(name);
        fs::create_dir_all(&folder)?;
        let seeds = seeds();
        let accepted = seeds.iter().filter(|seed| run(seed) == Outcome::Accepted).count();
        println!("seeds: {name}: {} written, of which {accepted} are accepted", seeds.len());
        if accepted == 0 || accepted == seeds.len() {
            return Err(format!("{name}: the seeds must reach acceptance and refusal").into());
        }
        for (index, seed) in seeds.iter().enumerate() {
            fs::write(folder.join(format!("seed-{index:03}")), seed)?;
        }
    }
    Ok(())
}
