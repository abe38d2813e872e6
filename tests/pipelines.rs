//! Requests in any number and at any split are answered in order, each by its own reply.

use crate::common::{FakeUplink, Proxy, redis, request};

#[test]
fn a_pipeline_cut_at_every_byte_is_answered_alike() {
    let redis = redis();
    let proxy = Proxy::with_pass(&redis.addr(), "p");
    let bytes = b"*2\r\n$4\r\nAUTH\r\n$1\r\np\r\nSET k \"a b\"\r\n*0\r\n\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n\
        *2\r\n$6\r\nSELECT\r\n$1\r\n1\r\nGET k\r\nAUTH q\r\n*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nQUIT\r\n";
    let wanted = "+OK\r\n+OK\r\n$3\r\na b\r\n+OK\r\n$-1\r\n\
        -WRONGPASS invalid username-password pair or user is disabled.\r\n+PONG\r\n+OK\r\n";
    for cut in 1..bytes.len() {
        let mut client = proxy.client();
        client.send(&bytes[..cut]);
        // What the first part asks for is answered before the second is sent.
        client.send(&bytes[cut..]);
        assert_eq!(client.rest(), wanted, "cut at {cut}");
    }
    let mut client = proxy.client();
    for byte in bytes {
        client.send([*byte]);
    }
    assert_eq!(client.rest(), wanted);
}

#[test]
fn many_requests_in_one_write_go_up_and_come_down_together() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let mut client = proxy.client();
    let count = 20_000;
    let mut requests = Vec::new();
    let mut replies = String::new();
    for number in 0..count {
        requests.extend(request(&["INCR", "n"]));
        replies += &format!(":{}\r\n", number + 1);
    }
    client.send(requests).expect(replies);
}

#[test]
fn everything_may_be_written_before_anything_is_read() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let mut client = proxy.client();
    let value = "v".repeat(100_000);
    assert_eq!(client.ask(&["SET", "k", &value]), "+OK");
    // 200 MB of replies: far more than all socket buffers together hold.
    let count = 2000;
    client.send(request(&["GET", "k"]).repeat(count)).command(&["PING"]);
    for _ in 0..count {
        client.expect(format!("$100000\r\n{value}\r\n"));
    }
    client.expect("+PONG\r\n");
}

#[test]
fn the_proxys_own_replies_keep_their_place() {
    let fake = FakeUplink::bind();
    let proxy = fake.expect_start(|| Proxy::to(&fake.addr()));
    let mut client = proxy.client();
    client
        .send("GET a\r\nAUTH x\r\nGET b\r\nSYNC\r\nPSYNC ? -1\r\nREPLCONF x\r\nQUIT\r\nGET c\r\n");
    let mut uplink = fake.accept();
    uplink.expect([request(&["GET", "a"]), request(&["GET", "b"])].concat());
    uplink.send("$1\r\na\r\n$1");
    client.expect("$1\r\na\r\n-ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?\r\n$1");
    uplink.send("\r\nb\r\n");
    let refused = |name| {
        format!("-ERR {name} is not supported by redis-proxy on this listener; use listen_raw\r\n")
    };
    let wanted =
        ["\r\nb\r\n", &refused("SYNC"), &refused("PSYNC"), &refused("REPLCONF"), "+OK\r\n"];
    assert_eq!(client.rest(), wanted.concat());
    uplink.expect_closed();
}

#[test]
fn select_is_remembered_only_by_the_connection_that_sent_it() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let (mut one, mut two) = (proxy.client(), proxy.client());
    assert_eq!(one.ask(&["SELECT", "5"]), "+OK");
    assert_eq!(one.ask(&["SET", "k", "five"]), "+OK");
    assert_eq!(two.ask(&["GET", "k"]), "$-1");
    assert_eq!(one.ask(&["SELECT", "99"]), "-ERR DB index is out of range");
    one.command(&["GET", "k"]).expect("$4\r\nfive\r\n");
}

#[test]
fn an_inline_command_goes_up_as_the_words_that_were_seen() {
    let fake = FakeUplink::bind();
    let proxy = fake.expect_start(|| Proxy::to(&fake.addr()));
    let mut client = proxy.client();
    client.send("set  'a b' \"\\x00\\r\\n\"\r\n");
    let mut uplink = fake.accept();
    uplink.expect(request(&["set", "a b", "\0\r\n"])).send("+OK\r\n");
    client.expect("+OK\r\n");
}

#[test]
fn client_reply_off_and_skip_shift_nothing() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let mut client = proxy.client();
    client.send("CLIENT REPLY SKIP\r\nSET a 1\r\nGET a\r\n").expect("$1\r\n1\r\n");
    client.send("CLIENT REPLY OFF\r\nSET a 2\r\nGET a\r\nAUTH x\r\nCLIENT REPLY SKIP\r\nGET a\r\n");
    client.send("CLIENT REPLY ON\r\nGET a\r\n").expect("+OK\r\n$1\r\n2\r\n");
    client.send("CLIENT REPLY SKIP\r\nAUTH x\r\nPING\r\n").expect("+PONG\r\n");
    // RESET ends the silence.
    client.send("CLIENT REPLY OFF\r\nSET a 3\r\nRESET\r\nGET a\r\n");
    client.expect("+RESET\r\n$1\r\n3\r\n");
}

#[test]
fn each_client_has_an_uplink_of_its_own_dialled_when_first_needed() {
    let fake = FakeUplink::bind();
    let proxy = fake.expect_start(|| Proxy::to(&fake.addr()));
    let (_idle, mut one, mut two) = (proxy.client(), proxy.client(), proxy.client());
    one.command(&["GET", "1"]);
    let mut first = fake.accept();
    first.expect(request(&["GET", "1"]));
    two.command(&["GET", "2"]);
    let mut second = fake.accept();
    second.expect(request(&["GET", "2"])).send("$1\r\n2\r\n");
    two.expect("$1\r\n2\r\n");
    first.send("$1\r\n1\r\n");
    one.expect("$1\r\n1\r\n");
}

#[test]
fn a_blocked_client_gets_its_element_and_does_not_hold_up_others() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let (mut blocked, mut other) = (proxy.client(), proxy.client());
    blocked.send("BLPOP q 0\r\nPING after\r\n");
    assert_eq!(other.ask(&["RPUSH", "q", "x"]), ":1");
    blocked.expect("*2\r\n$1\r\nq\r\n$1\r\nx\r\n$5\r\nafter\r\n");
}

#[test]
fn a_blocked_client_that_is_gone_takes_no_element() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let mut direct = redis.client();
    let mut blocked = proxy.client();
    blocked.command(&["BLPOP", "q", "0"]);
    let blocked_clients = |direct: &mut crate::common::Client| {
        direct.command(&["INFO", "clients"]);
        let size: usize = direct.line()[1..].parse().unwrap();
        let text = String::from_utf8(direct.take(size + 2)).unwrap();
        text.lines()
            .find_map(|line| line.strip_prefix("blocked_clients:").map(str::to_owned))
            .unwrap()
    };
    crate::common::eventually("blocked", || blocked_clients(&mut direct) == "1");
    drop(blocked);
    crate::common::eventually("let go", || blocked_clients(&mut direct) == "0");
    assert_eq!(direct.ask(&["RPUSH", "q", "x"]), ":1");
    assert_eq!(direct.ask(&["LLEN", "q"]), ":1");
}

#[test]
fn a_client_that_has_said_all_still_gets_its_replies() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let mut client = proxy.client();
    client.send("SET k v\r\nGET k\r\n").half_close();
    assert_eq!(client.rest(), "+OK\r\n$1\r\nv\r\n");
    let mut client = proxy.client();
    // The last request is not complete: it is not executed.
    client.send("PING\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nw").half_close();
    assert_eq!(client.rest(), "+PONG\r\n");
    proxy.client().command(&["GET", "k"]).expect("$1\r\nv\r\n");
}

#[test]
fn what_was_taken_in_before_quit_is_sent_however_slowly_the_uplink_reads() {
    let fake = FakeUplink::bind();
    let proxy = fake.expect_start(|| Proxy::to(&fake.addr()));
    let mut client = proxy.client();
    // More than the socket buffers between here and there hold.
    let set = request(&["SET", "k", &"v".repeat(1000)]);
    let count = 20_000;
    let writer = std::thread::spawn({
        let requests = [set.repeat(count), request(&["QUIT"])].concat();
        move || {
            client.send(requests);
            client
        }
    });
    let mut uplink = fake.accept();
    uplink.expect(set.repeat(count)).send("+OK\r\n".repeat(count));
    writer.join().unwrap().expect("+OK\r\n".repeat(count + 1)).expect_closed();
}

#[test]
fn requests_without_replies_are_executed_before_quit() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let mut client = proxy.client();
    client.send("CLIENT REPLY OFF\r\nSET k v\r\nQUIT\r\n").expect_closed();
    redis.client().command(&["GET", "k"]).expect("$1\r\nv\r\n");
}

#[test]
fn many_replies_of_the_proxys_own_do_not_stop_a_client() {
    let redis = redis();
    let proxy = Proxy::with_pass(&redis.addr(), "p");
    let mut client = proxy.client();
    let refused = "-NOAUTH Authentication required.\r\n";
    for _ in 0..3 {
        client.send(request(&["PING"]).repeat(4000)).expect(refused.repeat(4000));
    }
    assert_eq!(client.ask(&["AUTH", "p"]), "+OK");
}

#[test]
fn replies_of_the_proxys_own_behind_a_blocked_command_are_bounded() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let mut client = proxy.client();
    assert_eq!(client.ask(&["PING"]), "+PONG");
    let before = proxy.memory_kib("VmRSS");
    let count = 300_000;
    let writer = std::thread::spawn(move || {
        client.send(request(&["BLPOP", "q", "0"]));
        client.send(request(&["SYNC"]).repeat(count));
        client
    });
    // The client cannot have written all of it, for the proxy takes in no more.
    let mut direct = redis.client();
    crate::common::eventually("blocked", || {
        direct.command(&["CLIENT", "LIST", "TYPE", "normal"]);
        let size: usize = direct.line()[1..].parse().unwrap();
        String::from_utf8(direct.take(size + 2)).unwrap().contains("cmd=blpop")
    });
    assert!(proxy.memory_kib("VmHWM") - before < 4 * 1024);
    assert_eq!(direct.ask(&["RPUSH", "q", "x"]), ":1");
    let mut client = writer.join().unwrap();
    client.expect("*2\r\n$1\r\nq\r\n$1\r\nx\r\n");
    let refused = "-ERR SYNC is not supported by redis-proxy on this listener; use listen_raw\r\n";
    client.expect(refused.repeat(count));
}

#[test]
fn a_reply_that_would_have_no_end_is_refused_in_a_transaction() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let mut client = proxy.client();
    assert_eq!(client.run("MULTI"), "OK");
    assert!(client.run("CLIENT REPLY OFF").starts_with("-ERR CLIENT REPLY is not allowed"));
    assert_eq!(client.run("SET k v"), "QUEUED");
    assert!(client.run("EXEC").starts_with("-EXECABORT"));
    assert_eq!(client.run("EXISTS k"), "0");
}
