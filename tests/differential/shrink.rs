//! Makes a failing program smaller.

use super::place::Places;
use super::program::{Mode, Program, Step};
use super::{PATIENCE, SHORT};

/// As little of the program as still differs.
pub fn shrink(places: &mut Places, program: &Program, first: String) -> (Program, String) {
    let mut least = program.clone();
    let again = places.difference(program, PATIENCE);
    // Whatever it did to the proxy is not for the next ones.
    places.forget(&program.mode);
    let Some(mut difference) = again else {
        return (least, format!("not again, but once {first}"));
    };
    loop {
        let smaller = smaller(&least).into_iter().find_map(|candidate| {
            let difference = places.difference(&candidate, SHORT)?;
            places.forget(&program.mode);
            Some((candidate, difference))
        });
        let Some((candidate, found)) = smaller else { break };
        (least, difference) = (candidate, found);
    }
    (least, difference)
}

/// Programs with a little less.
fn smaller(program: &Program) -> Vec<Program> {
    let mut all = Vec::new();
    let mut add = |change: &dyn Fn(&mut Program)| {
        let mut less = program.clone();
        change(&mut less);
        if less != *program {
            all.push(less);
        }
    };
    let count = program.steps.len();
    if count > 3 {
        add(&|less| drop(less.steps.drain(..count / 2)));
        add(&|less| less.steps.truncate(count / 2));
    }
    for at in 0..count {
        add(&|less| drop(less.steps.remove(at)));
    }
    add(&|less| less.reloads = false);
    if let Mode::Restricted(rules) | Mode::User(rules) = &program.mode {
        add(&|less| less.mode = Mode::Plain);
        for at in 0..rules.len() {
            add(&|less| {
                if let Mode::Restricted(rules) | Mode::User(rules) = &mut less.mode {
                    rules.remove(at);
                }
            });
        }
    }
    if program.mode == Mode::Password {
        add(&|less| less.mode = Mode::Plain);
    }
    add(&|less| less.asks_id = true);
    for (at, step) in program.steps.iter().enumerate() {
        if step.requests.len() > 1 {
            for one in 0..step.requests.len() {
                add(&|less| drop(less.steps[at].requests.remove(one)));
            }
            // One after the other.
            add(&|less| {
                let step = less.steps.remove(at);
                for request in step.requests.into_iter().rev() {
                    let requests = vec![request];
                    less.steps.insert(at, Step { by: step.by, requests, cut: None });
                }
            });
        }
        add(&|less| less.steps[at].cut = None);
    }
    all
}
