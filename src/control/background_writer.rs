//! The background writer: writes dirty pages ahead of the clock sweep, so that sessions rarely write themselves.
//!
//! It sleeps until a session met a dirty page, or has used up half of the clean ones it made; PostgreSQL's wakes every `bgwriter_delay`.

use std::{sync::Arc, thread::JoinHandle};

use parking_lot::{Condvar, Mutex};

use super::error::ControlError;
use crate::storage::{BufferPool, StorageError, critical::stop_node};

#[derive(Default)]
struct Orders {
    wanted: bool,
    stop: bool,
}

#[derive(Default)]
struct Door {
    /// Leaf.
    orders: Mutex<Orders>,
    wake: Condvar,
}

/// Thread `background writer`.
pub struct BackgroundWriter {
    door: Arc<Door>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for BackgroundWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BackgroundWriter")
    }
}

impl BackgroundWriter {
    /// Starts it.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(pool: &Arc<BufferPool>) -> Result<Self, ControlError> {
        let door = Arc::<Door>::default();
        let bell = Arc::downgrade(&door);
        pool.on_pressure(Box::new(move || {
            if let Some(door) = bell.upgrade() {
                door.orders.lock().wanted = true;
                door.wake.notify_one();
            }
        }));
        let (inside, pool) = (Arc::clone(&door), Arc::clone(pool));
        let thread = std::thread::Builder::new()
            .name("background writer".to_owned())
            .spawn(move || run(&inside, &pool))
            .map_err(|source| ControlError::File { path: "thread".to_owned(), source })?;
        Ok(Self { door, thread: Mutex::new(Some(thread)) })
    }

    /// Stops it after the current batch.
    pub fn stop(&self) {
        self.door.orders.lock().stop = true;
        self.door.wake.notify_one();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            stop_node("background writer panicked");
        }
    }
}

fn run(door: &Door, pool: &BufferPool) {
    loop {
        {
            let mut orders = door.orders.lock();
            while !orders.wanted && !orders.stop {
                door.wake.wait(&mut orders);
            }
            if orders.stop {
                return;
            }
            orders.wanted = false;
        }
        match pool.clean_ahead() {
            Ok(_) => {}
            Err(error @ (StorageError::Sync { .. } | StorageError::Wal(_))) => stop_node(&error.to_string()),
            // The session that needs the page will meet the same failure and report it.
            Err(error) => tracing::debug!("background writer: {error}"),
        }
    }
}
