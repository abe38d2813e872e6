//! Shows how far a switch is: as a bar on a terminal, in lines elsewhere.

use std::env;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::api::{Snapshot, SwitchRecord, Switching, Sync};
use super::progress::{Progress, detail};
use crate::exit::say;

/// Between two lines that say how far a stage is.
const SELDOM: Duration = Duration::from_secs(5);

const COPYING: &str = "{spinner} [{bar:30}] {bytes}/{total_bytes} {wide_msg}";
const SAVING: &str = "{spinner} [{bar:30}] {pos}/{len} keys {wide_msg}";
const OTHERWISE: &str = "{spinner} {wide_msg}";

/// Where progress is shown.
#[derive(Debug)]
pub(super) struct Display {
    progress: Progress,
    to: To,
    titled: bool,
}

#[derive(Debug)]
enum To {
    Nowhere,
    Lines {
        /// When the last line was written.
        last: Instant,
    },
    Bar(ProgressBar),
}

impl Display {
    /// A display on standard output, unless `silent`.
    pub(super) fn new(silent: bool) -> Self {
        let moves = io::stdout().is_terminal() && env::var_os("TERM").is_none_or(|it| it != "dumb");
        let to = match (silent, moves) {
            (true, _) => To::Nowhere,
            (false, false) => To::Lines { last: Instant::now() },
            (false, true) => {
                let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
                To::Bar(bar.with_style(style(OTHERWISE)))
            }
        };
        Display { progress: Progress::default(), to, titled: false }
    }

    /// Shows what is new about the switch.
    pub(super) fn update(&mut self, now: &Switching) {
        if !self.titled {
            self.titled = true;
            self.line(&format!("switching {} -> {}", now.from, now.to));
        }
        let steps = self.progress.advance(&now.stages);
        let is_bar = matches!(self.to, To::Bar(_));
        for step in &steps {
            // What has begun is what the bar shows.
            if !is_bar || step.has_ended() {
                self.line(&step.line());
            }
        }
        match &mut self.to {
            To::Nowhere => {}
            To::Lines { last } if last.elapsed() < SELDOM => {}
            To::Lines { .. } => self.line(&line(now)),
            To::Bar(bar) => draw(bar, now),
        }
    }

    /// Shows the stages that ended last, and leaves the terminal as it was.
    pub(super) fn end(&mut self, record: Option<&SwitchRecord>) {
        for step in self.progress.advance(record.map_or(&[], |record| &record.stages)) {
            self.line(&step.line());
        }
        if let To::Bar(bar) = &self.to {
            bar.finish_and_clear();
        }
    }

    fn line(&mut self, text: &str) {
        match &mut self.to {
            To::Nowhere => {}
            To::Lines { last } => {
                *last = Instant::now();
                say(&mut io::stdout(), text);
            }
            To::Bar(bar) => bar.suspend(|| say(&mut io::stdout(), text)),
        }
    }
}

/// Changes the bar in few calls, for each of them draws it.
fn draw(bar: &ProgressBar, now: &Switching) {
    let mut shown = now.clone();
    match &now.sync {
        Some(Sync { read_bytes, total_bytes: Some(total @ 1..) }) => {
            bar.set_style(style(COPYING));
            bar.update(|state| {
                state.set_len(*total);
                state.set_pos((*read_bytes).min(*total));
            });
            // The bar says it.
            shown.sync = None;
        }
        Some(_) | None => match &now.snapshot {
            Some(Snapshot { keys, total_keys: total @ 1.. }) => {
                bar.set_style(style(SAVING));
                bar.update(|state| {
                    state.set_len(*total);
                    state.set_pos((*keys).min(*total));
                });
                shown.snapshot = None;
            }
            Some(_) | None => bar.set_style(style(OTHERWISE)),
        },
    }
    bar.set_message(line(&shown).replace(char::is_control, " "));
}

fn line(now: &Switching) -> String {
    match detail(now) {
        detail if detail.is_empty() => now.stage.clone(),
        detail => format!("{}: {detail}", now.stage),
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
