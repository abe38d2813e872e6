//! The command line and its exit codes.

use serde_json::json;

use crate::common::{Proxy, redis, run_to_end};

fn valid(uplink: &str) -> String {
    json!({ "uplink": { "addr": uplink }, "listen": { "addr": "127.0.0.1:0" } }).to_string()
}

#[test]
fn a_check_that_passes_ends_with_0_and_binds_nothing() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    // Beside a proxy that runs on this very address.
    let config = json!({ "uplink": { "addr": redis.addr() }, "listen": { "addr": proxy.addr() } });
    let output = run_to_end(&["--check", "-f", "-"], &config.to_string());
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn a_refused_configuration_ends_with_78() {
    for args in [&["--check", "-f", "-"][..], &["-f", "-"]] {
        let output = run_to_end(args, "{}");
        assert_eq!(output.status.code(), Some(78));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("Missing listen address"), "{text}");
        assert!(text.contains("Missing uplink address"), "{text}");
    }
    let output = run_to_end(&["-f", "/does/not/exist.json"], "");
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8(output.stderr).unwrap().contains("/does/not/exist.json"));
}

#[test]
fn wrong_usage_ends_with_64() {
    for args in [&["--nonsense"][..], &["-f"], &["extra"], &["--log-format", "xml"]] {
        assert_eq!(run_to_end(args, "").status.code(), Some(64), "{args:?}");
    }
}

#[test]
fn help_and_version_end_with_0_on_standard_output() {
    for (arg, text) in [("--help", "--check"), ("--version", env!("CARGO_PKG_VERSION"))] {
        let output = run_to_end(&[arg], "");
        assert_eq!(output.status.code(), Some(0));
        assert!(String::from_utf8(output.stdout).unwrap().contains(text));
    }
}

#[test]
fn an_address_that_is_taken_ends_with_1() {
    let redis = redis();
    let config = json!({ "uplink": { "addr": redis.addr() }, "listen": { "addr": redis.addr() } });
    let output = run_to_end(&["-f", "-"], &config.to_string());
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&redis.addr()));
}

#[test]
fn the_file_is_config_json_where_none_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let run = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_redis-proxy"));
        command.arg("--check").current_dir(dir.path()).output().unwrap()
    };
    assert_eq!(run().status.code(), Some(78));
    let redis = redis();
    std::fs::write(dir.path().join("config.json"), valid(&redis.addr())).unwrap();
    assert_eq!(run().status.code(), Some(0));
}

#[test]
fn log_format_json_is_an_object_a_line() {
    let output = run_to_end(&["--log-format", "json", "-f", "-"], "{}");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.lines().count() >= 2);
    for line in text.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).unwrap().is_object());
    }
}
