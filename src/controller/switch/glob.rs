//! Glob-style patterns, by which Redis limits keys and channels: whether one is a part of another. Pure.

/// A part of a glob-style pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Any,
    One,
    OneOf(String),
    Is(char),
}

fn parts(pattern: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut chars = pattern.chars();
    while let Some(char) = chars.next() {
        parts.push(match char {
            '*' => Part::Any,
            '?' => Part::One,
            '[' => Part::OneOf(chars.by_ref().take_while(|char| *char != ']').collect()),
            '\\' => Part::Is(chars.next().unwrap_or('\\')),
            other => Part::Is(other),
        });
    }
    parts
}

/// Everything that the narrow pattern matches, the wide one matches, too. In doubt, it does not.
pub(super) fn covers(wide: &str, narrow: &str) -> bool {
    let (wide, narrow) = (parts(wide), parts(narrow));
    // Which beginnings of the wide one have matched what was looked at of the narrow one.
    let mut matched = vec![false; wide.len() + 1];
    matched[0] = true;
    let skip_any = |matched: &mut Vec<bool>| {
        for (at, part) in wide.iter().enumerate() {
            if *part == Part::Any && matched[at] {
                matched[at + 1] = true;
            }
        }
    };
    skip_any(&mut matched);
    for part in &narrow {
        let mut next = vec![false; wide.len() + 1];
        for (at, of_wide) in wide.iter().enumerate().filter(|(at, _)| matched[*at]) {
            match of_wide {
                Part::Any => next[at] = true,
                Part::One => next[at + 1] |= *part != Part::Any,
                Part::OneOf(_) | Part::Is(_) => next[at + 1] |= of_wide == part,
            }
        }
        skip_any(&mut next);
        matched = next;
    }
    matched[wide.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_another_one_only_if_that_is_certain() {
        for (wide, narrow, expected) in [
            ("*", "", true),
            ("*", "a*?[bc]", true),
            ("app:*", "app:x:*", true),
            ("app:*", "app:", true),
            ("app:*", "ap*", false),
            ("a?c", "abc", true),
            ("a?c", "a*c", false),
            ("*:b", "a:b", true),
            ("*:b", "a:*", false),
            ("[ab]x", "[ab]x", true),
            ("[ab]x", "?x", false),
            ("a**b", "ab", true),
            ("\\*", "*", false),
            ("\\*", "\\*", true),
            ("a", "ab", false),
            ("", "", true),
        ] {
            assert_eq!(covers(wide, narrow), expected, "{wide} {narrow}");
        }
    }
}
