//! One of the proxy's own connections to a server.

use std::io;
use std::sync::Arc;

use crate::uplink::{Dialler, Error, Fresh, Id, Script};

/// A connection that is given up once an answer did not come, or once it was not waited for any
/// more: that answer would be taken for the next one.
#[derive(Debug)]
pub struct OwnConnection {
    /// The way to the server.
    pub dialler: Arc<Dialler>,
    /// `None` while there is no connection.
    fresh: Option<Fresh>,
}

impl OwnConnection {
    /// A connection by this dialler; not made yet.
    pub fn new(dialler: Arc<Dialler>) -> Self {
        OwnConnection { dialler, fresh: None }
    }

    /// A connection by this dialler; made already, where there is one.
    pub fn over(dialler: Arc<Dialler>, fresh: Option<Fresh>) -> Self {
        OwnConnection { dialler, fresh }
    }

    /// Makes the connection, and sends the script.
    pub async fn dial(&mut self, script: Script) -> Result<(), Error> {
        self.fresh = Some(self.dialler.dial(script).await?);
        Ok(())
    }

    /// There is no connection: it is not made yet, or an answer did not come.
    pub fn is_lost(&self) -> bool {
        self.fresh.is_none()
    }

    /// The connection's id at the server, if the server tells.
    pub fn id(&self) -> Option<u64> {
        match self.fresh.as_ref()?.id {
            Id::Is(id) => Some(id),
            Id::Secret | Id::Unasked => None,
        }
    }

    /// Completes when the server has closed it, or when there is none. Cancel safe.
    pub async fn ended(&mut self) {
        if let Some(fresh) = &mut self.fresh {
            fresh.ended().await;
        }
        self.fresh = None;
    }

    /// Learns which commands the server has that the proxy does not know.
    pub async fn learn(&mut self) {
        if let Some(fresh) = &mut self.fresh {
            self.dialler.learn(fresh).await;
        }
    }

    /// Sends requests, and gives the whole reply to each.
    pub async fn ask(&mut self, requests: &[Vec<u8>]) -> io::Result<Vec<Vec<u8>>> {
        self.use_fresh(async |fresh| fresh.ask(requests).await).await
    }

    /// As [`OwnConnection::ask`]; `heard` is given each push that comes meanwhile.
    pub(in super::super) async fn ask_and_hear(
        &mut self,
        requests: &[Vec<u8>],
        heard: impl FnMut(&[u8]),
    ) -> io::Result<Vec<Vec<u8>>> {
        self.use_fresh(async |fresh| fresh.ask_and_hear(requests, heard).await).await
    }

    /// Sends requests whose replies nobody waits for.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.use_fresh(async |fresh| fresh.send(bytes).await).await
    }

    /// Waits for a frame that is wanted, and passes over all others.
    pub async fn await_frame(&mut self, wanted: impl Fn(&[u8]) -> bool) -> io::Result<()> {
        self.use_fresh(async |fresh| fresh.await_frame(wanted).await).await
    }

    /// Sends a script, and checks the answers. A server that says no is connected all the same.
    pub async fn tell(&mut self, script: Script) -> Result<(), Error> {
        let lost = || Error::Lost(io::ErrorKind::NotConnected.into());
        let mut fresh = self.fresh.take().ok_or_else(lost)?;
        let told = fresh.tell(script).await;
        if matches!(told, Ok(()) | Err(Error::Setup { .. })) {
            self.fresh = Some(fresh);
        }
        told
    }

    async fn use_fresh<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Fresh) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut fresh = self.fresh.take().ok_or(io::ErrorKind::NotConnected)?;
        let done = work(&mut fresh).await?;
        self.fresh = Some(fresh);
        Ok(done)
    }
}
