//! Makes programs by seed.

use super::program::{Mode, Program, Request, Step, Who};
use crate::random_programs::Random;

/// Commands of each kind, and how often that kind is chosen. What follows a `%` is chosen anew
/// each time.
const KINDS: &[(usize, Kind)] = &[
    (18, DATA),
    (3, ERRORS),
    (14, CONNECTION),
    (14, TRANSACTIONS),
    (14, PUBSUB),
    (8, TRACKING),
    (6, SILENCE),
    (5, BLOCKING),
    (5, SCRIPTS),
    (3, TYPES),
    (2, NEWER),
    (1, REFUSED),
];

const DATA: &str = "
    SET %k %v; SET %k %v; SET %k %v GET; GET %k; GET %k; INCR %k; INCR n; APPEND %k %v; LPUSH l %v %v;
    RPUSH l %v; LRANGE l 0 -1; LPOP l; LPUSH %k x; HSET h f %v; HGETALL h; HGET h f; ZADD z 1.5 a;
    ZRANGE z 0 -1 WITHSCORES; ZSCORE z a; SADD s one; SMEMBERS s; SISMEMBER s one; DEL %k; DEL l;
    EXISTS %k l h; TYPE %k; XADD x 1-1 f v; XADD x 2-1 f v; XRANGE x - +; XLEN x; XINFO STREAM x;
    PERSIST %k; MGET %k %k h; STRLEN %k; COPY %k n; RENAME %k m; MOVE %k 1; DBSIZE; SWAPDB 0 1;
    FLUSHDB; OBJECT ENCODING n; INCRBYFLOAT n 1.5; SETRANGE %k 2 x; LPOS l 1; LMPOP 1 l LEFT;
    XGROUP CREATE x g 0 MKSTREAM; XREADGROUP GROUP g block COUNT 1 STREAMS x >;
    XREADGROUP GROUP g c STREAMS x 0; XREAD COUNT 1 STREAMS x 0; GEOADD geo 13.3 38.1 p;
    GEOPOS geo p q; BITFIELD %k GET u4 0; SORT l ALPHA; TOUCH %k; UNLINK %k l; SET marker %v;
    GET marker; EXPIRE %k 100; PEXPIRE %k 0";

const ERRORS: &str = "
    FOO; FOO bar; GET; SET k; INCR l; LPUSH n x; CLIENT; CLIENT FOO; CONFIG FOO; XREAD STREAMS;
    OBJECT FOO k; MEMORY FOO; COMMAND INFO foo; ACL FOO; SCRIPT FOO; PUBSUB FOO; CLUSTER INFO;
    DEBUG FOO; LATENCY FOO; PING a b; ECHO; GET k k; SELECT; XGROUP FOO; FUNCTION FOO";

const CONNECTION: &str = "
    PING; PING x; ECHO %v; SELECT %d; SELECT %d; SELECT %d; SELECT x; SELECT 99; SELECT -1; SELECT 01;
    SELECT 1 2; HELLO; HELLO 2; HELLO 3; HELLO 3; HELLO 4; HELLO x; HELLO 3 SETNAME %w;
    HELLO 2 SETNAME %w; HELLO 3 FOO; HELLO 3 SETNAME; HELLO 0 SETNAME %w; HELLO 3 SETNAME a\tb;
    HELLO 3 SETNAME %w SETNAME; HELLO 2 SETNAME %w FOO; CLIENT SETNAME %w;
    CLIENT SETNAME; CLIENT SETNAME %w x; CLIENT SETNAME a\tb; CLIENT GETNAME; CLIENT ID; CLIENT INFO;
    CLIENT LIST ID $main; CLIENT LIST ID $peer $main; CLIENT LIST ID 1; CLIENT LIST TYPE foo;
    CLIENT NO-EVICT on; CLIENT NO-EVICT off; CLIENT NO-EVICT x; CLIENT NO-TOUCH on;
    CLIENT NO-TOUCH off; CLIENT SETINFO LIB-NAME lib; CLIENT SETINFO LIB-VER 1.0; CLIENT SETINFO FOO x;
    READONLY; READWRITE; ASKING; RESET; RESET; RESET x; CLIENT KILL ID $peer;
    CLIENT KILL ID $main SKIPME no; CLIENT KILL ID $main; CLIENT KILL ID 1; CLIENT KILL 1.2.3.4:5;
    CLIENT UNBLOCK $peer; CLIENT UNBLOCK $main; CLIENT UNBLOCK 1; CLIENT UNBLOCK x; ACL WHOAMI;
    ACL CAT foo; WAIT 0 10; WAIT 1 10; COMMAND COUNT; COMMAND INFO get; CONFIG GET databases; QUIT;
    QUIT x";

const TRANSACTIONS: &str = "
    MULTI; MULTI; MULTI; MULTI; EXEC; EXEC; EXEC; EXEC; DISCARD; DISCARD; MULTI x; EXEC x; DISCARD x;
    WATCH %k; WATCH %k l; WATCH; WATCH n; UNWATCH; UNWATCH x; SELECT %d; SET %k %v";

const PUBSUB: &str = "
    SUBSCRIBE %c; SUBSCRIBE %c %c; SUBSCRIBE a b c; SUBSCRIBE a a; SUBSCRIBE; PSUBSCRIBE %p;
    PSUBSCRIBE %p %p; PSUBSCRIBE; SSUBSCRIBE %c; SSUBSCRIBE %c %c; SSUBSCRIBE; UNSUBSCRIBE;
    UNSUBSCRIBE; UNSUBSCRIBE %c; UNSUBSCRIBE %c %c; UNSUBSCRIBE z y; PUNSUBSCRIBE; PUNSUBSCRIBE %p;
    SUNSUBSCRIBE; SUNSUBSCRIBE %c; SUNSUBSCRIBE z %c; PUBLISH %c %v; PUBLISH %c %v; PUBLISH %c;
    SPUBLISH %c %v; PUBSUB NUMSUB %c; PUBSUB NUMPAT; PUBSUB SHARDNUMSUB %c; PUBSUB CHANNELS a*";

const TRACKING: &str = "
    CLIENT TRACKING on; CLIENT TRACKING on; CLIENT TRACKING ON NOLOOP; CLIENT TRACKING on OPTIN;
    CLIENT TRACKING on OPTOUT; CLIENT TRACKING on BCAST; CLIENT TRACKING on BCAST PREFIX k PREFIX n;
    CLIENT TRACKING on BCAST PREFIX k PREFIX k1; CLIENT TRACKING on PREFIX k;
    CLIENT TRACKING on BCAST OPTIN; CLIENT TRACKING on OPTIN OPTOUT; CLIENT TRACKING on REDIRECT $peer;
    CLIENT TRACKING on REDIRECT $main; CLIENT TRACKING on REDIRECT 1;
    CLIENT TRACKING on REDIRECT $peer BCAST; CLIENT TRACKING on REDIRECT x;
    CLIENT TRACKING on REDIRECT 0; CLIENT TRACKING off; CLIENT TRACKING off; CLIENT TRACKING off FOO;
    CLIENT TRACKING; CLIENT TRACKING foo; CLIENT TRACKING on FOO; CLIENT CACHING yes;
    CLIENT CACHING no; CLIENT CACHING; CLIENT CACHING x; CLIENT TRACKINGINFO; CLIENT GETREDIR; GET %k;
    SET %k %v";

const SILENCE: &str = "
    CLIENT REPLY OFF; CLIENT REPLY OFF; CLIENT REPLY ON; CLIENT REPLY ON; CLIENT REPLY ON;
    CLIENT REPLY SKIP; CLIENT REPLY SKIP; CLIENT REPLY; CLIENT REPLY x; CLIENT REPLY ON x";

const BLOCKING: &str = "
    BLPOP l 0; BLPOP l 0.01; BRPOP l %k 0.01; BLPOP %k 0; BLPOP k l; BLPOP l 0x1000; BLPOP l -1;
    BLMOVE l l2 LEFT RIGHT 0; BRPOPLPUSH l l2 0; BLMPOP 0 1 l LEFT; BLMPOP 0 0 l LEFT; BZPOPMIN z 0;
    BZPOPMAX z 0.01; BZMPOP 0 1 z MIN; XREAD BLOCK 0 STREAMS x $; XREAD BLOCK 10 STREAMS x 0;
    XREAD COUNT 1 BLOCK 0 STREAMS x x2 $ 0; XREADGROUP GROUP g block BLOCK 10 STREAMS x >;
    XREADGROUP GROUP g streams BLOCK 0 STREAMS x >; XREADGROUP GROUP block 100 BLOCK 10 STREAMS x >;
    XREAD BLOCK x STREAMS x $; XREAD BLOCK 0 STREAMS x; XREAD BLOCK 10 STREAMS n $";

const SCRIPTS: &str = "
    EVAL %e 0; EVAL %e 0; EVAL %e 1 k; EVAL_RO %e 0; SCRIPT LOAD %e; SCRIPT EXISTS %h; EVALSHA %h 0;
    EVALSHA %h 0; EVALSHA_RO %h 0; SCRIPT FLUSH; EVAL %e; EVAL %e x; EVALSHA foo 0; SCRIPT LOAD;
    FUNCTION LIST; FCALL f 0";

/// Their SHA1s are in [`SHA1S`].
const LUA: &[&str] = &[
    "return 1",
    "return {1,2,{3,'x',false}}",
    "return redis.call('SET','k','lua')",
    "return redis.error_reply('MY error')",
    "return redis.call('LPUSH','k',1)",
    "redis.call('SELECT',1) return redis.call('SET','marker','lua')",
    "redis.setresp(3) return redis.call('HGETALL','h')",
    "return redis.call('PUBLISH','a','lua')",
    "return {double=3.5}",
    "return redis.call('CLIENT','GETNAME')",
    "return redis.status_reply('QUEUED')",
    "syntax error",
];

/// Of the first three.
const SHA1S: &[&str] = &[
    "e0e1f9fabfc9d4800c877a703b823ac0578ff8db",
    "ee34673a99397cd2da229cb568b652c3f5ce86e6",
    "6ca3fdf50a24ee63d09511d6ee4d0ea892dddeb3",
];

const TYPES: &str = "
    DEBUG PROTOCOL string; DEBUG PROTOCOL integer; DEBUG PROTOCOL double; DEBUG PROTOCOL null;
    DEBUG PROTOCOL array; DEBUG PROTOCOL set; DEBUG PROTOCOL map; DEBUG PROTOCOL attrib;
    DEBUG PROTOCOL push; DEBUG PROTOCOL verbatim; DEBUG PROTOCOL true; DEBUG PROTOCOL false;
    DEBUG PROTOCOL bignum";

/// Of Redis 8 and Valkey 9. Older servers do not know them.
const NEWER: &str = "
    HGETEX h FIELDS 1 f; HGETDEL h FIELDS 1 f; HSETEX h FIELDS 1 f v; HPEXPIRE h 100000 FIELDS 1 f;
    XDELEX x IDS 1 1-1; XACKDEL x g IDS 1 1-1; CLIENT CAPA redirect; CLIENT IMPORT-SOURCE on;
    CLIENT SETINFO LIB-NAME newer; DELIFEQ k v; SET k v IFEQ v; DELEX k; DIGEST k; MSETEX 1 k v;
    CLIENT MAINT_NOTIFICATIONS on; WAITAOF 0 0 10; BLMOVEM l l2 LEFT RIGHT 0; HIMPORT h; CLUSTERSCAN 0;
    VADD v VALUES 2 1 2 e; SCRIPT SHOW x; FT.SEARCH i q; JSON.GET j;
    COMMANDLOG LEN slow; CLIENT NO-TOUCH on";

const REFUSED: &str = "
    SYNC; PSYNC ? -1; REPLCONF ACK 1; AUTH x; AUTH default x; AUTH nobody x; AUTH a b c; AUTH;
    HELLO 3 AUTH default x; HELLO 3 AUTH nobody x; HELLO 2 AUTH default;
    HELLO 3 AUTH default secret SETNAME %w; AUTH secret; AUTH default secret";

/// Bytes that are no array of bulk strings, or not quite.
const RAW: &[&str] = &[
    "PING\r\n",
    "SET k inline\r\n",
    "GET \"k\"\r\n",
    "\r\n",
    "*0\r\n",
    "*-1\r\n",
    "ECHO \"a b\\x41\"\r\n",
    "*1\r\n$0\r\n\r\n",
    "multi\r\n",
    "exec\r\n",
    "hello 3\r\n",
    "select 1\r\n",
    "   \r\n",
    "ping\n",
    "client reply skip\r\n",
    "subscribe a\r\n",
];

/// After these, Redis closes.
const BROKEN: &[&str] = &[
    "*1\r\n$x\r\n",
    "*x\r\n",
    "*1\r\nPING\r\n",
    "*1\r\n$-1\r\n",
    "*99999999999\r\n",
    "*1\r\n$99999999999\r\n",
    "GET \"unbalanced\r\n",
    "*2\r\n$3\r\nGET\r\n:1\r\n",
    "Host: x\r\n",
    "POST / HTTP/1.1\r\n\r\n",
];

const PEER: &str = "
    SET %k %v; SET %k %v; DEL %k; INCR n; PUBLISH %c %v; PUBLISH %c %v; PUBLISH %c %v; SPUBLISH %c %v;
    FLUSHALL; HELLO 3; SUBSCRIBE __redis__:invalidate; CLIENT UNBLOCK $main;
    CLIENT UNBLOCK $main ERROR; CLIENT LIST ID $main; SELECT %d; GET %k; CLIENT KILL ID $main;
    SCRIPT FLUSH; SCRIPT LOAD %e";

/// What a blocked command waits for.
const FEEDS: &str = "
    RPUSH l fed; ZADD z 1 fed; XADD x 9-8 f fed; RPUSH %k fed; XADD x 9-9 f v";

/// What a user's rights lack.
const RULES: &str = "
    -multi; -exec; -discard; -watch; -unwatch; -select; -subscribe; -psubscribe; -ssubscribe;
    -unsubscribe; resetchannels &a; -hello; -client|tracking; -client|setname; -client|caching;
    -client|info; -publish; -@scripting; resetkeys ~k*; -blpop; -get; -readonly; -client|no-evict;
    -@blocking; -ping; -echo; -set; -client|setinfo; -@dangerous; -client|getname; -reset;
    -script|load";

/// Commands, parted by semicolons.
type Kind = &'static str;

pub fn program(seed: u64) -> Program {
    Maker(Random(seed)).program()
}

struct Maker(Random);

impl Maker {
    fn one_in(&mut self, bound: usize) -> bool {
        self.0.below(bound) == 0
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.0.below(choices.len())]
    }

    fn line(&mut self, kind: Kind) -> &'static str {
        let lines: Vec<_> = kind.split(';').map(str::trim_start).collect();
        self.of(&lines)
    }

    fn program(&mut self) -> Program {
        let mode = match self.0.below(10) {
            0 | 1 => Mode::Restricted(self.rules()),
            2 => Mode::User(self.rules()),
            3 => Mode::Password,
            _ => Mode::Plain,
        };
        let mut steps = Vec::new();
        if mode == Mode::Password && !self.one_in(4) {
            steps.push(Step::of(Who::Main, &["AUTH secret"]));
        }
        if self.0.coin() {
            steps.push(Step::of(Who::Main, &["HELLO 3"]));
        }
        let reset = !matches!(mode, Mode::User(_));
        // What meets itself and one another more often than others.
        let themes = [self.kind(), self.kind()];
        for _ in 0..1 + self.0.below(4) {
            self.step(reset, themes, &mut steps);
        }
        if self.one_in(12) {
            let broken = Request::Raw(self.of(BROKEN).to_owned());
            steps.push(Step { by: Who::Main, requests: vec![broken], cut: None });
        }
        Program { mode, reloads: self.one_in(3), asks_id: !self.one_in(5), steps }
    }

    fn rules(&mut self) -> Vec<String> {
        (0..1 + self.0.below(3)).map(|_| self.line(RULES).to_owned()).collect()
    }

    fn step(&mut self, reset: bool, themes: [Kind; 2], steps: &mut Vec<Step>) {
        if self.one_in(5) {
            // What it depends on is done then, where replies come at all.
            steps.push(Step::of(Who::Main, &["ECHO now"]));
            let line = self.line(PEER);
            steps.push(self.peer(line));
            return;
        }
        let count = 1 + self.0.below(6);
        let (mut requests, mut blocks) = (Vec::new(), false);
        while requests.len() < count {
            let kind = match self.0.below(5) {
                0 | 1 => themes[0],
                2 => themes[1],
                _ => self.kind(),
            };
            let line = self.line(kind);
            // Of the server alone, the client would have another user afterwards.
            if !reset && (line.starts_with("RESET") || line.contains("AUTH default")) {
                continue;
            }
            blocks |= kind == BLOCKING;
            requests.push(if self.one_in(30) {
                Request::Raw(self.of(RAW).to_owned())
            } else {
                self.request(line, true)
            });
        }
        let (before, after) = match self.0.below(10) {
            0..=2 => {
                ("MULTI", self.of(&["EXEC", "EXEC", "EXEC", "EXEC", "DISCARD", "RESET", "PING"]))
            }
            3 => ("CLIENT REPLY OFF", "CLIENT REPLY ON"),
            4 => ("CLIENT REPLY SKIP", "ECHO after"),
            _ => ("", ""),
        };
        if !before.is_empty() && (reset || after != "RESET") {
            requests.insert(0, Request::of(before));
            requests.push(Request::of(after));
        }
        if self.one_in(3) {
            let cut = self.one_in(4).then(|| self.0.below(1000));
            steps.push(Step { by: Who::Main, requests, cut });
        } else {
            let alone = |request| Step { by: Who::Main, requests: vec![request], cut: None };
            steps.extend(requests.into_iter().map(alone));
        }
        if blocks && !self.one_in(4) {
            let line = self.line(FEEDS);
            steps.push(self.peer(line));
        }
    }

    fn kind(&mut self) -> Kind {
        let total = KINDS.iter().map(|(weight, _)| weight).sum();
        let mut at = self.0.below(total);
        for (weight, kind) in KINDS {
            match at.checked_sub(*weight) {
                Some(rest) => at = rest,
                None => return kind,
            }
        }
        unreachable!("below the sum of all weights");
    }

    fn peer(&mut self, line: &str) -> Step {
        let request = self.request(line, false);
        Step { by: Who::Peer, requests: vec![request], cut: None }
    }

    fn request(&mut self, line: &str, mangles: bool) -> Request {
        let mut words: Vec<String> = line.split(' ').map(|word| self.word(word)).collect();
        if mangles {
            match self.0.below(60) {
                0 => words.push("more".to_owned()),
                1 if words.len() > 1 => drop(words.pop()),
                2 => words[0] = words[0].to_ascii_lowercase(),
                3 => words.iter_mut().for_each(|word| word.make_ascii_uppercase()),
                _ => {}
            }
        }
        Request::Words(words)
    }

    fn word(&mut self, word: &str) -> String {
        let chosen = match word {
            "%k" => self.of(&["k", "k", "k1", "n"]),
            "%v" => return self.0.below(900).to_string(),
            "%d" => self.of(&["0", "1", "2", "5"]),
            "%w" => self.of(&["me", "you", ""]),
            "%c" => self.of(&["a", "b", "c"]),
            "%p" => self.of(&["a*", "*", "b?", "[ab]"]),
            "%e" => self.of(LUA),
            "%h" => self.of(SHA1S),
            _ => word,
        };
        chosen.to_owned()
    }
}
