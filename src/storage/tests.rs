//! The pool under many threads, the double-write ring going round, maps on a real pool.

use std::{path::Path, sync::Arc};

use afterimage_wal::{BlockNo, Fork, Lsn, RelId, SystemId, Wal, WalOptions, disk::RealDisk};

use super::{BufferPool, Files, PoolOptions, StorageError, double_write, double_write::DoubleWrite, fsm, page::PAGE_SIZE, vm};

const REL: RelId = RelId { spc: 1663, db: 1, rel: 100 };
const SYSTEM: SystemId = SystemId::new(7);

fn pool(dir: &Path, buffers: usize, region_slots: usize) -> Arc<BufferPool> {
    let disk = RealDisk::shared();
    let options = WalOptions { segment_bytes: 1 << 20, ..WalOptions::default() };
    // A pool before it in the same directory may still be making segments of its own WAL.
    let wal_dir = tempfile::Builder::new().prefix("pg_wal").tempdir_in(dir).unwrap().keep().join("pg_wal");
    let wal = Wal::create(Arc::clone(&disk), &wal_dir, SYSTEM, options).unwrap();
    let files = Arc::new(Files::new(Arc::clone(&disk), dir));
    let area = DoubleWrite::open_sized(disk.as_ref(), dir, SYSTEM, region_slots).unwrap();
    Arc::new(BufferPool::new(&PoolOptions { buffers }, files, wal, area))
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn many_threads_lose_no_change_while_pages_come_and_go() {
    const PAGES: u32 = 320;
    const ROUNDS: u64 = 400;
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(dir.path(), 32, 16);
    pool.files().create(REL, Fork::Main).unwrap();
    for _ in 0..PAGES / 8 {
        pool.extend(REL, Fork::Main, 8).unwrap();
    }
    let counted: Vec<_> = (0..PAGES).map(|_| std::sync::atomic::AtomicU64::new(0)).collect();
    std::thread::scope(|threads| {
        for seed in 1..=6_u64 {
            let (pool, counted) = (&pool, &counted);
            threads.spawn(move || {
                let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
                for _ in 0..ROUNDS {
                    let block = u32::try_from(random(&mut state) % u64::from(PAGES)).unwrap();
                    let buffer = pool.read(REL, Fork::Main, BlockNo::new(block)).unwrap();
                    if random(&mut state).is_multiple_of(3) {
                        let mut page = buffer.write();
                        let at = 4000;
                        let n = u64::from_le_bytes(*page.bytes()[at..].first_chunk().unwrap());
                        page.bytes_mut()[at..at + 8].copy_from_slice(&(n + 1).to_le_bytes());
                        counted[usize::try_from(block).unwrap()].fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    } else {
                        assert_eq!(buffer.read().bytes()[5000], 0);
                    }
                }
            });
        }
        let pool = &pool;
        threads.spawn(move || {
            for _ in 0..10 {
                pool.flush_all().unwrap();
            }
        });
    });
    pool.flush_all().unwrap();
    assert_eq!(pool.dirty_count(), 0);
    drop(pool);
    let again = self::pool(dir.path(), 16, 16);
    for (block, counted) in (0..PAGES).zip(&counted) {
        let page = again.read(REL, Fork::Main, BlockNo::new(block)).unwrap();
        let n = u64::from_le_bytes(*page.read().bytes()[4000..].first_chunk().unwrap());
        assert_eq!(n, counted.load(std::sync::atomic::Ordering::Relaxed), "block {block}");
    }
}

#[test]
fn all_pinned_is_an_error_not_a_hang() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(dir.path(), 16, 16);
    pool.files().create(REL, Fork::Main).unwrap();
    for _ in 0..20 {
        pool.extend_unlogged(REL, Fork::Main, 1).unwrap();
    }
    let pins: Vec<_> = (0..16).map(|b| pool.read(REL, Fork::Main, BlockNo::new(b)).unwrap()).collect();
    assert!(matches!(pool.read(REL, Fork::Main, BlockNo::new(17)), Err(StorageError::NoBuffer)));
    drop(pins);
    pool.read(REL, Fork::Main, BlockNo::new(17)).unwrap();
}

#[test]
fn cleanup_latch_waits_for_the_other_pin() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(dir.path(), 16, 16);
    pool.files().create(REL, Fork::Main).unwrap();
    let mine = pool.extend_unlogged(REL, Fork::Main, 1).unwrap();
    let other = pool.read(REL, Fork::Main, BlockNo::new(0)).unwrap();
    assert!(mine.try_write_cleanup().is_none());
    std::thread::scope(|threads| {
        let waiter = threads.spawn(|| {
            drop(mine.write_cleanup());
        });
        drop(other);
        waiter.join().unwrap();
    });
    assert!(mine.try_write_cleanup().is_some());
}

/// The thread of the background writer is played by the loop, so that it is always as fast as need be.
#[test]
fn sessions_leave_writing_to_a_background_writer_that_keeps_up() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(dir.path(), 256, 64);
    pool.files().create(REL, Fork::Main).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    pool.on_pressure(Box::new(move || tell.send(()).unwrap()));
    for n in 0..4096_u32 {
        let buffer = pool.extend_unlogged(REL, Fork::Main, 1).unwrap();
        buffer.write().bytes_mut()[4000..4004].copy_from_slice(&n.to_le_bytes());
        drop(buffer);
        if told.try_iter().count() > 0 {
            pool.clean_ahead().unwrap();
        }
    }
    let written = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    let (by_sessions, ahead) = (written(&pool.stats().backend_writes), written(&pool.stats().cleaner_writes));
    assert!(by_sessions + ahead >= 4096 - 256 && ahead > 4 * by_sessions, "{by_sessions} by sessions, {ahead} ahead");
    pool.flush_all().unwrap();
    drop(pool);
    let again = self::pool(dir.path(), 16, 16);
    for n in 0..4096_u32 {
        let page = again.read(REL, Fork::Main, BlockNo::new(n)).unwrap();
        assert_eq!(page.read().bytes()[4000..4004], n.to_le_bytes());
    }
}

/// Tears every page of a file in turn, at each sector, and restores it from the area.
#[test]
fn every_torn_page_is_restored_and_whole_ones_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(dir.path(), 32, 16);
    pool.files().create(REL, Fork::Main).unwrap();
    for n in 0..12_u8 {
        let buffer = pool.extend_unlogged(REL, Fork::Main, 1).unwrap();
        buffer.write().bytes_mut()[100..8000].fill(n + 1);
    }
    pool.flush_all().unwrap();
    let files = Files::new(RealDisk::shared(), dir.path());
    let path = dir.path().join("base/1/100");
    let good = std::fs::read(&path).unwrap();
    for block in 0..12 {
        for sector in [0, 1, 7, 15] {
            let mut torn = good.clone();
            let at = block * PAGE_SIZE + sector * 512;
            torn[at..at + 512].fill(0xEE);
            std::fs::write(&path, &torn).unwrap();
            let restored = double_write::restore(&RealDisk, dir.path(), SYSTEM, &files).unwrap();
            assert_eq!(restored.healed.len(), 1);
            assert_eq!(std::fs::read(&path).unwrap(), good);
        }
    }
    // A damaged copy is no copy, and another system's area is refused.
    assert!(double_write::restore(&RealDisk, dir.path(), SystemId::new(8), &files).is_err());
    // The next start keeps the file and not the copies in it.
    drop(pool);
    let area = dir.path().join(double_write::AREA_FILE);
    let before = std::fs::metadata(&area).unwrap().len();
    drop(DoubleWrite::open_sized(&RealDisk, dir.path(), SYSTEM, 16).unwrap());
    assert_eq!(std::fs::metadata(&area).unwrap().len(), before);
    assert_eq!(double_write::restore(&RealDisk, dir.path(), SYSTEM, &files).unwrap(), double_write::Restored::default());
}

#[test]
fn an_area_of_version_1_is_restored_from_and_then_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(dir.path(), 32, 16);
    pool.files().create(REL, Fork::Main).unwrap();
    pool.extend_unlogged(REL, Fork::Main, 1).unwrap().write().bytes_mut()[100..8000].fill(1);
    pool.flush_all().unwrap();
    drop(pool);
    // Version 1: no generation in the header, the crc of a slot begins at nothing.
    let area = dir.path().join(double_write::AREA_FILE);
    let mut bytes = std::fs::read(&area).unwrap();
    bytes[4..8].copy_from_slice(&1_u32.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..24]);
    bytes[24..28].copy_from_slice(&crc.to_le_bytes());
    bytes[28..36].fill(0);
    let slot = &mut bytes[PAGE_SIZE..2 * PAGE_SIZE + 64];
    let crc = crc32c::crc32c(&slot[8..]);
    slot[4..8].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&area, &bytes).unwrap();
    let files = Files::new(RealDisk::shared(), dir.path());
    let path = dir.path().join("base/1/100");
    let good = std::fs::read(&path).unwrap();
    let mut torn = good.clone();
    torn[512..1024].fill(0xEE);
    std::fs::write(&path, &torn).unwrap();
    assert_eq!(double_write::restore(&RealDisk, dir.path(), SYSTEM, &files).unwrap().healed.len(), 1);
    assert_eq!(std::fs::read(&path).unwrap(), good);
    drop(DoubleWrite::open_sized(&RealDisk, dir.path(), SYSTEM, 16).unwrap());
    assert_eq!(double_write::restore(&RealDisk, dir.path(), SYSTEM, &files).unwrap().copies, 0);
}

#[test]
fn truncate_and_drop_forget_pages() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(dir.path(), 32, 16);
    pool.create_fork(REL, Fork::Main).unwrap();
    pool.extend(REL, Fork::Main, 20).unwrap();
    pool.flush_all().unwrap();
    pool.truncate(REL, Fork::Main, BlockNo::new(5), Lsn::INVALID).unwrap();
    assert_eq!(pool.n_blocks(REL, Fork::Main).unwrap(), BlockNo::new(5));
    assert_eq!(std::fs::metadata(dir.path().join("base/1/100")).unwrap().len(), 5 * 8192);
    assert!(matches!(pool.read(REL, Fork::Main, BlockNo::new(5)), Err(StorageError::MissingBlock { .. })));
    assert_eq!(pool.extend(REL, Fork::Main, 1).unwrap().block(), BlockNo::new(5));
    pool.drop_relation(REL).unwrap();
    assert!(!dir.path().join("base/1/100").exists());
    assert_eq!(pool.files().n_blocks(REL, Fork::Main).unwrap(), BlockNo::new(0));
}

#[test]
fn free_space_map_finds_room_and_forgets_promises_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(dir.path(), 64, 16);
    pool.files().create(REL, Fork::Main).unwrap();
    assert_eq!(fsm::find(&pool, REL, 100).unwrap(), None);
    for _ in 0..10 {
        pool.extend_unlogged(REL, Fork::Main, 1).unwrap();
    }
    fsm::record(&pool, REL, BlockNo::new(7), 3000).unwrap();
    fsm::record(&pool, REL, BlockNo::new(3), 500).unwrap();
    assert_eq!(fsm::find(&pool, REL, 1000).unwrap(), Some(BlockNo::new(7)));
    assert_eq!(fsm::find(&pool, REL, 3100).unwrap(), None);
    assert_eq!(fsm::record_and_search(&pool, REL, BlockNo::new(7), 10, 400, 0).unwrap(), Some(BlockNo::new(3)));
    // Past the end: not offered, and not asked again.
    fsm::record(&pool, REL, BlockNo::new(5000), 8000).unwrap();
    assert_eq!(fsm::find(&pool, REL, 4000).unwrap(), None);
    assert_eq!(fsm::recorded(&pool, REL, BlockNo::new(5000)).unwrap(), 0);
}

#[test]
fn visibility_map_keeps_a_bit_per_block() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(dir.path(), 64, 16);
    assert!(!vm::all_visible(&pool, REL, BlockNo::new(9)).unwrap());
    for heap in [0, 9, vm::BLOCKS_PER_PAGE + 1] {
        let heap = BlockNo::new(heap);
        let map = vm::find_or_extend(&pool, REL, heap, true).unwrap();
        vm::set(&mut map.write(), heap, vm::VISIBLE);
        assert!(vm::all_visible(&pool, REL, heap).unwrap());
    }
    assert_eq!(vm::count(&pool, REL).unwrap(), (3, 0));
    let mut pin = vm::MapPin::default();
    vm::set(&mut pin.pin(&pool, REL, BlockNo::new(8), true).unwrap().write(), BlockNo::new(8), vm::VISIBLE | vm::FROZEN);
    assert_eq!(vm::count(&pool, REL).unwrap(), (4, 1));
    let said = |pin: &mut vm::MapPin, heap| pin.bits(&pool, REL, BlockNo::new(heap)).unwrap();
    assert_eq!([7, 8, 9, 10, vm::BLOCKS_PER_PAGE + 1].map(|heap| said(&mut pin, heap)), [0, 3, 1, 0, 1]);
    let heap = BlockNo::new(9);
    vm::clear(&mut vm::find(&pool, REL, heap).unwrap().unwrap().write(), heap);
    assert!(!vm::all_visible(&pool, REL, heap).unwrap());

    // A page of the time of one bit per block says nothing, and begins anew.
    let map = vm::find(&pool, REL, heap).unwrap().unwrap();
    map.write().set_flag(super::page::FLAG_FROZEN_BITS, false);
    assert!(!vm::all_visible(&pool, REL, BlockNo::new(8)).unwrap());
    vm::set(&mut map.write(), heap, vm::VISIBLE);
    assert_eq!([0, 8, 9].map(|heap| said(&mut pin, heap)), [0, 0, 1]);
}

#[test]
fn relation_without_all_of_its_files_is_not_shorter_but_damaged() {
    use super::files::SEGMENT_BLOCKS;
    let dir = tempfile::tempdir().unwrap();
    let file = |segment: u32| dir.path().join(if segment == 0 { "base/1/100".into() } else { format!("base/1/100.{segment}") });
    let blocks = |segment: u32, n: u32| {
        std::fs::create_dir_all(dir.path().join("base/1")).unwrap();
        let file = std::fs::File::options().create(true).truncate(false).write(true).open(file(segment)).unwrap();
        file.set_len(u64::from(n) * PAGE_SIZE as u64).unwrap();
    };
    let n_blocks = |pool: &BufferPool| pool.n_blocks(REL, Fork::Main).map(|n| n.get()).map_err(|e| e.to_string());
    let fresh = || pool(dir.path(), 32, 16);
    let gone = |segment: &str| Err(format!("could not open file \"base/1/100{segment}\": No such file or directory (os error 2)"));

    // No file at all. Maps of a relation need none.
    let first = fresh();
    assert_eq!(n_blocks(&first), gone(""));
    assert_eq!(first.n_blocks(REL, Fork::Vm).unwrap(), BlockNo::new(0));
    assert!(matches!(first.read(REL, Fork::Main, BlockNo::new(0)), Err(StorageError::Open { .. })));
    assert!(matches!(first.extend(REL, Fork::Main, 1), Err(StorageError::Open { .. })));
    assert!(!file(0).exists());
    // Put back while it runs.
    blocks(0, 3);
    assert_eq!(n_blocks(&first), Ok(3));

    // Three segments; the last is only begun.
    for (segment, n) in [(0, SEGMENT_BLOCKS), (1, SEGMENT_BLOCKS), (2, 5)] {
        blocks(segment, n);
    }
    assert_eq!(n_blocks(&fresh()), Ok(2 * SEGMENT_BLOCKS + 5));
    blocks(1, 7);
    let short = Err("could not open file \"base/1/100.2\": previous segment is only 7 blocks".to_owned());
    assert_eq!(n_blocks(&fresh()), short);
    std::fs::remove_file(file(1)).unwrap();
    let pool = fresh();
    assert_eq!(n_blocks(&pool), gone(".1"));
    assert!(pool.extend(REL, Fork::Main, 1).is_err() && !file(1).exists());
    std::fs::remove_file(file(0)).unwrap();
    assert_eq!(n_blocks(&fresh()), gone(""));

    // A truncation leaves empty files behind; all go with the relation, and a crash on the way leaves none that nobody finds.
    for (segment, n) in [(0, SEGMENT_BLOCKS), (1, SEGMENT_BLOCKS), (2, 5)] {
        blocks(segment, n);
    }
    let pool = fresh();
    assert_eq!(n_blocks(&pool), Ok(2 * SEGMENT_BLOCKS + 5));
    pool.truncate(REL, Fork::Main, BlockNo::new(10), Lsn::INVALID).unwrap();
    assert_eq!((n_blocks(&pool), file(2).metadata().unwrap().len()), (Ok(10), 0));
    assert_eq!(n_blocks(&fresh()), Ok(10));
    pool.drop_relation(REL).unwrap();
    assert!((0..3).all(|segment| !file(segment).exists()));
}
