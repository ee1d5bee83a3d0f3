//! How RocksDB is set up, and why.

use std::path::PathBuf;

use rust_rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, BlockBasedPinningTier, Cache, DBCompressionType, DataBlockIndexType,
    LogLevel, Options,
};

use crate::files;

/// What opening an engine needs to know.
#[derive(Clone, Debug)]
pub struct RocksOptions {
    /// The engine's own directory; it is created if need be.
    pub dir: PathBuf,
    /// Bytes of the block cache. It holds data blocks and, so that memory stays bounded however large the data set
    /// is, the blocks of filters and indexes too.
    pub block_cache_bytes: usize,
    /// Bytes of rows after which a commit begins its next file. Smaller files only make sense in tests.
    pub file_bytes: u64,
    /// Threads for compactions and other background work.
    pub background_jobs: i32,
    /// Files are read past the system's page cache, and new ones are written for that: nearly all reads come from the disk.
    pub direct_reads: bool,
}

impl RocksOptions {
    /// The defaults for `dir`: 256 MiB of cache, files of 256 MiB, two background jobs, reads through the page cache.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> RocksOptions {
        RocksOptions {
            dir: dir.into(),
            block_cache_bytes: 256 << 20,
            file_bytes: 256 << 20,
            background_jobs: 2,
            direct_reads: false,
        }
    }
}

/// Runs at level 0 at which a compaction begins. Each run costs a read one more filter.
const LEVEL0_COMPACTS: i32 = 4;
/// Size of the first sorted level, and so about that of what one compaction from level 0 rewrites.
const LEVEL_BASE_BYTES: u64 = 256 << 20;
/// Size of the files that compactions write.
const TARGET_FILE_BYTES: u64 = 64 << 20;
/// Data blocks: 16 KiB read better than 4 KiB while cached (here or by the system), and compress better.
const BLOCK_BYTES: usize = 16 << 10;
/// The same where most reads come from the disk: of a block one row is wanted, as a rule, and what else it holds is read and unpacked for nothing.
const DIRECT_BLOCK_BYTES: usize = 4 << 10;
/// Entries of an index from one whole key to the next, there. Between them only what differs is kept, without which the indexes of such small blocks alone
/// would fill the block cache; a search looks at up to as many entries one by one.
const DIRECT_INDEX_RESTARTS: i32 = 16;
/// Filter bits a key: one absent key in a hundred costs a block read.
const FILTER_BITS: f64 = 10.0;

/// The block cache. HyperClockCache scales over threads where an LRU list does not; an entry charge of 0 lets its table grow
/// by need, which suits entries from small filter pieces to big values.
pub(crate) fn cache(options: &RocksOptions) -> Cache {
    Cache::new_hyper_clock_cache(options.block_cache_bytes, 0)
}

fn table(options: &RocksOptions, cache: &Cache) -> BlockBasedOptions {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(if options.direct_reads { DIRECT_BLOCK_BYTES } else { BLOCK_BYTES });
    table.set_index_block_restart_interval(if options.direct_reads { DIRECT_INDEX_RESTARTS } else { 1 });
    table.set_bloom_filter(FILTER_BITS, false);
    table.set_whole_key_filtering(true);
    table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
    // A file's filter and index are cut into pieces that live in the cache beside the data, and only their small top levels are
    // pinned: 1 % of the data set is filters, which alone would break a memory limit of a twentieth of the data.
    table.set_cache_index_and_filter_blocks(true);
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_top_level_index_pinning_tier(BlockBasedPinningTier::All);
    table
}

fn shared(options: &RocksOptions, cache: &Cache) -> Options {
    let mut all = Options::default();
    all.set_block_based_table_factory(&table(options, cache));
    all.set_bytes_per_sync(1 << 20);
    all
}

/// Options of the database.
pub(crate) fn database(options: &RocksOptions, cache: &Cache) -> Options {
    let mut db = shared(options, cache);
    db.create_if_missing(true);
    db.set_max_background_jobs(options.background_jobs);
    // Every table stays open: a look-up in a table cache per read would cost more. What a table holds is bounded: see `table`.
    db.set_max_open_files(-1);
    db.set_use_direct_reads(options.direct_reads);
    if options.direct_reads {
        db.set_env(&files::environment());
    }

    // No compression where data are soon rewritten, lz4 below that.
    let (none, lz4) = (DBCompressionType::None, DBCompressionType::Lz4);
    db.set_compression_per_level(&[none, none, lz4, lz4, lz4, lz4, lz4]);
    db.set_level_compaction_dynamic_level_bytes(true);
    db.set_level_zero_file_num_compaction_trigger(LEVEL0_COMPACTS);
    db.set_max_bytes_for_level_base(LEVEL_BASE_BYTES);
    db.set_target_file_size_base(TARGET_FILE_BYTES);

    // Nothing is ever written through the memtable or the write-ahead log: what they reserve is kept small.
    db.set_write_buffer_size(64 << 10);
    db.set_max_write_buffer_number(2);

    // Iterators and dropped snapshots leave the deletion of files to a background thread.
    db.set_avoid_unnecessary_blocking_io(true);
    // Each commit adds a few hundred bytes; without a limit the manifest grows to a gigabyte before it is rewritten.
    db.set_max_manifest_file_size(16 << 20);
    db.set_log_level(LogLevel::Warn);
    db.set_max_log_file_size(4 << 20);
    db.set_keep_log_file_num(4);
    db.set_stats_dump_period_sec(0);
    db
}

/// Options of the files that commits build.
pub(crate) fn staged(options: &RocksOptions, cache: &Cache) -> Options {
    let mut file = shared(options, cache);
    file.set_compression_type(DBCompressionType::Lz4);
    file
}
