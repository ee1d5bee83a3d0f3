//! Whether two replies to the same command are the same, by the command's [`Class`].

use ardb_e2e::reply::Reply;

use crate::table::Class;

/// How the reply to one step is compared.
#[derive(Clone, Debug)]
pub enum How {
    /// As the class says.
    As(Class),
    /// The reply of EXEC: item by item as the queued commands say.
    Each(Vec<Class>),
}

/// Whether the two are the same.
pub fn same(how: &How, one: &Reply, other: &Reply) -> bool {
    if one == other {
        return true;
    }
    match how {
        How::As(class) => by_class(*class, one, other),
        How::Each(classes) => match (one, other) {
            (Reply::Array(one), Reply::Array(other)) => {
                one.len() == other.len()
                    && one.len() == classes.len()
                    && one.iter().zip(other).zip(classes).all(|((one, other), class)| by_class(*class, one, other))
            }
            _ => false,
        },
    }
}

fn by_class(class: Class, one: &Reply, other: &Reply) -> bool {
    match class {
        _ if one == other => true,
        Class::Exact => false,
        Class::Unordered(group) => {
            // In RESP3 a field and its value come as an array of their own.
            let nested = one.items().and_then(<[Reply]>::first).is_some_and(|item| item.items().is_some());
            let group = if nested { 1 } else { group };
            one.clone().sorted(group) == other.clone().sorted(group)
        }
        Class::Shape => match (one.items(), other.items()) {
            (Some(one), Some(other)) => one.len() == other.len(),
            (None, None) => std::mem::discriminant(one) == std::mem::discriminant(other) && !one.is_error(),
            _ => false,
        },
        Class::Near(within) => match (one, other) {
            (Reply::Int(one), Reply::Int(other)) => *one >= 0 && *other >= 0 && (one - other).abs() <= within,
            _ => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulks(words: &[&str]) -> Reply {
        Reply::Array(words.iter().map(|word| Reply::Bulk(word.as_bytes().to_vec())).collect())
    }

    #[test]
    fn each_class_tells_its_own_differences() {
        let as_class = |class, one: &Reply, other: &Reply| same(&How::As(class), one, other);
        assert!(!as_class(Class::Exact, &bulks(&["a", "b"]), &bulks(&["b", "a"])));
        assert!(as_class(Class::Unordered(1), &bulks(&["a", "b"]), &bulks(&["b", "a"])));
        assert!(!as_class(Class::Unordered(1), &bulks(&["a", "b"]), &bulks(&["b", "b"])));
        assert!(!as_class(Class::Unordered(2), &bulks(&["a", "1", "b", "2"]), &bulks(&["a", "2", "b", "1"])));
        assert!(as_class(Class::Shape, &bulks(&["a"]), &bulks(&["z"])));
        assert!(!as_class(Class::Shape, &bulks(&["a"]), &Reply::Nil));
        assert!(as_class(Class::Near(2), &Reply::Int(100), &Reply::Int(102)));
        assert!(!as_class(Class::Near(2), &Reply::Int(-1), &Reply::Int(0)));
    }

    #[test]
    fn exec_compares_item_by_item() {
        let one = Reply::Array(vec![bulks(&["a", "b"]), Reply::Int(1)]);
        let other = Reply::Array(vec![bulks(&["b", "a"]), Reply::Int(1)]);
        assert!(same(&How::Each(vec![Class::Unordered(1), Class::Exact]), &one, &other));
        assert!(!same(&How::Each(vec![Class::Exact, Class::Exact]), &one, &other));
    }
}
