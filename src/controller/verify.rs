//! Loads the configuration file, and finds everything that is wrong with it, before anything is
//! touched.

use std::io;
use std::sync::Arc;

use tokio::time::timeout;

use super::error::Error;
use super::reload::Target;
use super::state::Controller;
use crate::config::{self, Draft, Fault};
use crate::generation::{self, Generation, Purpose, Readiness};
use crate::reception::{DoorPlace, Sockets};

impl Controller {
    /// Loads what is to be put in force.
    pub(super) async fn load(
        &self,
        target: Target,
        before: &Generation,
        readiness: Readiness,
    ) -> Result<(Arc<Generation>, Sockets), Error> {
        match target {
            Target::File => self.verify(before, readiness).await,
            Target::Uplink { number, .. } if number != before.number => {
                Err(Error::Conflict("another configuration was put in force meanwhile".to_owned()))
            }
            Target::Uplink { place, .. } => {
                let moved = Generation::moved_to(before, &place, readiness).await;
                Ok((Arc::new(moved.map_err(Error::Refused)?), Sockets::default()))
            }
        }
    }

    /// Loads the configuration file, and binds what it has to listen on anew. Gives everything that is wrong
    /// with either.
    pub(super) async fn verify(
        &self,
        before: &Generation,
        readiness: Readiness,
    ) -> Result<(Arc<Generation>, Sockets), Error> {
        let refused = |text: String| Error::Refused(vec![Fault::new(text)]);
        let Some(file) = &self.file else {
            return Err(refused(
                "it was read from standard input, where there is nothing to read again".to_owned(),
            ));
        };
        let limit = before.settings.connect_time_limit;
        let text = timeout(limit, tokio::fs::read_to_string(file)).await;
        let text = text.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let text =
            text.map_err(|why| refused(format!("could not read {}: {why}", file.display())))?;
        let draft = config::parse(&text);
        let admin = admin_changes(&draft, before);
        let (listen, listen_raw) = (draft.listen_addr(), draft.listen_raw_addr());
        let raw_before = before.listen_raw.as_ref().map(|endpoint| &endpoint.config.addr);
        let sockets = self
            .reception
            .bind(
                DoorPlace::changed(Some(&before.listen.config.addr), listen),
                DoorPlace::changed(raw_before, listen_raw),
            )
            .await;
        let loaded = generation::load(draft, Purpose::Change(before, readiness)).await;
        match (loaded, sockets) {
            (Ok(generation), Ok(sockets)) if admin.is_empty() => {
                Ok((Arc::new(generation), sockets))
            }
            (loaded, sockets) => {
                let unbound = sockets.err().unwrap_or_default();
                let mut faults = loaded.err().unwrap_or_default();
                faults.extend(unbound.iter().map(|why| Fault::new(why.to_string())));
                faults.extend(admin);
                Err(Error::Refused(faults))
            }
        }
    }
}

/// The `admin` block is the one that cannot change: its caller could lose the answer.
fn admin_changes(draft: &Draft, before: &Generation) -> Vec<Fault> {
    const SAYS: &str = "cannot be changed by a reload; it needs a restart";
    let before = before.admin.as_ref().map(|endpoint| &endpoint.config);
    let (new, old) = match (draft.admin.as_ref(), before) {
        (Some(new), Some(old)) => (new, old),
        (None, None) => return Vec::new(),
        // It may be there, and not be readable.
        (None, Some(_)) if !draft.faults.is_empty() => return Vec::new(),
        (None, Some(_)) | (Some(_), None) => return vec![Fault::new(format!("admin {SAYS}"))],
    };
    let fields = [
        ("addr", new.addr == old.addr),
        ("user and pass", new.login == old.login),
        ("tls, certfile, keyfile and cacertfile", new.tls == old.tls),
    ];
    let changed = fields.iter().filter(|(_, same)| !same);
    changed.map(|(field, _)| Fault::new(format!("admin.{field} {SAYS}"))).collect()
}
