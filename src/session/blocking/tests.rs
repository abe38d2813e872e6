use super::*;

#[test]
fn a_command_that_was_interrupted_is_not_asked_for_again_before_its_error_is_here() {
    let mut blocking = at_uplink("BLPOP k 0", Timeout::Last);
    let (_, ticket) = blocking.ask().expect("nobody has asked");
    assert!(blocking.ask().is_none(), "it is on its way");
    ticket.answer(false);
    let (_, ticket) = blocking.ask().expect("it was not waiting yet");
    ticket.answer(true);
    assert!(blocking.ask().is_none(), "the error is on its way");
    // Another one, of whom nothing will be heard.
    let mut blocking = at_uplink("BLPOP k 0", Timeout::Last);
    let (_, ticket) = blocking.ask().expect("nobody has asked");
    assert!(blocking.ask().is_none());
    drop(ticket);
    assert!(blocking.ask().is_some());
}

#[test]
fn the_two_notices_of_an_interruption_may_come_in_any_order() {
    let error = Some(Unblocking::Asked);
    // The error comes before the controller has heard what its CLIENT UNBLOCK did.
    for (hit, refused) in [(true, false), (false, true)] {
        let now = Instant::now();
        let mut blocking = at_uplink("BLPOP k 0", Timeout::Last);
        let (_, ticket) = blocking.ask().expect("nobody has asked");
        assert!(matches!(blocking.returned(error, now), Returned::Interrupted { .. }));
        assert!(!blocking.is_refused(), "nobody knows yet");
        ticket.answer(hit);
        assert_eq!(blocking.is_refused(), refused, "another client's, unless it has hit");
    }
    // Nobody has asked: it is another client's.
    let mut blocking = at_uplink("BLPOP k 0", Timeout::Last);
    assert_eq!(blocking.returned(error, Instant::now()), Returned::Answered);
    assert!(blocking.is_none());
}

fn at_uplink(line: &str, timeout: Timeout) -> Blocking {
    let mut blocking = Blocking::None;
    let sending = blocking.send(&frame(line), timeout, false, Instant::now());
    assert!(matches!(sending, Sending::Interruptible(_)), "{line}");
    blocking
}

fn frame(line: &str) -> Vec<u8> {
    encode::request(line.split(' ').collect::<Vec<_>>())
}

fn text(frame: &[u8]) -> String {
    let args: Vec<_> = Args::new(frame).map(String::from_utf8_lossy).collect();
    args.join(" ")
}

#[test]
fn the_time_that_is_left_is_asked_for() {
    let left = Duration::from_micros(1_234_567);
    for (line, timeout, wanted) in [
        ("BLPOP a b 0.5", Timeout::Last, "BLPOP a b 1.234"),
        ("BLMPOP 3 1 a LEFT", Timeout::At(1), "BLMPOP 1.234 1 a LEFT"),
        (
            "XREAD COUNT 2 block 9 STREAMS s 0",
            Timeout::Block,
            "XREAD COUNT 2 block 1234 STREAMS s 0",
        ),
        (
            "XREADGROUP GROUP block 100000 BLOCK 0 BLOCK 9 STREAMS s >",
            Timeout::Block,
            "XREADGROUP GROUP block 100000 BLOCK 0 BLOCK 1234 STREAMS s >",
        ),
        ("BLMOVEM a b LEFT LEFT 0 COUNT 2 OBO", Timeout::At(5), {
            "BLMOVEM a b LEFT LEFT 1.234 COUNT 2 OBO"
        }),
    ] {
        let asked = with_time_left(&frame(line), timeout, left).expect("time is left");
        assert_eq!(text(&asked), wanted);
    }
    let (pop, nothing) = (frame("BLPOP a 1"), Duration::from_micros(900));
    assert_eq!(with_time_left(&pop, Timeout::Last, nothing), None, "0 would be for ever");
}

#[test]
fn a_timeout_is_seconds_or_milliseconds_and_0_is_for_ever() {
    let now = Instant::now();
    let until = |line: &str, timeout| {
        let mut blocking = Blocking::None;
        match blocking.send(&frame(line), timeout, false, now) {
            Sending::Interruptible(_) => Some(blocking.until_at_uplink().map(|until| until - now)),
            _ => None,
        }
    };
    assert_eq!(until("BLPOP a 1.5", Timeout::Last), Some(Some(Duration::from_millis(1500))));
    assert_eq!(until("BLPOP a 0", Timeout::Last), Some(None));
    assert_eq!(
        until("XREAD BLOCK 7 STREAMS a 0", Timeout::Block),
        Some(Some(Duration::from_millis(7)))
    );
    for (line, millis) in [("BLPOP a 0x1", 1000), ("BLPOP a 1e-1", 100), ("BLPOP a .0001", 1)] {
        let wait = Some(Some(Duration::from_millis(millis)));
        assert_eq!(until(line, Timeout::Last), wait, "{line}");
    }
    assert_eq!(until("BLPOP a -0.0001", Timeout::Last), Some(None), "as Redis has it");
    for wrong in ["BLPOP a -1", "BLPOP a x", "BLPOP", "BLPOP a nan"] {
        assert_eq!(until(wrong, Timeout::Last), None, "{wrong}");
    }
}

#[test]
fn new_entries_are_those_after_the_position_at_the_time() {
    let line = "XREAD BLOCK 0 STREAMS a b c $ 5-1 $";
    let mut blocked = at_uplink(line, Timeout::Block);
    let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    assert_eq!(new_entries(&args), [(7, &b"a"[..]), (9, b"c")]);
    for none in ["BLPOP streams a $ 5", "XREADGROUP GROUP g c BLOCK 0 STREAMS s $"] {
        let args: Vec<&[u8]> = none.split(' ').map(str::as_bytes).collect();
        assert_eq!(new_entries(&args), [], "{none}");
    }
    let last: Vec<&[u8]> = "XREAD BLOCK 0 STREAMS $ +".split(' ').map(str::as_bytes).collect();
    assert_eq!(new_entries(&last), [(5, &b"$"[..])]);
    assert!(!blocked.can_be_repeated());
    blocked.resolve(7, position(b"-ERR no such key\r\n"));
    let info = b"*4\r\n$6\r\nlength\r\n:1\r\n$17\r\nlast-generated-id\r\n$3\r\n7-2\r\n";
    blocked.resolve(9, position(info));
    assert!(blocked.can_be_repeated());
    let returned = blocked.returned(Some(Unblocking::RoleChange), Instant::now());
    let Returned::Interrupted { frame, closing: true } = returned else { panic!("{returned:?}") };
    assert_eq!(text(&frame), "XREAD BLOCK 0 STREAMS a b c 0-0 5-1 7-2");
    assert_eq!(position(b"-WRONGTYPE\r\n"), None);
}
