//! Client -> uplink: requests are told apart, admitted, and sent on.

use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::close::Reason;
use super::owed::Awaited;
use super::{Session, auth, poll_read};
use crate::command::{self, Class};
use crate::resp::request::{self, Limits, Scanner, Step};
use crate::resp::{Args, encode, inline};

/// The longest request that is held to look at its arguments.
const MAX_HELD: usize = 64 * 1024;
/// Replies of the proxy's own that may wait for a client to read before no more is taken in.
const MAX_WAITING: usize = 64 * 1024;

const OK: &[u8] = b"+OK\r\n";
const NOT_IN_MULTI: &str = "ERR Command not allowed inside a transaction";

/// How far the client's requests were read, and what they change.
pub(super) struct Intake {
    scanner: Scanner,
    /// What becomes of the present request.
    route: Route,
    /// The beginning of a request that is not decided yet, or all of one that is collected.
    held: Vec<u8>,
    /// Where the gate was shut to a request.
    parked: Option<Box<Parked>>,
    authenticated: bool,
    /// The present request's arguments are not for the log.
    secret: bool,
    /// Something was read.
    begun: bool,
    multi: Multi,
    silence: Silence,
    /// Requests admitted from the present input.
    admitted: u32,
    /// Those of them that nobody answers.
    unanswered: u32,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    /// It goes up as it comes; with `owed`, a reply will come.
    Forward { owed: bool },
    /// It is held until its end.
    Collect(Class),
    /// It is passed over, and at its end this happens.
    Discard(Verdict),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// An error reply.
    Refuse(&'static str),
    /// As an error while queueing, which makes EXEC fail: the uplink is made to see one.
    RefuseInMulti(&'static str),
    Quit,
}

/// Whether requests are queued for EXEC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Multi {
    No,
    Queueing,
    /// With a request among them whose reply is not for the log.
    QueueingSecrets,
}

/// CLIENT REPLY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Silence {
    No,
    /// No reply to the next request.
    Next,
    /// No replies.
    Always,
}

/// Waiting at the gate.
struct Parked {
    opened: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// What the present request was found to be; its bytes so far are in `held`.
    head: Option<(Class, u32)>,
    /// What was read after that.
    input: Vec<u8>,
}

impl Intake {
    pub(super) fn new(authenticated: bool) -> Self {
        Intake {
            scanner: Scanner::new(limits(authenticated)),
            route: Route::Forward { owed: false },
            held: Vec::new(),
            parked: None,
            authenticated,
            secret: false,
            begun: false,
            multi: Multi::No,
            silence: Silence::No,
            admitted: 0,
            unanswered: 0,
        }
    }

    /// A request was begun to be sent on, and is owed, and its end was not read yet.
    pub(super) fn is_incomplete(&self) -> bool {
        self.scanner.in_frame()
            && !self.scanner.undecided()
            && self.route == Route::Forward { owed: true }
    }

    fn authenticate(&mut self, authenticated: bool) {
        self.authenticated = authenticated;
        self.scanner.set_limits(limits(authenticated));
    }
}

/// The commands of [`Class::Replication`].
fn unsupported(name: &[u8]) -> &'static str {
    match name {
        b"sync" => "ERR SYNC is not supported by redis-proxy on this listener; use listen_raw",
        b"psync" => "ERR PSYNC is not supported by redis-proxy on this listener; use listen_raw",
        _ => "ERR REPLCONF is not supported by redis-proxy on this listener; use listen_raw",
    }
}

fn limits(authenticated: bool) -> Limits {
    if authenticated { Limits::FULL } else { Limits::UNAUTHENTICATED }
}

impl Session {
    pub(super) fn poll_requests(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) {
        while self.ending.is_none() {
            if !self.to_uplink.is_clear() {
                self.send_up(cx, &[]);
                if !self.to_uplink.is_clear() {
                    return;
                }
            }
            if self.owed.is_full() || self.to_client.len() > MAX_WAITING {
                return;
            }
            if let Some(parked) = &mut self.intake.parked {
                if parked.opened.as_mut().poll(cx).is_pending() {
                    return;
                }
                self.resume(cx);
                continue;
            }
            match poll_read(&mut self.client, cx, scratch) {
                Poll::Pending => return,
                Poll::Ready(Ok(0)) => self.end(Reason::ClientClosed),
                Poll::Ready(Ok(read)) => self.on_input(cx, &scratch[..read]),
                Poll::Ready(Err(why)) => self.lose_client(why),
            }
        }
    }

    /// The last request will not be completed: nobody answers it.
    pub(super) fn drop_incomplete(&mut self) {
        if self.intake.is_incomplete() {
            self.owed.take_back();
            self.passes.leave(1);
            self.intake.route = Route::Forward { owed: false };
        }
        self.intake.parked = None;
    }

    fn resume(&mut self, cx: &mut Context<'_>) {
        let Some(parked) = self.intake.parked.take() else { return };
        let Parked { head, input, .. } = *parked;
        if let Some((class, args)) = head {
            match self.head(class, args) {
                Some(route) => self.begin(route),
                None => return self.park(head, &[&input]),
            }
        }
        self.on_input(cx, &input);
    }

    fn park(&mut self, head: Option<(Class, u32)>, input: &[&[u8]]) {
        let shared = self.shared.clone();
        let opened = Box::pin(async move { shared.gate.opened().await });
        self.intake.route = Route::Forward { owed: false };
        self.intake.parked = Some(Box::new(Parked { opened, head, input: input.concat() }));
    }

    fn on_input(&mut self, cx: &mut Context<'_>, input: &[u8]) {
        if !self.intake.begun {
            self.intake.begun = true;
            // A TLS handshake record; no command begins like that.
            if input.starts_with(&[0x16, 0x03]) {
                return self.end(Reason::SpeaksTls);
            }
        }
        let taken = self.take_in(input);
        let admitted = std::mem::take(&mut self.intake.admitted);
        if admitted > 1 {
            self.passes.add(admitted - 1);
        }
        let unanswered = std::mem::take(&mut self.intake.unanswered);
        if unanswered > 0 {
            self.passes.leave(unanswered);
        }
        match taken {
            Ok(tail) => {
                let tail = &input[tail];
                if !tail.is_empty() || !self.to_uplink.is_clear() {
                    self.send_up(cx, tail);
                }
            }
            Err(why) => {
                self.send_up(cx, &[]);
                self.drop_incomplete();
                let reason = Reason::Protocol(why);
                if let Some(words) = reason.last_words() {
                    self.answer(words);
                }
                self.end(reason);
            }
        }
    }

    /// Reads `input`, and says which part of it goes up after what was put into `to_uplink`.
    fn take_in(&mut self, input: &[u8]) -> Result<Range<usize>, request::Error> {
        let mut pos = 0;
        // Before this, everything was dealt with.
        let mut from = 0;
        self.intake.scanner.new_input();
        loop {
            let before = pos;
            let step = self.intake.scanner.next(input, &mut pos);
            if let Some(taps) = &mut self.taps {
                taps.up.feed(&input[before..pos]);
            }
            let start = self.intake.scanner.frame_start().max(from);
            let step = match step {
                Ok(step) => step,
                Err(why) => {
                    self.to_uplink.push(&input[from..start]);
                    return Err(why);
                }
            };
            match step {
                Step::More => break,
                Step::Head { args } => {
                    let class = command::class(self.intake.scanner.name());
                    if class == Class::Plain && self.is_fast() {
                        self.intake.admitted += 1;
                        self.owed.push(Awaited::Plain);
                        self.intake.route = Route::Forward { owed: true };
                        continue;
                    }
                    let Some(route) = self.head(class, args) else {
                        self.to_uplink.push(&input[from..start]);
                        self.intake.held.extend_from_slice(&input[start..pos]);
                        self.park(Some((class, args)), &[&input[pos..]]);
                        return Ok(pos..pos);
                    };
                    if !matches!(route, Route::Forward { .. }) {
                        self.to_uplink.push(&input[from..start]);
                        from = start;
                    }
                    self.begin(route);
                }
                Step::End => {
                    if let Some(taps) = &mut self.taps {
                        taps.up.request(self.peer, self.intake.secret);
                    }
                    match self.intake.route {
                        Route::Forward { .. } => {}
                        Route::Collect(class) => {
                            self.intake.held.extend_from_slice(&input[from..pos]);
                            from = pos;
                            let frame = std::mem::take(&mut self.intake.held);
                            if !self.collected(class, &frame) {
                                self.park(None, &[&frame, &input[pos..]]);
                                return Ok(pos..pos);
                            }
                        }
                        Route::Discard(verdict) => {
                            from = pos;
                            self.discarded(verdict);
                        }
                    }
                    if self.ending.is_some() {
                        return Ok(pos..pos);
                    }
                }
                Step::Empty => {
                    self.to_uplink.push(&input[from..start]);
                    self.intake.held.clear();
                    self.restart_tap();
                    from = pos;
                }
                Step::Inline => {
                    self.to_uplink.push(&input[from..start]);
                    from = pos;
                    self.take_line(&input[start..pos])?;
                    if let Some(parked) = &mut self.intake.parked {
                        parked.input.extend_from_slice(&input[pos..]);
                        return Ok(pos..pos);
                    }
                    if self.ending.is_some() {
                        return Ok(pos..pos);
                    }
                }
            }
        }
        Ok(self.rest(input, from))
    }

    /// The input is read. Its last request may not be complete: what goes up now?
    fn rest(&mut self, input: &[u8], from: usize) -> Range<usize> {
        let end = input.len();
        let intake = &mut self.intake;
        if !intake.scanner.in_frame() {
            return from..end;
        }
        if intake.scanner.undecided() {
            let start = intake.scanner.frame_start().max(from);
            self.to_uplink.push(&input[from..start]);
            intake.held.extend_from_slice(&input[start..]);
            return end..end;
        }
        match intake.route {
            Route::Forward { .. } => from..end,
            Route::Discard(_) => end..end,
            Route::Collect(class) => {
                intake.held.extend_from_slice(&input[from..]);
                if intake.held.len() > MAX_HELD {
                    self.too_long(class);
                }
                end..end
            }
        }
    }

    /// A plain request needs no more than to be counted.
    #[inline]
    fn is_fast(&self) -> bool {
        self.intake.admitted > 0
            && self.intake.authenticated
            && self.intake.silence == Silence::No
            && self.intake.held.is_empty()
            && self.taps.is_none()
    }

    /// Decides what becomes of a request; `None` if the gate is shut to it.
    fn head(&mut self, class: Class, args: u32) -> Option<Route> {
        let intake = &mut self.intake;
        intake.secret =
            !intake.authenticated || matches!(class, Class::Auth | Class::Hello | Class::Secret);
        if !intake.authenticated {
            return Some(match class {
                Class::Auth | Class::Hello => Route::Collect(class),
                Class::Quit => Route::Discard(Verdict::Quit),
                _ => Route::Discard(Verdict::Refuse(auth::NOAUTH)),
            });
        }
        let queueing = intake.multi != Multi::No;
        let refusal = match class {
            Class::Auth | Class::Hello if queueing => Some(NOT_IN_MULTI),
            Class::Replication => Some(unsupported(intake.scanner.name())),
            _ => None,
        };
        match refusal {
            None => {}
            Some(text) if !queueing => return Some(Route::Discard(Verdict::Refuse(text))),
            Some(text) => {
                return self.admit().then_some(Route::Discard(Verdict::RefuseInMulti(text)));
            }
        }
        let awaited = match class {
            Class::Quit => return Some(Route::Discard(Verdict::Quit)),
            Class::Auth
            | Class::Hello
            | Class::Select
            | Class::Read
            | Class::Client
            | Class::Reset => return Some(Route::Collect(class)),
            Class::Secret => Awaited::Secret,
            Class::Exec | Class::Discard if intake.multi == Multi::QueueingSecrets => {
                Awaited::Secret
            }
            Class::Blocking if !queueing => Awaited::Blocking,
            Class::Subscribe(channel) if !queueing && args > 1 => {
                Awaited::Subscribed(channel, args - 1)
            }
            Class::Unsubscribe(channel) if !queueing => Awaited::Unsubscribed(channel, args - 1),
            Class::Monitor => Awaited::Monitor,
            Class::Plain
            | Class::Multi
            | Class::Exec
            | Class::Discard
            | Class::Blocking
            | Class::Subscribe(_)
            | Class::Unsubscribe(_)
            | Class::Replication => Awaited::Plain,
        };
        if !self.admit() {
            return None;
        }
        self.intake.multi = match (self.intake.multi, class) {
            (Multi::No, Class::Multi) if args == 1 => Multi::Queueing,
            (_, Class::Exec | Class::Discard) if args == 1 => Multi::No,
            (Multi::Queueing, Class::Secret) => Multi::QueueingSecrets,
            (multi, _) => multi,
        };
        Some(Route::Forward { owed: self.expect(awaited) })
    }

    /// Deals with the bytes of the present request so far, where they came in an earlier input.
    fn begin(&mut self, route: Route) {
        self.intake.route = route;
        match route {
            Route::Forward { .. } => {
                if self.taps.is_some() {
                    self.intake.scanner.report_end();
                }
                self.to_uplink.push(&self.intake.held);
                self.intake.held = Vec::new();
            }
            Route::Collect(_) => self.intake.scanner.report_end(),
            Route::Discard(_) => {
                self.intake.scanner.report_end();
                self.intake.held = Vec::new();
            }
        }
    }

    /// The gate lets a request in.
    fn admit(&mut self) -> bool {
        if self.intake.admitted == 0 && !self.passes.enter() {
            return false;
        }
        self.intake.admitted += 1;
        true
    }

    /// An admitted request will be answered, which is what this returns, or will not.
    fn expect(&mut self, awaited: Awaited) -> bool {
        // Confirmations are pushes, and come in spite of CLIENT REPLY OFF.
        let push = matches!(awaited, Awaited::Subscribed(..) | Awaited::Unsubscribed(..));
        if self.is_silent() && !push {
            self.intake.unanswered += 1;
            return false;
        }
        self.owed.push(awaited);
        true
    }

    /// The next reply is suppressed; used up by asking, where it is for one request only.
    fn is_silent(&mut self) -> bool {
        match self.intake.silence {
            Silence::No => false,
            Silence::Always => true,
            Silence::Next => {
                self.intake.silence = Silence::No;
                true
            }
        }
    }

    /// The proxy's own reply, which keeps its place behind those owed by the uplink.
    fn answer(&mut self, reply: Vec<u8>) {
        if self.is_silent() {
            return;
        }
        if self.owed.is_empty() && !self.replies.in_frame() {
            self.send_local(&reply);
        } else {
            self.owed.push(Awaited::Local(reply.into_boxed_slice()));
        }
    }

    fn discarded(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Refuse(text) => self.answer(encode::error(text)),
            Verdict::RefuseInMulti(text) => {
                // An AUTH without arguments: wrong everywhere, and so the transaction is aborted.
                self.to_uplink.push(&encode::request(["AUTH"]));
                self.expect(Awaited::Instead(text));
            }
            Verdict::Quit => {
                self.answer(OK.to_vec());
                self.end(Reason::Quit);
            }
        }
    }

    /// A collected request is complete; false if the gate is shut to it.
    fn collected(&mut self, class: Class, frame: &[u8]) -> bool {
        let args: Vec<&[u8]> = Args::new(frame).collect();
        match class {
            Class::Auth => {
                let shared = self.shared.clone();
                match auth::auth(shared.generation.listen.login.as_ref(), &args) {
                    Ok(()) => {
                        self.intake.authenticate(true);
                        self.answer(OK.to_vec());
                    }
                    Err(text) => self.answer(encode::error(text)),
                }
                true
            }
            Class::Hello => self.hello(&args),
            Class::Reset => self.reset(frame, args.len() == 1),
            Class::Client => self.client_command(frame, &args),
            _ => self.forward(frame, self.awaited(class, &args)),
        }
    }

    fn awaited(&self, class: Class, args: &[&[u8]]) -> Awaited {
        let number = |arg: &[u8]| std::str::from_utf8(arg).ok()?.parse().ok();
        match (class, args) {
            _ if self.intake.multi != Multi::No => Awaited::Plain,
            (Class::Select, [_, db]) => number(db).map_or(Awaited::Plain, Awaited::Select),
            (Class::Read, _) if command::blocks(args.iter().copied()) => Awaited::Blocking,
            _ => Awaited::Plain,
        }
    }

    fn forward(&mut self, frame: &[u8], awaited: Awaited) -> bool {
        if !self.admit() {
            return false;
        }
        self.to_uplink.push(frame);
        self.expect(awaited);
        true
    }

    fn hello(&mut self, args: &[&[u8]]) -> bool {
        let shared = self.shared.clone();
        match auth::hello(shared.generation.listen.login.as_ref(), args) {
            Err(text) => self.answer(encode::error(&text)),
            Ok(hello) if !hello.authenticated && !self.intake.authenticated => {
                self.answer(encode::error(auth::NOAUTH));
            }
            Ok(hello) => {
                if !self.forward(&hello.request, Awaited::Hello) {
                    return false;
                }
                self.intake.authenticate(true);
            }
        }
        true
    }

    /// RESET logs the uplink connection out, and the client too.
    fn reset(&mut self, frame: &[u8], valid: bool) -> bool {
        if !valid {
            return self.forward(frame, Awaited::Plain);
        }
        if !self.admit() {
            return false;
        }
        self.intake.multi = Multi::No;
        self.intake.silence = Silence::No;
        self.to_uplink.push(frame);
        self.expect(Awaited::Reset);
        let generation = &self.shared.generation;
        if let Some(auth) = generation.uplink.auth() {
            self.to_uplink.push(&auth);
            self.owed.push(Awaited::Own);
        }
        self.intake.authenticate(generation.listen.login.is_none());
        true
    }

    /// CLIENT REPLY has no reply of its own but for ON.
    fn client_command(&mut self, frame: &[u8], args: &[&[u8]]) -> bool {
        let silence = match args {
            [_, reply, mode] if reply.eq_ignore_ascii_case(b"REPLY") => {
                match (&mode.to_ascii_uppercase()[..], self.intake.silence) {
                    (b"ON", _) => Some(Silence::No),
                    (b"OFF", _) | (b"SKIP", Silence::Always) => Some(Silence::Always),
                    (b"SKIP", _) => Some(Silence::Next),
                    _ => None,
                }
            }
            _ => None,
        };
        match silence {
            Some(silence) if self.intake.multi == Multi::No => {
                if !self.admit() {
                    return false;
                }
                self.to_uplink.push(frame);
                self.intake.silence = silence;
                match silence {
                    Silence::No => self.owed.push(Awaited::Plain),
                    Silence::Next | Silence::Always => self.intake.unanswered += 1,
                }
                true
            }
            _ => self.forward(frame, Awaited::Plain),
        }
    }

    /// A request that was collected is longer than may be held.
    fn too_long(&mut self, class: Class) {
        let class = match class {
            Class::Auth | Class::Hello => {
                return self.begin_refusal("ERR redis-proxy: request too long");
            }
            // It may have BLOCK, further on.
            Class::Read => Class::Blocking,
            _ => Class::Plain,
        };
        match self.head(class, 0) {
            Some(route) => self.begin(route),
            None => self.park(Some((class, 0)), &[]),
        }
    }

    fn begin_refusal(&mut self, text: &'static str) {
        self.intake.route = Route::Discard(Verdict::Refuse(text));
        self.intake.held = Vec::new();
    }

    /// An inline command goes up as an array, so that the uplink sees the words that were seen
    /// here, whatever its own quoting rules are.
    fn take_line(&mut self, line: &[u8]) -> Result<(), request::Error> {
        self.restart_tap();
        let mut whole = std::mem::take(&mut self.intake.held);
        whole.extend_from_slice(line);
        let args = inline::split(whole.strip_suffix(b"\n").unwrap_or(&whole))?;
        if !args.is_empty() {
            let frame = encode::request(args);
            let tail = self.take_in(&frame)?;
            self.to_uplink.push(&frame[tail]);
        }
        Ok(())
    }

    fn restart_tap(&mut self) {
        if let Some(taps) = &mut self.taps {
            taps.up.restart();
        }
    }
}
