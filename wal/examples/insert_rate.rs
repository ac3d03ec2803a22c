//! Measures insert: nanoseconds per record of 150 bytes, with 1 and 2 threads, and flush latency. `cargo run --release -p afterimage-wal --example insert_rate`.

use afterimage_wal::disk::RealDisk;
use afterimage_wal::{BlockNo, Fork, Lsn, RecordBuilder, RelId, SystemId, Wal, WalOptions, Xid};
use std::sync::Arc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::temp_dir().join(format!("afterimage-wal-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let wal = Wal::create(RealDisk::shared(), &dir, SystemId::new(1), WalOptions::default())?;
    for threads in [1_u32, 2, 4] {
        let count = 400_000 / threads;
        let cpu = cpu();
        let clock = std::time::Instant::now();
        std::thread::scope(|s| {
            for t in 0..threads {
                let wal = &wal;
                s.spawn(move || insert_many(wal, t.to_le_bytes()[0], count));
            }
        });
        let each = clock.elapsed().as_nanos() as f64 / f64::from(count * threads);
        let cpu = (self::cpu() - cpu) as f64 / f64::from(count * threads);
        println!("{threads} threads: {each:.0} ns per record, {cpu:.0} ns of CPU");
        wal.flush(wal.inserted())?;
        wal.recycle_upto(wal.flushed(), &|_| true)?;
    }
    let mut total = std::time::Duration::ZERO;
    for _ in 0..500 {
        let end = insert_many(&wal, 7, 10);
        let clock = std::time::Instant::now();
        wal.flush(end)?;
        total += clock.elapsed();
    }
    println!("flush after 10 records: {:?}", total / 500);
    drop(Arc::clone(&wal));
    wal.close()?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

fn cpu() -> u128 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    u128::from(t.tv_sec.unsigned_abs()) * 1_000_000_000 + u128::from(t.tv_nsec.unsigned_abs())
}

fn insert_many(wal: &Wal, fill: u8, count: u32) -> Lsn {
    let mut record = RecordBuilder::new(3, 0, Xid::INVALID);
    let data = [fill; 100];
    let mut end = Lsn::INVALID;
    for i in 0..count {
        record.reset(3, 0, Xid::new(i.into()));
        record.block(RelId::new(1663, 5, 16384), Fork::Main, BlockNo::new(i), 0, &data).main(&[1, 2, 3]);
        match wal.insert(&record) {
            Ok(range) => end = range.end,
            Err(e) => {
                eprintln!("{e}");
                std::process::exit(1);
            }
        }
    }
    end
}
