//! Fields of a line for people. What a client, an uplink or a caller chose is in them, so it must not
//! begin a line of its own, or move a terminal's cursor.

use std::fmt::{self, Debug, Write};

use tracing::field::Field;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

const NAME: &str = "\x1b[3m";
const EQUALS: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

/// The message, then `name=value` for each field, with everything that a terminal does not print
/// escaped.
pub(super) fn fields() -> impl for<'a> FormatFields<'a> + Send + Sync + 'static {
    debug_fn(field).delimited(" ")
}

fn field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    match (field.name(), writer.has_ansi_escapes()) {
        ("message", _) => {}
        (name, true) => write!(writer, "{NAME}{name}{PLAIN}{EQUALS}={PLAIN}")?,
        (name, false) => write!(writer, "{name}=")?,
    }
    write!(Escaping(writer), "{value:?}")
}

struct Escaping<'a, W>(&'a mut W);

impl<W: Write> Write for Escaping<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut plain = 0;
        for (at, char) in text.char_indices().filter(|(_, char)| !prints(*char)) {
            self.0.write_str(&text[plain..at])?;
            write!(self.0, "{}", char.escape_debug())?;
            plain = at + char.len_utf8();
        }
        self.0.write_str(&text[plain..])
    }
}

/// A terminal shows it where it stands. Neither do line separators, or what turns the direction of the
/// text that follows.
fn prints(char: char) -> bool {
    match char {
        ' '..='~' => true,
        '\0'..'\u{a0}' => false,
        _ => char.escape_debug().len() == 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_prints_is_left_as_it_is() {
        for (text, escaped) in [
            (r#"plain, "quoted" and \backslashed"#, r#"plain, "quoted" and \backslashed"#),
            ("a\nb\r\tc", r"a\nb\r\tc"),
            ("\x1b[2J\x07\x08\x7f\u{9b}31m", r"\u{1b}[2J\u{7}\u{8}\u{7f}\u{9b}31m"),
            ("\u{2028}\u{202e}\u{2066}", r"\u{2028}\u{202e}\u{2066}"),
            ("größer 日本", "größer 日本"),
        ] {
            let mut out = String::new();
            write!(Escaping(&mut out), "{text}").expect("a string takes it");
            assert_eq!(out, escaped);
        }
    }
}
