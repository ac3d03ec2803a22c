//! COPY.

/// A COPY FROM STDIN that waits for data.
#[derive(Debug)]
pub struct CopyInState {}
