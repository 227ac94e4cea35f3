//! The word that was probably meant.

use strsim::osa_distance;

/// The closest of the allowed words, if it is close: a letter or two wrong, missing, added or swapped.
pub fn did_you_mean<'a>(word: &str, allowed: &[&'a str]) -> Option<&'a str> {
    const BYTES_MAX: usize = 40;
    if word.len() > BYTES_MAX {
        return None;
    }
    let word = word.to_lowercase();
    allowed
        .iter()
        .map(|&candidate| (osa_distance(&word, &candidate.to_lowercase()), candidate))
        .filter(|&(distance, candidate)| distance <= (candidate.len() / 3).max(1))
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_words_are_suggested() {
        let keys = ["zone", "sends", "receives", "receives-except", "ON-ALARM"];
        let check =
            |word: &str, expected: Option<&str>| assert_eq!(did_you_mean(word, &keys), expected, "{word}");
        check("send", Some("sends"));
        check("recieves", Some("receives"));
        check("receives_except", Some("receives-except"));
        check("recieves_except", Some("receives-except"));
        check("Zone", Some("zone"));
        check("on-alarm", Some("ON-ALARM"));
        check("publish", None);
        check("", None);
    }

    #[test]
    fn long_words_are_not_compared() {
        let long = "a".repeat(41);
        let allowed = [long.as_str()];
        assert_eq!(did_you_mean(&"a".repeat(40), &allowed), Some(allowed[0]));
        assert_eq!(did_you_mean(&long, &allowed), None);
    }
}
