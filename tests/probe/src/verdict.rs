//! What a run comes to, and how it is printed.

use std::fmt;
use std::time::Duration;

use super::group::Part;
use super::ledger::Faults;
use super::tally::Tally;

/// All clients of one kind.
#[derive(Debug)]
pub struct Row {
    /// What kind.
    pub kind: &'static str,
    /// How many clients.
    pub clients: usize,
    /// What they did, and what is wrong with it.
    pub part: Part,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Verdict {
    /// For each kind.
    pub rows: Vec<Row>,
    /// How long requests were held, each time, where that is known.
    pub held: Vec<Duration>,
    /// If the server crashed: how many clients each crash has closed, all of them with a write in flight.
    pub closed: Option<Vec<u64>>,
}

/// The column that only crashes fill.
const UNKNOWN: usize = 3;
const HEADS: [&str; 10] = [
    "",
    "clients",
    "operations",
    "unknown",
    "errors",
    "lost",
    "doubled",
    "out of order",
    "median ms",
    "longest stall ms",
];

impl Verdict {
    /// Of all kinds together.
    pub fn total(&self) -> Row {
        let mut total = Row { kind: "all", clients: 0, part: Part::default() };
        for row in &self.rows {
            total.clients += row.clients;
            total.part.tally.add(&row.part.tally);
            let faults = Faults { evidence: Vec::new(), ..row.part.faults };
            total.part.faults.add(faults);
        }
        total
    }

    /// No error, nothing lost, doubled or out of order; and every kind did something.
    pub fn is_clean(&self) -> bool {
        !self.rows.is_empty()
            && self.rows.iter().all(|Row { part: Part { tally, faults }, .. }| {
                tally.operations > 0 && tally.errors == 0 && faults.none()
            })
    }

    /// The verdict in one line; `begin` says what was done meanwhile.
    pub fn sentence(&self, begin: &str) -> String {
        let Part { tally, faults } = self.total().part;
        let idle = self
            .rows
            .iter()
            .filter(|row| row.part.tally.operations == 0 && row.part.tally.errors == 0);
        let idle: Vec<&str> = idle.map(|row| row.kind).collect();
        let counted = |count: u64, none: &str, what: &str| match count {
            0 => none.to_owned(),
            _ => format!("{} {what}", grouped(count)),
        };
        let mut parts = vec![
            counted(tally.errors, "no error", if tally.errors == 1 { "error" } else { "errors" }),
            counted(faults.lost, "nothing lost", "lost"),
            counted(faults.doubled, "nothing doubled", "doubled"),
            counted(faults.out_of_order, "nothing out of order", "out of order"),
        ];
        if !idle.is_empty() {
            parts.push(format!("and these did nothing: {}", idle.join(", ")));
        }
        let mut text = format!(
            "VERDICT: {begin}{} operations: {}",
            grouped(tally.operations),
            parts.join(", ")
        );
        if self.closed.is_some() {
            text += &format!("; {} unknown", grouped(tally.unknown));
        }
        text
    }

    /// What was seen to be wrong, a line each.
    pub fn evidence(&self) -> Vec<String> {
        let errors = self.rows.iter().flat_map(|row| {
            row.part.tally.texts.iter().map(|(why, times)| format!("{}: {times} x {why}", row.kind))
        });
        let faults = self.rows.iter().flat_map(|row| row.part.faults.evidence.iter().cloned());
        errors.chain(faults).collect()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = vec![HEADS.map(str::to_owned)];
        lines.extend(self.rows.iter().map(cells));
        lines.push(cells(&self.total()));
        let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
        let shown = |column: &usize| *column != UNKNOWN || self.closed.is_some();
        let columns: Vec<usize> = (1..HEADS.len()).filter(shown).collect();
        for line in &lines {
            write!(to, "{:<w$}", line[0], w = width(0))?;
            for &column in &columns {
                write!(to, "  {:>w$}", line[column], w = width(column))?;
            }
            writeln!(to)?;
        }
        let mut held = self.held.clone();
        held.sort();
        if let (Some(median), Some(longest)) = (held.get(held.len() / 2), held.last()) {
            writeln!(to, "time held: median {} ms, longest {} ms", ms(*median), ms(*longest))?;
        }
        if let Some(closed) = &self.closed {
            let total = self.total();
            let each: Vec<String> = closed.iter().map(u64::to_string).collect();
            let (clients, each) = (grouped(total.clients as u64), each.join(" "));
            writeln!(to, "closed of {clients} clients, crash by crash: {each}")?;
            writeln!(to, "longest delay of a request: {} ms", ms(total.part.tally.longest))?;
        }
        Ok(())
    }
}

fn cells(row: &Row) -> [String; HEADS.len()] {
    let Part { tally, faults } = &row.part;
    let Tally { operations, unknown, errors, longest, .. } = tally;
    [
        row.kind.to_owned(),
        grouped(row.clients as u64),
        grouped(*operations),
        grouped(*unknown),
        grouped(*errors),
        grouped(faults.lost),
        grouped(faults.doubled),
        grouped(faults.out_of_order),
        ms(tally.median()),
        ms(*longest),
    ]
}

/// Milliseconds, as many digits as say something.
pub fn ms(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    if ms < 10.0 { format!("{ms:.2}") } else { format!("{ms:.0}") }
}

/// With commas between thousands.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (it, digit) in digits.chars().enumerate() {
        if it > 0 && (digits.len() - it).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tally::Live;
    use super::*;

    fn row(operations: u64, errors: u64, faults: Faults) -> Row {
        let (live, mut tally) = (Live::default(), Tally::default());
        (0..operations).for_each(|_| tally.done(Duration::from_millis(2), &live));
        (0..errors).for_each(|_| tally.failed("broken pipe".to_owned(), &live));
        Row { kind: "counters", clients: 3, part: Part { tally, faults } }
    }

    fn verdict(rows: Vec<Row>) -> Verdict {
        Verdict { rows, held: Vec::new(), closed: None }
    }

    #[test]
    fn anything_wrong_shows_and_so_does_nothing_done() {
        let lost = Faults { lost: 1, ..Faults::default() };
        let doubled = Faults { doubled: 1, ..Faults::default() };
        let late = Faults { out_of_order: 1, ..Faults::default() };
        assert!(verdict(vec![row(1, 0, Faults::default())]).is_clean());
        assert!(!verdict(vec![]).is_clean());
        assert!(!verdict(vec![row(0, 0, Faults::default())]).is_clean());
        for wrong in
            [row(1, 1, Faults::default()), row(1, 0, lost), row(1, 0, doubled), row(1, 0, late)]
        {
            assert!(!verdict(vec![row(1, 0, Faults::default()), wrong]).is_clean());
        }
    }

    #[test]
    fn the_sentence_says_what_was_wrong() {
        let clean = verdict(vec![row(1234, 0, Faults::default())]);
        assert_eq!(
            clean.sentence("6 switches, "),
            "VERDICT: 6 switches, 1,234 operations: no error, nothing lost, nothing doubled, \
             nothing out of order"
        );
        let evidence = vec!["n is 1".into()];
        let faults = Faults { lost: 3, out_of_order: 1, evidence, ..Faults::default() };
        let mut wrong = verdict(vec![row(0, 1, faults), row(0, 0, Faults::default())]);
        wrong.rows[1].kind = "transactions";
        assert_eq!(
            wrong.sentence(""),
            "VERDICT: 0 operations: 1 error, 3 lost, nothing doubled, 1 out of order, \
             and these did nothing: transactions"
        );
        assert_eq!(wrong.evidence(), ["counters: 1 x broken pipe", "n is 1"]);
    }

    #[test]
    fn what_is_unknown_after_a_crash_shows_and_is_not_wrong() {
        let mut verdict = verdict(vec![row(1, 0, Faults::default())]);
        verdict.rows[0].part.tally.unknown = 2;
        verdict.closed = Some(vec![2, 0]);
        assert!(verdict.is_clean());
        assert!(verdict.sentence("").ends_with("nothing out of order; 2 unknown"));
        let text = verdict.to_string();
        let cells: Vec<&str> = text.lines().nth(1).expect("a row").split_whitespace().collect();
        assert_eq!(&cells[..4], ["counters", "3", "1", "2"]);
        assert!(text.contains("closed of 3 clients, crash by crash: 2 0\n"), "{text}");
    }

    #[test]
    fn the_table_is_straight() {
        let mut verdict = verdict(vec![row(1000, 0, Faults::default())]);
        verdict.held = [3, 1, 200].map(Duration::from_millis).to_vec();
        let text = verdict.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[..3].iter().all(|line| line.len() == lines[0].len()), "{text}");
        assert_eq!(lines[3], "time held: median 3.00 ms, longest 200 ms");
        let cells: Vec<&str> = lines[1].split_whitespace().collect();
        assert_eq!(&cells[..7], ["counters", "3", "1,000", "0", "0", "0", "0"]);
    }
}
