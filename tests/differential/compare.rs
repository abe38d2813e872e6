//! Compares what two runs heard.

use super::frames::{self, Frame};
use super::program::{Mode, Program};
use super::run::{Heard, Run};

/// What is different, if anything is.
pub fn compare(program: &Program, expected: &Run, got: &Run) -> Option<String> {
    for (step, (expected_here, got_here)) in
        program.whole().iter().zip(expected.heard.iter().zip(&got.heard))
    {
        if let Some(why) = &got_here.refused
            && matches!(program.mode, Mode::Plain | Mode::Password)
        {
            return Some(format!("before {step}\n    the reload was refused: {why}"));
        }
        let documented = |frames: &[Frame]| frames.iter().any(frames::is_documented);
        // Nobody with these rights can say whether watched keys were touched.
        let untold = program.reloads
            && matches!(program.mode, Mode::Restricted(_) | Mode::User(_))
            && expected_here.main.iter().zip(&got_here.main).any(|(expected, got)| {
                frames::tells_of_touched_keys(got) && !frames::tells_of_touched_keys(expected)
            });
        if untold || documented(&got_here.main) || documented(&got_here.peer) {
            // From here on, they may differ.
            return None;
        }
        let (mut expected_here, mut got_here) = (expected_here.clone(), got_here.clone());
        if program.reloads {
            for heard in [&mut expected_here.main, &mut got_here.main] {
                frames::sort_unsubscribed(heard);
                frames::forget_unsubscribed(heard);
            }
        }
        if step.kills_itself() && got_here.main_closed {
            // What the proxy refuses by itself, it may have refused before the end came.
            let (count, frames) = (expected_here.main.len(), &mut got_here.main);
            while frames.len() > count && frames.last().is_some_and(|it| it.starts_with('-')) {
                frames.pop();
            }
        }
        for (frame, expected) in got_here.main.iter_mut().zip(&expected_here.main) {
            if frames::is_refused_earlier(expected, frame) {
                frame.clone_from(expected);
            }
        }
        let masked = |heard: &Heard, run: &Run| {
            let mask = |frames: &[Frame]| -> Vec<Frame> {
                // An invalidation comes when the server has nothing else to do, which is a matter of timing.
                let (late, rest): (Vec<_>, Vec<_>) =
                    frames.iter().partition(|frame| frames::invalidates(frame));
                rest.into_iter().chain(late).map(|it| frames::mask(it, &run.ids)).collect()
            };
            let closed = |closed: bool| if closed { " closed" } else { "" };
            let main = mask(&heard.main).join("  ") + closed(heard.main_closed);
            let peer = mask(&heard.peer).join("  ") + closed(heard.peer_closed);
            if peer.is_empty() { main } else { format!("{main}  (peer) {peer}") }
        };
        let (wanted, got) = (masked(&expected_here, expected), masked(&got_here, got));
        if wanted != got && program.may_differ_at(step) {
            return None;
        }
        if wanted != got {
            return Some(format!("at {step}\n    server: {wanted}\n    proxy:  {got}"));
        }
    }
    None
}
