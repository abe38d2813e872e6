//! Dependencies point one way, between modules and inside of them: this reads the paths in the
//! source, in `use` declarations and elsewhere, and holds the table of `doc/architecture.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module and what it may use of this crate.
const ALLOWED: &[(&str, &[&str])] = &[
    ("main", &["app", "cli", "config", "ctl", "exit", "generation", "log", "signal"]),
    (
        "app",
        &[
            "admin",
            "controller",
            "generation",
            "limits",
            "listener",
            "notify",
            "reception",
            "shared",
            "signal",
            "worker",
        ],
    ),
    ("cli", &["config", "log"]),
    ("ctl", &["cli", "config", "config_file", "dial", "exit", "signal", "tls", "transport"]),
    (
        "admin",
        &[
            "changeover",
            "config",
            "controller",
            "crowd",
            "listener",
            "log",
            "metrics",
            "reception",
            "shared",
            "transport",
        ],
    ),
    (
        "controller",
        &[
            "changeover",
            "config",
            "config_file",
            "discovery",
            "gate",
            "generation",
            "limits",
            "lock",
            "log",
            "metrics",
            "notices",
            "notify",
            "outage",
            "random",
            "reception",
            "redact",
            "resp",
            "server",
            "shared",
            "transport",
            "uplink",
        ],
    ),
    (
        "reception",
        &["config", "generation", "listener", "lock", "raw", "session", "shared", "worker"],
    ),
    ("listener", &["config", "log", "transport"]),
    ("worker", &[]),
    (
        "session",
        &[
            "changeover",
            "clock",
            "command",
            "config",
            "gate",
            "generation",
            "log",
            "metrics",
            "notices",
            "outage",
            "redact",
            "resp",
            "roster",
            "scripts",
            "shared",
            "strangers",
            "transport",
            "uplink",
        ],
    ),
    (
        "shared",
        &[
            "changeover",
            "gate",
            "generation",
            "lock",
            "log",
            "metrics",
            "notices",
            "outage",
            "roster",
            "scripts",
            "stop",
            "strangers",
            "uplink",
        ],
    ),
    (
        "changeover",
        &[
            "clock",
            "command",
            "generation",
            "lock",
            "random",
            "resp",
            "server",
            "transport",
            "uplink",
        ],
    ),
    ("roster", &["lock"]),
    ("scripts", &["lock"]),
    ("raw", &["generation", "lock", "log", "metrics", "transport"]),
    (
        "generation",
        &["config", "discovery", "lock", "resp", "server", "tls", "transport", "uplink"],
    ),
    ("discovery", &["config", "dial", "lock", "resp", "server", "uplink"]),
    ("server", &["redact", "resp", "uplink"]),
    ("uplink", &["command", "config", "dial", "redact", "resp", "tls", "transport"]),
    ("dial", &["config", "transport"]),
    ("tls", &["config"]),
    ("transport", &[]),
    ("clock", &[]),
    ("gate", &["lock"]),
    ("limits", &[]),
    ("lock", &[]),
    ("metrics", &[]),
    ("notices", &["lock"]),
    ("notify", &[]),
    ("signal", &[]),
    ("stop", &[]),
    ("outage", &[]),
    ("strangers", &["crowd", "lock"]),
    ("crowd", &["lock"]),
    ("random", &[]),
    ("redact", &[]),
    ("command", &[]),
    ("config_file", &["config", "random"]),
    ("config", &["redact"]),
    ("resp", &[]),
    ("log", &["lock"]),
    ("exit", &[]),
];

/// These must not know an async runtime.
const PURE: &[&str] = &[
    "admin/host.rs",
    "admin/routes.rs",
    "changeover/client_ids.rs",
    "changeover/facets.rs",
    "command/mod.rs",
    "command/grammar.rs",
    "command/learnt.rs",
    "command/table.rs",
    "command/words.rs",
    "server/info.rs",
    "ctl/api.rs",
    "ctl/progress.rs",
    "ctl/render.rs",
    "ctl/units.rs",
    "metrics.rs",
    "gate/shard.rs",
    "resp/mod.rs",
    "resp/encode.rs",
    "resp/inline.rs",
    "resp/number.rs",
    "resp/reply.rs",
    "resp/request.rs",
    "session/protocol/auth.rs",
    "scripts.rs",
    "session/protocol/expected.rs",
    "session/blocking.rs",
    "session/protocol/effect.rs",
    "session/protocol/fieldsets.rs",
    "session/protocol/pending.rs",
    "session/protocol/pending/settle.rs",
    "session/protocol/queue.rs",
    "session/protocol/replay.rs",
    "session/protocol/requested.rs",
    "session/protocol/state.rs",
    "session/protocol/frame_filter.rs",
    "session/protocol/tracking.rs",
    "session/protocol/transaction.rs",
    "session/turn.rs",
    "controller/switch/felt.rs",
    "controller/switch/glob.rs",
    "controller/switch/user.rs",
    "uplink/script.rs",
    "uplink/unblock.rs",
    "config/mod.rs",
    "config/read.rs",
];

/// A module's path in the crate, as its names: `controller::switch::undo` is three. The crate's root
/// has none.
type Module = Vec<String>;

/// What each file uses of this crate's other files.
struct Uses(BTreeMap<Module, BTreeSet<Module>>);

fn source(under: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(under).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| if path.is_dir() { source(&path) } else { vec![path] });
    files.filter(|path| path.extension().is_some_and(|it| it == "rs")).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn module(file: &Path) -> Module {
    let inside = file.strip_prefix(root()).unwrap().with_extension("");
    let names = inside.iter().map(|name| name.to_str().unwrap().to_owned());
    names.filter(|name| name != "mod" && name != "lib").collect()
}

/// The code without comments, without `pub(in path)`, and without its tests, which may use anything.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let lines = text.lines().map(|line| line.split("//").next().unwrap());
    let text = lines.collect::<Vec<_>>().join("\n");
    let mut parts = text.split("pub(");
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |code, part| code + "pub" + part.split_once(')').unwrap().1)
}

/// Every path in the code with two names or more: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn paths(code: &str) -> Vec<Module> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find(is_of_name) {
        rest = paths_at(&rest[at..], &[], &mut found);
    }
    found.retain(|path| path.len() > 1);
    found
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Adds the paths that begin here, behind `prefix`, and gives what follows them.
fn paths_at<'a>(code: &'a str, prefix: &[String], found: &mut Vec<Module>) -> &'a str {
    let end = code.find(|c| !is_of_name(c)).unwrap_or(code.len());
    let (name, rest) = code.split_at(end);
    let path = [prefix, &[name.to_owned()]].concat();
    let Some(next) = rest.strip_prefix("::") else {
        found.push(path);
        return rest;
    };
    if let Some(mut list) = next.strip_prefix('{') {
        loop {
            list = list.trim_start_matches([' ', '\n', ',']);
            if let Some(rest) = list.strip_prefix('}') {
                return rest;
            }
            list = paths_at(list, &path, found);
            // A new name that is given to it, and `*`.
            list = &list[list.find([',', '}']).unwrap()..];
        }
    }
    if next.starts_with(is_of_name) {
        return paths_at(next, &path, found);
    }
    // `::*`, and `::<T>`.
    found.push([path, vec![String::new()]].concat());
    next
}

impl Uses {
    /// Of all files.
    fn read() -> Uses {
        let files: BTreeMap<Module, String> =
            source(&root()).iter().map(|file| (module(file), code(file))).collect();
        let uses = files.iter().map(|(module, code)| {
            let used = paths(code).into_iter().filter_map(|path| {
                let path = absolute(module, path, &files)?;
                let file = (0..=path.len()).rev().find(|end| files.contains_key(&path[..*end]))?;
                Some(path[..file].to_vec()).filter(|used| used != module)
            });
            (module.clone(), used.collect())
        });
        Uses(uses.collect())
    }

    /// Files that use one another in a circle, if there is one.
    fn circle(&self) -> Option<Vec<Module>> {
        let mut done = BTreeSet::new();
        self.0.keys().find_map(|file| self.circle_from(file, &mut Vec::new(), &mut done))
    }

    /// `way` leads to this file; from the files in `done`, no way leads into a circle.
    fn circle_from(
        &self,
        file: &Module,
        way: &mut Vec<Module>,
        done: &mut BTreeSet<Module>,
    ) -> Option<Vec<Module>> {
        let before = way.iter().position(|it| it == file);
        way.push(file.clone());
        if let Some(at) = before {
            return Some(way.split_off(at));
        }
        if !done.contains(file) {
            let circle = self.0[file].iter().find_map(|used| self.circle_from(used, way, done));
            if circle.is_some() {
                return circle;
            }
            done.insert(file.clone());
        }
        way.pop();
        None
    }
}

/// The path from the crate's root; `None` if it is another crate's, or a name that is not a module's.
fn absolute(module: &Module, path: Module, files: &BTreeMap<Module, String>) -> Option<Module> {
    let ups = path.iter().take_while(|name| *name == "super").count();
    match path[0].as_str() {
        "crate" | "redis_proxy" => Some(path[1..].to_vec()),
        "self" => Some([&module[..], &path[1..]].concat()),
        "super" => Some([&module[..module.len() - ups], &path[ups..]].concat()),
        // A child needs no `self`.
        child => {
            let is_child = files.contains_key(&[&module[..], &[child.to_owned()]].concat());
            is_child.then(|| [&module[..], &path[..]].concat())
        }
    }
}

#[test]
fn modules_use_only_what_is_below_them() {
    let Uses(uses) = Uses::read();
    let mut seen = BTreeSet::new();
    for (file, used) in uses.iter().filter(|(file, _)| !file.is_empty()) {
        let module = file[0].as_str();
        seen.insert(module);
        let (_, allowed) = ALLOWED
            .iter()
            .find(|(name, _)| *name == module)
            .unwrap_or_else(|| panic!("{module} is not in the table"));
        for used in used.iter().filter_map(|used| used.first()) {
            assert!(
                used == module || allowed.contains(&used.as_str()),
                "{}: {module} may not use {used}",
                file.join("::")
            );
        }
    }
    let table: BTreeSet<&str> = ALLOWED.iter().map(|(name, _)| *name).collect();
    assert_eq!(seen, table);
}

#[test]
fn the_table_has_no_circle() {
    let mut left = ALLOWED.to_vec();
    // Whatever uses nothing that is left is no part of a circle.
    while let Some(at) = left
        .iter()
        .position(|(_, uses)| uses.iter().all(|used| left.iter().all(|(module, _)| module != used)))
    {
        left.swap_remove(at);
    }
    let left: Vec<_> = left.iter().map(|(module, _)| module).collect();
    assert!(left.is_empty(), "a circle is among {left:?}");
}

#[test]
fn no_files_use_one_another_in_a_circle() {
    let circle = Uses::read().circle().unwrap_or_default();
    let circle: Vec<_> = circle.iter().map(|module| module.join("::")).collect();
    assert!(circle.is_empty(), "a circle: {}", circle.join(" uses "));
}

/// The names of the methods in the `impl Session` of this code, each with the names of what it calls.
fn methods(code: &str) -> Vec<(String, BTreeSet<String>)> {
    let mut found: Vec<(String, BTreeSet<String>)> = Vec::new();
    let mut is_inside = false;
    for line in code.lines() {
        match line {
            "impl Session {" => is_inside = true,
            "}" => is_inside = false,
            _ => {}
        }
        let head = line.strip_prefix("    ").filter(|_| is_inside);
        // `code` leaves `pub` of `pub(super)`.
        let head =
            head.map(|head| head.strip_prefix("pub").unwrap_or(head).trim_start_matches(' '));
        if let Some(rest) = head.and_then(|head| head.strip_prefix("fn ")) {
            let name = rest.split(|c| !is_of_name(c)).next().unwrap();
            found.push((name.to_owned(), BTreeSet::new()));
        }
        let Some((_, calls)) = found.last_mut().filter(|_| is_inside) else { continue };
        for session in ["self.", "session."] {
            let called = line.split(session).skip(1).map(|rest| {
                rest.split_at_checked(rest.find(|c| !is_of_name(c)).unwrap_or(rest.len()))
            });
            let called = called.flatten().filter(|(_, rest)| rest.starts_with('('));
            calls.extend(called.map(|(name, _)| name.to_owned()));
        }
    }
    found
}

#[test]
fn methods_of_a_session_call_those_of_other_files_in_one_direction() {
    let files: BTreeMap<Module, _> = source(&root().join("session"))
        .iter()
        .filter(|file| !file.components().any(|it| it.as_os_str() == "tests"))
        .map(|file| (module(file), methods(&code(file))))
        .collect();
    let place: BTreeMap<&str, &Module> = files
        .iter()
        .flat_map(|(file, methods)| methods.iter().map(move |(name, _)| (name.as_str(), file)))
        .collect();
    assert!(place.len() > 100, "{} methods were found", place.len());
    let uses = files.iter().map(|(file, methods)| {
        let called = methods.iter().flat_map(|(_, calls)| calls);
        let called = called.filter_map(|name| place.get(name.as_str()).copied());
        (file.clone(), called.filter(|it| *it != file).cloned().collect())
    });
    let circle = Uses(uses.collect()).circle().unwrap_or_default();
    let circle: Vec<_> = circle.iter().map(|module| module.join("::")).collect();
    assert!(circle.is_empty(), "a circle: {}", circle.join(" calls "));
}

#[test]
fn paths_are_found_wherever_they_stand() {
    let code = "use super::{A, b::{self, C as D}, e::*};\nfn f(g: crate::h::I) { j::k::<L>(m.n) }";
    let found: Vec<_> = paths(code).iter().map(|path| path.join("::")).collect();
    let wanted =
        ["super::A", "super::b::self", "super::b::C", "super::e::", "crate::h::I", "j::k::"];
    assert_eq!(found, wanted);
}

/// The picture of the layers in `doc/architecture.md`: what each entry names, as a path under `src` without
/// its ending, and what the picture says of it.
fn picture() -> Vec<(PathBuf, String)> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("doc/architecture.md");
    let page = fs::read_to_string(page).unwrap();
    let section = page.split("## The layers").nth(1).unwrap();
    let section = section.split("\nWhere the next storeys go").next().unwrap();
    let mut entries = Vec::new();
    let mut above = PathBuf::new();
    for line in section.lines().filter(|line| line.starts_with("    ")) {
        // Names and what is said of them take turns, parted by blanks.
        let mut columns = line.split("  ").map(str::trim).filter(|column| !column.is_empty());
        let is_inside = line.starts_with("      ");
        while let Some(names) = columns.next() {
            let said = columns.next().unwrap_or_default();
            for name in names.split(", ").filter(|name| *name != "...") {
                let name = name.trim_end_matches('/');
                let path = if is_inside { above.join(name) } else { PathBuf::from(name) };
                entries.push((path, said.to_owned()));
            }
        }
        if !is_inside {
            above.clone_from(&entries.last().unwrap().0);
        }
    }
    entries
}

/// The files of a module: one, or all of a directory.
fn files_of(module: &Path) -> Vec<PathBuf> {
    let (file, directory) = (root().join(module).with_extension("rs"), root().join(module));
    match (file.is_file(), directory.is_dir()) {
        (true, _) => vec![file],
        (false, true) => source(&directory),
        (false, false) => Vec::new(),
    }
}

#[test]
fn what_the_picture_of_the_layers_names_is_there() {
    let entries = picture();
    assert!(entries.len() > 40, "read {} names only", entries.len());
    let missing: Vec<_> = entries.iter().filter(|(it, _)| files_of(it).is_empty()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Files that say themselves that they are pure, as the last word of a line of their page.
fn says_that_it_is_pure(file: &Path) -> bool {
    let text = fs::read_to_string(file).unwrap();
    let mut page = text.lines().take_while(|line| line.starts_with("//!"));
    page.any(|line| line.ends_with(" Pure."))
}

#[test]
fn the_pure_parts_know_no_runtime() {
    let listed = PURE.iter().map(|file| root().join(file));
    let picture = picture();
    let pictured = picture.iter().filter(|(_, said)| said.contains("(pure)"));
    let pictured = pictured.flat_map(|(module, _)| files_of(module));
    let saying = source(&root()).into_iter().filter(|file| says_that_it_is_pure(file));
    let pure: BTreeSet<PathBuf> = listed.chain(pictured).chain(saying).collect();
    for file in pure {
        let text = fs::read_to_string(&file).unwrap();
        for word in ["tokio", "async ", ".await;", ".await?", "std::fs", "TcpStream"] {
            assert!(!text.contains(word), "{}: {word}", file.display());
        }
    }
}

#[test]
fn files_stay_readable() {
    for file in source(&root()) {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= 500, "{}: {lines} lines", file.display());
    }
}
