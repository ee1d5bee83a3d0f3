//! Running one command for one client: what surrounds the dispatcher on a server (monitors, slow log, CLIENT REPLY, the clock).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ardb_commands::{Access, CmdError, Command, Ctx, Flags, Origin, Outcome, Session, dispatch};
use ardb_resp::Reply;

use crate::clients::{ClientInfo, reply_mode};
use crate::server::Server;
use crate::tally::Tally;

/// All that a command runs with.
pub struct Run<'a> {
    /// The server.
    pub server: &'a Arc<Server>,
    /// The data.
    pub rows: Access<'a>,
    /// The client.
    pub session: &'a mut Session,
    /// Its replies.
    pub out: &'a mut Reply,
    /// Where the command comes from.
    pub origin: Origin,
    /// The time at which it is executed, ms since 1970. In a transaction it is the transaction's.
    pub now: i64,
}

impl<'a> Run<'a> {
    fn ctx(self) -> Ctx<'a> {
        self.server.node().ctx(self.rows, self.out, self.session, self.origin, self.now)
    }

    /// Runs a request of a client.
    pub fn request(
        self,
        info: &ClientInfo,
        command: &Result<&'static Command, CmdError>,
        args: &[&[u8]],
        tally: &mut Tally<'_>,
    ) -> Outcome {
        let server = self.server;
        let start = tally.time();
        let reply_start = self.out.len();
        let mut ctx = self.ctx();
        let outcome = match command {
            Err(error) => {
                dispatch::reject(&mut ctx, args, error);
                Outcome::Done
            }
            Ok(command) => {
                tally.begin(command);
                if server.clients.monitors.load(Ordering::Relaxed) > 0 {
                    server.feed_monitors(info, ctx.session, command, args, start);
                }
                // What waits for EXEC is called, and counted, there.
                let waits = dispatch::will_queue(ctx.session, command);
                let outcome = dispatch::execute(&mut ctx, command, args);
                let failed = ctx.out.bytes().get(reply_start) == Some(&b'-');
                let took = tally.end(&ctx, !waits || failed, failed);
                // Only that of a subcommand is another one than its row has.
                if tally.name().len() != command.name.len() {
                    ctx.session.last_command = tally.name();
                }
                if !command.flags.has(Flags::SKIP_SLOWLOG) {
                    server.slowlog.consider(start, took, args, info, ctx.session);
                }
                outcome
            }
        };
        let out = ctx.out;
        if let Some(reply @ [b'-', ..]) = out.bytes().get(reply_start..) {
            server.calls.replied_error(reply);
        }
        // What a subscription is confirmed with is a message, not a reply.
        let message = || command.as_ref().is_ok_and(|command| command.name.ends_with("subscribe"));
        match info.reply_mode.load(Ordering::Relaxed) {
            reply_mode::ON => {}
            reply_mode::OFF if message() => {}
            reply_mode::OFF => out.truncate(reply_start),
            reply_mode::SKIP_NEXT => info.reply_mode.store(reply_mode::SKIP_NOW, Ordering::Relaxed),
            _ => {
                if !message() {
                    out.truncate(reply_start);
                }
                info.reply_mode.store(reply_mode::ON, Ordering::Relaxed);
            }
        }
        outcome
    }

    /// Runs a command once more that has been blocked, or one that comes from no client.
    pub fn again(self, command: &'static Command, args: &[&[u8]]) -> Outcome {
        let server = self.server;
        let mut ctx = self.ctx();
        let outcome = dispatch::execute(&mut ctx, command, args);
        server.shared.stats.commands.add(ctx.calls);
        outcome
    }
}
