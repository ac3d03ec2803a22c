//! PostgreSQL's tool names: which command each stands for, and links that answer to them.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

/// Tool name and the command of ours that takes its options.
pub(super) const TOOLS: &[(&str, &str)] = &[
    ("initdb", "initdb"),
    ("pg_ctl", "pg_ctl"),
    ("postgres", "postgres"),
    ("pg_controldata", "controldata"),
    ("pg_waldump", "waldump"),
    ("pg_basebackup", "basebackup"),
    ("pg_rewind", "rewind"),
    ("pg_verifybackup", "verifybackup"),
    ("pg_checksums", "checksums"),
    ("pg_resetwal", "resetwal"),
];

/// `install-links DIR`: makes a link per tool in `dir`. Returns the exit code.
pub(super) fn install(args: &[String]) -> u8 {
    let [dir] = args else {
        eprintln!("usage: afterimage install-links DIR");
        return 1;
    };
    match make(Path::new(dir)) {
        Ok(made) => {
            println!("{dir}: {}", made.join(" "));
            0
        }
        Err(e) => {
            eprintln!("afterimage: could not make links in \"{dir}\": {e}");
            1
        }
    }
}

fn make(dir: &Path) -> io::Result<Vec<&'static str>> {
    let program = std::env::current_exe()?;
    fs::create_dir_all(dir)?;
    let mut made = Vec::new();
    for (tool, _) in TOOLS.iter().chain(&[("afterimage", "")]) {
        let link = dir.join(tool);
        // The directory the program itself lies in.
        if !link.is_symlink() && fs::canonicalize(&link).is_ok_and(|found| found == program) {
            continue;
        }
        match fs::symlink_metadata(&link) {
            Ok(meta) if meta.is_symlink() => fs::remove_file(&link)?,
            Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("\"{}\" is in the way", link.display()))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        symlink(&program, &link)?;
        made.push(*tool);
    }
    Ok(made)
}
