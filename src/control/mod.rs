//! Who runs here and how: supervisor and lock file, the text log; `node_state` decides, `checkpoint` and promotion act.

pub mod background_writer;
pub mod checkpoint;
pub mod control_state;
pub mod control_store;
pub mod error;
pub mod failpoint;
pub mod log;
mod log_files;
pub mod node_state;
pub mod oids;
pub mod pid_file;
pub mod supervisor;
