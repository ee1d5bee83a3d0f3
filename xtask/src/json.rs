//! As much of JSON as it takes to read `cargo metadata`, so that a check of the project needs no dependency of its own.
//!
//! Numbers are kept as their text. Nesting is bounded by the input, which Cargo made.

/// A JSON value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `null`, `true`, `false`, or a number, as it was written.
    Bare(String),
    /// A string with its escapes resolved.
    Text(String),
    /// `[...]`
    List(Vec<Value>),
    /// `{...}` in the order in which it was written.
    Object(Vec<(String, Value)>),
}

impl Value {
    /// The member of an object.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let Value::Object(members) = self else { return None };
        members.iter().find(|(member, _)| member == name).map(|(_, value)| value)
    }

    /// The text of a string.
    pub fn text(&self) -> Option<&str> {
        if let Value::Text(text) = self { Some(text) } else { None }
    }

    /// The items of a list; none for anything else.
    pub fn items(&self) -> &[Value] {
        if let Value::List(items) = self { items } else { &[] }
    }
}

/// Reads one value that fills `text`; `None` if it is no JSON.
pub fn parse(text: &str) -> Option<Value> {
    let mut rest = text.trim();
    let value = value(&mut rest)?;
    rest.trim().is_empty().then_some(value)
}

fn skip(rest: &mut &str, expected: char) -> bool {
    *rest = rest.trim_start();
    let after = rest.strip_prefix(expected);
    *rest = after.unwrap_or(rest);
    after.is_some()
}

fn value(rest: &mut &str) -> Option<Value> {
    if skip(rest, '{') {
        let mut members = Vec::new();
        while !skip(rest, '}') {
            let name = string(rest)?;
            if !skip(rest, ':') {
                return None;
            }
            members.push((name, value(rest)?));
            skip(rest, ',');
        }
        return Some(Value::Object(members));
    }
    if skip(rest, '[') {
        let mut items = Vec::new();
        while !skip(rest, ']') {
            items.push(value(rest)?);
            skip(rest, ',');
        }
        return Some(Value::List(items));
    }
    if rest.starts_with('"') {
        return string(rest).map(Value::Text);
    }
    let end = rest.find([',', ']', '}', ' ', '\n']).unwrap_or(rest.len());
    let (bare, after) = rest.split_at(end);
    *rest = after;
    (!bare.is_empty()).then(|| Value::Bare(bare.to_string()))
}

fn string(rest: &mut &str) -> Option<String> {
    if !skip(rest, '"') {
        return None;
    }
    let mut text = String::new();
    let mut characters = rest.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => {
                *rest = &rest[at + 1..];
                return Some(text);
            }
            '\\' => match characters.next()?.1 {
                'n' => text.push('\n'),
                't' => text.push('\t'),
                'r' => text.push('\r'),
                'b' => text.push('\u{8}'),
                'f' => text.push('\u{c}'),
                'u' => {
                    let mut code = 0;
                    for _ in 0..4 {
                        code = code * 16 + characters.next()?.1.to_digit(16)?;
                    }
                    // Halves of a pair do not occur in what is read here.
                    text.push(char::from_u32(code).unwrap_or('\u{fffd}'));
                }
                other => text.push(other),
            },
            other => text.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_cargo_writes() {
        let value = parse(r#" {"a": [1, null, {"b": "x\"y\u0041\n"}], "c": true} "#).unwrap();
        assert_eq!(value.get("a").unwrap().items()[2].get("b").unwrap().text(), Some("x\"yA\n"));
        assert_eq!(value.get("c"), Some(&Value::Bare("true".into())));
        assert_eq!(parse("{\"a\": "), None);
        assert_eq!(parse("[1] 2"), None);
    }
}
