//! Records of the B-tree: their kinds and how they read in `waldump`.
//!
//! | kind | blocks | data |
//! |---|---|---|
//! | `INSERT_LEAF` | 0 leaf | entry 2, item |
//! | `INSERT_INTERNAL` | 0 node, 1 left child | 0: entry 2, item; 1: nothing, its incomplete mark is cleared |
//! | `SPLIT` | 0 left, 1 right (new) | 0: entries that stay 2, fence; 1: the page |
//! | `ROOT_SPLIT` | 0 left (new), 1 right (new), 2 root | each: the page |
//! | `DELETE` | 0 leaf | 0: entries 2 each; main: horizon 8 |
//! | `MERGE_RIGHT` | 0 right neighbour, 1 parent, 2 deleted, 3 left neighbour (if any) | 0: children moved 4 each, fence; 1: entry 2 |
//! | `MERGE_LEFT` | 0 left neighbour, 1 parent, 2 deleted | 0: right link 4, count 2, children moved 4 each, fence; 1: entry 2 |
//! | `PAGES` | any number, new | each: the page |
//!
//! "The page" is the page without the hole in its middle (`node::pack`). Redo applies blocks in the order given, one latch at a
//! time; the order is such that a reader on a standby always finds every entry.

use std::fmt;

use afterimage_wal::rmgr::Describe;
use afterimage_wal::{Lsn, Record};

pub(super) const INSERT_LEAF: u8 = 0x00;
pub(super) const INSERT_INTERNAL: u8 = 0x10;
pub(super) const SPLIT: u8 = 0x20;
pub(super) const ROOT_SPLIT: u8 = 0x30;
pub(super) const DELETE: u8 = 0x40;
pub(super) const MERGE_RIGHT: u8 = 0x50;
pub(super) const MERGE_LEFT: u8 = 0x60;
pub(super) const PAGES: u8 = 0x70;

/// Shows B-tree records in `waldump`.
#[derive(Debug, Clone, Copy, Default)]
pub struct DescribeBtree;

/// Takes two bytes off the front.
pub(super) fn take_u16(data: &[u8]) -> Option<(u16, &[u8])> {
    data.split_first_chunk::<2>().map(|(b, rest)| (u16::from_le_bytes(*b), rest))
}

/// Takes four bytes off the front.
pub(super) fn take_u32(data: &[u8]) -> Option<(u32, &[u8])> {
    data.split_first_chunk::<4>().map(|(b, rest)| (u32::from_le_bytes(*b), rest))
}

impl Describe for DescribeBtree {
    fn kind_name(&self, kind: u8) -> Option<&'static str> {
        Some(match kind {
            INSERT_LEAF => "INSERT_LEAF",
            INSERT_INTERNAL => "INSERT_UPPER",
            SPLIT => "SPLIT",
            ROOT_SPLIT => "NEWROOT",
            DELETE => "DELETE",
            MERGE_RIGHT => "MERGE_RIGHT",
            MERGE_LEFT => "MERGE_LEFT",
            PAGES => "PAGES",
            _ => return None,
        })
    }

    fn describe(&self, record: &Record<'_>, out: &mut dyn fmt::Write) -> fmt::Result {
        let first = record.block(0).map_or(&[][..], |b| b.data);
        match record.kind() {
            INSERT_LEAF | INSERT_INTERNAL => match take_u16(first) {
                Some((at, _)) => write!(out, "entry {at}"),
                None => Ok(()),
            },
            SPLIT => match take_u16(first) {
                Some((stay, _)) => write!(out, "stay {stay}"),
                None => Ok(()),
            },
            DELETE => {
                write!(out, "ndeleted {}", first.len() / 2)?;
                match record.main().first_chunk::<8>() {
                    Some(h) => write!(out, ", horizon {}", Lsn::from_le_bytes(*h)),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}
