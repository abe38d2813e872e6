//! A number on the server that several clients raise by one, each of them only if nobody else has
//! raised it since it was read. Pure: no connection, no clock.
//!
//! The server does the raising. A client that wrote what it had read before, and one more, would
//! bring a lost number back, and nobody could tell.

use super::ledger::{Count, Faults};

/// What all clients together know of the number.
#[derive(Debug, Default)]
pub struct Contended {
    name: String,
    /// The largest value that was answered since it last fell.
    newest: u64,
    /// How often it was seen to fall.
    falls: u64,
    /// How far it fell, in sum.
    fallen: u64,
    /// Answers that say that it was raised.
    raised: u64,
    /// Requests to raise it whose outcome is unknown.
    unknown: u64,
    faults: Faults,
}

/// What was known of the number when a request began.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    newest: u64,
    falls: u64,
}

impl Contended {
    /// Nothing was answered yet.
    pub fn new(name: String) -> Self {
        Contended { name, ..Contended::default() }
    }

    /// What is known when a request begins.
    pub fn known(&self) -> Known {
        Known { newest: self.newest, falls: self.falls }
    }

    /// How many things are wrong so far.
    pub fn wrong(&self) -> u64 {
        self.faults.count()
    }

    /// A request that began with this knowledge has read the number.
    pub fn read(&mut self, known: Known, value: u64) {
        self.see(known, value, known.newest);
    }

    /// A request that began with this knowledge has raised the number, which was read under WATCH.
    pub fn raised(&mut self, known: Known, watched: u64, value: u64) {
        self.raised += 1;
        // What others did since is what a write of `watched + 1` would have undone.
        let unnoticed = value.saturating_sub(watched + 1);
        if unnoticed > 0 {
            self.faults.lost += unnoticed;
            let name = &self.name;
            self.faults.say(format!("{name} was {watched} at WATCH, and EXEC made it {value}"));
        }
        self.see(known, value, known.newest + 1);
    }

    /// A request to raise the number had no answer, and was found to be executed.
    pub fn found(&mut self) {
        self.raised += 1;
    }

    /// The outcome of a request to raise the number is unknown.
    pub fn unknown(&mut self) {
        self.unknown += 1;
    }

    /// A fall is told once: what was asked before somebody saw it says nothing new.
    fn see(&mut self, known: Known, value: u64, least: u64) {
        if known.falls != self.falls {
            return;
        }
        let lost = least.saturating_sub(value);
        if lost == 0 {
            self.newest = self.newest.max(value);
            return;
        }
        self.faults.lost += lost;
        self.faults.say(format!("{} is {value}; expected: {least} or more", self.name));
        self.fallen += lost;
        self.falls += 1;
        self.newest = value;
    }

    /// Nobody raises it any more, and this is what it is, if that could be read.
    pub fn ended(self, value: Option<u64>) -> Faults {
        let mut faults = self.faults;
        if let Some(value) = value {
            let answered = self.raised.saturating_sub(self.fallen);
            let possible = (self.raised + self.unknown).saturating_sub(self.fallen);
            let mut count = Count::of(answered, possible - answered);
            count.read(&self.name, value);
            faults.add(count.faults);
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number that was raised to this by several.
    fn at(value: u64) -> Contended {
        let mut number = Contended::new("n".to_owned());
        for before in 0..value {
            raise(&mut number, before, before + 1);
        }
        number
    }

    fn raise(number: &mut Contended, watched: u64, value: u64) {
        let known = number.known();
        number.read(known, watched);
        let known = number.known();
        number.raised(known, watched, value);
    }

    fn ended(number: Contended, value: u64) -> (u64, u64) {
        let faults = number.ended(Some(value));
        (faults.lost, faults.doubled)
    }

    #[test]
    fn what_is_raised_as_often_as_it_is_answered_is_right() {
        assert_eq!(ended(at(7), 7), (0, 0));
        assert_eq!(ended(at(0), 0), (0, 0));
    }

    #[test]
    fn a_number_that_is_lost_between_its_reading_and_its_raising_is_lost() {
        let mut number = at(50);
        raise(&mut number, 50, 1);
        assert_eq!((number.wrong(), number.faults.evidence.len()), (50, 1));
        assert_eq!(number.faults.evidence, ["n is 1; expected: 51 or more"]);
        raise(&mut number, 1, 2);
        assert_eq!(ended(number, 2), (50, 0));
    }

    #[test]
    fn a_number_that_falls_is_lost_once_whoever_sees_it_and_however_far_it_came_meanwhile() {
        let mut number = at(50);
        let (mine, others, late) = (number.known(), number.known(), number.known());
        // It fell to 40, and 3 were raised before anybody looked.
        number.read(mine, 43);
        number.read(others, 43);
        for before in 40..43 {
            number.raised(late, before, before + 1);
        }
        assert_eq!(number.wrong(), 7);
        raise(&mut number, 43, 44);
        assert_eq!(number.wrong(), 7, "it goes on from there");
        assert_eq!(ended(number, 44), (10, 0));
    }

    #[test]
    fn a_fall_that_nobody_sees_before_the_end_is_lost_and_a_jump_is_doubled() {
        assert_eq!(ended(at(7), 4), (3, 0));
        assert_eq!(ended(at(7), 9), (0, 2));
        let mut number = at(7);
        let known = number.known();
        number.read(known, 9);
        assert_eq!(ended(number, 9), (0, 2));
    }

    #[test]
    fn an_exec_that_should_not_have_succeeded_is_lost() {
        let mut number = at(7);
        let known = number.known();
        number.read(known, 7);
        raise(&mut number, 7, 8);
        number.raised(known, 7, 9);
        assert_eq!(number.faults.evidence, ["n was 7 at WATCH, and EXEC made it 9"]);
        assert_eq!(ended(number, 9), (1, 0));
    }

    #[test]
    fn an_unknown_outcome_may_be_either_before_and_after_a_fall() {
        for (end, lost, doubled) in [(6, 1, 0), (7, 0, 0), (8, 0, 0), (9, 0, 1)] {
            let mut number = at(7);
            number.unknown();
            assert_eq!(ended(number, end), (lost, doubled), "{end}");
        }
        let mut number = at(7);
        number.unknown();
        let known = number.known();
        number.read(known, 8);
        let known = number.known();
        number.read(known, 0);
        assert_eq!(ended(number, 0), (8, 0));
    }

    #[test]
    fn a_number_that_cannot_be_read_at_the_end_keeps_what_was_seen_before() {
        let mut number = at(7);
        raise(&mut number, 7, 1);
        assert_eq!(number.ended(None).lost, 7);
    }
}
