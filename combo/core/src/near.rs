//! What could have been meant by a word that nobody knows.

/// How many characters have to be put in, taken out or changed to get from one text to another.
#[must_use]
pub fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in to.iter().enumerate() {
            let change = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

/// The one that is nearest, if it is near: less than half of its characters differ.
#[must_use]
pub fn nearest<'a>(said: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = |known: &'a str| (distance(&said.to_lowercase(), &known.to_lowercase()), known);
    let (distance, nearest) = known.into_iter().map(near).min_by_key(|(distance, _)| *distance)?;
    (distance * 2 < nearest.chars().count()).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_as_far_apart_as_it_takes_changes() {
        for (from, to, changes) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("ab", "ba", 2),
            ("é", "e", 1),
        ] {
            assert_eq!(distance(from, to), changes, "{from} {to}");
        }
    }

    #[test]
    fn only_what_is_near_could_have_been_meant() {
        let known = ["daily", "weekdays", "monthly"];
        assert_eq!(nearest("dialy", known), Some("daily"));
        assert_eq!(nearest("Dayly", known), Some("daily"));
        assert_eq!(nearest("montly", known), Some("monthly"));
        assert_eq!(nearest("x", known), None);
    }
}
