//! Names that nobody can guess.

use rustix::rand::{GetRandomFlags, getrandom};

/// 32 hexadecimal digits; `None` if the system has no randomness to give.
pub fn token() -> Option<String> {
    let mut bytes = [0; 16];
    // So few bytes come whole, or not at all.
    getrandom(&mut bytes, GetRandomFlags::empty()).ok()?;
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_alike() {
        let (one, other) = (token().expect("random"), token().expect("random"));
        assert_eq!(one.len(), 32);
        assert_ne!(one, other);
    }
}
