//! Golden scripts: SQL above a line, what psql prints below it.
//!
//! ```text
//! # a comment
//! select 1 as one;
//! ---
//! one
//! 1
//! (1 row)
//!
//! select ...
//! ```
//! A script is one psql session (`-A`, errors verbose as SQLSTATE and text). An empty line ends an expected output. Expected outputs come from
//! PostgreSQL 15, except in scripts whose first line says `# ours:` and why. `AFTERIMAGE_BLESS=1` rewrites them: from PostgreSQL, or from us where
//! the script is ours.

#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::node::Node;
use support::oracle::Oracle;

/// One step of a script.
struct Step {
    comment: String,
    sql: String,
    expected: String,
}

/// A script file.
struct Script {
    path: PathBuf,
    head: String,
    steps: Vec<Step>,
}

impl Script {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("a script is readable");
        let (mut head, mut steps, mut lines) = (String::new(), Vec::new(), text.lines().peekable());
        while let Some(line) = lines.next_if(|l| l.starts_with('#') || l.is_empty()) {
            head.push_str(line);
            head.push('\n');
            if line.is_empty() {
                break;
            }
        }
        while lines.peek().is_some() {
            let (mut comment, mut sql, mut expected) = (String::new(), String::new(), String::new());
            let mut has_output = false;
            for line in lines.by_ref() {
                if line == "---" {
                    has_output = true;
                    break;
                }
                let to = if sql.is_empty() && (line.is_empty() || line.starts_with('#')) { &mut comment } else { &mut sql };
                to.push_str(line);
                to.push('\n');
            }
            if has_output {
                while let Some(line) = lines.next_if(|l| !l.is_empty()) {
                    expected.push_str(line);
                    expected.push('\n');
                }
                lines.next();
            }
            if !sql.is_empty() {
                steps.push(Step { comment, sql, expected });
            }
        }
        Self { path: path.to_owned(), head, steps }
    }

    fn is_ours(&self) -> bool {
        self.head.starts_with("# ours:")
    }

    /// Runs it in one session; what each step printed.
    fn run(&self, port: u16) -> Vec<String> {
        const MARK: &str = "@@ step @@";
        let mut input = String::from("\\set VERBOSITY verbose\n\\set SHOW_CONTEXT never\n\\pset pager off\n");
        for step in &self.steps {
            input.push_str(&step.sql);
            input.push_str(&format!("\\echo '{MARK}'\n"));
        }
        // As a file of its own, so that psql reads at its own pace and both streams end in one.
        let mut psql = Command::new("sh")
            .args(["-c", "exec psql -XAq 2>&1"])
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", port.to_string())
            .env("PGUSER", "postgres")
            .env("PGDATABASE", "postgres")
            .env("PGOPTIONS", "-c datestyle=ISO -c timezone=UTC -c intervalstyle=postgres")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("psql");
        let mut stdin = psql.stdin.take().expect("piped");
        let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
        let output = psql.wait_with_output().expect("psql ends");
        writer.join().expect("the writer does not panic");
        let text = String::from_utf8_lossy(&output.stdout);
        let mut found: Vec<String> = text.split(&format!("{MARK}\n")).map(clean).collect();
        if found.len() == self.steps.len() + 1 && found.last().is_some_and(String::is_empty) {
            found.pop();
        }
        found
    }

    fn write(&self, outputs: &[String]) {
        let mut text = self.head.clone();
        for (step, output) in self.steps.iter().zip(outputs) {
            text.push_str(&format!("{}{}---\n{output}\n", step.comment, step.sql));
        }
        fs::write(&self.path, text.trim_end().to_owned() + "\n").expect("a script is writable");
    }
}

/// Takes out what differs between two servers that answer alike: source locations of verbose errors, empty lines.
fn clean(output: &str) -> String {
    let mut kept = String::new();
    for line in output.lines().filter(|l| !l.is_empty() && !l.starts_with("LOCATION:  ")) {
        kept.push_str(line.trim_end());
        kept.push('\n');
    }
    kept
}

fn scripts() -> Vec<Script> {
    // Asked when the test runs: a target directory that several checkouts share may hold a program another one built.
    let package = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo tells where the package is"));
    let dir = package.join("tests/scripts");
    let mut paths: Vec<PathBuf> = fs::read_dir(dir).expect("tests/scripts").map(|e| e.expect("an entry").path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "sql"));
    paths.sort();
    paths.iter().map(|p| Script::read(p)).collect()
}

fn blessing() -> bool {
    std::env::var_os("AFTERIMAGE_BLESS").is_some()
}

/// Compares what each step printed with what it should print.
fn judge(script: &Script, outputs: &[String], who: &str, wrong: &mut Vec<String>) {
    let name = script.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    if outputs.len() != script.steps.len() {
        wrong.push(format!(
            "{name}: {who} ended after {} of {} steps: {}",
            outputs.len(),
            script.steps.len(),
            outputs.last().cloned().unwrap_or_default()
        ));
    }
    for (step, output) in script.steps.iter().zip(outputs) {
        if *output != step.expected {
            wrong.push(format!("{name} on {who}\n{}--- expected\n{}--- got\n{output}", step.sql, step.expected));
        }
    }
}

#[test]
fn scripts_print_what_they_should() {
    let node = Node::start_new("scripts", "");
    let mut wrong = Vec::new();
    for script in scripts() {
        node.sql("drop schema public cascade; create schema public");
        let outputs = script.run(node.port);
        if blessing() && script.is_ours() {
            script.write(&outputs);
        } else if !blessing() {
            judge(&script, &outputs, "Afterimage", &mut wrong);
        }
    }
    assert!(wrong.is_empty(), "{} steps differ\n\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn postgresql_prints_the_same() {
    let oracle = Oracle::start("");
    let mut wrong = Vec::new();
    for script in scripts().into_iter().filter(|s| !s.is_ours()) {
        let admin = |sql: &str| {
            let port = oracle.port.to_string();
            let out = Command::new("psql")
                .args(["-XAtq", "-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-c", sql, "postgres"])
                .output()
                .expect("psql");
            assert!(out.status.success(), "{sql}: {}", String::from_utf8_lossy(&out.stderr));
        };
        admin("drop schema public cascade");
        admin("create schema public");
        let outputs = script.run(oracle.port);
        if blessing() {
            script.write(&outputs);
        } else {
            judge(&script, &outputs, "PostgreSQL", &mut wrong);
        }
    }
    assert!(wrong.is_empty(), "{} steps differ\n\n{}", wrong.len(), wrong.join("\n"));
}
