//! The first line of a script that says what it may do: `#!lua flags=no-writes,allow-stale`.

use crate::error::CmdError;

/// What a script says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScriptFlags {
    /// There is such a line; without it Redis's older rules hold.
    pub declared: bool,
    /// It does not write.
    pub no_writes: bool,
    /// It may run though stale data must not be served.
    pub allow_stale: bool,
}

/// The flags of a script, and how many bytes of it come before its code (the line's end belongs to the code, for the line numbers).
pub fn parse(body: &[u8]) -> Result<(ScriptFlags, usize), CmdError> {
    let mut flags = ScriptFlags::default();
    if !body.starts_with(b"#!") {
        return Ok((flags, 0));
    }
    flags.declared = true;
    let Some(end) = body.iter().position(|&b| b == b'\n') else {
        return Err(CmdError::text("ERR Invalid script shebang"));
    };
    let mut words = body[..end].split(|&b| ardb_base::number::is_space(b)).filter(|word| !word.is_empty());
    let engine = words.next().unwrap_or_default();
    if engine != b"#!lua" {
        return Err(quoting("Unexpected engine in script shebang: ", engine));
    }
    for word in words {
        let Some(list) = word.strip_prefix(b"flags=") else {
            return Err(quoting("Unknown lua shebang option: ", word));
        };
        for flag in list.split(|&b| b == b',').filter(|flag| !flag.is_empty()) {
            match flag {
                b"no-writes" => flags.no_writes = true,
                b"allow-stale" => flags.allow_stale = true,
                // There is neither a memory limit that refuses writes nor a cluster, so these allow what is allowed anyway.
                b"allow-oom" | b"no-cluster" | b"allow-cross-slot-keys" => {}
                _ => return Err(quoting("Unexpected flag in script shebang: ", flag)),
            }
        }
    }
    Ok((flags, end))
}

fn quoting(text: &str, bytes: &[u8]) -> CmdError {
    CmdError::Bytes([b"ERR ", text.as_bytes(), bytes].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_and_mistakes_named() {
        assert_eq!(parse(b"return 1").unwrap(), (ScriptFlags::default(), 0));
        let (flags, skip) = parse(b"#!lua flags=no-writes,allow-stale\nreturn 1").unwrap();
        assert!(flags.declared && flags.no_writes && flags.allow_stale);
        assert_eq!(skip, 33);
        let text = |body: &[u8]| parse(body).unwrap_err().to_string();
        assert_eq!(text(b"#!lua"), "ERR Invalid script shebang");
        assert_eq!(text(b"#!python\n"), "ERR Unexpected engine in script shebang: #!python");
        assert_eq!(text(b"#!lua foo=1\n"), "ERR Unknown lua shebang option: foo=1");
        assert_eq!(text(b"#!lua flags=foo\n"), "ERR Unexpected flag in script shebang: foo");
    }
}
