//! A listener with a thread of its own, which ends with its owner. The descriptors of a test are
//! given back when the test ends: all tests share the limit of one process.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, Weak};

use socket2::SockRef;

/// Accepts until it is dropped; then it closes what it watches over, too.
pub struct Acceptor {
    pub addr: String,
    listener: TcpListener,
    streams: Streams,
}

/// The connections that end with an [`Acceptor`].
#[derive(Clone, Default)]
pub struct Streams(Arc<Mutex<Vec<Weak<TcpStream>>>>);

impl Acceptor {
    /// Hands each connection to `serve`, in a thread for all of them.
    pub fn start(mut serve: impl FnMut(TcpStream, &Streams) + Send + 'static) -> Acceptor {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let streams = Streams::default();
        std::thread::spawn({
            let (listener, streams) = (listener.try_clone().unwrap(), streams.clone());
            move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    serve(stream, &streams);
                }
                // One may have come when all others were closed.
                streams.close();
            }
        });
        Acceptor { addr, listener, streams }
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        // A listener that is shut down wakes who waits in accept, on Linux.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
        self.streams.close();
    }
}

impl Streams {
    /// Has a connection closed with the others, if it is there until then.
    pub fn watch(&self, stream: &Arc<TcpStream>) {
        let mut streams = self.0.lock().unwrap();
        streams.retain(|stream| stream.strong_count() > 0);
        streams.push(Arc::downgrade(stream));
    }

    /// Closes all.
    pub fn close(&self) {
        for stream in self.0.lock().unwrap().drain(..).filter_map(|stream| stream.upgrade()) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}
