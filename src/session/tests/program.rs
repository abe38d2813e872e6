//! What a client sends, and what it must be answered: as by a server that nobody replaces.

use super::random::Random;
use super::redis::World;
use crate::resp::encode;
use crate::resp::reply::{Scanner, Step};
use crate::transport::memory;

type Request = Vec<Vec<u8>>;

/// What a client must be answered.
#[derive(Debug)]
enum Answer {
    /// This.
    Is(Vec<u8>),
    /// The next element of its list; or nothing, if the time may have been over before.
    Popped { may_time_out: bool },
}

/// What a client sends, and must be answered.
pub struct Program {
    pub bytes: Vec<u8>,
    answers: Vec<Answer>,
    /// For messages.
    lines: Vec<String>,
    list: Vec<u8>,
    /// A transaction is open while there is a subscription: the mark cannot be asked for in it.
    queues_while_subscribed: bool,
}

/// Messages come under this name.
pub const CHANNEL: &[u8] = b"news";

impl Program {
    /// For the client of this number.
    pub fn new(client: usize, random: &mut Random) -> Self {
        let mut world = World::default();
        // Nobody reads what it says; that is taken from it directly.
        let id = world.servers[0].accept(memory::pair(1).0);
        let list = format!("list{client}").into_bytes();
        let mut program = Program {
            bytes: Vec::new(),
            answers: Vec::new(),
            lines: Vec::new(),
            list,
            queues_while_subscribed: false,
        };
        let mut queues_while_subscribed = false;
        let mut add = |words: &[&str]| {
            let request: Request = words.iter().map(|word| word.as_bytes().to_vec()).collect();
            program.bytes.extend(encode::request(request.iter().map(Vec::as_slice)));
            program.lines.push(words.join(" "));
            program.answers.push(match words {
                ["BLPOP", _, timeout] => Answer::Popped { may_time_out: *timeout != "0" },
                _ => Answer::Is(world.answer(0, id, &request)),
            });
        };
        let key = |kind: &str| format!("{kind}{client}");
        let (count, watched, list) = (key("count"), key("watched"), key("list"));
        let resp3 = random.one_in(2);
        if resp3 {
            add(&["HELLO", "3"]);
        }
        let (mut db, mut subscribed) = (0, false);
        for _ in 0..random.below(12) + 4 {
            match random.below(9) {
                0 => add(&["INCR", &count]),
                1 => add(&["GET", &count]),
                2 => {
                    db = random.below(3);
                    add(&["SELECT", &db.to_string()]);
                }
                3 => add(&["CLIENT", "SETNAME", &format!("name{}", random.below(9))]),
                4 => add(&["CLIENT", "GETNAME"]),
                5 | 6 => {
                    if random.one_in(2) {
                        add(&["WATCH", &watched]);
                        if random.one_in(3) {
                            add(&["SET", &watched, "touched"]);
                        }
                    }
                    add(&["MULTI"]);
                    queues_while_subscribed |= subscribed;
                    for _ in 0..random.below(3) {
                        add(&["INCR", &count]);
                    }
                    add(&[if random.one_in(4) { "DISCARD" } else { "EXEC" }]);
                }
                7 if db == 0 => {
                    let timeout = if random.one_in(2) { "0" } else { "0.05" };
                    add(&["BLPOP", &list, timeout]);
                }
                8 if resp3 => {
                    add(&[if subscribed { "UNSUBSCRIBE" } else { "SUBSCRIBE" }, "news"]);
                    subscribed = !subscribed;
                }
                _ => add(&["ECHO", "again"]),
            }
        }
        if !resp3 && random.one_in(3) {
            add(&["SUBSCRIBE", "news"]);
        }
        program.queues_while_subscribed = queues_while_subscribed;
        program
    }

    /// Requests that are not answered after these bytes.
    pub fn rest(&self, received: &[u8]) -> &[String] {
        &self.lines[answers(received).0.len().min(self.lines.len())..]
    }

    /// What is wrong with these bytes, which are all that the client got; `left` is what is left in its list.
    /// If it hung up, some may be missing. Without a channel of the proxy's own, or with a transaction open, messages
    /// may be missing, or come twice.
    pub fn fault(
        &self,
        received: &[u8],
        left: &[Vec<u8>],
        hung_up: bool,
        has_channel: bool,
    ) -> Option<String> {
        let (replies, messages) = answers(received);
        let mut popped = 0_u64;
        for (at, (reply, wanted)) in replies.iter().zip(&self.answers).enumerate() {
            let is_right = match wanted {
                Answer::Is(bytes) => reply == bytes,
                Answer::Popped { may_time_out } => {
                    let next = (popped + 1).to_string();
                    let is_next = *reply == encode::request([&self.list[..], next.as_bytes()]);
                    popped += u64::from(is_next);
                    let is_null = reply == b"*-1\r\n" || reply == b"_\r\n";
                    is_next || (*may_time_out && is_null)
                }
            };
            if !is_right {
                let (reply, line) = (reply.escape_ascii(), &self.lines[at]);
                return Some(format!("{line} is answered {reply}, not {wanted:?}"));
            }
        }
        let is_exact = has_channel && !self.queues_while_subscribed;
        for pair in messages.iter().flat_map(|messages| messages.windows(2)) {
            if is_exact && pair[1] != pair[0] + 1 {
                return Some(format!("message {} comes after {}", pair[1], pair[0]));
            }
        }
        if hung_up {
            return None;
        }
        if replies.len() != self.answers.len() {
            return Some(format!("{} answers, not {}", replies.len(), self.answers.len()));
        }
        let first = left.first().map(|value| String::from_utf8_lossy(value).into_owned());
        let next = (popped + 1).to_string();
        first.filter(|first| *first != next).map(|first| format!("{first} is left, not {next}"))
    }
}

/// Replies and confirmations; and the numbers of messages, of each subscription.
fn answers(received: &[u8]) -> (Vec<Vec<u8>>, Vec<Vec<u64>>) {
    let (mut scanner, mut pos) = (Scanner::default(), 0);
    let (mut replies, mut messages) = (Vec::new(), vec![Vec::new()]);
    while pos < received.len() {
        let start = pos;
        let Ok(Step::End { .. }) = scanner.next(received, &mut pos) else { break };
        let frame = &received[start..pos];
        match frame.get(4..).filter(|rest| rest.starts_with(b"$7\r\nmessage\r\n")) {
            Some(rest) => {
                let number = rest.split(|byte| *byte == b'\n').nth(5).unwrap_or_default();
                let number = String::from_utf8_lossy(number).trim_end().parse();
                let number = number.expect("a number");
                messages.last_mut().expect("one").push(number);
            }
            None => {
                if frame.get(4..).is_some_and(|rest| rest.starts_with(b"$11\r\nunsubscribe")) {
                    messages.push(Vec::new());
                }
                replies.push(frame.to_vec());
            }
        }
    }
    (replies, messages)
}
