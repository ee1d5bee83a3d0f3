//! SAVE, BGSAVE, LASTSAVE: the data as an RDB file. Durability does not depend on it; the log is what makes writes durable.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use ardb_commands::cmd::args as parse;
use ardb_commands::persist::save as persist;
use ardb_commands::table::{Command, Flags, Group, Keys};
use ardb_commands::{CmdError, CmdResult, Ctx, Outcome, error};
use ardb_rdb::{Writer, WriterOptions};
use ardb_store::CheckpointError;

use crate::clock;
use crate::repl::dump::Pace;
use crate::server::{self, Server};

/// Why there is no RDB file.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// Another one is being written.
    #[error("Background save already in progress")]
    Busy,
    /// There is no snapshot to be had.
    #[error(transparent)]
    Snapshot(#[from] CheckpointError),
    /// The data or the format.
    #[error(transparent)]
    Dump(#[from] persist::SaveError),
    /// The file.
    #[error("{0}")]
    File(#[from] io::Error),
}

/// Writes the RDB file, which replaces the old one when it is whole and on disk. Gives the number of keys. It takes the writer lock for a
/// moment, so the caller must not hold it.
///
/// # Errors
/// The old file is left as it was.
pub fn write_file(server: &Server, path: &Path) -> Result<u64, SaveError> {
    let snapshot = server.store.snapshot_at_checkpoint()?;
    let pace = Pace::of(server);
    let temporary = path.with_file_name(format!("temp-{}.rdb", std::process::id()));
    let written = (|| {
        let file = File::create(&temporary)?;
        let mut writer = Writer::new(file, WriterOptions::default()).map_err(persist::SaveError::from)?;
        let saved = persist::whole(&snapshot, snapshot.databases(), &mut writer, &mut |_| {
            pace.sleep(|| !server.replication.stopping.load(Ordering::SeqCst));
            ControlFlow::Continue(())
        })?;
        let mut file = writer.finish().map_err(persist::SaveError::from)?;
        file.flush()?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            File::open(dir)?.sync_all()?;
        }
        Ok(saved.keys)
    })();
    if written.is_err() {
        // Whether or not there was anything to remove, the error at hand is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// SAVE: writes the file now.
///
/// # Errors
/// There is none, or it is the old one.
pub fn save(server: &Server) -> Result<(), SaveError> {
    if server.saving.swap(true, Ordering::SeqCst) {
        return Err(SaveError::Busy);
    }
    finish(server)
}

/// Writes the file and notes how that went; the flag is set by the caller.
fn finish(server: &Server) -> Result<(), SaveError> {
    let started = Instant::now();
    let changes = server.stats.changes.get();
    let result = write_file(server, &server.config.rdb_path());
    server.save_failed.store(result.is_err(), Ordering::SeqCst);
    server.last_save_took.store(started.elapsed().as_secs() as i64, Ordering::Relaxed);
    match &result {
        Ok(keys) => {
            server.last_save.store(clock::unix_ms() / 1000, Ordering::Relaxed);
            server.stats.changes.sub(changes);
            log::info!("DB saved on disk: {keys} keys in {} ms", started.elapsed().as_millis());
        }
        Err(error) => log::warn!("Error saving the DB on disk: {error}"),
    }
    server.saving.store(false, Ordering::SeqCst);
    result.map(|_| ())
}

fn failure(error: &SaveError) -> CmdError {
    CmdError::text(format!("ERR {error}"))
}

fn save_command(ctx: &mut Ctx<'_>, _: &[&[u8]]) -> CmdResult {
    save(server::of(ctx.host)).map_err(|error| failure(&error))?;
    ctx.out.ok();
    Ok(Outcome::Done)
}

fn bgsave(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    if args.len() > 2 || args.get(1).is_some_and(|arg| !parse::is(arg, "schedule")) {
        return Err(error::SYNTAX);
    }
    let server: Arc<Server> = server::of(ctx.host).handle();
    if server.saving.swap(true, Ordering::SeqCst) {
        return Err(failure(&SaveError::Busy));
    }
    log::info!("Background saving started");
    let spawned = std::thread::Builder::new().name("ardb-bgsave".into()).spawn({
        let server = server.clone();
        move || {
            // What went wrong is in the log and in INFO.
            let _ = finish(&server);
        }
    });
    if let Err(error) = spawned {
        server.saving.store(false, Ordering::SeqCst);
        return Err(failure(&error.into()));
    }
    ctx.out.simple("Background saving started");
    Ok(Outcome::Done)
}

fn lastsave(ctx: &mut Ctx<'_>, _: &[&[u8]]) -> CmdResult {
    ctx.out.int(server::of(ctx.host).last_save.load(Ordering::Relaxed));
    Ok(Outcome::Done)
}

/// BGREWRITEAOF: the nearest thing here is a checkpoint, after which the log up to now is no longer needed for a start.
fn bgrewriteaof(ctx: &mut Ctx<'_>, _: &[&[u8]]) -> CmdResult {
    let server = server::of(ctx.host).handle();
    std::thread::Builder::new()
        .name("ardb-bgrewrite".into())
        .spawn(move || {
            if let Err(error) = server.store.checkpoint() {
                log::warn!("A checkpoint failed: {error}");
            }
        })
        .map_err(|error| failure(&error.into()))?;
    ctx.out.simple("Background append only file rewriting started");
    Ok(Outcome::Done)
}

const ADMIN: Flags = Flags::ADMIN.with(Flags::NOSCRIPT);

/// The rows.
pub const COMMANDS: &[Command] = &[
    Command::new("save", 1, ADMIN.with(Flags::NO_MULTI).with(Flags::UNLOCKED), Keys::None, Group::Server, save_command)
        .doc("1.0.0", "Saves the data to an RDB file and waits for it"),
    Command::new("bgsave", -1, ADMIN, Keys::None, Group::Server, bgsave)
        .doc("1.0.0", "Saves the data to an RDB file in the background"),
    Command::new("bgrewriteaof", 1, ADMIN, Keys::None, Group::Server, bgrewriteaof)
        .doc("1.0.0", "Brings all changes from the log into the engine, in the background"),
    Command::new(
        "lastsave",
        1,
        Flags::LOADING.with(Flags::STALE).with(Flags::FAST),
        Keys::None,
        Group::Server,
        lastsave,
    )
    .doc("1.0.0", "Returns when the last RDB file was saved"),
];
