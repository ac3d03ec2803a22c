//! The one command a newcomer runs.

use std::process::Command;

#[test]
fn quickstart_check_passes_and_prints_its_times() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let output = Command::new(env!("CARGO_BIN_EXE_afterimage"))
        .args(["quickstart", "--check"])
        .current_dir(home.path())
        .output()
        .expect("quickstart");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    for word in ["clone", "lag", "promote", "first write"] {
        assert!(text.contains(word), "no {word} in\n{text}");
    }
}
