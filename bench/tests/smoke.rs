//! The whole bench once, as short as it gets: every row has a figure for both systems, and the servers are gone afterwards.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

#[test]
fn every_row_has_figures_of_both_systems() {
    let bench = Path::new(env!("CARGO_BIN_EXE_afterimage-bench"));
    let afterimage = bench.with_file_name("afterimage");
    let home = tempfile::tempdir().unwrap();
    // PostgreSQL's own user must reach it.
    Command::new("chmod").arg("755").arg(home.path()).status().unwrap();
    let json = home.path().join("figures.json");
    let output = Command::new(bench)
        .args(["--quick", "--json"])
        .arg(&json)
        .arg("--afterimage")
        .arg(&afterimage)
        .arg("--dir")
        .arg(home.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));

    let figures: Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    let rows = figures["rows"].as_array().unwrap();
    let names = [
        "load", "copy", "index", "select", "tpcb", "clients", "idle", "vacuum", "commit", "wal", "crash", "replay", "catchup", "lag",
        "sync", "promote", "wire", "rewind",
    ];
    for name in names {
        assert!(rows.iter().any(|r| r["name"] == name), "nothing of {name}: {said}");
    }
    for row in rows {
        for system in ["afterimage", "postgresql"] {
            let samples = row[system].as_array().unwrap();
            assert!(samples.len() == 1 && samples[0].as_f64().unwrap() >= 0.0, "{row}");
        }
    }
    let left: Vec<_> = fs::read_dir(home.path()).unwrap().flatten().filter(|e| e.path() != json).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn an_unknown_name_is_refused_with_the_known_ones() {
    let output = Command::new(env!("CARGO_BIN_EXE_afterimage-bench")).args(["--only", "tpcc"]).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("nothing is called \"tpcc\"") && said.contains("promote"), "{said}");
}
