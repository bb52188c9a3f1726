//! Puts the functions that run next to each other in the binary, so that little of it has to be in memory.
//!
//! Of some 20,000 functions 2,000 run between the start and an answer. Left where the compiler puts them they are everywhere,
//! and each brings its neighbours along. `cargo xtask order` writes their names. The hashes in them change with the versions
//! of dependencies and of the compiler; where one does, all of that name come, behind those that are known exactly.

use std::collections::HashSet;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const ORDER: &str = "link/order.txt";
/// What comes before the hash at the end of a name, and its digits.
const HASH_MARK: &str = "17h";
const HASH_DIGITS: usize = 16;

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={ORDER}");
    // Another linker may not know the option that this one knew.
    println!("cargo::rerun-if-env-changed=CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER");
    println!("cargo::rerun-if-env-changed=PATH");
    // Names differ from system to system, and without optimisation they are others.
    if variable("TARGET") != "x86_64-unknown-linux-gnu" || variable("PROFILE") != "release" {
        return Ok(());
    }
    let names = fs::read_to_string(ORDER).map_err(|error| io::Error::other(format!("{ORDER}: {error}")))?;
    let script = PathBuf::from(variable("OUT_DIR")).join("order.ld");
    fs::write(&script, linker_script(&names))?;
    let option = format!("-T{}", script.display());
    if links_with(&option) {
        println!("cargo::rustc-link-arg-bin=pointsman={option}");
    } else {
        println!("cargo::warning=the linker cannot order functions: the binary takes 6 MiB more memory");
    }
    Ok(())
}

/// What the linker is told: each name, then what is of the same name but for the hash, then all the rest.
fn linker_script(names: &str) -> String {
    let mut script = "OVERWRITE_SECTIONS {\n.text : {\n".to_owned();
    let mut told = HashSet::new();
    let patterns = names.lines().map(str::to_owned).chain(names.lines().map(any_hash));
    for pattern in patterns.filter(|pattern| told.insert(pattern.clone())) {
        let _ = writeln!(script, "*(.text.{pattern} .text.unlikely.{pattern})");
    }
    script + "*(.text .text.*)\n}\n}\n"
}

/// The name with any hash, and with any number where one was put behind it.
fn any_hash(name: &str) -> String {
    let (name, number) = match name.rsplit_once('.') {
        Some((name, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => (name, ".*"),
        Some(_) | None => (name, ""),
    };
    if let Some(at) = name.rfind(HASH_MARK).filter(|at| name.len() > at + HASH_MARK.len() + HASH_DIGITS) {
        return format!("{}*", &name[..at + HASH_MARK.len()]);
    }
    if !name.starts_with("_R") {
        return format!("{name}{number}");
    }
    // The standard library's own names have the hashes of crates within them, between `Cs` and an underscore.
    let mut parts = name.split("Cs");
    let first = parts.next().unwrap_or_default().to_owned();
    let any = parts.fold(first, |known, part| match part.split_once('_') {
        Some((hash, rest)) if hash.bytes().all(|byte| byte.is_ascii_alphanumeric()) => known + "Cs*_" + rest,
        Some(_) | None => known + "Cs" + part,
    });
    any + number
}

/// Whether the linker knows the option: LLD does, which is the compiler's own; those of some distributions do not.
fn links_with(option: &str) -> bool {
    let probe = Path::new(&variable("OUT_DIR")).join("probe");
    let flags = variable("CARGO_ENCODED_RUSTFLAGS");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args(["--crate-name", "probe", "--target", &variable("TARGET"), "-", "-o"]).arg(probe);
    rustc.args(flags.split('\u{1f}').filter(|flag| !flag.is_empty()));
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.arg(format!("-Clinker={linker}"));
    }
    rustc.arg(format!("-Clink-arg={option}"));
    rustc.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut running) = rustc.spawn() else { return false };
    let told = running.stdin.take().is_some_and(|mut source| source.write_all(b"fn main() {}").is_ok());
    running.wait().is_ok_and(|status| told && status.success())
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}
