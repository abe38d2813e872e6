//! Data that nobody touches: there must be something to copy, and it must be the same afterwards.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use probe::{Faults, Part, Row, Verdict};
use redis::{RedisError, cmd, pipe};

use crate::process::Trouble;
use crate::server::Server;

/// Of each value.
const SIZE: usize = 10_000;
/// Written, or read, at once.
const PIECE: usize = 100;

/// So many values.
pub struct Data {
    count: usize,
}

impl Data {
    /// Writes it.
    pub fn write(megabytes: usize, server: &mut Server) -> Result<Self, Trouble> {
        let data = Data { count: megabytes * 1_000_000 / SIZE };
        for piece in data.pieces() {
            let mut pipe = pipe();
            for number in piece {
                pipe.cmd("SET").arg(key(number)).arg(value(number)).ignore();
            }
            let done: Result<(), RedisError> = pipe.query(server.connection());
            done.map_err(|why| server.trouble(why))?;
        }
        Ok(data)
    }

    /// Reads it on all of these servers, and says so. What is not as it was is lost.
    pub fn verify(&self, servers: &mut [Server], verdict: &mut Verdict) -> Result<String, Trouble> {
        let both = if servers.len() > 1 { "the same on both" } else { "as they were" };
        let mut faults = Faults::default();
        for server in servers {
            let mut wrong = 0;
            for piece in self.pieces() {
                let mut mget = cmd("MGET");
                for number in piece.clone() {
                    mget.arg(key(number));
                }
                let values: Result<Vec<Option<Vec<u8>>>, RedisError> =
                    mget.query(server.connection());
                let values = values.map_err(|why| server.trouble(why))?;
                wrong += piece.zip(values).filter(|(it, at)| *at != Some(value(*it))).count();
            }
            if wrong > 0 {
                faults.lost += wrong as u64;
                faults.say(format!("Redis {}: {wrong} values are not as they were", server.name));
            }
        }
        let said = match faults.none() {
            true => format!("{} values that nobody touched are {both}", self.count),
            false => "of the values that nobody touched, some are not the same".to_owned(),
        };
        if !faults.none() {
            let part = Part { faults, ..Part::default() };
            verdict.rows.push(Row { kind: "data at rest", clients: 0, part });
        }
        Ok(said)
    }

    fn pieces(&self) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let count = self.count;
        (0..count).step_by(PIECE).map(move |from| from..(from + PIECE).min(count))
    }
}

fn key(number: usize) -> String {
    format!("data:{number}")
}

/// A value that a number always gives, and that compression does not make smaller.
fn value(number: usize) -> Vec<u8> {
    let seed = BuildHasherDefault::<DefaultHasher>::default();
    let words = (0..SIZE / 8).map(|word| seed.hash_one((number, word)));
    words.flat_map(u64::to_le_bytes).collect()
}
