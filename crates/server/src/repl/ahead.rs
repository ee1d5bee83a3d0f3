//! Reading ahead in the master's stream, and in the log that a start replays: the rows of the coming commits are brought into memory before the writer
//! lock is taken.
//!
//! While they are all there, a few are looked at, on the link's own thread; while they come from the disk, all are, by many threads at once
//! ([`crate::cold`]), as they were on the master, where the threads of its clients did it.

use ardb_engine::Rows;
use ardb_node::care::{Care, Foresight};
use ardb_node::inflow::Inflow;
use ardb_node::replay::DbKey;
use ardb_store::Reader;

use crate::clock;
use crate::server::Server;

/// What one link knows of the rows that its stream needs.
pub struct ReadAhead {
    care: Care,
    foresight: Foresight,
    reader: Reader,
}

impl ReadAhead {
    /// Of a fresh link.
    #[must_use]
    pub fn new(server: &Server) -> ReadAhead {
        ReadAhead {
            care: Care::new(server.slow_after()),
            foresight: Foresight::default(),
            reader: server.store.reader(),
        }
    }

    /// Brings the rows of the next commit into memory. Gives whether there is anything to commit.
    pub fn bring(&mut self, server: &Server, inflow: &Inflow) -> bool {
        self.bring_keys(server, |visit| inflow.each_key(server.node(), visit))
    }

    /// As [`ReadAhead::bring`], for keys of which all is known: those of the log that a start replays.
    pub fn bring_all(&mut self, server: &Server, keys: &[DbKey]) {
        self.bring_keys(server, |visit| keys.iter().for_each(|(db, key)| visit(*db, key)));
    }

    fn bring_keys<'k, R>(&mut self, server: &Server, each: impl FnOnce(&mut dyn FnMut(u32, &'k [u8])) -> R) -> R {
        let (care, foresight) = (&mut self.care, &mut self.foresight);
        let mut cold: Vec<(u32, &[u8])> = Vec::new();
        let result = {
            let view = self.reader.begin();
            let is_large = view.is_large();
            let result = each(&mut |db, key| {
                if is_large {
                    foresight.note(view.keyspace(db), key, || server.shared.accesses.prefetch(db, key));
                }
                let high = care.is_high();
                if !care.look() {
                    return;
                }
                if high {
                    cold.push((db, key));
                    return;
                }
                let (_, slow) = Care::look_at(&view, db, key, care.slow_after(), clock::monotonic);
                care.count(1, slow);
            });
            foresight.fetch(|keys| view.prefetch_keys(keys));
            result
        };
        if !cold.is_empty() {
            let keys: Vec<(u32, Vec<u8>)> = cold.into_iter().map(|(db, key)| (db, key.to_vec())).collect();
            let looks = keys.len();
            let slow = server.cold.look(&server.store, server.cold_threads(), keys, care.slow_after());
            care.count(u32::try_from(looks).unwrap_or(u32::MAX), slow);
        }
        result
    }
}
