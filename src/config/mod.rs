//! Settings: one table with PostgreSQL's names, files and command line into values, a session's changes over them.
//!
//! [`Config`] owns the server-wide values and replaces them as a whole on reload ([`Config::current`] is cheap); a session reads through
//! [`SessionSettings`], which keeps only what differs. Nothing here knows sockets, SQL or WAL; who acts on a change subscribes to it.

mod definition;
mod file;
mod server;
mod session;
mod settings;
mod standby_names;
mod table;
mod value;

pub use definition::{Context, Kind, SettingDef, Unit, flag, lookup};
pub use file::{FileEntry, ParseProblem, parse_file, parse_text};
pub use server::{Config, ConfigError, ReloadReport, Source};
pub use session::{SessionSettings, SetScope};
pub use settings::Settings;
pub use standby_names::{SyncMethod, SyncNames};
pub use table::{Setting, TABLE};
pub use value::{Value, split_identifier_list};
