//! `backup_label`: where recovery of a base backup starts. PostgreSQL's text.

use afterimage_wal::{Lsn, TimelineId};

/// Its name in the data directory.
pub const FILE: &str = "backup_label";
/// Its name once recovery no longer needs it.
pub const OLD_FILE: &str = "backup_label.old";

/// Begins the line that says where the files of a standby's backup are consistent. Ours: PostgreSQL relies on `pg_control` being copied last.
pub const END_KEY: &str = "MINIMUM RECOVERY ENDING LOCATION:";

/// Where the tablespaces of a backup lie, beside the label of one taken in tar format.
pub const MAP_FILE: &str = "tablespace_map";
/// Its name once the links are made.
pub const OLD_MAP_FILE: &str = "tablespace_map.old";

/// Reads `tablespace_map`: OID and location a line; a backslash before a newline, carriage return or backslash is dropped.
///
/// # Errors
/// What is wrong with it.
pub fn parse_map(text: &str) -> Result<Vec<(u32, String)>, &'static str> {
    let mut lines = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\n' | '\r' => lines.push(String::new()),
            '\\' => lines.last_mut().ok_or("no line")?.extend(chars.next()),
            c => lines.last_mut().ok_or("no line")?.push(c),
        }
    }
    lines
        .iter()
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (oid, location) = line.split_once(' ').ok_or("a line without location")?;
            Ok((oid.parse().map_err(|_| "a line that does not begin with an OID")?, location.to_owned()))
        })
        .collect()
}

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupLabel {
    /// Redo point of the backup's checkpoint.
    pub start_lsn: Lsn,
    /// Start of the checkpoint's record.
    pub checkpoint_lsn: Lsn,
    /// Timeline of the checkpoint.
    pub tli: TimelineId,
    /// Whether the source was a standby: then the end is the control file's minimum recovery point.
    pub from_standby: bool,
    /// Where the files of a standby's backup are consistent at the earliest, if it is said.
    pub end_lsn: Option<Lsn>,
    /// Whether a backup-end record must be seen (a streamed backup of a primary).
    pub needs_end: bool,
}

impl BackupLabel {
    /// Reads the text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let value = |key: &str| text.lines().find_map(|l| l.strip_prefix(key)).map(str::trim);
        let start = value("START WAL LOCATION:").ok_or("no START WAL LOCATION")?;
        let (start, file) = start.split_once(' ').ok_or("malformed START WAL LOCATION")?;
        let name = file.trim().strip_prefix("(file ").and_then(|f| f.strip_suffix(')')).unwrap_or("");
        let checkpoint = value("CHECKPOINT LOCATION:").ok_or("no CHECKPOINT LOCATION")?;
        let tli = match value("START TIMELINE:") {
            Some(tli) => tli.parse().ok(),
            None => name.get(..8).and_then(|t| u32::from_str_radix(t, 16).ok()),
        };
        Ok(Self {
            start_lsn: start.parse().map_err(|_| "malformed START WAL LOCATION")?,
            checkpoint_lsn: checkpoint.parse().map_err(|_| "malformed CHECKPOINT LOCATION")?,
            tli: tli.filter(|t| *t > 0).map(TimelineId::new).ok_or("no timeline")?,
            from_standby: value("BACKUP FROM:") == Some("standby"),
            end_lsn: value(END_KEY).map(|lsn| lsn.parse().map_err(|_| "malformed MINIMUM RECOVERY ENDING LOCATION")).transpose()?,
            needs_end: value("BACKUP METHOD:") == Some("streamed"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tablespace_map_is_read_back() {
        let found = parse_map("16500 /a/b\n16501 /with\\\\slash and\\\nline\n").unwrap();
        assert_eq!(found, [(16500, "/a/b".to_owned()), (16501, "/with\\slash and\nline".to_owned())]);
        assert!(parse_map("x /a\n").is_err() && parse_map("1\n").is_err() && parse_map("").unwrap().is_empty());
    }

    #[test]
    fn postgresql_label_is_understood() {
        let text = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\nBACKUP METHOD: streamed\n\
                    BACKUP FROM: primary\nSTART TIME: 2024-01-01 00:00:00 UTC\nLABEL: pg_basebackup base backup\nSTART TIMELINE: 1\n";
        let label = BackupLabel::parse(text).unwrap();
        assert_eq!(label.start_lsn, Lsn::from_u64(0x200_0028));
        assert_eq!(label.checkpoint_lsn, Lsn::from_u64(0x200_0060));
        assert!(label.needs_end && !label.from_standby && label.end_lsn.is_none());
        let standbys = BackupLabel::parse(&format!("{text}{END_KEY} 0/3000000\n")).unwrap();
        assert_eq!(standbys.end_lsn, Some(Lsn::from_u64(0x300_0000)));
        for cut in 0..text.len() {
            let _whatever = BackupLabel::parse(&text[..cut]);
        }
    }
}
