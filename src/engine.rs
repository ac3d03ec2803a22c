//! The storage engine put together: WAL, pages, transactions, opened from a data directory.
