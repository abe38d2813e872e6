//! What was sent, what came back, and what is therefore wrong. Pure: no connection, no clock.
//!
//! A request whose connection broke before its reply has an unknown outcome. It widens what is
//! allowed by one and is counted elsewhere; it is neither lost nor doubled.

use std::collections::{BTreeMap, BTreeSet};

/// How much is said of what is wrong, for each kind of client.
const EVIDENCE: usize = 5;

/// What is wrong, counted, and the first few cases in words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// Acknowledged, and not there.
    pub lost: u64,
    /// There more often than sent.
    pub doubled: u64,
    /// There after what was sent later.
    pub out_of_order: u64,
    /// Acknowledged, and not there, but this is nobody's fault: it went with a broken connection.
    pub excused: u64,
    /// What was seen, a sentence each.
    pub evidence: Vec<String>,
}

impl Faults {
    /// Nothing is wrong.
    pub fn none(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.out_of_order == 0
    }

    /// How many things are wrong.
    pub fn count(&self) -> u64 {
        self.lost + self.doubled + self.out_of_order
    }

    /// Adds another's.
    pub fn add(&mut self, other: Faults) {
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.out_of_order += other.out_of_order;
        self.excused += other.excused;
        other.evidence.into_iter().for_each(|text| self.say(text));
    }

    /// Of two looks at the same things, what is worse.
    pub fn worst(mut self, other: Faults) -> Faults {
        self.lost = self.lost.max(other.lost);
        self.doubled = self.doubled.max(other.doubled);
        self.out_of_order = self.out_of_order.max(other.out_of_order);
        self.excused = self.excused.max(other.excused);
        other.evidence.into_iter().for_each(|text| self.say(text));
        self
    }

    /// Keeps a sentence, if few were said yet.
    pub fn say(&mut self, text: String) {
        if self.evidence.len() < EVIDENCE {
            self.evidence.push(text);
        }
    }
}

/// A number on the server that one client alone raises, by one each time: what it may be now.
#[derive(Debug, Default)]
pub struct Count {
    low: u64,
    high: u64,
    /// What was seen to be wrong.
    pub faults: Faults,
}

impl Count {
    /// So many answers say that it was raised, and so many more may have raised it.
    pub fn of(raised: u64, unknown: u64) -> Self {
        Count { low: raised, high: raised + unknown, faults: Faults::default() }
    }

    /// It may have been raised.
    pub fn unknown(&mut self) {
        self.high += 1;
    }

    /// It was read, after a request whose outcome was unknown, and which is over: true if that had raised it.
    pub fn found(&mut self, name: &str, value: u64) -> bool {
        let raised = value > self.low;
        self.read(name, value);
        raised
    }

    /// It was raised, and this is the answer.
    pub fn raised(&mut self, name: &str, to: u64) {
        self.low += 1;
        self.high += 1;
        self.read(name, to);
    }

    /// It was read. What is wrong is said once: it counts on from here.
    pub fn read(&mut self, name: &str, value: u64) {
        let (lost, doubled) = (self.low.saturating_sub(value), value.saturating_sub(self.high));
        if lost > 0 || doubled > 0 {
            let expected = match self.low == self.high {
                true => format!("{}", self.low),
                false => format!("{} to {}", self.low, self.high),
            };
            self.faults.say(format!("{name} is {value}; expected: {expected}"));
        }
        self.faults.lost += lost;
        self.faults.doubled += doubled;
        (self.low, self.high) = (value, value);
    }
}

/// The numbers that one sender gave to what it sent: 1, 2, 3 ...
#[derive(Debug, Clone, Default)]
pub struct Sent {
    /// The last one.
    pub last: u64,
    /// Those that need not have come: their outcome is unknown, or they may have gone with a crash.
    pub unknown: BTreeSet<u64>,
}

/// What was taken by one taker: whose it was, and its number, in the order in which it came.
pub type Taken = Vec<(usize, u64)>;

/// Everything that was acknowledged must have been taken, once, and by each taker in the order of
/// its sender. As many as `broken` may have been lost with the connections of takers.
pub fn audit(name: &str, senders: &[Sent], takers: &[Taken], broken: u64) -> Faults {
    let mut faults = Faults::default();
    let mut times: BTreeMap<(usize, u64), u64> = BTreeMap::new();
    for taken in takers {
        let mut newest: BTreeMap<usize, u64> = BTreeMap::new();
        for &(sender, number) in taken {
            let newest = newest.entry(sender).or_default();
            let seen = times.entry((sender, number)).or_default();
            *seen += 1;
            if *seen == 1 && number < *newest {
                faults.out_of_order += 1;
                faults.say(format!("{name}: {number} of sender {sender} came after {newest}"));
            }
            *newest = number.max(*newest);
        }
    }
    for (&(sender, number), &seen) in &times {
        let known = senders.get(sender).is_some_and(|sent| (1..=sent.last).contains(&number));
        let more = seen - u64::from(known);
        if more > 0 {
            faults.doubled += more;
            let sent = if known { "sent once" } else { "never sent" };
            faults.say(format!("{name}: {number} of sender {sender}, {sent}, came {seen} times"));
        }
    }
    let mut missing = Vec::new();
    for (sender, sent) in senders.iter().enumerate() {
        let known = (1..=sent.last).filter(|number| !sent.unknown.contains(number));
        missing.extend(known.map(|it| (sender, it)).filter(|it| !times.contains_key(it)));
    }
    // Which of them went with a broken connection cannot be told.
    faults.excused = broken.min(missing.len() as u64);
    faults.lost = missing.len() as u64 - faults.excused;
    if faults.lost > 0 {
        for (sender, number) in missing {
            faults.say(format!("{name}: {number} of sender {sender} never came"));
        }
    }
    faults
}

/// What one subscriber hears of one publisher.
#[derive(Debug)]
pub struct Stream {
    name: String,
    /// The largest number that came.
    newest: u64,
    /// Smaller ones that did not come yet.
    missing: BTreeSet<u64>,
    /// It was not subscribed for a while: what was published then is not its.
    away: bool,
    /// What was seen to be wrong.
    pub faults: Faults,
}

impl Stream {
    /// Nothing came yet.
    pub fn new(name: String) -> Self {
        let (missing, faults) = (BTreeSet::new(), Faults::default());
        Stream { name, newest: 0, missing, away: false, faults }
    }

    /// Nobody here sends this.
    pub fn foreign(&mut self, payload: &str) {
        self.faults.doubled += 1;
        self.faults.say(format!("{}: nobody sent {payload:.40}", self.name));
    }

    /// The subscriber's connection broke.
    pub fn away(&mut self) {
        self.away = true;
    }

    /// This came, when so many had been sent.
    pub fn came(&mut self, number: u64, sent: u64) {
        let name = &self.name;
        if number == 0 || number > sent {
            self.faults.doubled += 1;
            self.faults.say(format!("{name}: {number} came, and {sent} were sent"));
        } else if number > self.newest {
            if !self.away {
                self.missing.extend(self.newest + 1..number);
            }
            self.away = false;
            self.newest = number;
        } else if self.missing.remove(&number) {
            self.faults.out_of_order += 1;
            self.faults.say(format!("{name}: {number} came after {}", self.newest));
        } else {
            self.faults.doubled += 1;
            self.faults.say(format!("{name}: {number} came twice"));
        }
    }

    /// Nothing more will come.
    pub fn ended(mut self, sent: &Sent) -> Faults {
        if !self.away {
            self.missing.extend(self.newest + 1..=sent.last);
        }
        for number in self.missing.difference(&sent.unknown) {
            self.faults.lost += 1;
            self.faults.say(format!("{}: {number} never came", self.name));
        }
        self.faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(faults: &Faults) -> (u64, u64, u64) {
        (faults.lost, faults.doubled, faults.out_of_order)
    }

    fn sent(last: u64, unknown: &[u64]) -> Sent {
        Sent { last, unknown: unknown.iter().copied().collect() }
    }

    #[test]
    fn a_number_that_falls_back_is_lost_and_one_that_jumps_is_doubled() {
        let mut count = Count::default();
        count.raised("n", 1);
        count.raised("n", 2);
        assert_eq!(counts(&count.faults), (0, 0, 0));
        count.raised("n", 1);
        assert_eq!(counts(&count.faults), (2, 0, 0));
        count.raised("n", 2);
        assert_eq!(counts(&count.faults), (2, 0, 0), "said once");
        count.raised("n", 5);
        assert_eq!(counts(&count.faults), (2, 2, 0));
        count.read("n", 5);
        assert_eq!(counts(&count.faults), (2, 2, 0));
        assert_eq!(count.faults.evidence, ["n is 1; expected: 3", "n is 5; expected: 3"]);
    }

    #[test]
    fn a_number_whose_outcome_is_unknown_may_be_either() {
        for (answer, lost, doubled) in [(1, 1, 0), (2, 0, 0), (3, 0, 0), (4, 0, 1)] {
            let mut count = Count::default();
            count.raised("n", 1);
            count.unknown();
            count.raised("n", answer);
            assert_eq!(counts(&count.faults), (lost, doubled, 0), "{answer}");
        }
    }

    #[test]
    fn a_write_that_was_found_not_to_be_executed_must_not_be_executed_later() {
        for (found, raised, answer, doubled) in
            [(1, false, 2, 0), (2, true, 3, 0), (1, false, 3, 1), (2, true, 4, 1)]
        {
            let mut count = Count::default();
            count.raised("n", 1);
            count.unknown();
            assert_eq!(count.found("n", found), raised);
            count.raised("n", answer);
            assert_eq!(counts(&count.faults), (0, doubled, 0), "{found}, {answer}");
        }
    }

    #[test]
    fn everything_once_and_in_order_is_right() {
        let takers = [vec![(0, 1), (1, 1), (0, 3)], vec![(0, 2), (1, 2)]];
        let faults = audit("jobs", &[sent(3, &[]), sent(2, &[])], &takers, 0);
        assert_eq!(faults, Faults::default());
    }

    #[test]
    fn what_never_came_came_twice_or_came_late_is_told() {
        let senders = [sent(4, &[])];
        assert_eq!(counts(&audit("jobs", &senders, &[vec![(0, 1), (0, 2), (0, 4)]], 0)), (1, 0, 0));
        let twice = [vec![(0, 1), (0, 2), (0, 3), (0, 4)], vec![(0, 3)]];
        assert_eq!(counts(&audit("jobs", &senders, &twice, 0)), (0, 1, 0));
        let late = [vec![(0, 1), (0, 3), (0, 2), (0, 4)]];
        assert_eq!(counts(&audit("jobs", &senders, &late, 0)), (0, 0, 1));
        let foreign = [vec![(0, 1), (0, 2), (0, 3), (0, 4), (0, 5)], vec![(7, 1)]];
        assert_eq!(counts(&audit("jobs", &senders, &foreign, 0)), (0, 2, 0));
    }

    #[test]
    fn what_may_have_gone_with_a_connection_is_not_lost() {
        let taken = [vec![(0, 1), (0, 4)]];
        assert_eq!(counts(&audit("jobs", &[sent(4, &[3])], &taken, 0)), (1, 0, 0));
        assert_eq!(counts(&audit("jobs", &[sent(4, &[3])], &taken, 1)), (0, 0, 0));
        assert_eq!(audit("jobs", &[sent(4, &[3])], &taken, 2).excused, 1);
        assert_eq!(counts(&audit("jobs", &[sent(4, &[2, 3])], &taken, 0)), (0, 0, 0));
    }

    fn heard(numbers: &[u64], sent: &Sent) -> Faults {
        let mut stream = Stream::new("news".to_owned());
        numbers.iter().for_each(|number| stream.came(*number, sent.last));
        stream.ended(sent)
    }

    #[test]
    fn each_message_must_come_once_and_in_order() {
        assert_eq!(counts(&heard(&[1, 2, 3], &sent(3, &[]))), (0, 0, 0));
        assert_eq!(counts(&heard(&[1, 3], &sent(3, &[]))), (1, 0, 0));
        assert_eq!(counts(&heard(&[1], &sent(3, &[]))), (2, 0, 0));
        assert_eq!(counts(&heard(&[1, 2, 2, 3], &sent(3, &[]))), (0, 1, 0));
        assert_eq!(counts(&heard(&[1, 3, 2], &sent(3, &[]))), (0, 0, 1));
        assert_eq!(counts(&heard(&[1, 2, 3, 4], &sent(3, &[]))), (0, 1, 0));
        assert_eq!(counts(&heard(&[2], &sent(3, &[1, 3]))), (0, 0, 0));
    }

    #[test]
    fn what_is_published_while_a_subscriber_is_away_is_not_lost() {
        let mut stream = Stream::new("news".to_owned());
        for number in [1, 2] {
            stream.came(number, 9);
        }
        stream.away();
        for number in [5, 7, 2] {
            stream.came(number, 9);
        }
        assert_eq!(counts(&stream.ended(&sent(7, &[]))), (1, 1, 0));
        let mut gone = Stream::new("news".to_owned());
        gone.away();
        assert_eq!(gone.ended(&sent(7, &[])), Faults::default());
    }
}
