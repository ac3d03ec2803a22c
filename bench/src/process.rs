//! Processes: what a tree of them has used, and how one ends.

use std::collections::HashMap;
use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

/// CPU time of a process and all below it, children that have ended included: PostgreSQL's backends hand theirs to the postmaster.
pub(crate) fn cpu_time(root: i32) -> anyhow::Result<Duration> {
    let mut ticks_and_children: HashMap<i32, (u64, Vec<i32>)> = HashMap::new();
    for entry in fs::read_dir("/proc").context("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((parent, ticks)) = parse_stat(&stat) else { continue };
        ticks_and_children.entry(pid).or_default().0 = ticks;
        ticks_and_children.entry(parent).or_default().1.push(pid);
    }
    let mut total = 0_u64;
    let mut todo = vec![root];
    while let Some(pid) = todo.pop() {
        if let Some((ticks, children)) = ticks_and_children.get(&pid) {
            total += ticks;
            todo.extend(children);
        }
    }
    if total == 0 && !ticks_and_children.contains_key(&root) {
        bail!("process {root} is gone");
    }
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_micros(total * 1_000_000 / per_second))
}

/// Parent and clock ticks (user and system, own and of ended children) of a line of `/proc/PID/stat`.
fn parse_stat(stat: &str) -> Option<(i32, u64)> {
    // The name may hold anything, a closing parenthesis too.
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().collect();
    let ticks = fields.get(11..15)?.iter().map(|f| f.parse::<u64>()).sum::<Result<u64, _>>().ok()?;
    Some((fields.get(1)?.parse().ok()?, ticks))
}

/// Bytes of memory that a process and all below it hold: proportional set sizes, so that shared pages count once.
pub(crate) fn memory(root: i32) -> anyhow::Result<u64> {
    let mut kilobytes = 0;
    for pid in tree(root) {
        // One that has just ended holds nothing.
        let Ok(rollup) = fs::read_to_string(format!("/proc/{}/smaps_rollup", pid.as_raw_nonzero())) else { continue };
        let pss = rollup.lines().find_map(|l| l.strip_prefix("Pss:")).context("no line \"Pss:\" in smaps_rollup")?;
        kilobytes += pss.trim().trim_end_matches("kB").trim().parse::<u64>().context("Pss is not a number")?;
    }
    Ok(kilobytes << 10)
}

/// The pids of a process and all below it.
pub(crate) fn tree(root: i32) -> Vec<Pid> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|c| c.parse::<i32>().ok()));
        }
    }
    found.into_iter().filter_map(Pid::from_raw).collect()
}

/// Whether a process is there and not only waiting for its parent to hear of its end.
pub(crate) fn lives(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    let state = stat.rfind(')').and_then(|end| stat.get(end + 1..)).and_then(|rest| rest.trim_start().chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// Sends a signal; a process that is gone already is no error.
pub(crate) fn send(pid: Pid, signal: Signal) -> anyhow::Result<()> {
    match kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("signal to process {}", pid.as_raw_nonzero())),
    }
}

/// The pid of a child of ours.
pub(crate) fn pid_of(child: &Child) -> anyhow::Result<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("the kernel gave a pid that is none")
}

/// Whether the user wants it to end, and the child to end for that.
#[derive(Debug, Default)]
pub(crate) struct Interrupt {
    raised: AtomicBool,
    running: Mutex<Option<Pid>>,
}

impl Interrupt {
    /// Ends the running child and its own children, which hold its output open; whoever waits for it then sees an error.
    pub(crate) fn raise(&self) {
        self.raised.store(true, Ordering::SeqCst);
        if let Some(pid) = self.running.lock().ok().and_then(|mut r| r.take()) {
            for pid in tree(pid.as_raw_nonzero().get()) {
                // It may have ended by itself a moment ago.
                drop(send(pid, Signal::TERM));
            }
        }
    }

    /// # Errors
    /// The user pressed Ctrl-C.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if self.raised.load(Ordering::SeqCst) {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Runs a program to its end; what it printed, or its error output as the error.
    pub(crate) fn run(&self, command: &mut Command) -> anyhow::Result<String> {
        self.check()?;
        let child = spawn(command)?;
        self.finish(child, command)
    }

    /// Waits for a program started by [`spawn`].
    pub(crate) fn finish(&self, child: Child, command: &Command) -> anyhow::Result<String> {
        if let Ok(mut running) = self.running.lock() {
            *running = Some(pid_of(&child)?);
        }
        let output = child.wait_with_output();
        if let Ok(mut running) = self.running.lock() {
            *running = None;
        }
        self.check()?;
        let Output { status, stdout, stderr } = output?;
        if !status.success() {
            bail!("{command:?}: {status}\n{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr).trim_end());
        }
        Ok(String::from_utf8_lossy(&stdout).into_owned())
    }
}

/// Starts a program whose output is kept.
pub(crate) fn spawn(command: &mut Command) -> anyhow::Result<Child> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().with_context(|| format!("could not run {command:?}"))
}

#[cfg(test)]
mod tests {
    use super::{cpu_time, memory, parse_stat};

    #[test]
    fn a_process_name_may_hold_anything() {
        let stat = "42 (a) b (c) S 7 42 42 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 100";
        assert_eq!(parse_stat(stat), Some((7, 100)));
        assert_eq!(parse_stat("42 (cut"), None);
        assert_eq!(parse_stat("42 (cut) S 7"), None);
    }

    #[test]
    fn own_memory_grows_with_what_is_written() {
        let own = i32::try_from(std::process::id()).unwrap();
        let before = memory(own).unwrap();
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(memory(own).unwrap() >= before + (60 << 20), "{} bytes", block.len());
    }

    #[test]
    fn own_cpu_time_grows() {
        let own = i32::try_from(std::process::id()).unwrap();
        let before = cpu_time(own).unwrap();
        let mut n = 0_u64;
        while cpu_time(own).unwrap() <= before {
            n = std::hint::black_box(n.wrapping_add(1));
        }
    }
}
