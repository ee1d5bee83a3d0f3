//! Sorting only as much as is wanted, with the same choice among equals as Redis.
//!
//! When a search that keeps the nearest few is stored, and some are equally near, which of them are kept is data. A replica
//! gets the command and must choose as its master did, so this is Redis's sort step by step: the quicksort with partition into less, equal
//! and greater of Bentley and McIlroy ("Engineering a sort function", 1993), which leaves out the parts that are not wanted.

use std::cmp::Ordering;

/// Parts shorter than this are sorted by insertion.
const SHORT: usize = 7;
/// Parts longer than this get their pivot from nine items.
const LONG: usize = 40;

/// Sorts `items` so far that the first `wanted` are those of the sorted whole.
pub fn sort_first<T>(items: &mut [T], wanted: usize, compare: &impl Fn(&T, &T) -> Ordering) {
    // Parts still to be sorted. They are disjoint, so their order does not matter, and a list cannot overflow as a stack of calls can.
    let mut parts = vec![(0, items.len())];
    while let Some((start, end)) = parts.pop() {
        if end - start < 2 || start >= wanted {
            continue;
        }
        let part = &mut items[start..end];
        if part.len() < SHORT {
            sort_short(part, compare);
            continue;
        }
        let (below, above) = divide(part, compare);
        parts.extend([(start, start + below), (start + above, end)]);
    }
}

fn sort_short<T>(items: &mut [T], compare: &impl Fn(&T, &T) -> Ordering) {
    for end in 1..items.len() {
        let mut at = end;
        while at > 0 && compare(&items[at - 1], &items[at]).is_gt() {
            items.swap(at - 1, at);
            at -= 1;
        }
    }
}

/// Brings what is less than one of the items to the front and what is greater to the end. Where the less ones end, and where the greater ones begin.
fn divide<T>(items: &mut [T], compare: &impl Fn(&T, &T) -> Ordering) -> (usize, usize) {
    let len = items.len();
    items.swap(0, pivot(items, compare));
    // From the left: equal to the pivot (which is the first), less, not looked at, greater, equal.
    let (mut equal_left, mut less) = (1, 1);
    let (mut greater, mut equal_right) = (len, len);
    loop {
        while less < greater {
            match compare(&items[less], &items[0]) {
                Ordering::Greater => break,
                Ordering::Equal => {
                    items.swap(equal_left, less);
                    equal_left += 1;
                }
                Ordering::Less => {}
            }
            less += 1;
        }
        while less < greater {
            match compare(&items[greater - 1], &items[0]) {
                Ordering::Less => break,
                Ordering::Equal => {
                    equal_right -= 1;
                    items.swap(greater - 1, equal_right);
                }
                Ordering::Greater => {}
            }
            greater -= 1;
        }
        if less >= greater {
            break;
        }
        items.swap(less, greater - 1);
        less += 1;
        greater -= 1;
    }
    // The equal ones go into the middle.
    let left = equal_left.min(less - equal_left);
    swap_ranges(items, 0, less - left, left);
    let right = (equal_right - greater).min(len - equal_right);
    swap_ranges(items, less, len - right, right);
    (less - equal_left, len - (equal_right - greater))
}

fn swap_ranges<T>(items: &mut [T], one: usize, other: usize, count: usize) {
    (0..count).for_each(|at| items.swap(one + at, other + at));
}

fn pivot<T>(items: &[T], compare: &impl Fn(&T, &T) -> Ordering) -> usize {
    let len = items.len();
    let median = |a: usize, b: usize, c: usize| {
        let order = |a: usize, b: usize| compare(&items[a], &items[b]);
        if order(a, b).is_lt() {
            if order(b, c).is_lt() {
                b
            } else if order(a, c).is_lt() {
                c
            } else {
                a
            }
        } else if order(b, c).is_gt() {
            b
        } else if order(a, c).is_lt() {
            a
        } else {
            c
        }
    };
    let (mut low, mut middle, mut high) = (0, len / 2, len - 1);
    if len > LONG {
        let step = len / 8;
        low = median(low, low + step, low + 2 * step);
        middle = median(middle - step, middle, middle + step);
        high = median(high - 2 * step, high - step, high);
    }
    if len > SHORT { median(low, middle, high) } else { middle }
}

#[cfg(test)]
mod tests {
    use ardb_base::random::Random;

    use super::*;

    #[test]
    fn the_first_are_those_of_the_whole() {
        for seed in 0..500 {
            let mut random = Random::new(seed);
            let len = random.below(200) as usize;
            let values = 1 + random.below(300);
            let items: Vec<(u64, usize)> = (0..len).map(|at| (random.below(values), at)).collect();
            let wanted = random.below(len as u64 + 1) as usize;
            let mut partly = items.clone();
            sort_first(&mut partly, wanted, &|a, b| a.0.cmp(&b.0));
            let mut wholly = items.clone();
            wholly.sort();
            let keys = |items: &[(u64, usize)]| items.iter().map(|item| item.0).collect::<Vec<_>>();
            assert_eq!(keys(&partly[..wanted]), keys(&wholly[..wanted]), "seed {seed}");
            partly.sort();
            assert_eq!(partly, wholly, "nothing is lost");
        }
    }

    #[test]
    fn among_equals_it_chooses_as_redis() {
        // Worked out by hand: of ten equal ones the last is the pivot, and each that is found equal to it stays in its place.
        let mut items: Vec<usize> = (0..10).collect();
        sort_first(&mut items, 3, &|_, _| Ordering::Equal);
        assert_eq!(items, [9, 1, 2, 3, 4, 5, 6, 7, 8, 0]);
    }
}
