//! COPY.

use super::context::SessionContext;
use crate::sqlstate::SqlError;

/// A COPY FROM STDIN that waits for data.
#[derive(Debug)]
pub struct CopyInState {}

impl CopyInState {
    /// Whether the client is to send PostgreSQL's binary format.
    pub fn is_binary(&self) -> bool {
        false
    }

    /// Number of columns, for CopyInResponse.
    pub fn columns(&self) -> usize {
        0
    }

    /// Takes the bytes of one CopyData message; they end anywhere.
    ///
    /// # Errors
    /// Malformed data, or what inserting a row fails with.
    pub fn data(&mut self, _session: &mut SessionContext, _bytes: &[u8]) -> Result<(), SqlError> {
        Err(SqlError::unsupported("COPY"))
    }

    /// The client sent CopyDone: inserts what is left. Returns the command tag.
    ///
    /// # Errors
    /// As [`Self::data`].
    pub fn finish(self, _session: &mut SessionContext) -> Result<String, SqlError> {
        Err(SqlError::unsupported("COPY"))
    }
}
