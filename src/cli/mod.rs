//! The commands, and PostgreSQL's tools under whose names the program answers.

mod archive;
pub mod basebackup;
mod checksums;
mod compare;
mod controldata;
mod dispatch;
mod getopt;
mod initdb;
mod links;
mod pages;
mod pg_ctl;
mod postgres;
mod quickstart;
mod resetwal;
mod rewind;
mod tool;
mod verify;
mod verifybackup;
mod wait;
mod waldump;

pub use dispatch::run;
pub use getopt::{OptionSpec, Parsed, Takes, parse};
