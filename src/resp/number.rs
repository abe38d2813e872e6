//! Decimal lengths, read a byte at a time and as strictly as Redis's `string2ll` reads them.

/// A number on its way in. Canonical decimal only: no plus sign, no leading zero, no `-0`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number {
    value: u64,
    /// Digits so far; eighteen at most, so that `value` cannot overflow an `i64`.
    digits: u8,
    negative: bool,
}

/// The line is not a number.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotANumber;

impl Number {
    /// Reads on from `pos`, which moves past all that was read.
    ///
    /// Gives the number once its carriage return was read; the line feed is left to the caller.
    #[inline]
    pub(super) fn read(
        &mut self,
        input: &[u8],
        pos: &mut usize,
    ) -> Result<Option<i64>, NotANumber> {
        let Number { mut value, mut digits, mut negative } = *self;
        while let Some(&byte) = input.get(*pos) {
            *pos += 1;
            let digit = byte.wrapping_sub(b'0');
            if digit <= 9 {
                if (digits == 1 && value == 0) || digits == 18 {
                    return Err(NotANumber);
                }
                value = value * 10 + u64::from(digit);
                digits += 1;
            } else if byte == b'\r' {
                if digits == 0 || (negative && value == 0) {
                    return Err(NotANumber);
                }
                *self = Number::default();
                let value = value.cast_signed();
                return Ok(Some(if negative { -value } else { value }));
            } else if byte == b'-' && digits == 0 && !negative {
                negative = true;
            } else {
                return Err(NotANumber);
            }
        }
        *self = Number { value, digits, negative };
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(line: &[u8]) -> Result<Option<i64>, NotANumber> {
        Number::default().read(line, &mut 0)
    }

    #[test]
    fn only_canonical_decimals_are_numbers() {
        for (line, value) in [("0", 0), ("7", 7), ("-1", -1), ("536870912", 536_870_912)] {
            assert_eq!(whole(format!("{line}\r").as_bytes()), Ok(Some(value)));
        }
        for line in
            ["", "-", "-0", "01", "+1", " 1", "1 ", "--1", "1-", "1e3", "1234567890123456789"]
        {
            assert_eq!(whole(format!("{line}\r").as_bytes()), Err(NotANumber), "{line:?}");
        }
    }

    #[test]
    fn a_number_may_arrive_in_pieces() {
        let mut number = Number::default();
        for byte in b"-123" {
            assert_eq!(number.read(&[*byte], &mut 0), Ok(None));
        }
        assert_eq!(number.read(b"\r", &mut 0), Ok(Some(-123)));
        assert_eq!(number, Number::default(), "ready for the next");
    }
}
