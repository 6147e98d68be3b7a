//! "Did you mean": the known name nearest to a misspelled one.

/// The name nearest to `wrong`, if one is near enough to be meant: at most a third of its
/// characters, and at most three, are added, left out or changed.
pub(crate) fn nearest<'a>(
    wrong: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let limit = (wrong.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|name| (distance(&wrong.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, name)| name)
}

/// The end of an error message that names `hint`, or nothing.
pub(crate) fn did_you_mean(hint: Option<&str>) -> String {
    hint.map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}

/// Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_found_and_a_far_one_is_not() {
        let known = ["Airport", "Country", "Runway"];
        assert_eq!(nearest("Airprot", known), Some("Airport"));
        assert_eq!(nearest("airport", known), Some("Airport"));
        assert_eq!(nearest("Runwya", known), Some("Runway"));
        assert_eq!(nearest("Passenger", known), None);
        assert_eq!(nearest("", known), None);
    }
}
