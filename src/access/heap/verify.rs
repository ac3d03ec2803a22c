//! Checking a heap page: what `verify_heapam` and `afterimage verify` report. Nothing here changes a page.
//!
//! PostgreSQL: contrib/amcheck/verify_heapam.c, whose messages are kept where the layout allows.

use afterimage_wal::ids::{BlockNo, Xid};

use super::prune::next_in_chain;
use super::tuple::{HEADER, header, mask};
use crate::access::Tid;
use crate::storage::page::{HEADER_SIZE, LINE_POINTER_SIZE, PAGE_SIZE};
use crate::storage::{LinePointer, Page};

/// Something wrong on a heap page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Line pointer it concerns.
    pub offset: u16,
    /// What.
    pub message: String,
}

/// Checks one heap page: line pointers, headers, HOT chains, items that overlap. `next_xid` is the next xid to be assigned.
/// The findings are in order of line pointers.
pub fn verify_page(page: &Page, block: BlockNo, next_xid: Xid) -> Vec<Finding> {
    let mut found = Vec::new();
    let last = page.max_offset();
    let first_item = HEADER_SIZE + usize::from(last) * LINE_POINTER_SIZE;
    let mut spans: Vec<(usize, usize, u16)> = Vec::new();
    for off in 1..=last {
        let mut say = |message: String| found.push(Finding { offset: off, message });
        match page.line(off) {
            LinePointer::Unused | LinePointer::Dead => {}
            LinePointer::Redirect(to) => {
                if to < 1 {
                    say(format!("line pointer redirection to item at offset {to} precedes minimum offset 1"));
                } else if to > last {
                    say(format!("line pointer redirection to item at offset {to} exceeds maximum offset {last}"));
                } else {
                    match page.line(to) {
                        LinePointer::Unused => say(format!("line pointer redirection to unused item at offset {to}")),
                        LinePointer::Dead => say(format!("line pointer redirection to dead item at offset {to}")),
                        LinePointer::Redirect(_) => say(format!("line pointer redirection to another redirection at offset {to}")),
                        LinePointer::Normal { .. } => {
                            if header(page, to).is_some_and(|h| !h.has(mask::HEAP_ONLY)) {
                                say(format!("line pointer redirection to a tuple at offset {to} that is not heap-only"));
                            }
                        }
                    }
                }
            }
            LinePointer::Normal { offset, len } => {
                let (start, end) = (usize::from(offset), usize::from(offset) + usize::from(len));
                if usize::from(len) < HEADER {
                    say(format!("line pointer length {len} is less than the minimum tuple header size {HEADER}"));
                    continue;
                }
                if start < first_item {
                    say(format!("line pointer to page offset {start} lies within the line pointers, which end at {first_item}"));
                    continue;
                }
                if end > PAGE_SIZE || page.span(off).is_none() {
                    say(format!("line pointer to page offset {start} with length {len} ends beyond maximum page offset {PAGE_SIZE}"));
                    continue;
                }
                spans.push((start, end, off));
                verify_tuple(page, block, off, next_xid, &mut say);
            }
        }
    }
    spans.sort_unstable();
    for pair in spans.windows(2) {
        if let [(_, end, a), (start, _, b)] = pair
            && end > start
        {
            found.push(Finding { offset: *b, message: format!("tuple overlaps the tuple at offset {a}") });
        }
    }
    found.sort_by_key(|f| f.offset);
    found
}

fn verify_tuple(page: &Page, block: BlockNo, off: u16, next_xid: Xid, say: &mut impl FnMut(String)) {
    let Some(h) = header(page, off) else { return };
    if !h.xmin.is_valid() {
        say("xmin is invalid".to_owned());
    } else if h.xmin >= next_xid {
        say(format!("xmin {} equals or exceeds next valid transaction ID {next_xid}", h.xmin));
    }
    if h.xmax.is_valid() && h.xmax >= next_xid {
        say(format!("xmax {} equals or exceeds next valid transaction ID {next_xid}", h.xmax));
    }
    if h.has(mask::XMIN_COMMITTED | mask::XMIN_ABORTED) {
        say("xmin is hinted as committed and as aborted".to_owned());
    }
    if h.has(mask::XMAX_COMMITTED | mask::XMAX_ABORTED) {
        say("xmax is hinted as committed and as aborted".to_owned());
    }
    if h.has(mask::HOT_UPDATED) && h.next.block == block && h.next == Tid::new(block, off) {
        say("tuple is marked HOT updated but is its own successor".to_owned());
    } else if let Some((next, by)) = next_in_chain(&h, block)
        && let Some(successor) = header(page, next)
        // A successor by another transaction took the place of one that was pruned away.
        && successor.xmin == by
        && !successor.has(mask::HEAP_ONLY)
    {
        say(format!("tuple points to new version at offset {next}, but that tuple is not heap-only"));
    }
}

/// Whether an index entry may point to this line pointer: something is there, or was until vacuum comes.
pub fn may_be_indexed(page: &Page, off: u16) -> bool {
    match page.line(off) {
        LinePointer::Unused => false,
        LinePointer::Dead | LinePointer::Redirect(_) => true,
        LinePointer::Normal { .. } => header(page, off).is_some_and(|h| !h.has(mask::HEAP_ONLY)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::heap::tuple::Header;

    fn page_of(rows: &[Header]) -> Page {
        let mut page = Page::zeroed();
        page.init(0);
        for h in rows {
            let mut item = h.encode().to_vec();
            item.extend([7; 20]);
            page.add_item(&item, None).unwrap();
        }
        page
    }

    fn row(xmin: u64, at: u16) -> Header {
        Header::new(Xid::from_u64(xmin), Tid::new(BlockNo::new(3), at), 0, 0)
    }

    fn messages(page: &Page) -> Vec<String> {
        verify_page(page, BlockNo::new(3), Xid::from_u64(100)).into_iter().map(|f| format!("{}: {}", f.offset, f.message)).collect()
    }

    #[test]
    fn sound_page_has_no_findings() {
        let mut old = row(50, 1);
        old.end(Xid::from_u64(60), Tid::new(BlockNo::new(3), 2), false, true);
        let mut new = row(60, 2);
        new.mask |= mask::HEAP_ONLY;
        let mut page = page_of(&[old, new, row(99, 3)]);
        assert!(messages(&page).is_empty());
        page.set_line(1, LinePointer::Redirect(2));
        assert!(messages(&page).is_empty());
        assert!(may_be_indexed(&page, 1) && !may_be_indexed(&page, 2) && may_be_indexed(&page, 3) && !may_be_indexed(&page, 4));
    }

    #[test]
    fn each_kind_of_damage_is_named() {
        let mut page = page_of(&[row(50, 1), row(100, 2), row(0, 3)]);
        assert_eq!(messages(&page), ["2: xmin 100 equals or exceeds next valid transaction ID 100", "3: xmin is invalid"]);
        page.set_line(2, LinePointer::Redirect(9));
        page.set_line(3, LinePointer::Redirect(1));
        assert_eq!(
            messages(&page),
            [
                "2: line pointer redirection to item at offset 9 exceeds maximum offset 3",
                "3: line pointer redirection to a tuple at offset 1 that is not heap-only"
            ]
        );
        let LinePointer::Normal { offset, .. } = page.line(1) else { panic!("a row") };
        page.set_line(2, LinePointer::Normal { offset: offset + 10, len: 38 });
        page.set_line(3, LinePointer::Normal { offset: 8180, len: 40 });
        let found = messages(&page);
        assert!(found.iter().any(|m| m == "2: tuple overlaps the tuple at offset 1"), "{found:?}");
        assert!(found.iter().any(|m| m == "3: line pointer to page offset 8180 with length 40 ends beyond maximum page offset 8192"));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        use rand::{Rng, SeedableRng, rngs::StdRng};
        let mut rng = StdRng::seed_from_u64(1);
        for _ in 0..2000 {
            let mut page = page_of(&[row(50, 1), row(60, 2), row(70, 3)]);
            for _ in 0..rng.random_range(1..40) {
                let at = if rng.random() { rng.random_range(0..60) } else { rng.random_range(0..PAGE_SIZE) };
                page.bytes_mut()[at] = rng.random();
            }
            let _found = messages(&page);
        }
    }
}
