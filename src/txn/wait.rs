//! Sleeping until something happens, and telling the runtime about it.

use std::sync::Arc;
use std::task::Wake;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// Runs something that may take long (a lock wait, a big scan, back-pressure) without starving the async workers.
///
/// On a worker of a multi-thread runtime its other tasks move elsewhere first; anywhere else it is a plain call.
pub fn blocking<R>(f: impl FnOnce() -> R) -> R {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current() {
        Ok(h) if h.runtime_flavor() == RuntimeFlavor::MultiThread => tokio::task::block_in_place(f),
        Ok(_) | Err(_) => f(),
    }
}

/// One sleeper. `notify` before `wait` is not lost.
#[derive(Debug, Default)]
pub(crate) struct Waiter {
    /// Whether `notify` came. Leaf lock.
    notified: Mutex<bool>,
    wake: Condvar,
}

impl Wake for Waiter {
    fn wake(self: Arc<Self>) {
        self.notify();
    }
}

impl Waiter {
    /// Wakes the sleeper, now or when it goes to sleep.
    pub(crate) fn notify(&self) {
        *self.notified.lock() = true;
        self.wake.notify_all();
    }

    /// Sleeps until notified (true, and the notice is taken) or `deadline` (false).
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> bool {
        let mut n = self.notified.lock();
        while !*n {
            match deadline {
                None => self.wake.wait(&mut n),
                Some(d) => {
                    if self.wake.wait_until(&mut n, d).timed_out() {
                        break;
                    }
                }
            }
        }
        std::mem::take(&mut *n)
    }
}
