//! Tells the binding which compiler builds it, for `entra_fast_build_info`.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let compiler = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let printed = Command::new(compiler).arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    // "rustc 1.95.0 (<commit> <date>)"
    let version = String::from_utf8_lossy(&printed).split(' ').nth(1).unwrap_or("unknown").to_owned();
    println!("cargo::rustc-env=ENTRA_FAST_RUST_VERSION={version}");
}
