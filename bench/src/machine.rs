//! What the figures depend on besides the two programs.

use std::fs;
use std::path::Path;
use std::process::Command;

/// One line per fact: name and value.
pub(crate) fn facts(data_dir: &Path) -> Vec<(String, String)> {
    let mut facts = Vec::new();
    let mut put = |name: &str, value: String| facts.push((name.to_owned(), value));
    let uname = rustix::system::uname();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory_kb = field("/proc/meminfo", "MemTotal").and_then(|m| m.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0);
    put("date", said(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"])));
    put(
        "machine",
        format!(
            "{cores} cores ({}), {} MB, Linux {}",
            field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned()),
            memory_kb >> 10,
            uname.release().to_string_lossy()
        ),
    );
    put(
        "load average at the start",
        fs::read_to_string("/proc/loadavg").unwrap_or_default().split_whitespace().take(3).collect::<Vec<_>>().join(" "),
    );
    put("file system", said(Command::new("stat").args(["-f", "-c", "%T"]).arg(data_dir)));
    let commit = said(Command::new("git").args(["log", "-1", "--format=%h of %cs"]));
    if !commit.is_empty() {
        put("commit", commit);
    }
    facts
}

/// A value of a file of `name : value` lines.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.split_once(':').filter(|(n, _)| n.trim() == name).map(|(_, v)| v.trim().to_owned()))
}

/// What a program says; nothing if it is not there.
fn said(command: &mut Command) -> String {
    command.output().ok().filter(|o| o.status.success()).map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()
}
