//! Waiting for what another process does to a data directory: by inotify and pidfd, not by polling.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::unix::AsyncFd;

/// Calls `done` whenever something in `dirs` changes, `pid` ends, or `unix_signal` says so, until it returns `Some` or `timeout` passes.
/// `tick` is called at once and then each second, for progress dots.
///
/// # Errors
/// The kernel's, for watches.
pub(super) fn until<T>(
    dirs: &[PathBuf],
    pid: Option<i32>,
    timeout: Duration,
    mut tick: impl FnMut(),
    mut done: impl FnMut() -> Option<T>,
) -> io::Result<Option<T>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let watch = watch_dirs(dirs)?;
        let watch = async_fd(watch)?;
        let ended = match pid.and_then(Pid::from_raw).map(|p| pidfd_open(p, PidfdFlags::NONBLOCK)) {
            Some(Ok(fd)) => Some(async_fd(fd)?),
            // Gone already: `done` sees that.
            Some(Err(_)) | None => None,
        };
        let deadline = Instant::now() + timeout;
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        let mut has_ended = ended.is_none();
        loop {
            if let Some(result) = done() {
                return Ok(Some(result));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            tokio::select! {
                guard = watch.readable() => {
                    let mut guard = guard?;
                    drain(watch.get_ref());
                    guard.clear_ready();
                }
                () = end_of(ended.as_ref()), if !has_ended => has_ended = true,
                _ = ticks.tick() => tick(),
                () = tokio::time::sleep_until(deadline.into()) => {}
            }
        }
    })
}

#[expect(deprecated, reason = "its replacement is unsafe for types that could close the descriptor; an OwnedFd cannot")]
fn async_fd(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}

async fn end_of(process: Option<&AsyncFd<OwnedFd>>) {
    if let Some(fd) = process {
        // Readable once, when the process ends; an error means it cannot be told, and the other events must do.
        let _ended = fd.readable().await;
    }
}

fn watch_dirs(dirs: &[PathBuf]) -> io::Result<OwnedFd> {
    let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    let events = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MODIFY | WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE;
    for dir in dirs {
        if Path::new(dir).is_dir() {
            inotify::add_watch(&fd, dir.as_path(), events)?;
        }
    }
    Ok(fd)
}

fn drain(fd: &OwnedFd) {
    let mut buf = [MaybeUninit::<u8>::uninit(); 4096];
    let mut reader = inotify::Reader::new(fd, &mut buf);
    while reader.next().is_ok() {}
}
