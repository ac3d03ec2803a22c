//! How much of its stack a thread has used.
//!
//! Statements nest as deeply as their authors like. What recurses over them asks [`check`] on the way down and fails with
//! PostgreSQL's 54001 long before the stack ends. Binding is held to a part of the stack (`SHARE`): planning, execution and the
//! release of what was built recurse no deeper than binding did, but are not asked at every step.
//!
//! PostgreSQL: `check_stack_depth` in tcop/postgres.c.

use std::cell::Cell;

use crate::sqlstate::{SqlError, SqlState};

/// Stack of a thread that runs sessions. Only pages that are touched cost memory.
pub const SESSION_BYTES: usize = 128 << 20;

/// One part in so many of a stack is open to checked recursion.
const SHARE: usize = 3;

/// Stack a thread is taken to have that did not say: that of Rust's own threads.
const USUAL_BYTES: usize = 2 << 20;

thread_local! {
    /// Where the stack began, and how far below that checked recursion may go.
    static BOUNDS: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// Notes that this thread's stack begins about here and is `bytes` long.
pub fn begin(bytes: usize) {
    BOUNDS.set((here(), bytes / SHARE));
}

/// Fails if this thread's stack is used up as far as recursion may.
///
/// # Errors
/// 54001.
pub fn check() -> Result<(), SqlError> {
    let (base, limit) = BOUNDS.get();
    if base == 0 {
        begin(USUAL_BYTES);
        return Ok(());
    }
    if base.saturating_sub(here()) > limit { Err(too_deep()) } else { Ok(()) }
}

/// `stack depth limit exceeded`, with PostgreSQL's hint.
pub fn too_deep() -> SqlError {
    SqlError::new(SqlState::STATEMENT_TOO_COMPLEX, "stack depth limit exceeded")
        .hint("Increase the configuration parameter \"max_stack_depth\" (currently 2048kB), after ensuring the platform's stack depth limit is adequate.")
}

/// The stack pointer, near enough.
#[inline(never)]
fn here() -> usize {
    let marker = 0u8;
    std::ptr::from_ref(std::hint::black_box(&marker)).addr()
}

#[cfg(test)]
mod tests {
    use super::{begin, check};

    fn dive(levels: usize) -> usize {
        if check().is_err() {
            return levels;
        }
        let block = std::hint::black_box([levels; 64]);
        dive(levels + 1) + block[0] - levels
    }

    #[test]
    fn recursion_stops_before_the_stack_ends() {
        let deep = std::thread::Builder::new()
            .stack_size(8 << 20)
            .spawn(|| {
                begin(8 << 20);
                dive(0)
            })
            .unwrap()
            .join()
            .unwrap();
        let shallow = std::thread::Builder::new().stack_size(4 << 20).spawn(|| dive(0)).unwrap().join().unwrap();
        assert!(deep > 2 * shallow && shallow > 100, "{deep} and {shallow} levels");
    }
}
