//! From the root to the node that covers a position. One latch at a time, no tree lock, no allocation.
//!
//! The root is block 0 and stays there: when it splits, its content moves to two new nodes. A descent may follow a link that is
//! out of date by the time it is followed. Then the node it reaches is deleted, of another level, or begins right of the position
//! (each has its fences): the descent starts again at the root. If the node ends left of the position, it was split: go right. So
//! neither splits nor deletion nor reuse of a block need to know who is on the way.

use std::cmp::Ordering;

use afterimage_wal::{BlockNo, Fork};
use smallvec::SmallVec;

use super::node::{NO_BLOCK, Node, Pos};
use crate::access::{AccessCtx, AccessError, RelHandle};
use crate::storage::{OwnedRead, OwnedWrite, Page};

/// The root's block.
pub(super) const ROOT: BlockNo = NO_BLOCK;

/// A sound tree makes a descent start again only when it races with a change; this often means that it is not sound.
const MAX_RESTARTS: u32 = 10_000;

/// Blocks of the internal nodes that were passed, the root first. Hints: they are checked when used.
pub(super) type Path = SmallVec<[BlockNo; 8]>;

/// What to look for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target<'a> {
    /// The node whose range holds this position.
    At(Pos<'a>),
    /// The node whose range ends at or holds the entries just before this position.
    Before(Pos<'a>),
    /// The rightmost node.
    Last,
}

impl Target<'_> {
    fn locate(&self, node: &Node<'_>) -> Option<Ordering> {
        match *self {
            Target::At(pos) => node.locate(pos),
            Target::Before(pos) => node.locate_before(pos),
            Target::Last => Some(if node.is_rightmost() { Ordering::Equal } else { Ordering::Greater }),
        }
    }

    fn child(&self, node: &Node<'_>) -> Option<BlockNo> {
        let i = match *self {
            Target::At(pos) => node.child_index(pos)?,
            Target::Before(pos) => node.child_index_before(pos)?,
            Target::Last => node.count().checked_sub(1)?,
        };
        Some(node.entry(i)?.child)
    }
}

/// What a page turned out to be for a target.
pub(super) enum Fit {
    /// The node that was looked for.
    Here,
    /// Its right sibling, or one further on.
    Right(BlockNo),
    /// Not a node on the way any more.
    Lost,
}

/// How the live node of `level` on `page` relates to the target.
pub(super) fn fit(node: &Node<'_>, level: u16, target: &Target<'_>) -> Option<Fit> {
    if node.is_deleted() || node.level() != level {
        return Some(Fit::Lost);
    }
    Some(match target.locate(node)? {
        Ordering::Equal => Fit::Here,
        Ordering::Greater => Fit::Right(node.right()),
        Ordering::Less => Fit::Lost,
    })
}

/// A damaged node.
pub(super) fn damaged(rel: &RelHandle, block: BlockNo, what: &'static str) -> AccessError {
    AccessError::Damaged { rel: rel.file, block, what }
}

/// The page as a node.
pub(super) fn as_node<'a>(rel: &RelHandle, block: BlockNo, page: &'a Page) -> Result<Node<'a>, AccessError> {
    Node::new(page).ok_or_else(|| damaged(rel, block, "not a btree page"))
}

/// `Option` of a node accessor to an error.
pub(super) fn sound<T>(rel: &RelHandle, block: BlockNo, v: Option<T>) -> Result<T, AccessError> {
    v.ok_or_else(|| damaged(rel, block, "a btree page with an unsound item"))
}

/// Latches a block exclusively.
pub(super) fn latch_write(ctx: &AccessCtx, rel: &RelHandle, block: BlockNo) -> Result<OwnedWrite, AccessError> {
    Ok(ctx.pool.read(rel.file, Fork::Main, block)?.write_owned())
}

/// Latches a block shared.
pub(super) fn latch_read(ctx: &AccessCtx, rel: &RelHandle, block: BlockNo) -> Result<OwnedRead, AccessError> {
    Ok(ctx.pool.read(rel.file, Fork::Main, block)?.read_owned())
}

enum Step {
    Found,
    Go(BlockNo, u16),
    Restart,
}

/// Finds the node of `level` for `target`, latched shared.
pub(super) fn find_read(ctx: &AccessCtx, rel: &RelHandle, target: Target<'_>, level: u16) -> Result<OwnedRead, AccessError> {
    'restart: for _ in 0..MAX_RESTARTS {
        let mut block = ROOT;
        let mut expect = None;
        loop {
            let page = latch_read(ctx, rel, block)?;
            match step(rel, block, &page, expect, level, &target, None)? {
                Step::Found => return Ok(page),
                Step::Go(next, at) => (block, expect) = (next, Some(at)),
                Step::Restart => continue 'restart,
            }
        }
    }
    Err(damaged(rel, ROOT, "a descent does not end: links and fences disagree"))
}

/// Finds the node of `level` for `target`, latched exclusively, and the path to it. A tree that is not that high has none.
pub(super) fn find_write(
    ctx: &AccessCtx,
    rel: &RelHandle,
    target: Target<'_>,
    level: u16,
    path: &mut Path,
) -> Result<OwnedWrite, AccessError> {
    'restart: for _ in 0..MAX_RESTARTS {
        let mut block = ROOT;
        let mut expect = None;
        path.clear();
        loop {
            if expect == Some(level) {
                let page = latch_write(ctx, rel, block)?;
                match step(rel, block, &page, expect, level, &target, Some(path))? {
                    Step::Found => return Ok(page),
                    Step::Go(next, at) => (block, expect) = (next, Some(at)),
                    Step::Restart => continue 'restart,
                }
            } else {
                let page = latch_read(ctx, rel, block)?;
                match step(rel, block, &page, expect, level, &target, Some(path))? {
                    // The root is the node: again, with the other latch.
                    Step::Found => expect = Some(level),
                    Step::Go(next, at) => (block, expect) = (next, Some(at)),
                    Step::Restart => continue 'restart,
                }
            }
        }
    }
    Err(damaged(rel, ROOT, "a descent does not end: links and fences disagree"))
}

fn step(
    rel: &RelHandle,
    block: BlockNo,
    page: &Page,
    expect: Option<u16>,
    level: u16,
    target: &Target<'_>,
    path: Option<&mut Path>,
) -> Result<Step, AccessError> {
    let Some(node) = Node::new(page) else {
        // A block that was allocated, linked nowhere yet, or is being made anew.
        return if block == ROOT { Err(damaged(rel, block, "not a btree page")) } else { Ok(Step::Restart) };
    };
    let here = expect.unwrap_or_else(|| node.level());
    match sound(rel, block, fit(&node, here, target))? {
        Fit::Lost => Ok(Step::Restart),
        Fit::Right(next) => Ok(Step::Go(next, here)),
        Fit::Here if here == level => Ok(Step::Found),
        Fit::Here => {
            let below = here.checked_sub(1).filter(|b| *b >= level).ok_or_else(|| damaged(rel, block, "the tree is not that high"))?;
            let child = sound(rel, block, target.child(&node))?;
            if let Some(path) = path {
                path.push(block);
            }
            Ok(Step::Go(child, below))
        }
    }
}
