//! Damaged pages of a standby, fetched again from its upstream: what `READ_PAGE` answers, and who asks.
//!
//! A page that is read after a position was noted holds every change up to that position: whoever changes a page logs it under the page's
//! latch. So the asker knows that nothing it has replayed is missing, if the position is not behind its own.

use std::sync::{Arc, Weak};
use std::time::Duration;

use afterimage_wal::ids::{BlockNo, Fork, Lsn, RelId};

use super::client::{Client, ClientError};
use super::conninfo::ConnInfo;
use super::services::Replication;
use crate::config::Setting;
use crate::engine::Engine;
use crate::sqlstate::{SqlError, SqlState};
use crate::storage::repair::PageSource;
use crate::storage::{PAGE_SIZE, Page, PageTag};

/// Longest an answer may take, and replay to reach it.
const PATIENCE: Duration = Duration::from_secs(30);
/// A page that changes faster than it can be fetched is fetched again so often.
const TRIES: u32 = 10;

/// A page as this node has it, durable and stamped, and a position: it holds every change up to there.
///
/// # Errors
/// XX001 if it is damaged here too; no such block; I/O.
pub fn read_page(engine: &Engine, tag: PageTag) -> Result<(Box<Page>, Lsn), SqlError> {
    let position = if engine.is_in_recovery() { engine.replayed_lsn() } else { engine.wal().published() };
    let mut page = Box::<Page>::default();
    page.bytes_mut().copy_from_slice(engine.pool().read(tag.rel, tag.fork, tag.block)?.read().bytes());
    if !engine.is_in_recovery() {
        // A crash here must not take back what the asker then has.
        engine.wal().flush(page.lsn().max(page.hint_lsn()))?;
    }
    page.stamp(tag.rel, tag.fork, tag.block);
    Ok((page, position))
}

/// The command that asks for a page.
fn command(tag: PageTag) -> String {
    let RelId { spc, db, rel } = tag.rel;
    format!("READ_PAGE {spc} {db} {rel} {} {}", tag.fork.as_u8(), tag.block)
}

/// The page a `READ_PAGE` names.
pub fn tag_of(numbers: [u32; 5]) -> Option<PageTag> {
    let [spc, db, rel, fork, block] = numbers;
    let fork = u8::try_from(fork).ok().and_then(Fork::from_u8)?;
    Some(PageTag { rel: RelId { spc, db, rel }, fork, block: BlockNo::new(block) })
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string does not fail.
        let _never = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes of hexadecimal digits.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

fn failed(error: &ClientError) -> SqlError {
    SqlError::new(SqlState::CONNECTION_FAILURE, format!("could not fetch the page from the primary: {error}"))
}

/// Asks the upstream for a page.
async fn fetch(node: &Replication, tag: PageTag) -> Result<(Page, Lsn), SqlError> {
    let settings = node.config.current();
    let conninfo = settings.str(Setting::PrimaryConninfo).to_owned();
    if conninfo.is_empty() {
        return Err(SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "primary_conninfo is not set"));
    }
    let info = ConnInfo::parse(&conninfo).map_err(|e| failed(&e.into()))?;
    let mut client = Client::connect(&info, true, "page repair").await.map_err(|e| failed(&e))?;
    let identity = client.query("IDENTIFY_SYSTEM").await.map_err(|e| failed(&e))?;
    let said = |column| identity.first().and_then(|row| row.text(0, column)).unwrap_or_default().to_owned();
    let (system, tli) = (said(0), said(1));
    if system != node.engine.wal().system_id().to_string() || tli != node.engine.wal().tli().to_string() {
        return Err(SqlError::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            "the primary does not share system identifier and timeline with this node",
        ));
    }
    let answer = client.query(&command(tag)).await.map_err(|e| failed(&e))?;
    let row = answer.first();
    let position: Option<Lsn> = row.and_then(|r| r.text(0, 0)).and_then(|t| t.parse().ok());
    let bytes = row.and_then(|r| r.text(0, 1)).and_then(from_hex);
    let bytes: Option<[u8; PAGE_SIZE]> = bytes.and_then(|b| b.try_into().ok());
    let (Some(position), Some(bytes)) = (position, bytes) else {
        return Err(SqlError::new(SqlState::PROTOCOL_VIOLATION, "could not fetch the page from the primary: unexpected answer"));
    };
    let mut page = Page::zeroed();
    *page.bytes_mut() = bytes;
    if !page.verifies(tag.rel, tag.fork, tag.block) {
        return Err(SqlError::new(SqlState::DATA_CORRUPTED, "the page the primary sent does not verify"));
    }
    Ok((page, position))
}

impl Replication {
    /// Replaces a page of this standby by its upstream's. Returns the page's LSN.
    ///
    /// # Errors
    /// The upstream cannot be asked or has no sound page; the block is gone.
    pub async fn repair_page(&self, tag: PageTag) -> Result<Lsn, SqlError> {
        for _ in 0..TRIES {
            let known = self.engine.replayed_lsn();
            let (copy, position) = fetch(self, tag).await?;
            if position < known {
                let text = format!("the upstream has replayed up to {position} only, this node up to {known}");
                return Err(SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, text));
            }
            let lsn = copy.lsn();
            let upto = lsn.max(copy.hint_lsn());
            self.engine.pool().offer_copy(tag, copy);
            match tokio::time::timeout(PATIENCE, self.place_copy(tag, upto)).await {
                Err(_elapsed) => {
                    let at = self.engine.replayed_lsn();
                    return Err(SqlError::new(
                        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                        format!("replay is at {at} and does not reach {upto}, the LSN of the primary's page"),
                    ));
                }
                Ok(placed) => {
                    if placed? {
                        return Ok(lsn);
                    }
                }
            }
        }
        Err(SqlError::new(SqlState::OBJECT_IN_USE, "the page changes faster than it can be fetched"))
    }

    /// Puts a copy in place once replay has reached it.
    async fn place_copy(&self, tag: PageTag, upto: Lsn) -> Result<bool, SqlError> {
        let mut replayed = self.engine.subscribe_replayed();
        let mut stopping = self.stopping();
        tokio::select! {
            _ = replayed.wait_for(|at| *at >= upto) => {}
            _ = stopping.wait_for(|stops| *stops) => return Ok(false),
        }
        let engine = Arc::clone(&self.engine);
        let placed = tokio::task::spawn_blocking(move || engine.pool().put_copy(tag)).await;
        let placed = placed.map_err(|e| SqlError::internal(e.to_string()))??;
        if placed {
            let path = self.engine.files().relative_path(tag.rel, tag.fork, 0);
            tracing::info!("replaced block {} of relation {path} by the upstream's copy", tag.block);
        }
        Ok(placed)
    }
}

/// Whom replay asks.
pub struct Upstream {
    /// The node; gone once it stops.
    pub node: Weak<Replication>,
    /// Where connections live.
    pub runtime: tokio::runtime::Handle,
}

impl PageSource for Upstream {
    fn fetch(&self, tag: PageTag, at: Lsn) -> Result<Page, String> {
        let node = self.node.upgrade().ok_or("the server is stopping")?;
        let asking = async { tokio::time::timeout(PATIENCE, fetch(&node, tag)).await };
        let (copy, position) = match self.runtime.block_on(asking) {
            Err(_elapsed) => return Err("the upstream does not answer".to_owned()),
            Ok(answer) => answer.map_err(|e| e.to_string())?,
        };
        if position < at {
            return Err(format!("the upstream has replayed up to {position} only"));
        }
        let upto = copy.lsn().max(copy.hint_lsn());
        self.runtime.spawn(async move {
            if let Err(error) = node.place_copy(tag, upto).await {
                tracing::warn!("{error}");
            }
        });
        Ok(copy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_read_back_or_refused() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(from_hex(&hex(&bytes)), Some(bytes));
        assert_eq!(from_hex("0aF"), None);
        assert_eq!(from_hex("0g"), None);
        assert_eq!(from_hex("é"), None);
    }
}
