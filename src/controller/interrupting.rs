//! Commands that wait for data are not waited for by a pause: they are interrupted, and asked again
//! when it ends.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::sessions::ASKING;
use super::state::Controller;
use crate::changeover::{Interrupt, facets};
use crate::generation::MAY_NOT_UNBLOCK;
use crate::server::OwnConnection;
use crate::uplink::{Script, unblock};

/// How often commands that wait for data are looked for, at first, and in a pause that takes long to begin.
pub(super) const LOOK: Duration = Duration::from_millis(5);
const LOOK_SELDOM: Duration = Duration::from_millis(200);

/// Has these commands interrupted, those that wait for longest first, and tells who was. If that fails,
/// what was not answered may yet be carried out: the sessions know that.
pub(super) async fn interrupt(
    connection: &mut OwnConnection,
    mut commands: Vec<Interrupt>,
) -> io::Result<()> {
    commands.sort_by_key(|command| command.since);
    let requests: Vec<_> = commands.iter().map(|command| unblock::request(command.id)).collect();
    let answers = connection.ask(&requests).await?;
    for (command, answer) in commands.iter().zip(answers) {
        command.ticket.answer(unblock::has_interrupted(&answer));
    }
    Ok(())
}

impl Controller {
    /// Has commands that wait for data interrupted for an operator's pause, until that is complete or
    /// released.
    pub(super) async fn interrupt_for_pause(self: Arc<Self>, released: CancellationToken) {
        let mut connection = None;
        let mut look = LOOK;
        let mut told = false;
        while self.shared.gate.in_flight() > 0 {
            let blocked = |bits: &u32| bits & facets::BLOCKED > 0;
            let is_wanted = self.shared.roster.facets().iter().any(blocked);
            if is_wanted && connection.is_none() {
                match self.unblocker().await {
                    Ok(unblocker) => connection = Some(unblocker),
                    Err(NoUnblocker::NotAllowed) => return warn!("{MAY_NOT_UNBLOCK}"),
                    Err(NoUnblocker::NotNow(_)) if told => {}
                    Err(NoUnblocker::NotNow(why)) => {
                        told = true;
                        warn!(%why, "commands that wait for data are not interrupted yet");
                    }
                }
            }
            if let Some(unblocker) = connection.as_mut().filter(|_| is_wanted) {
                // An answer may be on its way when the pause is released: a command that a client sends
                // then must not be interrupted instead.
                let hold = self.shared.gate.pause();
                let deadline = Instant::now() + ASKING;
                let commands = match released.is_cancelled() {
                    true => return,
                    false => self.blocked(deadline).await,
                };
                let asked = timeout_at(deadline, interrupt(unblocker, commands)).await;
                drop(hold);
                if !matches!(asked, Ok(Ok(()))) {
                    debug!("no answer to CLIENT UNBLOCK: trying again");
                    // A late answer would be taken for the next one.
                    connection = None;
                }
            }
            tokio::select! {
                () = released.cancelled() => return,
                () = self.shared.stop.begun() => return,
                () = sleep(look) => look = (look * 2).min(LOOK_SELDOM),
            }
        }
    }

    /// A connection to the present uplink that may have commands interrupted.
    async fn unblocker(&self) -> Result<OwnConnection, NoUnblocker> {
        let mut connection = OwnConnection::new(self.shared.current.load().uplink.clone());
        let dialled = connection.dial(Script::default()).await;
        dialled.map_err(|why| NoUnblocker::NotNow(why.to_string()))?;
        match timeout(ASKING, connection.ask(&[unblock::rehearsal()])).await {
            Ok(Ok(answers)) if unblock::is_allowed(&answers.concat()) => Ok(connection),
            Ok(Ok(_)) => Err(NoUnblocker::NotAllowed),
            Ok(Err(why)) => Err(NoUnblocker::NotNow(why.to_string())),
            Err(_) => Err(NoUnblocker::NotNow("the uplink does not answer".to_owned())),
        }
    }
}

/// Why no command can be interrupted.
enum NoUnblocker {
    /// The uplink's user may not use CLIENT UNBLOCK.
    NotAllowed,
    /// The uplink does not answer.
    NotNow(String),
}
