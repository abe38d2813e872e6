use super::*;
use crate::resp::Args;

fn request(ids: &ClientIds, line: &str) -> String {
    let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    let frame = ids.request(At::Present, &args).unwrap_or_else(|| encode::request(&args));
    let text = Args::new(&frame).map(String::from_utf8_lossy).collect::<Vec<_>>();
    text.join(" ")
}

#[test]
fn an_id_that_was_seen_means_the_same_client_after_a_switch() {
    let ids = ClientIds::new(1);
    assert_eq!(ids.connected(1, None, 5), 5);
    assert_eq!(request(&ids, "CLIENT KILL ID 5"), "CLIENT KILL ID 5");
    ids.prepared(5, 90);
    assert_eq!(request(&ids, "CLIENT UNBLOCK 5"), "CLIENT UNBLOCK 5", "not yet");
    ids.exchange(2);
    assert_eq!(ids.connected(2, Some(5), 90), 5);
    let late = ids.connected(2, None, 5);
    assert_eq!(late, OFFSET + 5, "no second 5");
    for (line, there) in [
        ("CLIENT KILL ID 5 SKIPME no", "CLIENT KILL ID 90 SKIPME no".to_owned()),
        ("CLIENT UNBLOCK 5 ERROR", "CLIENT UNBLOCK 90 ERROR".to_owned()),
        (&format!("CLIENT LIST ID 5 {late}"), "CLIENT LIST ID 90 5".to_owned()),
        ("client tracking on redirect 5 noloop", "client tracking on redirect 90 noloop".into()),
        ("CLIENT KILL ID 6", format!("CLIENT KILL ID {NOBODY}")),
        ("CLIENT SETNAME 5", "CLIENT SETNAME 5".to_owned()),
        ("CLIENT KILL USER id ID 5", "CLIENT KILL USER id ID 90".to_owned()),
        ("CLIENT KILL USER id NOT-ID 5 6", format!("CLIENT KILL USER id NOT-ID 90 {NOBODY}")),
        ("CLIENT LIST NAME id ID 05", "CLIENT LIST NAME id ID 05".to_owned()),
        (
            "CLIENT TRACKING ON REDIRECT 5 PREFIX redirect PREFIX 7 BCAST",
            "CLIENT TRACKING ON REDIRECT 90 PREFIX redirect PREFIX 7 BCAST".to_owned(),
        ),
        ("LPUSH list id 5", "LPUSH list id 5".to_owned()),
        ("SET unblock 5", "SET unblock 5".to_owned()),
    ] {
        assert_eq!(request(&ids, line), there);
    }
    ids.forget(5);
    assert_eq!(request(&ids, "CLIENT KILL ID 5"), format!("CLIENT KILL ID {NOBODY}"));
}

#[test]
fn replies_show_what_was_seen() {
    let ids = ClientIds::new(1);
    ids.connected(1, None, 5);
    ids.prepared(5, 90);
    ids.exchange(2);
    let later = OFFSET + 91;
    let of = |place, text: &str| {
        String::from_utf8_lossy(&ids.reply(place, text.as_bytes())).into_owned()
    };
    assert_eq!(of(Place::Number, ":90\r\n"), ":5\r\n");
    assert_eq!(of(Place::Number, ":-1\r\n"), ":-1\r\n");
    assert_eq!(of(Place::Number, "-NOPERM\r\n"), "-NOPERM\r\n");
    let hello = "%2\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:90\r\n";
    assert_eq!(of(Place::Hello, hello), hello.replace("90", "5"));
    let list = "id=90 addr=a name=id=90 redir=91\nid=91 name= redir=-1\n";
    let wanted = format!("id=5 addr=a name=id=90 redir={later}\nid={later} name= redir=-1\n");
    let frame = |kind, prefix, text: &str| {
        format!("{kind}{}\r\n{prefix}{text}\r\n", text.len() + str::len(prefix))
    };
    assert_eq!(of(Place::Lines, &frame('$', "", list)), frame('$', "", &wanted));
    assert_eq!(of(Place::Lines, &frame('=', "txt:", list)), frame('=', "txt:", &wanted));
    for (flags, dirty) in [("N", "d"), ("x", "xd"), ("xd", "xd")] {
        ids.touched(5, true);
        let line = |id: u64, flags: &str| format!("id={id} addr=a flags={flags} db=0\n");
        let list = line(90, flags) + &line(91, "N");
        let wanted = line(5, dirty) + &line(later, "N");
        assert_eq!(of(Place::Lines, &frame('$', "", &list)), frame('$', "", &wanted));
        ids.touched(5, false);
        let wanted = line(5, flags) + &line(later, "N");
        assert_eq!(of(Place::Lines, &frame('$', "", &list)), frame('$', "", &wanted));
    }
}

#[test]
fn a_server_that_was_restarted_gives_nobody_the_id_of_another() {
    let ids = ClientIds::new(1);
    assert_eq!((ids.connected(1, None, 5), ids.connected(1, None, 6)), (5, 6));
    assert!(ids.are_the_uplinks());
    ids.lost(5);
    let newcomer = ids.connected(1, None, 5);
    assert_eq!(newcomer, OFFSET + 5);
    // Only now is it noticed here.
    ids.lost(6);
    assert_eq!(request(&ids, "CLIENT KILL ID 5"), format!("CLIENT KILL ID {NOBODY}"));
    assert_eq!(ids.connected(1, Some(5), 6), 5);
    assert_eq!(request(&ids, "CLIENT KILL ID 5"), "CLIENT KILL ID 6");
    assert_eq!(request(&ids, &format!("CLIENT KILL ID {newcomer}")), "CLIENT KILL ID 5");
    assert_eq!(request(&ids, "CLIENT KILL ID 6"), format!("CLIENT KILL ID {NOBODY}"));
}

#[test]
fn targets_are_remembered_for_as_long_as_somebody_redirects_to_them() {
    let ids = ClientIds::new(1);
    let mut before = None;
    for target in 1..1000 {
        ids.redirected(before, Some(target));
        before = Some(target);
    }
    ids.redirected(None, Some(999));
    assert_eq!(ids.maps().targets.len(), 1);
    ids.redirected(before, None);
    assert!(ids.is_target(999), "of another one");
    ids.redirected(Some(999), None);
    assert!(ids.maps().targets.is_empty());
}
