//! `synchronous_standby_names`: which standbys a commit waits for, and how far they have come together.
//!
//! Pure functions from (setting, standby positions) to positions; `sync_wait` does the waiting.
//! PostgreSQL: replication/syncrep_gram.y, SyncRepGetSyncRecPtr in syncrep.c.

use afterimage_wal::ids::Lsn;

use crate::txn::SyncPositions;

/// How several synchronous standbys count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMethod {
    /// `FIRST n`: the n listed first that are connected.
    First,
    /// `ANY n`: any n of those listed.
    Any,
}

/// A parsed `synchronous_standby_names`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncNames {
    /// FIRST or ANY.
    pub method: SyncMethod,
    /// How many must have confirmed; at least 1.
    pub count: usize,
    /// Names in order of priority; `*` matches every standby.
    pub names: Vec<String>,
}

/// A standby that streams, as far as synchronous replication looks at it.
#[derive(Clone, Debug)]
pub struct StandbyPosition {
    /// `application_name`.
    pub name: String,
    /// Tie-break among equal priorities: the sender that started first wins.
    pub started: u64,
    /// Written on the standby (exclusive end).
    pub written: Lsn,
    /// Durable on the standby.
    pub flushed: Lsn,
    /// Replayed on the standby.
    pub applied: Lsn,
}

impl SyncNames {
    /// Parses the setting; `None` for the empty one (no synchronous replication).
    ///
    /// # Errors
    /// The text of the mistake, for the setting's error detail.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        let tokens = tokenize(text)?;
        if tokens.is_empty() {
            return Ok(None);
        }
        let (method, rest) = match &tokens[0] {
            Token::Name(w, false) if w.eq_ignore_ascii_case("first") && tokens.len() > 1 && matches!(tokens[1], Token::Name(..)) => {
                (SyncMethod::First, &tokens[1..])
            }
            Token::Name(w, false) if w.eq_ignore_ascii_case("any") && tokens.len() > 1 && matches!(tokens[1], Token::Name(..)) => {
                (SyncMethod::Any, &tokens[1..])
            }
            Token::Name(..) | Token::Open | Token::Close | Token::Comma => (SyncMethod::First, &tokens[..]),
        };
        let explicit = rest.len() != tokens.len();
        let (count, list) = match (rest.first(), rest.get(1)) {
            (Some(Token::Name(n, false)), Some(Token::Open)) if n.bytes().all(|b| b.is_ascii_digit()) => {
                if rest.last() != Some(&Token::Close) {
                    return Err(format!("syntax error at end of input in \"{text}\""));
                }
                let count: usize = n.parse().map_err(|_| format!("number of synchronous standbys ({n}) is out of range"))?;
                (count, &rest[2..rest.len() - 1])
            }
            _ if explicit => return Err(format!("syntax error in \"{text}\"")),
            _ => (1, rest),
        };
        if count == 0 {
            return Err("number of synchronous standbys (0) must be greater than zero".to_owned());
        }
        let mut names = Vec::new();
        for (i, token) in list.iter().enumerate() {
            match (i % 2, token) {
                (0, Token::Name(name, _)) => names.push(name.clone()),
                (1, Token::Comma) => {}
                _ => return Err(format!("syntax error in \"{text}\"")),
            }
        }
        if list.is_empty() || list.len() % 2 == 0 {
            return Err(format!("syntax error at end of input in \"{text}\""));
        }
        Ok(Some(Self { method, count, names }))
    }

    /// 1 for the first name, 2 for the second; 0 if this standby is asynchronous.
    pub fn priority(&self, application_name: &str) -> usize {
        let place = self.names.iter().position(|name| name == "*" || name.eq_ignore_ascii_case(application_name));
        match (place, self.method) {
            (None, _) => 0,
            (Some(at), SyncMethod::First) => at + 1,
            // A quorum has no order.
            (Some(_), SyncMethod::Any) => 1,
        }
    }

    /// Indexes into `standbys` of those that are synchronous now (FIRST) or candidates (ANY), best first.
    pub fn candidates(&self, standbys: &[StandbyPosition]) -> Vec<usize> {
        let mut found: Vec<(usize, u64, usize)> = standbys
            .iter()
            .enumerate()
            .map(|(i, s)| (self.priority(&s.name), s.started, i))
            .filter(|&(priority, _, _)| priority > 0)
            .collect();
        found.sort_unstable();
        if self.method == SyncMethod::First {
            found.truncate(self.count);
        }
        found.into_iter().map(|(_, _, i)| i).collect()
    }

    /// `sync`, `quorum`, `potential` or `async`, as `pg_stat_replication.sync_state` shows it.
    pub fn sync_state(&self, standbys: &[StandbyPosition], index: usize) -> &'static str {
        if self.priority(&standbys[index].name) == 0 {
            return "async";
        }
        match (self.method, self.candidates(standbys).contains(&index)) {
            (SyncMethod::Any, _) => "quorum",
            (SyncMethod::First, true) => "sync",
            (SyncMethod::First, false) => "potential",
        }
    }

    /// What the required number of standbys have confirmed; `None` while fewer are connected.
    pub fn confirmed(&self, standbys: &[StandbyPosition]) -> Option<SyncPositions> {
        let chosen = self.candidates(standbys);
        if chosen.len() < self.count {
            return None;
        }
        let nth = |position: fn(&StandbyPosition) -> Lsn| {
            let mut lsns: Vec<Lsn> = chosen.iter().map(|&i| position(&standbys[i])).collect();
            lsns.sort_unstable_by(|a, b| b.cmp(a));
            // FIRST kept exactly `count` of them, so the count-th largest is the least of all.
            lsns[self.count - 1]
        };
        Some(SyncPositions { written: nth(|s| s.written), flushed: nth(|s| s.flushed), applied: nth(|s| s.applied) })
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    /// A name, and whether it was quoted.
    Name(String, bool),
    Open,
    Close,
    Comma,
}

fn tokenize(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(&c) = chars.peek() {
        match c {
            c if c.is_whitespace() => {
                chars.next();
            }
            '(' | ')' | ',' => {
                chars.next();
                tokens.push(match c {
                    '(' => Token::Open,
                    ')' => Token::Close,
                    _ => Token::Comma,
                });
            }
            '"' => {
                chars.next();
                let mut name = String::new();
                loop {
                    match chars.next() {
                        None => return Err(format!("unterminated quoted string in \"{text}\"")),
                        Some('"') if chars.peek() == Some(&'"') => {
                            chars.next();
                            name.push('"');
                        }
                        Some('"') => break,
                        Some(other) => name.push(other),
                    }
                }
                tokens.push(Token::Name(name, true));
            }
            '*' => {
                chars.next();
                tokens.push(Token::Name("*".to_owned(), false));
            }
            c if c.is_alphanumeric() || matches!(c, '_' | '$' | '-' | '.') => {
                let mut name = String::new();
                while let Some(&c) = chars.peek() {
                    if c.is_alphanumeric() || matches!(c, '_' | '$' | '-' | '.') {
                        name.push(c);
                        chars.next();
                    } else {
                        break;
                    }
                }
                tokens.push(Token::Name(name, false));
            }
            other => return Err(format!("syntax error at or near \"{other}\"")),
        }
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(name: &str, started: u64, lsn: u64) -> StandbyPosition {
        let lsn = Lsn::from_u64(lsn);
        StandbyPosition { name: name.into(), started, written: lsn, flushed: lsn, applied: lsn }
    }

    #[test]
    fn spellings() {
        assert_eq!(SyncNames::parse("").unwrap(), None);
        let names = |m, count, list: &[&str]| Some(SyncNames { method: m, count, names: list.iter().map(|s| (*s).to_owned()).collect() });
        assert_eq!(SyncNames::parse("a").unwrap(), names(SyncMethod::First, 1, &["a"]));
        assert_eq!(SyncNames::parse("a, \"B c\"").unwrap(), names(SyncMethod::First, 1, &["a", "B c"]));
        assert_eq!(SyncNames::parse("2 (a,b,c)").unwrap(), names(SyncMethod::First, 2, &["a", "b", "c"]));
        assert_eq!(SyncNames::parse("FIRST 2 (a, b)").unwrap(), names(SyncMethod::First, 2, &["a", "b"]));
        assert_eq!(SyncNames::parse("ANY 1 (*)").unwrap(), names(SyncMethod::Any, 1, &["*"]));
        assert_eq!(SyncNames::parse("first").unwrap(), names(SyncMethod::First, 1, &["first"]));
        for bad in ["ANY 0 (a)", "ANY 1 (a", "ANY 1 ()", "a b", "1 (a,,b)", "\"a", "ANY x (a)"] {
            assert!(SyncNames::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn first_waits_for_the_listed_order_and_any_for_the_fastest() {
        let standbys = [at("a", 1, 100), at("b", 2, 300), at("c", 3, 200)];
        let confirmed = |text: &str| SyncNames::parse(text).unwrap().unwrap().confirmed(&standbys).map(|p| p.flushed.as_u64());
        assert_eq!(confirmed("FIRST 1 (a, b)"), Some(100));
        assert_eq!(confirmed("FIRST 2 (b, c)"), Some(200));
        assert_eq!(confirmed("ANY 1 (a, b, c)"), Some(300));
        assert_eq!(confirmed("ANY 2 (a, b, c)"), Some(200));
        assert_eq!(confirmed("ANY 4 (*)"), None);
        assert_eq!(confirmed("nobody"), None);
    }

    #[test]
    fn states_as_the_view_shows_them() {
        let standbys = [at("a", 1, 1), at("b", 2, 1), at("x", 3, 1)];
        let names = SyncNames::parse("FIRST 1 (a, b)").unwrap().unwrap();
        let states: Vec<_> = (0..3).map(|i| names.sync_state(&standbys, i)).collect();
        assert_eq!(states, ["sync", "potential", "async"]);
    }
}
