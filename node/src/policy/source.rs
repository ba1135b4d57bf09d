//! Places in the text of a policy: so that an error and an explanation name a line.
//!
//! Cedar numbers the rules of a text in order and does not say where each one begins; [`rules`] finds the places by
//! Cedar's lexical rules alone (comments, strings, `;`).

use miette::Diagnostic;

use super::PolicyError;

/// A place in a text, counted from 1; columns are characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// The place of the byte at `offset`.
pub(super) fn place(text: &str, offset: usize) -> Place {
    let before = text.get(..offset).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Place { line: before.matches('\n').count() + 1, column: before[start..].chars().count() + 1 }
}

/// The offset at which each rule begins.
pub(super) fn rules(text: &str) -> Vec<usize> {
    let (mut starts, mut inside) = (Vec::new(), false);
    let mut chars = text.char_indices().peekable();
    while let Some((offset, c)) = chars.next() {
        match c {
            '/' if chars.peek().is_some_and(|(_, next)| *next == '/') => {
                while chars.next_if(|(_, c)| *c != '\n').is_some() {}
            }
            ';' => inside = false,
            c if c.is_whitespace() => {}
            c => {
                if !inside {
                    starts.push(offset);
                    inside = true;
                }
                if c == '"' {
                    skip_string(&mut chars);
                }
            }
        }
    }
    starts
}

fn skip_string(chars: &mut std::iter::Peekable<std::str::CharIndices<'_>>) {
    while let Some((_, c)) = chars.next() {
        match c {
            '"' => return,
            '\\' => drop(chars.next()),
            _ => {}
        }
    }
}

/// What Cedar says of `text`, with the line and the column that it points at; `rule` is where the rule begins, for when it
/// points nowhere.
pub(super) fn error(text: &str, said: &dyn Diagnostic, rule: Option<usize>) -> PolicyError {
    let label = said.labels().and_then(|mut labels| labels.next());
    let offset = label.as_ref().map(miette::LabeledSpan::offset).or(rule).unwrap_or(0);
    let words = label.and_then(|l| l.label().map(str::to_string));
    let help = said.help().map(|help| help.to_string());
    let more: Vec<String> = words.into_iter().chain(help).collect();
    // Cedar's own number of the rule says nothing to a person; the line does.
    let said = said.to_string();
    let unnamed = said.strip_prefix("for policy `").and_then(|rest| rest.split_once('`'));
    let mut reason = unnamed.map_or(said.as_str(), |(_, rest)| rest.trim_start_matches([',', ':', ' '])).to_string();
    if !more.is_empty() {
        reason = format!("{reason} ({})", more.join("; "));
    }
    at(text, offset, reason)
}

/// An error at `offset` of `text`.
pub(super) fn at(text: &str, offset: usize, reason: String) -> PolicyError {
    let Place { line, column } = place(text, offset);
    let excerpt = text.lines().nth(line - 1).unwrap_or_default().chars().take(160).collect();
    PolicyError::Rule { line, column, excerpt, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_begins_at_its_first_character() {
        let text = "// a; \"\n@id(\"x;\\\"//\") permit (principal, action, resource);\n\n  // b\n  forbid(principal,action,resource)\n  when { \"//;\" == \"\" };";
        let places: Vec<_> = rules(text).into_iter().map(|offset| place(text, offset)).collect();
        assert_eq!(places, [Place { line: 2, column: 1 }, Place { line: 5, column: 3 }]);
        assert_eq!(place("// 方針\nx", "// 方".len()), Place { line: 1, column: 5 });
        assert!(rules("// nothing\n").is_empty());
    }
}
