//! Command lines to be copied into a shell on a person's own machine.
//!
//! Promises: whatever a value holds, the shell takes it for one word and does nothing with it; what a terminal would
//! act on, or what turns the direction of text, is written as an escape (`$'…'` of POSIX.1-2024). Deliberately absent:
//! any value that is a secret, and any path but a placeholder.

use std::fmt::Write;

/// `words` as one line; no word but a name or a number stands without quotes.
pub fn line<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// `word` as one word of a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,:=@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into();
    }
    let acts = |c: char| c.is_control() && c != '\n' || turns(c);
    if !word.chars().any(acts) {
        return format!("'{}'", word.replace('\'', r"'\''"));
    }
    let mut text = String::from("$'");
    for c in word.chars() {
        match c {
            '\'' => text.push_str(r"\'"),
            '\\' => text.push_str(r"\\"),
            '\n' => text.push_str(r"\n"),
            '\t' => text.push_str(r"\t"),
            c if acts(c) => {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    // Writing to a String does not fail. Three octal digits end by themselves.
                    let _ = write!(text, "\\{byte:03o}");
                }
            }
            c => text.push(c),
        }
    }
    text.push('\'');
    text
}

/// Characters that turn the direction of the text after them.
fn turns(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_each_word_for_itself() {
        let hostile = [
            "plain-1",
            "",
            "it's",
            "$(touch /tmp/x) `id` ; rm -rf / && \"x\" \\ !! ~ *",
            "SELECT 'a'\nFROM t -- '",
            "\u{1b}[31m\r\t\u{7f}'\\\u{202e}関所1",
        ];
        for word in hostile {
            // `printf` gives the word back byte by byte.
            let script = line(["printf", "%s", word]);
            let output = std::process::Command::new("bash").arg("-c").arg(&script).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word, "{script}");
            assert!(!script.chars().any(|c| c.is_control() && c != '\n' || turns(c)), "{script:?}");
        }
        assert_eq!(line(["sekisho", "query", "--sql", "SELECT 1"]), "sekisho query --sql 'SELECT 1'");
        assert_eq!(line(["%s"]), "%s");
    }
}
