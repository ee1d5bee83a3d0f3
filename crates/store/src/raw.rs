//! Raw rows: what one Ardb server's engine holds, on its way into a new generation of another's.
//!
//! They come in the order of their keys and go straight into the engine, past the table: the engine writes sorted files of them as they come.
//! All spaces travel but `Meta`, which says where an engine stands: object and keyspace numbers mean the same here because the catalog
//! comes first, and garbage comes with the rows that name it, so the janitor here ends what the one there began.
//!
//! Invariants: no row is taken that is out of order, belongs to no number of the catalog, or is the store's own; a load ends well only if each
//! database has exactly as many keys, and as many expiries, as the catalog says.

use ardb_base::id::KeyspaceId;
use ardb_engine::{Change, ChangeSource, EngineError, RowKey, Rows, Space};

use crate::catalog::{Catalog, Database};
use crate::core::FIRST_SEQ;
use crate::error::GenerationError;
use crate::generation::GenerationLoader;
use crate::janitor;
use crate::place::GROUP_LIMIT;
use crate::snapshot::StoreSnapshot;

/// A row as an engine has it: encoded key and value.
pub type RawRow<'a> = (&'a [u8], &'a [u8]);

/// Rows in the order of their encoded keys, as another store's snapshot gives them.
pub trait RowSource {
    /// The next row. `None` is the end of what there is now.
    ///
    /// # Errors
    /// What comes is not what was sent, for people.
    fn next_row(&mut self) -> Result<Option<RawRow<'_>>, String>;
}

/// A load of raw rows into a generation. It may take them in several parts.
pub struct RawLoad {
    loader: GenerationLoader,
    next_id: u64,
    /// One for each database of the catalog.
    expected: Vec<Expected>,
    /// The last key.
    last: Vec<u8>,
    /// The keyspace of the last key, and its index in `expected` if it is one of those.
    group: Option<(u64, Option<usize>)>,
    rows: u64,
}

/// Keys and expiries of one database.
struct Expected {
    keyspace: KeyspaceId,
    /// What the catalog says.
    wanted: [u64; 2],
    /// What has come.
    found: [u64; 2],
}

fn refuse<T>(why: impl Into<String>) -> Result<T, GenerationError> {
    Err(GenerationError::Raw(why.into()))
}

impl RawLoad {
    /// Begins with the other store's catalog (keyspaces, counts, next number) and an empty generation.
    ///
    /// # Errors
    /// The catalog is damaged, or holds keys in a database that is not configured here.
    pub fn new(loader: GenerationLoader, catalog: &[u8]) -> Result<RawLoad, GenerationError> {
        let Some(mut catalog) = Catalog::decode(catalog) else { return refuse("the catalog is damaged") };
        if catalog.next_id >= GROUP_LIMIT {
            return refuse("the catalog's numbers are too great");
        }
        let databases = loader.options.databases as usize;
        if let Some(db) = catalog.databases.iter().skip(databases).position(|database| database.keys > 0) {
            return refuse(format!("database {} is not configured here: raise 'databases'", databases + db));
        }
        let expected = |d: &Database| Expected { keyspace: d.keyspace, wanted: [d.keys, d.expiries], found: [0, 0] };
        let expected = catalog.databases.iter().map(expected).collect();
        catalog.grow(loader.options.databases);
        let next_id = catalog.next_id;
        let core = loader.core();
        let mut txn = loader.write();
        let writer = txn.writer();
        if writer.seq > FIRST_SEQ + 1 || !writer.undo.is_empty() {
            return refuse("the catalog comes after rows");
        }
        let engine = core.engine.read().snapshot();
        writer.adopt(core, catalog, engine);
        drop(txn);
        Ok(RawLoad { loader, next_id, expected, last: Vec::new(), group: None, rows: 0 })
    }

    /// Brings the rows of `source` into the engine, as one commit of its own. They come behind those of the parts before.
    ///
    /// # Errors
    /// A row is refused, or the engine fails; the generation is of no use any more.
    pub fn part(&mut self, source: &mut dyn RowSource) -> Result<(), GenerationError> {
        let engine = self.loader.core().engine.read().clone();
        // One commit at a time, as for checkpoints.
        let core = self.loader.core().clone();
        let checkpointer = core.checkpointer.lock();
        let mut checked = Checked { load: self, source, failure: None };
        let committed = engine.commit(&[], &mut checked);
        let failure = checked.failure;
        drop(checkpointer);
        committed?;
        match failure {
            Some(why) => refuse(why),
            None => Ok(()),
        }
    }

    /// Rows taken.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// All rows have come: counts them, and gives the generation, to be read or installed.
    ///
    /// # Errors
    /// They are not those that the catalog promised.
    pub fn finish(self) -> Result<GenerationLoader, GenerationError> {
        for (db, Expected { wanted, found, .. }) in self.expected.iter().enumerate() {
            if wanted != found {
                return refuse(format!(
                    "database {db} has {} keys, {} of them with an expiry, instead of {} and {}",
                    found[0], found[1], wanted[0], wanted[1]
                ));
            }
        }
        let core = self.loader.core();
        let mut txn = self.loader.write();
        let engine = core.engine.read().snapshot();
        let old = core.publication.change(|view| view.engine = engine);
        core.bury(old);
        txn.writer().renew_view(core);
        drop(txn);
        Ok(self.loader)
    }

    /// Judges a row and counts it.
    fn judge(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let Some(row) = RowKey::decode(key) else { return Err("a row's name is damaged") };
        if key <= self.last.as_slice() {
            return Err("the rows are not in order");
        }
        if row.group >= self.next_id {
            return Err("a row belongs to no object of the catalog");
        }
        match row.space {
            Space::Meta => return Err("a row of the other server's own came along"),
            Space::Key => {
                let index = match self.group {
                    Some((group, index)) if group == row.group => index,
                    _ => self.expected.iter().position(|d| d.keyspace.0 == row.group),
                };
                self.group = Some((row.group, index));
                // Keyspaces that no database has any more wait for the janitor.
                if let Some(index) = index {
                    let found = &mut self.expected[index].found;
                    found[0] += 1;
                    found[1] += u64::from(janitor::expires(value));
                }
            }
            _ => {}
        }
        self.rows += 1;
        self.last.clear();
        self.last.extend_from_slice(key);
        Ok(())
    }
}

/// Rows as the engine takes them. A row that is refused ends them; the commit that then takes place is in a generation that goes.
struct Checked<'a> {
    load: &'a mut RawLoad,
    source: &'a mut dyn RowSource,
    failure: Option<String>,
}

impl ChangeSource for Checked<'_> {
    fn next_change(&mut self) -> Option<Change<'_>> {
        match self.source.next_row() {
            Ok(Some((key, value))) => match self.load.judge(key, value) {
                Ok(()) => Some((key, Some(value))),
                Err(why) => {
                    self.failure = Some(why.into());
                    None
                }
            },
            Ok(None) => None,
            Err(why) => {
                self.failure = Some(why);
                None
            }
        }
    }
}

impl StoreSnapshot {
    /// Calls `visit` with the rows for another store behind the key `after` (all of them if it is empty), in order, until it fails.
    ///
    /// # Errors
    /// The engine's, and those of `visit`.
    pub fn raw_rows<E: From<EngineError>>(
        &self,
        after: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let (start, end) = ([Space::Meta as u8 + 1], [Space::Garbage as u8 + 1]);
        let mut cursor = self.engine().cursor(&start..&end);
        cursor.seek(after.max(&start))?;
        if cursor.row().is_some_and(|(key, _)| key == after) {
            cursor.next()?;
        }
        while let Some((key, value)) = cursor.row() {
            visit(key, value)?;
            cursor.next()?;
        }
        Ok(())
    }

    /// Keys in all databases.
    #[must_use]
    pub fn keys(&self) -> u64 {
        (0..self.databases()).map(|db| self.key_count(db)).sum()
    }
}
