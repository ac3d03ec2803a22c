//! The replication grammar: what a client may say on a `replication=true` connection.
//!
//! Both spellings of options are understood, PostgreSQL 15's parenthesised list and the bare keywords of its
//! predecessors, because stock tools of either age connect. PostgreSQL: replication/repl_gram.y.

use afterimage_wal::ids::{Lsn, TimelineId};

use crate::sqlstate::{SqlError, SqlState};

/// A parsed replication command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicationCommand {
    /// `IDENTIFY_SYSTEM`.
    IdentifySystem,
    /// `SHOW name`.
    Show(String),
    /// `TIMELINE_HISTORY tli`.
    TimelineHistory(TimelineId),
    /// `READ_REPLICATION_SLOT name`.
    ReadSlot(String),
    /// `CREATE_REPLICATION_SLOT name [TEMPORARY] PHYSICAL [..]`.
    CreateSlot {
        /// Slot name.
        name: String,
        /// Dropped at the end of the session.
        temporary: bool,
        /// Holds WAL from now on, not only from the first connection.
        reserve_wal: bool,
        /// A logical slot was asked for; refused when executed.
        logical: bool,
    },
    /// `DROP_REPLICATION_SLOT name [WAIT]`.
    DropSlot {
        /// Slot name.
        name: String,
        /// Wait for the user of the slot to leave.
        wait: bool,
    },
    /// `START_REPLICATION [SLOT s] [PHYSICAL] X/X [TIMELINE n] [(options)]`.
    StartReplication(StartReplication),
    /// `READ_PAGE tablespace database relfilenode fork block`, what only our own standby asks.
    ReadPage([u32; 5]),
    /// `BASE_BACKUP_PART name`, what only our own client asks.
    BackupPart(String),
    /// `BASE_BACKUP [(options)]`.
    BaseBackup(Vec<CommandOption>),
}

/// Where a stream is to begin, and how it is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartReplication {
    /// Slot to use.
    pub slot: Option<String>,
    /// A logical stream was asked for; refused when executed.
    pub logical: bool,
    /// First byte wanted (inclusive).
    pub start_lsn: Lsn,
    /// Timeline; the current one if not given.
    pub tli: Option<TimelineId>,
    /// Options only our own standby sends, such as `compression 'zstd'`.
    pub options: Vec<CommandOption>,
}

/// One `name [value]` of an option list; the name is in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandOption {
    /// Lower-case name.
    pub name: String,
    /// Value as text, without quotes.
    pub value: Option<String>,
}

impl CommandOption {
    /// Reads the value as PostgreSQL's `defGetBoolean`: no value is true.
    ///
    /// # Errors
    /// `42601` for anything else.
    pub fn boolean(&self) -> Result<bool, SqlError> {
        let Some(value) = &self.value else { return Ok(true) };
        match value.to_ascii_lowercase().as_str() {
            "true" | "on" | "1" => Ok(true),
            "false" | "off" | "0" => Ok(false),
            _ => Err(SqlError::new(SqlState::SYNTAX_ERROR, format!("{} requires a Boolean value", self.name))),
        }
    }

    /// The value, which must be there.
    ///
    /// # Errors
    /// `42601` without a value.
    pub fn text(&self) -> Result<&str, SqlError> {
        self.value.as_deref().ok_or_else(|| SqlError::new(SqlState::SYNTAX_ERROR, format!("{} requires a parameter", self.name)))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Ident(String),
    Literal(String),
    Number(String),
    Lsn(Lsn),
    Punct(char),
}

/// True if the text begins with a replication keyword; other text on such a connection is SQL.
pub fn is_replication_command(text: &str) -> bool {
    let word: String = text.trim_start().chars().take_while(|c| c.is_ascii_alphabetic() || *c == '_').collect();
    matches!(
        word.to_ascii_uppercase().as_str(),
        "IDENTIFY_SYSTEM"
            | "BASE_BACKUP"
            | "START_REPLICATION"
            | "CREATE_REPLICATION_SLOT"
            | "DROP_REPLICATION_SLOT"
            | "READ_REPLICATION_SLOT"
            | "BASE_BACKUP_PART"
            | "READ_PAGE"
            | "TIMELINE_HISTORY"
            | "SHOW"
    )
}

/// Parses one command; a trailing semicolon is allowed.
///
/// # Errors
/// `42601` with PostgreSQL's `syntax error`; `0A000` for SQL.
pub fn parse(text: &str) -> Result<ReplicationCommand, SqlError> {
    if !is_replication_command(text) {
        return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "cannot execute SQL commands in WAL sender for physical replication"));
    }
    let mut parser = Parser { tokens: tokenize(text)?, at: 0 };
    let command = parser.command()?;
    parser.eat_punct(';');
    match parser.peek() {
        None => Ok(command),
        Some(_) => Err(syntax_error()),
    }
}

fn syntax_error() -> SqlError {
    SqlError::new(SqlState::SYNTAX_ERROR, "syntax error")
}

/// An option list says nothing twice, and nothing that is not known. PostgreSQL: `parseCreateReplSlotOptions`.
fn check_slot_options(options: &[CommandOption], logical: bool) -> Result<(), SqlError> {
    for (i, option) in options.iter().enumerate() {
        let for_logical = match option.name.as_str() {
            "reserve_wal" => false,
            "snapshot" | "two_phase" => true,
            other => return Err(SqlError::new(SqlState::INTERNAL_ERROR, format!("unrecognized option: {other}"))),
        };
        if for_logical != logical || options[..i].iter().any(|earlier| earlier.name == option.name) {
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, "conflicting or redundant options"));
        }
    }
    Ok(())
}

fn tokenize(text: &str) -> Result<Vec<Token>, SqlError> {
    let mut tokens = Vec::new();
    let mut chars = text.char_indices().peekable();
    while let Some(&(start, c)) = chars.peek() {
        match c {
            c if c.is_whitespace() => {
                chars.next();
            }
            '\'' | '"' => {
                chars.next();
                let mut value = String::new();
                loop {
                    match chars.next() {
                        None => return Err(SqlError::new(SqlState::SYNTAX_ERROR, "unterminated quoted string")),
                        Some((_, q)) if q == c => {
                            if chars.peek().is_some_and(|&(_, next)| next == c) {
                                chars.next();
                                value.push(c);
                            } else {
                                break;
                            }
                        }
                        Some((_, other)) => value.push(other),
                    }
                }
                tokens.push(if c == '\'' { Token::Literal(value) } else { Token::Ident(value) });
            }
            '(' | ')' | ',' | ';' | '=' | '.' => {
                chars.next();
                tokens.push(Token::Punct(c));
            }
            c if c.is_ascii_alphanumeric() || c == '_' => {
                let mut end = start;
                while let Some(&(at, c)) = chars.peek() {
                    if c.is_ascii_alphanumeric() || matches!(c, '_' | '/') {
                        end = at + c.len_utf8();
                        chars.next();
                    } else {
                        break;
                    }
                }
                let word = &text[start..end];
                tokens.push(if word.contains('/') {
                    Token::Lsn(word.parse().map_err(|_| syntax_error())?)
                } else if word.bytes().all(|b| b.is_ascii_digit()) {
                    Token::Number(word.to_owned())
                } else {
                    Token::Word(word.to_owned())
                });
            }
            _ => return Err(syntax_error()),
        }
    }
    Ok(tokens)
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let hit = matches!(self.peek(), Some(Token::Word(w)) if w.eq_ignore_ascii_case(word));
        if hit {
            self.at += 1;
        }
        hit
    }

    fn eat_punct(&mut self, c: char) -> bool {
        let hit = self.peek() == Some(&Token::Punct(c));
        if hit {
            self.at += 1;
        }
        hit
    }

    /// An identifier: quoted as it is, unquoted in lower case.
    fn identifier(&mut self) -> Result<String, SqlError> {
        match self.peek() {
            Some(Token::Word(w)) => {
                let name = w.to_ascii_lowercase();
                self.at += 1;
                Ok(name)
            }
            Some(Token::Ident(w)) => {
                let name = w.clone();
                self.at += 1;
                Ok(name)
            }
            _ => Err(syntax_error()),
        }
    }

    fn timeline(&mut self) -> Result<TimelineId, SqlError> {
        let Some(Token::Number(n)) = self.peek() else { return Err(syntax_error()) };
        let tli: u32 = n.parse().map_err(|_| syntax_error())?;
        if tli == 0 {
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, format!("invalid timeline {tli}")));
        }
        self.at += 1;
        Ok(TimelineId::new(tli))
    }

    fn command(&mut self) -> Result<ReplicationCommand, SqlError> {
        let Some(Token::Word(word)) = self.peek().cloned() else { return Err(syntax_error()) };
        let command = word.to_ascii_uppercase();
        self.at += 1;
        match command.as_str() {
            "IDENTIFY_SYSTEM" => Ok(ReplicationCommand::IdentifySystem),
            "SHOW" => {
                let mut name = self.identifier()?;
                while self.eat_punct('.') {
                    name = format!("{name}.{}", self.identifier()?);
                }
                while let Some(Token::Word(w)) = self.peek() {
                    name = format!("{name} {}", w.to_ascii_lowercase());
                    self.at += 1;
                }
                Ok(ReplicationCommand::Show(name))
            }
            "TIMELINE_HISTORY" => Ok(ReplicationCommand::TimelineHistory(self.timeline()?)),
            "READ_REPLICATION_SLOT" => Ok(ReplicationCommand::ReadSlot(self.identifier()?)),
            "READ_PAGE" => {
                let mut numbers = [0; 5];
                for number in &mut numbers {
                    let Some(Token::Number(n)) = self.peek() else { return Err(syntax_error()) };
                    *number = n.parse().map_err(|_| syntax_error())?;
                    self.at += 1;
                }
                Ok(ReplicationCommand::ReadPage(numbers))
            }
            "DROP_REPLICATION_SLOT" => {
                let name = self.identifier()?;
                Ok(ReplicationCommand::DropSlot { name, wait: self.eat_word("WAIT") })
            }
            "CREATE_REPLICATION_SLOT" => self.create_slot(),
            "START_REPLICATION" => self.start_replication(),
            "BASE_BACKUP_PART" => match self.next() {
                Some(Token::Literal(name)) => Ok(ReplicationCommand::BackupPart(name)),
                _ => {
                    self.at -= 1;
                    Err(syntax_error())
                }
            },
            "BASE_BACKUP" => Ok(ReplicationCommand::BaseBackup(if self.peek() == Some(&Token::Punct('(')) {
                self.option_list()?
            } else {
                self.legacy_backup_options()?
            })),
            _ => {
                self.at -= 1;
                Err(syntax_error())
            }
        }
    }

    fn create_slot(&mut self) -> Result<ReplicationCommand, SqlError> {
        let name = self.identifier()?;
        let temporary = self.eat_word("TEMPORARY");
        let logical = if self.eat_word("LOGICAL") {
            self.identifier()?;
            true
        } else if self.eat_word("PHYSICAL") {
            false
        } else {
            return Err(syntax_error());
        };
        let mut reserve_wal = false;
        if self.peek() == Some(&Token::Punct('(')) {
            let options = self.option_list()?;
            check_slot_options(&options, logical)?;
            if let [option] = &options[..]
                && !logical
            {
                reserve_wal = option.boolean()?;
            }
        } else {
            while let Some(Token::Word(w)) = self.peek() {
                match w.to_ascii_uppercase().as_str() {
                    "RESERVE_WAL" => reserve_wal = true,
                    "EXPORT_SNAPSHOT" | "NOEXPORT_SNAPSHOT" | "USE_SNAPSHOT" | "TWO_PHASE" if logical => {}
                    _ => return Err(syntax_error()),
                }
                self.at += 1;
            }
        }
        Ok(ReplicationCommand::CreateSlot { name, temporary, reserve_wal, logical })
    }

    fn start_replication(&mut self) -> Result<ReplicationCommand, SqlError> {
        let slot = if self.eat_word("SLOT") { Some(self.identifier()?) } else { None };
        let logical = self.eat_word("LOGICAL");
        if !logical {
            self.eat_word("PHYSICAL");
        }
        let start_lsn = match self.next() {
            Some(Token::Lsn(lsn)) => lsn,
            _ => {
                self.at -= 1;
                return Err(syntax_error());
            }
        };
        let tli = if self.eat_word("TIMELINE") { Some(self.timeline()?) } else { None };
        let options = if self.peek() == Some(&Token::Punct('(')) { self.option_list()? } else { Vec::new() };
        Ok(ReplicationCommand::StartReplication(StartReplication { slot, logical, start_lsn, tli, options }))
    }

    fn option_list(&mut self) -> Result<Vec<CommandOption>, SqlError> {
        let mut options = Vec::new();
        if !self.eat_punct('(') {
            return Err(syntax_error());
        }
        loop {
            let name = self.identifier()?;
            let value = match self.peek() {
                Some(Token::Word(v) | Token::Ident(v) | Token::Literal(v) | Token::Number(v)) => {
                    let value = v.clone();
                    self.at += 1;
                    Some(value)
                }
                Some(Token::Lsn(lsn)) => {
                    let value = lsn.to_string();
                    self.at += 1;
                    Some(value)
                }
                Some(Token::Punct(_)) | None => None,
            };
            options.push(CommandOption { name, value });
            if self.eat_punct(',') {
                continue;
            }
            if self.eat_punct(')') {
                return Ok(options);
            }
            return Err(syntax_error());
        }
    }

    fn legacy_backup_options(&mut self) -> Result<Vec<CommandOption>, SqlError> {
        let mut options = Vec::new();
        while let Some(Token::Word(word)) = self.peek() {
            let (name, value): (&str, Option<&str>) = match word.to_ascii_uppercase().as_str() {
                "LABEL" => ("label", None),
                "MAX_RATE" => ("max_rate", None),
                "MANIFEST" => ("manifest", None),
                "MANIFEST_CHECKSUMS" => ("manifest_checksums", None),
                "PROGRESS" => ("progress", Some("true")),
                "FAST" => ("checkpoint", Some("fast")),
                "WAL" => ("wal", Some("true")),
                "NOWAIT" => ("wait", Some("false")),
                "TABLESPACE_MAP" => ("tablespace_map", Some("true")),
                "NOVERIFY_CHECKSUMS" => ("verify_checksums", Some("false")),
                _ => return Err(syntax_error()),
            };
            self.at += 1;
            let value = match value {
                Some(fixed) => fixed.to_owned(),
                None => match self.peek() {
                    Some(Token::Literal(v) | Token::Number(v)) => {
                        let v = v.clone();
                        self.at += 1;
                        v
                    }
                    _ => return Err(syntax_error()),
                },
            };
            options.push(CommandOption { name: name.to_owned(), value: Some(value) });
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_replication_takes_slot_timeline_and_options() {
        let command = parse("START_REPLICATION SLOT \"s1\" 0/3000000 TIMELINE 2 (compression 'zstd', level 3)").unwrap();
        let ReplicationCommand::StartReplication(start) = command else { panic!("wrong command") };
        assert_eq!(start.slot.as_deref(), Some("s1"));
        assert_eq!(start.start_lsn, Lsn::from_u64(0x3000000));
        assert_eq!(start.tli, Some(TimelineId::new(2)));
        assert_eq!(start.options[0], CommandOption { name: "compression".into(), value: Some("zstd".into()) });
        assert_eq!(start.options[1].text().unwrap(), "3");
    }

    #[test]
    fn both_backup_spellings_mean_the_same() {
        let new = parse("BASE_BACKUP ( LABEL 'pg_basebackup base backup', PROGRESS, CHECKPOINT 'fast', WAIT 0, MANIFEST 'yes')").unwrap();
        let old = parse("BASE_BACKUP LABEL 'x' PROGRESS FAST NOWAIT MANIFEST 'yes'").unwrap();
        let (ReplicationCommand::BaseBackup(new), ReplicationCommand::BaseBackup(old)) = (new, old) else { panic!() };
        assert_eq!(new.iter().map(|o| &o.name).collect::<Vec<_>>(), old.iter().map(|o| &o.name).collect::<Vec<_>>());
        assert!(new[1].boolean().unwrap());
        assert!(!new[3].boolean().unwrap());
    }

    #[test]
    fn slots_in_both_spellings() {
        let want = ReplicationCommand::CreateSlot { name: "a".into(), temporary: true, reserve_wal: true, logical: false };
        assert_eq!(parse("CREATE_REPLICATION_SLOT \"a\" TEMPORARY PHYSICAL ( RESERVE_WAL)").unwrap(), want);
        assert_eq!(parse("CREATE_REPLICATION_SLOT a TEMPORARY PHYSICAL RESERVE_WAL;").unwrap(), want);
        assert_eq!(parse("DROP_REPLICATION_SLOT a WAIT").unwrap(), ReplicationCommand::DropSlot { name: "a".into(), wait: true });
    }

    #[test]
    fn bad_text_is_a_syntax_error() {
        for text in [
            "START_REPLICATION",
            "BASE_BACKUP ()",
            "START_REPLICATION 0/",
            "BASE_BACKUP (LABEL",
            "TIMELINE_HISTORY 0",
            "IDENTIFY_SYSTEM x",
            "SHOW '",
        ] {
            assert_eq!(parse(text).unwrap_err().state(), SqlState::SYNTAX_ERROR, "{text}");
        }
        for text in ["", "select 1", "IDENTIFY"] {
            assert_eq!(parse(text).unwrap_err().state(), SqlState::FEATURE_NOT_SUPPORTED, "{text}");
        }
        let twice = parse("CREATE_REPLICATION_SLOT a PHYSICAL (RESERVE_WAL, RESERVE_WAL)").unwrap_err();
        assert_eq!(twice.to_string(), "conflicting or redundant options");
        assert_eq!(parse("SHOW a.b").unwrap(), ReplicationCommand::Show("a.b".into()));
    }
}
