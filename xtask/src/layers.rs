//! The layers: which crate of the project may depend on which, and which may name which library.
//!
//! Every crate has a height. An edge goes strictly down. Adapters of engines stand between the engine's trait and what
//! uses it, and only the server (and tests) may name one. Edges of tests (dev-dependencies) go down too, with the adapters
//! allowed everywhere above them.

use crate::json::Value;

/// The crates of the project and their heights. A crate that is not here is a violation: it must find its layer first.
const HEIGHTS: [(&str, u32); 16] = [
    ("ardb-base", 0),
    ("ardb-engine", 10),
    ("ardb-log", 10),
    ("ardb-rdb", 10),
    ("ardb-resp", 10),
    ("ardb-engine-memory", 15),
    ("ardb-engine-rocksdb", 15),
    ("ardb-store", 20),
    ("ardb-types", 20),
    ("ardb-commands", 30),
    ("ardb-repl", 30),
    ("ardb-node", 40),
    ("ardb-server", 50),
    ("ardb-e2e", 60),
    ("ardb-sim", 60),
    ("xtask", 70),
];

/// Edges that would go down and are still forbidden, with the reason.
const FORBIDDEN: [(&str, &str, &str); 4] = [
    ("ardb-types", "ardb-resp", "values know no protocol"),
    ("ardb-commands", "ardb-log", "only the store writes the log"),
    ("ardb-e2e", "ardb-server", "tests from outside see only its sockets"),
    ("ardb-repl", "ardb-engine", "replication's state machines reach data through actions"),
];

/// Libraries that only some crates may name.
const LIBRARIES: [(&str, &[&str]); 4] = [
    ("rust-rocksdb", &["ardb-engine-rocksdb"]),
    ("mio", &["ardb-server"]),
    ("signal-hook", &["ardb-server"]),
    ("mlua", &["ardb-commands"]),
];

fn height(name: &str) -> Option<u32> {
    HEIGHTS.iter().find(|(other, _)| *other == name).map(|(_, height)| *height)
}

/// One edge out of `cargo metadata`: from, to, whether it is for tests only.
type Edge = (String, String, bool);

/// Every edge that the layers do not allow.
///
/// # Errors
/// If the metadata has not the form expected.
pub fn violations(metadata: &Value) -> Result<Vec<String>, String> {
    let packages = metadata.get("packages").ok_or("cargo metadata without packages")?;
    let mut edges: Vec<Edge> = Vec::new();
    let mut violations = Vec::new();
    for package in packages.items() {
        let name = package.get("name").and_then(Value::text).ok_or("a package without a name")?;
        if height(name).is_none() {
            violations.push(format!("{name} has no layer: give it one in xtask/src/layers.rs"));
        }
        for dependency in package.get("dependencies").map(Value::items).unwrap_or_default() {
            let to = dependency.get("name").and_then(Value::text).ok_or("a dependency without a name")?;
            let dev = dependency.get("kind").and_then(Value::text) == Some("dev");
            edges.push((name.to_string(), to.to_string(), dev));
        }
    }
    violations.extend(edges.iter().filter_map(refusal));
    Ok(violations)
}

/// Why an edge is not allowed; `None` if it is.
fn refusal((from, to, dev): &Edge) -> Option<String> {
    if let Some((_, allowed)) = LIBRARIES.iter().find(|(library, _)| library == to) {
        return (!allowed.contains(&from.as_str()))
            .then(|| format!("{from} -> {to}: only {} may name it", allowed.join(", ")));
    }
    let (upper, lower) = (height(from)?, height(to)?);
    if upper <= lower {
        return Some(format!("{from} -> {to} does not go down"));
    }
    if let Some((.., reason)) = FORBIDDEN.iter().find(|(one, other, _)| one == from && other == to) {
        return Some(format!("{from} -> {to}: {reason}"));
    }
    let adapter = to.starts_with("ardb-engine-");
    let chooses = matches!(from.as_str(), "ardb-server" | "ardb-sim");
    (adapter && !dev && !chooses).then(|| format!("{from} -> {to}: only the server and the simulator choose an engine"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(from: &str, to: &str, dev: bool) -> Option<String> {
        refusal(&(from.to_string(), to.to_string(), dev))
    }

    #[test]
    fn edges_go_down_and_nowhere_else() {
        assert_eq!(edge("ardb-store", "ardb-engine", false), None);
        assert_eq!(edge("ardb-store", "thiserror", false), None);
        assert_eq!(edge("ardb-server", "ardb-engine-rocksdb", false), None);
        assert_eq!(edge("ardb-store", "ardb-engine-memory", true), None);
        assert!(edge("ardb-store", "ardb-engine-memory", false).is_some());
        assert!(edge("ardb-engine", "ardb-log", false).is_some());
        assert!(edge("ardb-base", "ardb-log", true).is_some());
        assert!(edge("ardb-types", "ardb-store", false).is_some());
        assert!(edge("ardb-types", "ardb-resp", false).is_some());
        assert!(edge("ardb-store", "rust-rocksdb", false).is_some());
    }

    #[test]
    fn a_crate_without_a_layer_is_named() {
        let metadata = crate::json::parse(r#"{"packages": [{"name": "ardb-new", "dependencies": []}]}"#).unwrap();
        assert_eq!(violations(&metadata).unwrap().len(), 1);
    }
}
