//! A record as one line of text, and counts of records: what `waldump` prints and golden tests compare.
//!
//! The shape is that of PostgreSQL's `pg_waldump`, which scripts parse.

use crate::ids::{Fork, Lsn};
use crate::record::Record;
use crate::rmgr::{self, Registry};
use std::collections::BTreeMap;
use std::fmt::{self, Write};

/// Name of a record's kind, `INSERT` say; `UNKNOWN (10)` if no one registered one.
pub fn kind_name(registry: &Registry, rmgr: u8, kind: u8) -> String {
    match registry.get(rmgr).and_then(|d| d.kind_name(kind)) {
        Some(name) => name.to_owned(),
        None => format!("UNKNOWN ({kind:x})"),
    }
}

fn fpi_bytes(record: &Record<'_>) -> u64 {
    record.blocks().iter().filter(|b| b.is_fpi()).map(|b| b.data.len() as u64).sum()
}

/// PostgreSQL pads the lower half with zeros here, nowhere else.
fn padded(lsn: Lsn) -> String {
    format!("{:X}/{:08X}", lsn.high(), lsn.low())
}

/// Writes the record as a line with its end; with `details` each block reference has a line of its own.
///
/// # Errors
/// Only those of `out`.
pub fn write_record(out: &mut dyn Write, registry: &Registry, record: &Record<'_>, details: bool) -> fmt::Result {
    let total = u64::from(record.total_bytes());
    write!(
        out,
        "rmgr: {:<11} len (rec/tot): {:6}/{:6}, tx: {:10}, lsn: {}, prev {}, desc: {} ",
        rmgr::name(record.rmgr()),
        total - fpi_bytes(record).min(total),
        total,
        record.xid(),
        padded(record.start()),
        padded(record.prev()),
        kind_name(registry, record.rmgr(), record.kind()),
    )?;
    if let Some(describe) = registry.get(record.rmgr()) {
        describe.describe(record, out)?;
    }
    for (i, b) in record.blocks().iter().enumerate() {
        out.write_str(if details { "\n\t" } else { ", " })?;
        write!(out, "blkref #{i}: rel {}", b.rel)?;
        if b.fork != Fork::Main {
            write!(out, " fork {}", b.fork)?;
        }
        write!(out, " blk {}", b.block)?;
        if details {
            write!(out, " ({} bytes", b.data.len())?;
            if b.will_init() {
                out.write_str("; init")?;
            }
            if b.is_fpi() {
                out.write_str("; FPW")?;
            }
            out.write_str(")")?;
        } else if b.is_fpi() {
            out.write_str(" FPW")?;
        }
    }
    if details && let Some(mark) = record.flushed_mark() {
        write!(out, "\n\tflushed {mark}")?;
    }
    out.write_char('\n')
}

/// Sums over records, by resource manager and kind.
#[derive(Debug, Default)]
pub struct Stats {
    first: Option<Lsn>,
    last: Lsn,
    sums: BTreeMap<(u8, u8), Sum>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    count: u64,
    record_bytes: u64,
    fpi_bytes: u64,
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.record_bytes += other.record_bytes;
        self.fpi_bytes += other.fpi_bytes;
    }

    fn total(&self) -> u64 {
        self.record_bytes + self.fpi_bytes
    }
}

impl Stats {
    /// Counts a record.
    pub fn add(&mut self, record: &Record<'_>) {
        self.first.get_or_insert(record.start());
        self.last = record.end();
        let fpi_bytes = fpi_bytes(record);
        let record_bytes = u64::from(record.total_bytes()).saturating_sub(fpi_bytes);
        let sum = self.sums.entry((record.rmgr(), record.kind())).or_default();
        sum.add(Sum { count: 1, record_bytes, fpi_bytes });
    }

    /// Writes the table, a line for each resource manager, or with `per_record` for each kind. Nothing if nothing was counted.
    ///
    /// # Errors
    /// Only those of `out`.
    pub fn write(&self, out: &mut dyn Write, registry: &Registry, per_record: bool) -> fmt::Result {
        let Some(first) = self.first else {
            return Ok(());
        };
        let mut all = Sum::default();
        self.sums.values().for_each(|&s| all.add(s));
        writeln!(out, "WAL statistics between {first} and {}:", self.last)?;
        let heads = [
            ["Type", "N", "(%)", "Record size", "(%)", "FPI size", "(%)", "Combined size", "(%)"],
            ["----", "-", "---", "-----------", "---", "--------", "---", "-------------", "---"],
        ];
        for h in heads {
            writeln!(
                out,
                "{:<27} {:>20} {:>8} {:>20} {:>8} {:>20} {:>8} {:>20} {:>8}",
                h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7], h[8]
            )?;
        }
        let mut row = |name: &str, s: &Sum| {
            writeln!(
                out,
                "{name:<27} {:>20} ({:>6.2}) {:>20} ({:>6.2}) {:>20} ({:>6.2}) {:>20} ({:>6.2})",
                s.count,
                percent(s.count, all.count),
                s.record_bytes,
                percent(s.record_bytes, all.record_bytes),
                s.fpi_bytes,
                percent(s.fpi_bytes, all.fpi_bytes),
                s.total(),
                percent(s.total(), all.total()),
            )
        };
        if per_record {
            for (&(r, kind), s) in &self.sums {
                row(&format!("{}/{}", rmgr::name(r), kind_name(registry, r, kind)), s)?;
            }
        } else {
            for r in 0..rmgr::COUNT {
                let mut sum = Sum::default();
                self.sums.range((r, 0)..=(r, u8::MAX)).for_each(|(_, &s)| sum.add(s));
                row(rmgr::name(r), &sum)?;
            }
        }
        writeln!(
            out,
            "{:<27} {:>20} {:>8} {:>20} {:>8} {:>20} {:>8} {:>20}",
            "", "--------", "", "--------", "", "--------", "", "--------"
        )?;
        let share = |part: u64| format!("[{:.2}%]", percent(part, all.total()));
        writeln!(
            out,
            "{:<27} {:>20} {:<9}{:>20} {:<9}{:>20} {:<9}{:>20} {:<6}",
            "Total",
            all.count,
            "",
            all.record_bytes,
            share(all.record_bytes),
            all.fpi_bytes,
            share(all.fpi_bytes),
            all.total(),
            "[100%]"
        )
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
fn percent(part: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { 100.0 * part as f64 / all as f64 }
}
