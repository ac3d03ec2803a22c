//! `WAIT FOR LSN '...' [WITH (MODE ..., TIMEOUT ..., NO_THROW)]`, as PostgreSQL 19 spells it: a client that read a position on one node waits
//! until another has it.
//!
//! PostgreSQL 15's grammar does not know the statement, so its text is taken apart here, and only as a statement of its own, simple or prepared.

use std::sync::Arc;
use std::time::Duration;

use afterimage_wal::Lsn;
use tokio::sync::watch;

use super::block::{Kind, aborted};
use super::client::Session;
use super::registry::SessionEntry;
use crate::config::Setting;
use crate::control::supervisor::sleep_until;
use crate::engine::Engine;
use crate::executor::context::cancelled;
use crate::sqlstate::{SqlError, SqlState};
use crate::wire::Writer;
use crate::wire::backend::Column;

/// Which position has to get there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    StandbyReplay,
    StandbyWrite,
    StandbyFlush,
    PrimaryFlush,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::StandbyReplay => "standby_replay",
            Self::StandbyWrite => "standby_write",
            Self::StandbyFlush => "standby_flush",
            Self::PrimaryFlush => "primary_flush",
        }
    }

    /// What happens to the WAL there.
    fn verb(self) -> &'static str {
        match self {
            Self::StandbyReplay => "replayed",
            Self::StandbyWrite => "written",
            Self::StandbyFlush | Self::PrimaryFlush => "flushed",
        }
    }

    fn position(self, engine: &Engine) -> Lsn {
        match self {
            Self::StandbyReplay => engine.replayed_lsn(),
            Self::StandbyWrite => engine.wal().published(),
            Self::StandbyFlush | Self::PrimaryFlush => engine.wal().flushed(),
        }
    }
}

/// The statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WaitFor {
    target: Lsn,
    mode: Mode,
    /// `None`: as long as it takes.
    timeout: Option<Duration>,
    no_throw: bool,
}

/// Words, quoted strings and punctuation of a short statement.
fn tokens(text: &str) -> Option<Vec<(String, bool)>> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => {}
            '\'' => {
                let mut value = String::new();
                loop {
                    match chars.next()? {
                        '\'' if chars.peek() == Some(&'\'') => value.push(chars.next()?),
                        '\'' => break,
                        other => value.push(other),
                    }
                }
                tokens.push((value, true));
            }
            '(' | ')' | ',' | ';' => tokens.push((c.to_string(), false)),
            c if c.is_ascii_alphanumeric() || c == '_' || c == '-' => {
                let mut word = c.to_ascii_lowercase().to_string();
                while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_' || *c == '.') {
                    word.push(c.to_ascii_lowercase());
                }
                tokens.push((word, false));
            }
            _ => return None,
        }
    }
    Some(tokens)
}

fn syntax_error(near: Option<&str>) -> SqlError {
    let message = near.map_or_else(|| "syntax error at end of input".to_owned(), |near| format!("syntax error at or near \"{near}\""));
    SqlError::new(SqlState::SYNTAX_ERROR, message)
}

/// The statement in `text`; `None` if it is another one.
pub(super) fn parse(text: &str) -> Option<Result<WaitFor, SqlError>> {
    // Cheap for all others.
    if !text.trim_start().get(..4).is_some_and(|word| word.eq_ignore_ascii_case("wait")) {
        return None;
    }
    let tokens = tokens(text)?;
    let word = |at: usize| tokens.get(at).filter(|(_, quoted)| !quoted).map(|(word, _)| word.as_str());
    (word(0) == Some("wait") && word(1) == Some("for")).then(|| parse_tokens(&tokens))
}

fn parse_tokens(tokens: &[(String, bool)]) -> Result<WaitFor, SqlError> {
    let mut rest = tokens.iter().skip(2).peekable();
    let expect = |wanted: &str, rest: &mut std::iter::Peekable<std::iter::Skip<std::slice::Iter<'_, (String, bool)>>>| match rest.next() {
        Some((word, false)) if word == wanted => Ok(()),
        other => Err(syntax_error(other.map(|(word, _)| word.as_str()))),
    };
    expect("lsn", &mut rest)?;
    let target = match rest.next() {
        Some((text, true)) => text.parse().map_err(|_| {
            SqlError::new(SqlState::INVALID_TEXT_REPRESENTATION, format!("invalid input syntax for type pg_lsn: \"{text}\""))
        })?,
        other => return Err(syntax_error(other.map(|(word, _)| word.as_str()))),
    };
    let mut wait = WaitFor { target, mode: Mode::StandbyReplay, timeout: None, no_throw: false };
    if rest.next_if(|(word, quoted)| !quoted && word == "with").is_some() {
        expect("(", &mut rest)?;
        let mut seen = Vec::new();
        loop {
            let (name, _) = rest.next().ok_or_else(|| syntax_error(None))?;
            if seen.contains(&name) {
                return Err(SqlError::new(SqlState::SYNTAX_ERROR, "conflicting or redundant options"));
            }
            seen.push(name);
            let value = rest.next_if(|(word, quoted)| *quoted || !matches!(word.as_str(), "," | ")")).map(|(word, _)| word.as_str());
            match (name.as_str(), value) {
                ("mode", Some(mode)) => {
                    let modes = [Mode::StandbyReplay, Mode::StandbyWrite, Mode::StandbyFlush, Mode::PrimaryFlush];
                    wait.mode = modes.into_iter().find(|m| m.name().eq_ignore_ascii_case(mode)).ok_or_else(|| {
                        SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("unrecognized value for WAIT option \"mode\": \"{mode}\""))
                    })?;
                }
                ("timeout", Some(text)) => wait.timeout = Some(duration(text)?).filter(|timeout| !timeout.is_zero()),
                ("no_throw", None | Some("true" | "on" | "1")) => wait.no_throw = true,
                ("no_throw", Some("false" | "off" | "0")) => wait.no_throw = false,
                ("mode" | "timeout", None) => {
                    return Err(SqlError::new(SqlState::SYNTAX_ERROR, format!("{name} requires a parameter")));
                }
                (other, _) => {
                    return Err(SqlError::new(SqlState::SYNTAX_ERROR, format!("unrecognized WAIT option \"{other}\"")));
                }
            }
            match rest.next() {
                Some((word, false)) if word == "," => {}
                Some((word, false)) if word == ")" => break,
                other => return Err(syntax_error(other.map(|(word, _)| word.as_str()))),
            }
        }
    }
    while rest.next_if(|(word, quoted)| !quoted && word == ";").is_some() {}
    match rest.next() {
        None => Ok(wait),
        Some((word, _)) => Err(syntax_error(Some(word))),
    }
}

/// A timeout: milliseconds, or a number with a unit, as settings have it.
fn duration(text: &str) -> Result<Duration, SqlError> {
    let invalid = || SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("invalid timeout value: \"{text}\""));
    let text = text.trim();
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '-')).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let number: f64 = number.parse().map_err(|_| invalid())?;
    if number < 0.0 {
        return Err(SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "timeout cannot be negative"));
    }
    let seconds = match unit.trim() {
        "us" => 1e-6,
        "" | "ms" => 1e-3,
        "s" => 1.0,
        "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(invalid()),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| invalid())
}

/// How a wait ended.
enum End {
    Reached,
    TimedOut,
    NotInRecovery { was: bool },
}

impl Session {
    /// Runs the statement as a simple query.
    pub(super) async fn simple_wait_for_lsn(&mut self, wait: &WaitFor) -> Result<(), SqlError> {
        let status = self.wait_for_lsn(wait).await?;
        describe(&mut self.conn.out, 0);
        put_status(&mut self.conn.out, status);
        self.conn.out.command_complete("WAIT");
        Ok(())
    }

    /// `read_after_lsn`: waits until what this session reads includes the WAL up to there. Statements that read nothing do not wait.
    pub(super) fn wait_for_reads(&mut self, text: &str) -> Result<(), SqlError> {
        const NO_READS: [&str; 11] = ["set", "reset", "show", "begin", "start", "commit", "end", "rollback", "abort", "discard", "wait"];
        let version = self.ctx.settings.version();
        if self.read_after.0 != version {
            let lsn = self.ctx.settings.str(Setting::ReadAfterLsn).parse().unwrap_or(Lsn::INVALID);
            self.read_after = (version, lsn);
        }
        let target = self.read_after.1;
        if target == Lsn::INVALID {
            return Ok(());
        }
        let word = text.trim_start().split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or("");
        if NO_READS.iter().any(|control| control.eq_ignore_ascii_case(word)) {
            return Ok(());
        }
        let engine = Arc::clone(&self.engine);
        let (txns, proc) = (&engine.ctx().txns, Arc::clone(&self.ctx.proc));
        let level = self.commit_level();
        if txns.readable_for(&proc, level) >= target {
            return Ok(());
        }
        let end = engine.wal().inserted();
        if !engine.is_in_recovery() && target > end {
            return Err(SqlError::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("read_after_lsn {target} is ahead of the WAL insert position of this server {end}"),
            ));
        }
        let _deadline = self.deadline();
        Ok(crate::txn::blocking(|| txns.wait_readable(&proc, level, target))?)
    }

    /// Waits: `success`, `timeout` or `not in recovery`.
    pub(super) async fn wait_for_lsn(&mut self, wait: &WaitFor) -> Result<&'static str, SqlError> {
        if self.block.kind == Kind::Failed {
            return Err(aborted());
        }
        if self.ctx.proc.oldest_snapshot().is_some() {
            return Err(SqlError::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                "WAIT FOR must be called without an active or registered snapshot",
            )
            .detail(
                "WAIT FOR cannot be executed from a function or procedure, nor within a transaction with an isolation level higher than READ COMMITTED.",
            ));
        }
        let engine = Arc::clone(&self.engine);
        let (mode, target) = (wait.mode, wait.target);
        let entry = Arc::clone(&self.registered.entry);
        Ok(match wait_until(&engine, self.replication.wal_moved(), &entry, wait).await? {
            End::Reached => "success",
            End::TimedOut if wait.no_throw => "timeout",
            End::TimedOut => {
                return Err(SqlError::new(
                    SqlState::QUERY_CANCELED,
                    format!(
                        "timed out while waiting for target LSN {target} to be {}; current {} LSN {}",
                        mode.verb(),
                        mode.name(),
                        mode.position(&engine)
                    ),
                ));
            }
            End::NotInRecovery { .. } if wait.no_throw => "not in recovery",
            End::NotInRecovery { was } => {
                let state = SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE;
                if mode == Mode::PrimaryFlush {
                    return Err(SqlError::new(state, "recovery is in progress")
                        .hint("Waiting for the primary_flush LSN can only be executed on a primary."));
                }
                let error = SqlError::new(state, "recovery is not in progress");
                return Err(if was {
                    let at = mode.position(&engine);
                    error.detail(format!("Recovery ended before target LSN {target} was {}; last {} LSN {at}.", mode.verb(), mode.name()))
                } else {
                    error.hint(format!("Waiting for the {} LSN can only be executed during recovery.", mode.name()))
                });
            }
        })
    }
}

/// The row's description.
pub(super) fn describe(out: &mut Writer, format: i16) {
    let column = Column { name: "status", table: 0, attribute: 0, type_oid: 25, type_len: -1, typmod: -1, format };
    out.row_description([column].into_iter());
}

/// The row; text is the same in both formats.
pub(super) fn put_status(out: &mut Writer, status: &str) {
    let at = out.begin_row(1);
    match out.value::<std::convert::Infallible>(|b| {
        b.extend_from_slice(status.as_bytes());
        Ok(())
    }) {
        Ok(()) => {}
        Err(never) => match never {},
    }
    out.end_row(at);
}

async fn wait_until(engine: &Engine, mut flushed: watch::Receiver<Lsn>, entry: &SessionEntry, wait: &WaitFor) -> Result<End, SqlError> {
    let mut replayed = engine.subscribe_replayed();
    let mut states = engine.node().subscribe();
    let deadline = wait.timeout.map(|timeout| tokio::time::Instant::now() + timeout);
    let wants_recovery = wait.mode != Mode::PrimaryFlush;
    let began_right = engine.is_in_recovery() == wants_recovery;
    loop {
        if wait.mode.position(engine) >= wait.target && began_right {
            return Ok(End::Reached);
        }
        if engine.is_in_recovery() != wants_recovery {
            return Ok(End::NotInRecovery { was: began_right });
        }
        tokio::select! {
            () = moved(&mut replayed), if wait.mode == Mode::StandbyReplay => {}
            () = moved(&mut flushed), if wait.mode != Mode::StandbyReplay => {}
            () = moved(&mut states) => {}
            () = entry.wake.notified() => {
                if let Some(reason) = entry.cancel.reason() {
                    return Err(cancelled(reason));
                }
            }
            () = sleep_until(deadline) => {
                return Ok(End::TimedOut);
            }
        }
    }
}

async fn moved<T>(positions: &mut watch::Receiver<T>) {
    if positions.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statement_is_told_from_others_and_taken_apart() {
        assert!(parse("select 1").is_none());
        assert!(parse("waiting").is_none());
        let plain = parse(" WAIT FOR LSN '0/306EE20';").unwrap().unwrap();
        assert_eq!(plain, WaitFor { target: "0/306EE20".parse().unwrap(), mode: Mode::StandbyReplay, timeout: None, no_throw: false });
        let full = parse("wait for lsn '1/0' with (mode 'standby_flush', timeout '1.5s', no_throw)").unwrap().unwrap();
        assert_eq!(full.mode, Mode::StandbyFlush);
        assert_eq!(full.timeout, Some(Duration::from_millis(1500)));
        assert!(full.no_throw);
        assert_eq!(parse("WAIT FOR LSN '1/0' WITH (TIMEOUT 200)").unwrap().unwrap().timeout, Some(Duration::from_millis(200)));
        for (text, state) in [
            ("WAIT FOR", "42601"),
            ("WAIT FOR LSN 5", "42601"),
            ("WAIT FOR LSN 'x'", "22P02"),
            ("WAIT FOR LSN '1/0' WITH (TIMEOUT '-1')", "22003"),
            ("WAIT FOR LSN '1/0' WITH (TIMEOUT '1 parsec')", "22023"),
            ("WAIT FOR LSN '1/0' WITH (MODE 'x')", "22023"),
            ("WAIT FOR LSN '1/0' WITH (COLOUR 'x')", "42601"),
            ("WAIT FOR LSN '1/0' WITH (NO_THROW", "42601"),
            ("WAIT FOR LSN '1/0' WITH (TIMEOUT 1, TIMEOUT 2)", "42601"),
        ] {
            assert_eq!(parse(text).unwrap().unwrap_err().state().0, state, "{text}");
        }
    }
}
