//! Keeps secrets out of what people are told.

/// Stands for what is not shown.
pub const REMOVED: &str = "[removed]";

/// A server's error without the arguments of the request, which it repeats if it does not know the
/// command: among them may be a password.
pub fn without_arguments(error: &str) -> &str {
    error.split(", with args").next().unwrap_or_default().trim_end()
}

/// A text that does not repeat these secrets.
pub fn without<'a>(text: &str, secrets: impl IntoIterator<Item = &'a str>) -> String {
    let secrets = secrets.into_iter().filter(|secret| !secret.is_empty());
    secrets.fold(text.to_owned(), |text, secret| text.replace(secret, REMOVED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_removed_from_a_servers_error() {
        let error = "ERR unknown command 'AUTH', with args beginning with: 'app' 'pass' ";
        assert_eq!(without_arguments(error), "ERR unknown command 'AUTH'");
        assert_eq!(without_arguments("NOPERM no "), "NOPERM no");
        let removed = without("ERR 'pass' is no value of 'x': pass", ["", "pass"]);
        assert_eq!(removed, "ERR '[removed]' is no value of 'x': [removed]");
    }
}
