//! Embeds the BPF object that `cargo xtask build` made, and its hash.
//!
//! Without `BALANCER_BPF_OBJECT` an empty object is embedded: the host side builds on plain stable Rust, and loading
//! says what to run. Only the variable counts, never a file left by an earlier build, so a binary can't carry an
//! object of other sources.

use std::path::PathBuf;
use std::{env, fs};

use sha2::{Digest, Sha256};

fn main() {
    println!("cargo::rerun-if-env-changed=BALANCER_BPF_OBJECT");
    let object = match env::var_os("BALANCER_BPF_OBJECT") {
        Some(path) => {
            let path = PathBuf::from(path);
            println!("cargo::rerun-if-changed={}", path.display());
            fs::read(&path).unwrap_or_else(|error| panic!("BALANCER_BPF_OBJECT={}: {error}", path.display()))
        }
        None => Vec::new(),
    };
    let hash = if object.is_empty() {
        "none".to_owned()
    } else {
        Sha256::digest(&object).iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("balancer.bpf.o"), object).expect("OUT_DIR is writable");
    println!("cargo::rustc-env=BALANCER_BPF_OBJECT_HASH={hash}");
}
