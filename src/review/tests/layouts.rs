//! The layout of a policy's text.

use super::super::layout;
use super::super::testing::Dice;

#[track_caller]
fn check(text: &str, expected: &str) {
    let once = layout(text).unwrap();
    assert_eq!(once, expected, "of\n{text}");
    assert_eq!(layout(&once).unwrap(), once, "laid out twice");
}

#[test]
fn sections_and_keys() {
    check(
        "\n\n\nversion=1\r\ntrust-domain   = 'todo.example'\n[service.web]\n\n  zone = \"dmz\"\n\n\n  \
         sends = ['a',\"b\" ]\n  receives-except=[]\n[message.\"a.*\"]\nkind='event'\ndelivery=\"at-least-once\"\n\n\n",
        "version = 1\ntrust-domain = \"todo.example\"\n\n[service.web]\nzone  = \"dmz\"\n\n\
         sends = [\"a\", \"b\"]\nreceives-except = []\n\n[message.\"a.*\"]\n\
         kind     = \"event\"\ndelivery = \"at-least-once\"\n",
    );
    check("", "");
    check("\n# only a comment", "# only a comment\n");
}

#[test]
fn comments_stay_where_they_are() {
    check(
        "# Head.\n#   indented\nversion = 1    # behind\n\n\n# of the domain\ntrust-domain = \"x\" # near\n\
         # --- Services ---\n\n\n# the web\n[service.web] # header\n# first\nzone = \"dmz\"      # column 23\n\n\n\
         # second\nsends = [\"a\"]\n# last of all\n",
        "# Head.\n#   indented\nversion = 1    # behind\n\n# of the domain\ntrust-domain = \"x\"  # near\n\n\
         # --- Services ---\n\n# the web\n[service.web]  # header\n# first\nzone  = \"dmz\"     # column 23\n\n\
         # second\nsends = [\"a\"]\n\n# last of all\n",
    );
}

#[test]
fn lists_keep_their_comments_by_their_entries() {
    check(
        "[service.web]\nsends = [ # why\n  \"a\", # of a\n\n\n  # before b\n  \"b\"   # of b\n  , \"c\"\n  # at the end\n]  # behind all\n",
        "[service.web]\nsends = [\n    # why\n    \"a\",  # of a\n\n    # before b\n    \"b\",   # of b\n    \"c\",\n    # at the end\n]  # behind all\n",
    );
    check(
        "[service.web]\nsends = [\n\"a\",\"b\"]\n",
        "[service.web]\nsends = [\n    \"a\",\n    \"b\",\n]\n",
    );
    check(
        "[service.web]\nsends = [\n# none yet\n]\n",
        "[service.web]\nsends = [\n    # none yet\n]\n",
    );
    check("[service.web]\nsends = [\n]\n", "[service.web]\nsends = []\n");
}

#[test]
fn a_list_that_does_not_fit_has_an_entry_a_line() {
    let name = "a".repeat(30);
    let fits = format!("[service.web]\nsends = [\"{name}\", \"{name}\", \"{name}\"]\n");
    check(&fits, &fits);
    check(
        &format!("[service.web]\nsends = [\"{name}\", \"{name}\", \"{name}\", \"b\"]\n"),
        &format!(
            "[service.web]\nsends = [\n    \"{name}\",\n    \"{name}\",\n    \"{name}\",\n    \"b\",\n]\n"
        ),
    );
}

#[test]
fn what_is_written_in_other_ways_stays() {
    let text = "version = 1\nservice.web.sends = [\"a\"]\noperator = { alice = { may = [\"view\"] } }\n";
    check(text, text);
}

#[test]
fn what_is_no_toml_is_refused() {
    assert!(layout("[service.web\n").is_err());
}

/// The comments of a text, in order, and the text without them.
fn comments(text: &str) -> Vec<String> {
    let mut comments = Vec::new();
    for line in text.lines() {
        // No text of these tests has `#` in quotes.
        if let Some((_, comment)) = line.split_once('#') {
            comments.push(comment.trim().to_owned());
        }
    }
    comments
}

#[test]
fn any_text_keeps_what_it_says_and_is_laid_out_for_good() {
    for seed in 0..5_000 {
        let text = any_text(&mut Dice::new(seed));
        let once = layout(&text).unwrap_or_else(|error| panic!("seed {seed}: {error}\n{text}"));
        let values = |text: &str| text.parse::<toml::Table>().unwrap();
        assert_eq!(values(&once), values(&text), "seed {seed}:\n{text}\n---\n{once}");
        assert_eq!(
            comments(&once),
            comments(&text),
            "seed {seed}:\n{text}\n---\n{once}"
        );
        assert_eq!(layout(&once).unwrap(), once, "seed {seed}: twice");
    }
}

/// A policy as nobody would write it.
fn any_text(dice: &mut Dice) -> String {
    let mut text = String::new();
    let mut comment_count = 0;
    let mut space = |dice: &mut Dice, text: &mut String, may_break: bool| {
        for _ in 0..dice.below(3) {
            match dice.below(if may_break { 5 } else { 2 }) {
                0 => text.push(' '),
                1 => text.push('\t'),
                2 => text.push('\n'),
                3 => text.push_str("\r\n"),
                _ => {
                    comment_count += 1;
                    text.push_str(&format!("#{comment_count}\n"));
                }
            }
        }
    };
    let line_end = |dice: &mut Dice, text: &mut String| match dice.below(3) {
        0 => text.push_str(" # behind\n"),
        1 => text.push_str("\t#behind\n"),
        _ => text.push('\n'),
    };
    space(dice, &mut text, true);
    text.push_str("\nversion=1");
    line_end(dice, &mut text);
    for service in 0..dice.below(4) {
        space(dice, &mut text, true);
        text.push_str(&format!("\n[service.s{service}]"));
        line_end(dice, &mut text);
        for key in ["zone", "sends", "receives", "receives-except"] {
            space(dice, &mut text, true);
            text.push_str(&format!("\n{key}"));
            space(dice, &mut text, false);
            text.push('=');
            space(dice, &mut text, false);
            if key == "zone" {
                text.push_str(dice.pick::<&str>(&["'z'", "\"z\"", "'''z'''"]));
            } else {
                text.push('[');
                let count = dice.below(4);
                for at in 0..count {
                    space(dice, &mut text, true);
                    text.push_str(dice.pick::<&str>(&[
                        "'a.b'",
                        "\"c.*\"",
                        "\"a-very-long-name-of-a-message.to-fill-lines\"",
                    ]));
                    space(dice, &mut text, true);
                    if at + 1 < count || dice.below(2) == 0 {
                        text.push(',');
                    }
                }
                space(dice, &mut text, true);
                text.push(']');
            }
            line_end(dice, &mut text);
        }
    }
    space(dice, &mut text, true);
    text
}
