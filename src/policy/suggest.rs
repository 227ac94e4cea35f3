//! The word that was probably meant.

/// The closest of the allowed words, if it is close: a letter or two wrong, missing, added or swapped.
pub fn did_you_mean<'a>(word: &str, allowed: &[&'a str]) -> Option<&'a str> {
    const LETTERS_MAX: usize = 40;
    if word.len() > LETTERS_MAX {
        return None;
    }
    let word: Vec<char> = word.to_lowercase().chars().collect();
    allowed
        .iter()
        .map(|&candidate| (distance(&word, &candidate.chars().collect::<Vec<_>>()), candidate))
        .filter(|&(distance, candidate)| distance <= (candidate.len() / 3).max(1))
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// How many letters must be changed, added, removed or swapped with their neighbour (optimal string alignment).
fn distance(from: &[char], to: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (row, a) in from.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, b) in to.iter().enumerate() {
            let at = |cells: &[usize], at: usize| cells.get(at).copied().unwrap_or(usize::MAX - 1);
            let changed = at(&last, column) + usize::from(a != b);
            let mut best = changed
                .min(at(&last, column + 1) + 1)
                .min(at(&current, column) + 1);
            let swapped =
                row > 0 && column > 0 && from.get(row - 1) == Some(b) && to.get(column - 1) == Some(a);
            if swapped {
                best = best.min(at(&before_last, column - 1) + 1);
            }
            current.push(best);
        }
        before_last = std::mem::replace(&mut last, current);
    }
    last.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_words_are_suggested() {
        let keys = ["zone", "sends", "receives", "receives-except"];
        let check =
            |word: &str, expected: Option<&str>| assert_eq!(did_you_mean(word, &keys), expected, "{word}");
        check("send", Some("sends"));
        check("recieves", Some("receives"));
        check("receives_except", Some("receives-except"));
        check("Zone", Some("zone"));
        check("publish", None);
        check("", None);
        check(&"zone".repeat(100), None);
    }
}
