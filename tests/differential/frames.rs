//! Replies and pushes: told apart, printed with their types, and masked where two runs of one
//! program may differ.

use super::program::Ids;

/// One reply, push or attribute, printed: its type's first byte, then what it holds.
pub type Frame = String;

/// Takes the first frame off the bytes; `None` if it is not whole yet.
pub fn take(bytes: &mut Vec<u8>) -> Option<Frame> {
    let mut at = 0;
    let frame = read(bytes, &mut at)?;
    bytes.drain(..at);
    Some(frame)
}

fn line<'a>(bytes: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let rest = &bytes[*at..];
    let end = rest.windows(2).position(|two| two == b"\r\n")?;
    *at += end + 2;
    Some(&rest[..end])
}

fn read(bytes: &[u8], at: &mut usize) -> Option<Frame> {
    let head = String::from_utf8_lossy(line(bytes, at)?).into_owned();
    let (kind, rest) = head.split_at(head.len().min(1));
    let count: i64 = rest.parse().unwrap_or(-1);
    let elements = match kind {
        "$" | "=" | "!" if count >= 0 => {
            let length = usize::try_from(count).ok()?;
            let body = bytes.get(*at..*at + length + 2)?;
            *at += length + 2;
            return Some(format!("{kind}{:?}", String::from_utf8_lossy(&body[..length])));
        }
        "*" | "~" | ">" if count >= 0 => count,
        "%" | "|" => count * 2,
        _ => return Some(head),
    };
    let mut parts = Vec::new();
    for _ in 0..elements {
        parts.push(read(bytes, at)?);
    }
    Some(format!("{kind}[{}]", parts.join(", ")))
}

/// A cache is told to drop keys. A handover drops all of it at once, and after that nobody needs
/// to tell of the keys in it.
pub fn invalidates(frame: &Frame) -> bool {
    frame.starts_with(">[$\"invalidate\"") || frame.contains("$\"__redis__:invalidate\", ")
}

/// What the manual says is different.
pub fn is_documented(frame: &Frame) -> bool {
    frame == "-ERR Command not allowed inside a transaction"
        || frame == "-ERR CLIENT REPLY is not allowed inside a transaction"
        || frame.contains("is not supported by redis-proxy")
}

/// EXEC's answer if a watched key was touched, or CLIENT INFO's flag for that.
pub fn tells_of_touched_keys(frame: &Frame) -> bool {
    frame == "*-1" || frame == "_" || frame.contains(" flags=d ")
}

/// Before AUTH, the proxy does not look at requests more closely: to a client it is refused either
/// way. What it does not know in a HELLO may be a part of a password, and is not repeated.
pub fn is_refused_earlier(expected: &Frame, got: &Frame) -> bool {
    const OPTION: &str = "-ERR Syntax error in HELLO option";
    if got == OPTION {
        return expected.starts_with(OPTION);
    }
    let closer = [
        "-ERR wrong number of arguments",
        "-ERR unknown ",
        "-EXECABORT ",
        "-NOAUTH HELLO ",
        "+RESET",
    ];
    got == "-NOAUTH Authentication required."
        && closer.iter().any(|text| expected.starts_with(text))
}

/// An UNSUBSCRIBE without names tells them in the order of a hash table, which depends on how it
/// came to be: here they are sorted, and their counts stay.
pub fn sort_unsubscribed(frames: &mut [Frame]) {
    let parts = |frame: &Frame| {
        let (start, count) = frame.rsplit_once(", :")?;
        let (kind, name) = start.split_once(", ")?;
        let names_one = kind.ends_with("unsubscribe\"") && name.starts_with('$');
        names_one.then(|| (kind.to_owned(), name.to_owned(), count.to_owned()))
    };
    let mut at = 0;
    while let Some(frame) = frames.get(at) {
        let kind = parts(frame).map(|(kind, ..)| kind);
        let same = |frame: &&Frame| kind.is_some() && parts(frame).map(|it| it.0) == kind;
        let many = frames[at..].iter().take_while(same).count().max(1);
        let run = &mut frames[at..at + many];
        let split: Vec<_> = run.iter().filter_map(parts).collect();
        let mut names: Vec<_> = split.iter().map(|(_, name, _)| name.clone()).collect();
        names.sort();
        for (frame, ((kind, _, count), name)) in run.iter_mut().zip(split.iter().zip(names)) {
            *frame = format!("{kind}, {name}, :{count}");
        }
        at += many;
    }
}

/// The same for confirmations inside of EXEC's reply: here, they are without their names.
pub fn forget_unsubscribed(frames: &mut [Frame]) {
    const END: &str = "unsubscribe\", ";
    for frame in frames.iter_mut().filter(|frame| frame.starts_with("*[") && frame.contains(END)) {
        let mut parts = frame.split(END);
        let first = parts.next().unwrap_or_default().to_owned();
        *frame = parts.fold(first, |all, part| {
            let from = part.find(", :").unwrap_or(0);
            format!("{all}{END}?{}", &part[from..])
        });
    }
}

/// The frame without what may differ between two runs.
pub fn mask(frame: &Frame, ids: &Ids) -> Frame {
    // It names the uplink's id.
    if frame.starts_with(">[$\"tracking-redir-broken\"") {
        return ">tracking-redir-broken".to_owned();
    }
    let frame = numbers(frame, ids);
    let Some(begin) = frame.find("id=").filter(|_| frame.contains(" laddr=")) else {
        return frame;
    };
    let (head, frame) = frame.split_at(begin);
    // Their order is that of a hash table in some versions.
    let mut lines: Vec<String> = frame.split("\\n").map(mask_line).collect();
    lines.sort();
    head.to_owned() + &lines.join("\\n")
}

/// One client's line without what may differ.
fn mask_line(line: &str) -> String {
    let fields = line.split(' ').map(|field| {
        let Some((name, value)) = field.rsplit_once('=') else { return field.to_owned() };
        match name {
            // The proxy may be connected to a unix socket.
            "flags" if value == "U" => "flags=N".to_owned(),
            "flags" => format!("flags={}", value.replace('U', "")),
            // After a handover in a transaction, the channel of the proxy's own is among them.
            "ssub" => "ssub=?".to_owned(),
            // Valkey shows by this that there was a transaction, or a watched key, once.
            // Of a transaction that will be aborted, nothing is queued again after a handover.
            "multi" if line.contains("flags=x") => "multi=?".to_owned(),
            "multi" if value == "0" && !line.contains("flags=x") => "multi=-1".to_owned(),
            // Once a watched key was touched, a server forgets them all.
            "watch" if line.contains("flags=d") => "watch=?".to_owned(),
            _ if SAME.iter().any(|same| name.ends_with(same)) => field.to_owned(),
            _ => format!("{name}=?"),
        }
    });
    fields.collect::<Vec<_>>().join(" ")
}

/// The fields of CLIENT INFO that say what a client carries.
const SAME: &[&str] = &[
    "id", "name", "db", "sub", "psub", "multi", "user", "redir", "resp", "lib-name", "lib-ver",
    "watch",
];

/// Below it are the numbers that programs make, above it the clients' ids.
pub const LEAST_ID: u64 = 1000;

fn numbers(frame: &str, ids: &Ids) -> String {
    let mut masked = String::new();
    // Digits among letters are a part of a hash.
    let mut word = String::new();
    for c in frame.chars().chain([' ']) {
        if c.is_ascii_alphanumeric() {
            word.push(c);
            continue;
        }
        match word.parse::<u64>() {
            Ok(number) if Some(number) == ids.main => masked += "$main",
            Ok(number) if Some(number) == ids.peer => masked += "$peer",
            Ok(LEAST_ID..) if ids.main.is_none() => masked += "$id",
            Ok(_) | Err(_) => masked += &word,
        }
        word.clear();
        masked.push(c);
    }
    masked.pop();
    masked
}
