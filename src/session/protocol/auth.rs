//! AUTH and HELLO: what the proxy answers in the uplink's place. Pure.

use std::sync::Arc;
use std::time::Instant;

use secrecy::ExposeSecret;
use subtle::{Choice, ConstantTimeEq};

use crate::command::words;
use crate::config::Login;
use crate::resp::encode;

/// Nothing reaches the uplink before AUTH.
pub const NOAUTH: &str = "NOAUTH Authentication required.";
pub const WRONGPASS: &str = "WRONGPASS invalid username-password pair or user is disabled.";
const HELLO_SYNTAX: &str = "ERR Syntax error in HELLO option";
const BAD_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";
const NO_PASSWORD_SET: &str = "ERR AUTH <password> called without any password configured for the \
     default user. Are you sure your configuration is correct?";

/// What a client has shown, and how often it was wrong.
#[derive(Debug, Default)]
pub struct LoginAttempts {
    /// The login that let the client in.
    pub by: Option<Arc<Login>>,
    /// Wrong passwords so far.
    pub failed: u32,
    /// The client is not read before this.
    pub slowed_until: Option<Instant>,
    /// What the client is told then.
    pub late_reply: Option<Vec<u8>>,
}

/// The answer to an AUTH; `Ok` is `+OK`. `args` are all arguments, the name included.
pub fn auth(login: Option<&Login>, args: &[&[u8]]) -> Result<(), &'static str> {
    match args {
        [_, pass] => check(login, None, pass),
        [_, user, pass] => check(login, Some(user), pass),
        [_] => Err("ERR wrong number of arguments for 'auth' command"),
        _ => Err("ERR syntax error"),
    }
}

/// In constant time, but for the lengths.
fn check(login: Option<&Login>, user: Option<&[u8]>, pass: &[u8]) -> Result<(), &'static str> {
    let Some(login) = login else {
        // As with Redis's default user, who has no password, and whom every password fits.
        return match user {
            None => Err(NO_PASSWORD_SET),
            Some(b"default") => Ok(()),
            Some(_) => Err(WRONGPASS),
        };
    };
    let known = login.user.as_deref().unwrap_or("default");
    let user: Choice = user.unwrap_or(b"default").ct_eq(known.as_bytes());
    let pass: Choice = pass.ct_eq(login.pass.expose_secret().as_bytes());
    if bool::from(user & pass) { Ok(()) } else { Err(WRONGPASS) }
}

/// A HELLO that the uplink may see.
#[derive(Debug, PartialEq, Eq)]
pub struct Hello {
    /// It had an AUTH, and that was right.
    pub authenticated: bool,
    /// The request without its AUTH.
    pub request: Vec<u8>,
    /// The name that it gives the client.
    pub name: Option<Box<[u8]>>,
}

/// A HELLO that fails.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    pub text: &'static str,
    /// A HELLO that fails behind the name that this one gave. Redis up to 7.0 keeps the name then,
    /// later versions do not.
    pub behind_name: Option<Vec<u8>>,
}

impl From<&'static str> for Refusal {
    fn from(text: &'static str) -> Self {
        Refusal { text, behind_name: None }
    }
}

/// Checks a HELLO as Redis does, in the same order. `args` are all arguments, the name included.
pub fn hello(login: Option<&Login>, args: &[&[u8]]) -> Result<Hello, Refusal> {
    let Some((version, mut options)) = args.get(1..).and_then(<[_]>::split_first) else {
        return Ok(plain(args));
    };
    match words::integer(version) {
        None => return Err("ERR Protocol version is not an integer or out of range".into()),
        Some(2 | 3) => {}
        Some(_) => return Err("NOPROTO unsupported protocol version".into()),
    }
    let mut forwarded = args[..2].to_vec();
    let (mut authenticated, mut name_given) = (false, None);
    let fault = loop {
        options = match options {
            [] => break None,
            [option, user, pass, rest @ ..] if option.eq_ignore_ascii_case(b"AUTH") => {
                if let Err(text) = check(login, Some(user), pass) {
                    break Some(text);
                }
                authenticated = true;
                rest
            }
            [option, name, rest @ ..] if option.eq_ignore_ascii_case(b"SETNAME") => {
                if !name.iter().all(u8::is_ascii_graphic) {
                    break Some(BAD_NAME);
                }
                forwarded.extend([*option, *name]);
                name_given = Some(Box::from(*name));
                rest
            }
            [option, ..] if option.eq_ignore_ascii_case(b"SETNAME") => {
                break Some("ERR Syntax error in HELLO option 'SETNAME'");
            }
            // Redis repeats the option, but it may be a part of a password with a space in it,
            // and replies are logged.
            [_, ..] => break Some(HELLO_SYNTAX),
        };
    };
    if let Some(text) = fault {
        let behind_name = name_given.is_some().then(|| {
            forwarded.push(b"SETNAME");
            encode::request(&forwarded)
        });
        return Err(Refusal { text, behind_name });
    }
    Ok(Hello { authenticated, name: name_given, ..plain(&forwarded) })
}

fn plain(args: &[&[u8]]) -> Hello {
    Hello { authenticated: false, request: encode::request(args), name: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(user: Option<&str>) -> Login {
        Login { user: user.map(str::to_owned), pass: "secret".into() }
    }

    fn words(line: &str) -> Vec<&[u8]> {
        line.split(' ').map(str::as_bytes).collect()
    }

    #[test]
    fn auth_knows_one_user() {
        let (default, bob) = (login(None), login(Some("bob")));
        for (login, line, right) in [
            (&default, "AUTH secret", true),
            (&default, "AUTH default secret", true),
            (&default, "AUTH bob secret", false),
            (&default, "AUTH secre", false),
            (&default, "AUTH secrets", false),
            (&bob, "AUTH bob secret", true),
            (&bob, "AUTH secret", false),
            (&bob, "AUTH default secret", false),
            (&bob, "AUTH bob Secret", false),
        ] {
            let wanted = if right { Ok(()) } else { Err(WRONGPASS) };
            assert_eq!(auth(Some(login), &words(line)), wanted, "{line}");
        }
        assert_eq!(auth(None, &words("AUTH x")), Err(NO_PASSWORD_SET));
        assert_eq!(auth(None, &words("AUTH default x")), Ok(()), "whoever has a password set");
        assert_eq!(auth(None, &words("AUTH bob x")), Err(WRONGPASS));
        assert!(auth(Some(&default), &words("AUTH")).is_err());
        assert!(auth(Some(&default), &words("AUTH a b c")).is_err());
    }

    #[test]
    fn hello_is_forwarded_without_its_password() {
        let login = login(None);
        let hello = hello(Some(&login), &words("HELLO 3 auth default secret SETNAME me"))
            .expect("the right password");
        assert!(hello.authenticated);
        assert_eq!(hello.name.as_deref(), Some(&b"me"[..]));
        let text = String::from_utf8(hello.request).expect("text");
        assert_eq!(text, "*4\r\n$5\r\nHELLO\r\n$1\r\n3\r\n$7\r\nSETNAME\r\n$2\r\nme\r\n");
    }

    #[test]
    fn hello_is_refused_with_the_texts_of_redis() {
        let login = login(None);
        for (line, text) in [
            ("HELLO x", "ERR Protocol version is not an integer or out of range"),
            ("HELLO +3", "ERR Protocol version is not an integer or out of range"),
            ("HELLO 03", "ERR Protocol version is not an integer or out of range"),
            ("HELLO -3", "NOPROTO unsupported protocol version"),
            ("HELLO 4", "NOPROTO unsupported protocol version"),
            ("HELLO 4 AUTH default wrong", "NOPROTO unsupported protocol version"),
            ("HELLO 3 FOO", HELLO_SYNTAX),
            ("HELLO 3 SETNAME m\u{e9} FOO", BAD_NAME),
            ("HELLO 3 AUTH default", HELLO_SYNTAX),
            ("HELLO 3 AUTH default wrong", WRONGPASS),
            ("HELLO 3 AUTH default wrong AUTH default secret", WRONGPASS),
            ("HELLO 3 AUTH default secret AUTH default wrong", WRONGPASS),
        ] {
            assert_eq!(hello(Some(&login), &words(line)), Err(text.into()), "{line}");
        }
    }

    #[test]
    fn a_hello_that_fails_behind_a_name_fails_there_at_the_uplink_too() {
        let login = login(None);
        for (line, text) in [
            ("HELLO 3 SETNAME me FOO BAR", HELLO_SYNTAX),
            ("HELLO 3 SETNAME me AUTH default wrong", WRONGPASS),
            ("HELLO 3 AUTH default secret SETNAME me AUTH default", HELLO_SYNTAX),
            ("HELLO 3 SETNAME me SETNAME", "ERR Syntax error in HELLO option 'SETNAME'"),
        ] {
            let refusal = hello(Some(&login), &words(line)).expect_err(line);
            assert_eq!(refusal.text, text, "{line}");
            let sent = encode::request(words("HELLO 3 SETNAME me SETNAME"));
            assert_eq!(refusal.behind_name, Some(sent), "{line}");
        }
    }
}
