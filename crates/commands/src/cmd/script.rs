//! Lua scripts (to be written).

/// Scripts known by their SHA1.
#[derive(Default)]
pub struct Scripts {}
