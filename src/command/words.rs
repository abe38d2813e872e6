//! How Redis reads the words and numbers among a command's arguments, which is how C reads them.

/// Digits that a `long double` keeps of a decimal number.
const DECIMAL_DIGITS: u32 = 19;
/// Digits that a `long double` keeps of a hexadecimal number.
const HEX_DIGITS: u32 = 16;
/// Longer numbers are refused.
const MAX_NUMBER: usize = 5 * 1024;
/// 10 to this power and below is nothing to a `long double`, and out of its range.
const LEAST_DECIMAL: i64 = -4951;
/// 2 to this power is likewise.
const LEAST_BINARY: i64 = -16446;

/// Whether an argument is this word. Letters' case is nothing, and a string ends at its first NUL.
pub fn is(arg: &[u8], word: &str) -> bool {
    until_nul(arg).eq_ignore_ascii_case(word.as_bytes())
}

/// What C sees of an argument.
pub fn until_nul(arg: &[u8]) -> &[u8] {
    memchr::memchr(0, arg).map_or(arg, |end| &arg[..end])
}

/// A whole number as `string2ll` reads it: no plus sign, no leading zero, no space, no `-0`.
pub fn integer(arg: &[u8]) -> Option<i64> {
    let digits = arg.strip_prefix(b"-").unwrap_or(arg);
    let is_canonical = match digits {
        [b'0'] => arg.len() == 1,
        [b'1'..=b'9', ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let text = std::str::from_utf8(arg).ok().filter(|_| is_canonical)?;
    text.parse().ok()
}

/// A time in seconds as `string2ld` reads it, in milliseconds, rounded up: `1.5`, `1e-1`, `0x1p-3`.
/// What is negative by no more than a millisecond is 0. `None` for what Redis refuses.
pub fn seconds(arg: &[u8]) -> Option<u64> {
    if arg.len() >= MAX_NUMBER {
        return None;
    }
    let (is_negative, digits) = match arg {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let number = match digits {
        [b'0', b'x' | b'X', digits @ ..] => Number::read(digits, 16)?,
        digits => Number::read(digits, 10)?,
    };
    let Milliseconds { floor, is_whole } = number.milliseconds()?;
    match is_negative {
        // To a `long double`, a thousandth is a little less.
        true => (floor == 0 || (floor == 1 && is_whole)).then_some(0),
        false => floor.checked_add(u64::from(!is_whole)).filter(|it| i64::try_from(*it).is_ok()),
    }
}

/// A number of milliseconds, as far as it is whole.
struct Milliseconds {
    floor: u64,
    /// The number has no fraction.
    is_whole: bool,
}

/// `mantissa` times 10 (or, of a hexadecimal number, 2) to the power of `exponent`.
struct Number {
    mantissa: u64,
    exponent: i64,
    radix: u32,
}

impl Number {
    /// Digits with at most one point among them, and an exponent, which is decimal.
    fn read(text: &[u8], radix: u32) -> Option<Number> {
        let (letter, kept, step) = match radix {
            16 => (b'p', HEX_DIGITS, 4),
            _ => (b'e', DECIMAL_DIGITS, 1),
        };
        let end = text.iter().position(|byte| byte.to_ascii_lowercase() == letter);
        let (digits, exponent) = match end {
            Some(end) => (&text[..end], read_exponent(&text[end + 1..])?),
            None => (text, 0),
        };
        let mut number = Number { mantissa: 0, exponent, radix };
        let (mut significant, mut seen, mut point) = (0, false, false);
        for byte in digits {
            if *byte == b'.' && !point {
                point = true;
                continue;
            }
            let digit = char::from(*byte).to_digit(radix)?;
            seen = true;
            // Those that are not kept only count for the exponent.
            let keeps = significant < kept;
            if keeps {
                number.mantissa = number.mantissa * u64::from(radix) + u64::from(digit);
                significant += u32::from(number.mantissa > 0);
            }
            number.exponent += step * (i64::from(!keeps) - i64::from(point));
        }
        seen.then_some(number)
    }

    /// The number of seconds as milliseconds; `None` if it is out of range.
    fn milliseconds(&self) -> Option<Milliseconds> {
        let all = |floor| Milliseconds { floor, is_whole: true };
        if self.mantissa == 0 {
            return Some(all(0));
        }
        let mantissa = u128::from(self.mantissa) * if self.radix == 16 { 1000 } else { 1 };
        let (base, least, exponent) = match self.radix {
            16 => (2_u128, LEAST_BINARY, self.exponent),
            _ => (10, LEAST_DECIMAL, self.exponent + 3),
        };
        if exponent >= 0 {
            let power = base.checked_pow(u32::try_from(exponent).ok()?)?;
            return u64::try_from(mantissa.checked_mul(power)?).ok().map(all);
        }
        let highest = self.exponent + i64::from(self.digits()) - 1;
        if highest < least {
            return None;
        }
        let power = u32::try_from(-exponent).ok().and_then(|by| base.checked_pow(by));
        let Some(power) = power else { return Some(Milliseconds { floor: 0, is_whole: false }) };
        let floor = u64::try_from(mantissa / power).ok()?;
        Some(Milliseconds { floor, is_whole: mantissa.is_multiple_of(power) })
    }

    /// How many decimal digits, or bits, the mantissa has.
    fn digits(&self) -> u32 {
        match self.radix {
            16 => u64::BITS - self.mantissa.leading_zeros(),
            _ => self.mantissa.checked_ilog10().map_or(0, |log| log + 1),
        }
    }
}

/// A decimal exponent, with or without a sign; an endless one is very large or very small.
fn read_exponent(text: &[u8]) -> Option<i64> {
    /// Larger than what any number of digits could make up for.
    const ENDLESS: i64 = 1 << 40;
    let (sign, digits) = match text {
        [b'-', digits @ ..] => (-1, digits),
        [b'+', digits @ ..] => (1, digits),
        digits => (1, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let read = |value: i64, byte: &u8| {
        let digit = char::from(*byte).to_digit(10)?;
        Some((value * 10 + i64::from(digit)).min(ENDLESS))
    };
    digits.iter().try_fold(0, read).map(|value| sign * value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_ends_where_c_ends_it() {
        for (arg, same) in [
            (&b"BLOCK"[..], true),
            (b"block", true),
            (b"bLoCk\0whatever", true),
            (b"blocks", false),
            (b"bloc", false),
            (b"\0block", false),
            (b"", false),
        ] {
            assert_eq!(is(arg, "BLOCK"), same, "{arg:?}");
        }
    }

    #[test]
    fn whole_numbers_are_canonical_decimals() {
        for (arg, number) in [("0", 0), ("7", 7), ("-1", -1), ("9223372036854775807", i64::MAX)] {
            assert_eq!(integer(arg.as_bytes()), Some(number));
        }
        for arg in ["", "-", "-0", "00", "07", "+7", " 7", "7 ", "7.0", "0x7", "1e1", "7\0", "1_0"]
        {
            assert_eq!(integer(arg.as_bytes()), None, "{arg:?}");
        }
        assert_eq!(integer(b"9223372036854775808"), None);
    }

    #[test]
    fn seconds_are_what_c_takes_for_a_number_with_a_fraction() {
        for (arg, wanted) in [
            ("0", 0),
            ("00.010", 10),
            ("1.", 1000),
            (".01", 10),
            ("+0.01", 10),
            ("1e-1", 100),
            ("1E+1", 10_000),
            ("0x1", 1000),
            ("0X.8p-8", 2),
            ("0x1p-7", 8),
            ("0xAp1", 20_000),
            ("0.0001", 1),
            ("1e-400", 1),
            ("1e-4940", 1),
            ("-0", 0),
            ("-0.0001", 0),
            ("-0.001", 0),
            ("-1e-3", 0),
            ("-1e-400", 0),
            ("0e99999", 0),
            ("0e-99999", 0),
            ("0.001", 1),
            ("0.0010000000000000000000000001", 1),
            ("12345678901234567890e-19", 1235),
            ("100000000000000000000000000000e-29", 1000),
            ("0.00000000000000000000000000000001e32", 1000),
            ("9223372036854775", 9_223_372_036_854_775_000),
        ] {
            assert_eq!(seconds(arg.as_bytes()), Some(wanted), "{arg}");
        }
    }

    #[test]
    fn what_c_takes_for_no_number_is_refused() {
        for arg in [
            "",
            "-",
            "+",
            ".",
            "x",
            "0x",
            "0x.",
            "0x1p",
            "1e",
            "1e+",
            "1e1.5",
            "1..",
            "-0.0011",
            "-1",
            "- 1",
            "--1",
            "inf",
            "-inf",
            "infinity",
            "nan",
            "nan(1)",
            " 1",
            "1 ",
            "\t1",
            "1f",
            "1_0",
            "0b1",
            "1\0",
            "9223372036854776",
            "1e99999",
            "1e-5000",
            "0x1p-99999",
            "1e-2000000000000000000000",
        ] {
            assert_eq!(seconds(arg.as_bytes()), None, "{arg:?}");
        }
        let long = |zeros: usize| format!("0.01{}", "0".repeat(zeros));
        assert_eq!(seconds(long(MAX_NUMBER - 5).as_bytes()), Some(10));
        assert_eq!(seconds(long(MAX_NUMBER - 4).as_bytes()), None);
    }
}
