//! The folders are the way of a statement: a module uses only what stands further right (`docs/ARCHITECTURE.md`).
//!
//! Reads every path that begins with `crate::` in `src/` and fails on an arrow that points left. Test modules at the foot of a file are free.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// From left to right. A module may use those of later rows, and of its own row; `LEAVES` may be used by all.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["session"],
    &["replication"],
    &["sql", "sql::plan_cache", "sql::parse", "sql::bind", "sql::plan"],
    &["executor"],
    &["sql::catalog"],
    &["sql::functions", "sql::types"],
    &["engine"],
    &["control", "recovery"],
    &["access"],
    &["txn"],
    &["storage"],
];

/// Used by everyone above the storage engine (`config` by all); they use none of the rows, but `sqlstate` names every layer's errors.
const LEAVES: &[&str] = &["config", "wire", "sqlstate", "stack"];

/// Arrows that point left on purpose, each with its reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[];

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("src is readable") {
        let path = entry.expect("src is readable").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The layer a path of module names lies in: the longest that matches.
fn layer_of(module: &[&str]) -> Option<String> {
    for take in (1..=module.len().min(2)).rev() {
        let name = module[..take].join("::");
        if LEAVES.contains(&name.as_str()) || LAYERS.iter().any(|row| row.contains(&name.as_str())) {
            return Some(name);
        }
    }
    None
}

fn rank(layer: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&layer))
}

/// Source without comments, strings and the test module at its foot.
fn code_of(source: &str) -> String {
    let upto = source.find("#[cfg(test)]\nmod ").unwrap_or(source.len());
    source[..upto].lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

/// What follows each `crate::`: one path, or several from braces.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        expand(&code[at + "crate::".len()..], &[], &mut found);
    }
    found
}

/// Reads a path, at most two names deep, following braces.
fn expand(rest: &str, head: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let trimmed = rest.trim_start();
    let skipped = rest.len() - trimmed.len();
    if let Some(inner) = trimmed.strip_prefix('{') {
        let mut at = 0;
        loop {
            at += expand(&inner[at..], head, found);
            let left = inner[at..].trim_start();
            at = inner.len() - left.len();
            match left.chars().next() {
                Some(',') => at += 1,
                Some('}') => return skipped + 1 + at + 1,
                _ => return skipped + 1 + at,
            }
            if inner[at..].trim_start().starts_with('}') {
                let left = inner[at..].trim_start();
                return skipped + 1 + (inner.len() - left.len()) + 1;
            }
        }
    }
    let name: String = trimmed.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    if name.is_empty() {
        return skipped;
    }
    let mut path = head.to_vec();
    path.push(name.clone());
    let after = &trimmed[name.len()..];
    if let Some(next) = after.strip_prefix("::") {
        return skipped + name.len() + 2 + expand(next, &path, found);
    }
    found.push(path);
    skipped + name.len()
}

/// Asked when the test runs: a target directory that several checkouts share may hold a program another one built.
fn manifest_dir() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo tells where the package is").into()
}

fn source_dir() -> PathBuf {
    manifest_dir().join("src")
}

fn arrows() -> BTreeSet<(String, String, String)> {
    let root = source_dir();
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    let mut arrows = BTreeSet::new();
    for file in files {
        let relative = file.strip_prefix(&root).expect("below src").with_extension("");
        let module: Vec<String> = relative.iter().map(|p| p.to_string_lossy().into_owned()).filter(|p| p != "mod").collect();
        if module == ["lib"] {
            continue;
        }
        let Some(from) = layer_of(&module.iter().map(String::as_str).collect::<Vec<_>>()) else {
            panic!("{} belongs to no layer: add it to LAYERS", relative.display());
        };
        if relative.iter().any(|p| p == "tests") {
            continue;
        }
        for path in paths(&code_of(&fs::read_to_string(&file).expect("a source file is readable"))) {
            if let Some(to) = layer_of(&path.iter().map(String::as_str).collect::<Vec<_>>()) {
                arrows.insert((from.clone(), to, relative.display().to_string()));
            }
        }
    }
    arrows
}

#[test]
fn no_arrow_points_left() {
    let mut wrong = Vec::new();
    for (from, to, file) in arrows() {
        if from == to || EXCEPTIONS.iter().any(|(f, t, _)| *f == from && *t == to) {
            continue;
        }
        let points_left = match (rank(&from), rank(&to)) {
            (Some(a), Some(b)) => a > b,
            // A leaf of the upper half, used from below.
            (Some(a), None) => to != "config" && a >= rank("control").unwrap_or(0) && !(to == "sqlstate" && from == "control"),
            // A leaf that uses a layer.
            (None, Some(_)) => from != "sqlstate",
            (None, None) => to == "wire",
        };
        if points_left {
            wrong.push(format!("src/{file}.rs: {from} -> {to}"));
        }
    }
    assert!(wrong.is_empty(), "arrows that point left:\n{}", wrong.join("\n"));
}

#[test]
fn paths_are_read_through_braces() {
    let code = "use crate::a::{b, c::{d, e}, f};\nlet x = crate::g::h(); pub(crate) use crate::{i, j::k};";
    let found: Vec<String> = paths(code).iter().map(|p| p.join("::")).collect();
    assert_eq!(found, ["a::b", "a::c::d", "a::c::e", "a::f", "g::h", "i", "j::k"]);
}

#[test]
fn only_the_mapping_of_segments_is_unsafe() {
    let mut files = Vec::new();
    let root = manifest_dir();
    for dir in ["src", "wal/src", "bench/src"] {
        rust_files(&root.join(dir), &mut files);
    }
    for file in files {
        let code = code_of(&fs::read_to_string(&file).expect("a source file is readable"));
        let used = code.contains("unsafe {") || code.contains("unsafe impl") || code.contains("unsafe fn");
        assert!(!used || file.ends_with("wal/src/mmap.rs"), "{} uses unsafe", file.display());
    }
}

/// `docs/faults.md` names a test for each fault: it is there.
#[test]
fn every_fault_has_the_test_that_the_document_names() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for dir in ["src", "tests"] {
        rust_files(&root.join(dir), &mut files);
    }
    let sources: Vec<String> = files.iter().map(|file| fs::read_to_string(file).expect("a source file")).collect();
    let document = fs::read_to_string(root.join("docs/faults.md")).expect("docs/faults.md");
    let named: BTreeSet<&str> = document.split('`').skip(1).step_by(2).filter(|name| name.matches('_').count() > 2).collect();
    assert!(named.len() > 30);
    let missing: Vec<_> = named.iter().filter(|name| !sources.iter().any(|source| source.contains(&format!("fn {name}()")))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
