//! The effects of commands on their way into the log frame, spelled as Redis commands.
//!
//! Invariants: a SELECT precedes an effect whose database is not the one that the stream has selected; if one command (or one
//! EXEC, or one script) has more than one effect, they stand between MULTI and EXEC, so that a replica takes all or none.

use crate::context::Transaction;

/// Appends `args` as a RESP array of bulk strings.
pub fn append_command(out: &mut Vec<u8>, args: &[&[u8]]) {
    append_header(out, b'*', args.len());
    for arg in args {
        append_header(out, b'$', arg.len());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

fn append_header(out: &mut Vec<u8>, kind: u8, n: usize) {
    // Nearly all are short, and then the pieces have fixed lengths.
    match n {
        0..10 => return out.extend_from_slice(&[kind, b'0' + n as u8, b'\r', b'\n']),
        10..100 => {
            let [tens, ones] = [n / 10, n % 10].map(|digit| b'0' + digit as u8);
            return out.extend_from_slice(&[kind, tens, ones, b'\r', b'\n']);
        }
        _ => {}
    }
    out.push(kind);
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = n;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

/// What one command has logged so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Effects {
    /// Where its first effect stands in the payload.
    start: Option<usize>,
    /// How many effects there are, without SELECTs.
    count: usize,
    /// Whether the handler has said what its effects are, so that the command itself is not logged.
    pub explicit: bool,
}

const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";

impl Effects {
    /// How many effects there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Appends one effect.
    pub fn append(&mut self, transaction: &mut dyn Transaction, db: u32, args: &[&[u8]]) {
        self.count += 1;
        if *transaction.stream_db() != Some(db) {
            *transaction.stream_db() = Some(db);
            let text = db.to_string();
            append_command(transaction.payload(), &[b"SELECT", text.as_bytes()]);
        }
        // After the SELECT of the first effect: it stands before the MULTI, as in Redis.
        let start = transaction.payload().len();
        self.start.get_or_insert(start);
        append_command(transaction.payload(), args);
    }

    /// The command is over: several effects become one transaction. Ready for the next command.
    pub fn finish(&mut self, transaction: &mut dyn Transaction) {
        if let Some(start) = self.start
            && self.count > 1
        {
            let payload = transaction.payload();
            payload.splice(start..start, MULTI.iter().copied());
            payload.extend_from_slice(EXEC);
        }
        *self = Effects::default();
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Harness;

    #[test]
    fn what_no_frame_can_hold_fails_alone() {
        const TOO_LARGE: &str = "-ERR the command changes more than one commit can hold (4 GiB)";
        let mut server = Harness::new();
        server.limit_payload(150);
        assert_eq!(server.run("SET a 1"), "+OK");
        assert_eq!(server.run(&format!("SET b {}", "v".repeat(200))), TOO_LARGE);
        assert_eq!(server.run("SET c 1"), "+OK");
        assert_eq!(server.run("KEYS b"), "*0");
        assert_eq!(server.take_log(), "SET a 1 | SET c 1");
        // Several effects, of which only some would fit.
        for line in ["MULTI", "SET a 2", "MSETNX d 1 e 1", "SET f 1"] {
            server.run(line);
        }
        server.limit_payload(90);
        assert_eq!(server.run("EXEC"), format!("*3 +OK :1 {TOO_LARGE}"));
        assert_eq!(server.take_log(), "MULTI | SET a 2 | MSET d 1 e 1 | EXEC");
        assert_eq!(server.run("EXISTS f"), ":0");
    }
}
