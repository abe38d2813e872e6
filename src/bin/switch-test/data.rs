//! Data that nobody touches: there must be something to copy, and it must be the same afterwards.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use redis::{RedisError, cmd, pipe};
use redis_proxy::probe::{Faults, Part, Row};

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

    /// Reads it.
    pub fn verify(&self, servers: &mut [Server; 2]) -> Result<Row, Trouble> {
        let mut part = Part::default();
        for server in servers {
            for piece in self.pieces() {
                let mut mget = cmd("MGET");
                for number in piece.clone() {
                    mget.arg(key(number));
                }
                let values: Result<Vec<Option<Vec<u8>>>, RedisError> =
                    mget.query(server.connection());
                let values = values.map_err(|why| server.trouble(why))?;
                let wrong =
                    piece.zip(values).filter(|(it, found)| *found != Some(value(*it))).count()
                        as u64;
                part.tally.operations += PIECE as u64;
                if wrong > 0 {
                    let mut faults = Faults { lost: wrong, ..Faults::default() };
                    faults.say(format!(
                        "redis-server {}: {wrong} values are not as they were",
                        server.name
                    ));
                    part.faults.add(faults);
                }
            }
        }
        Ok(Row { kind: "data at rest", clients: 0, part })
    }

    fn pieces(&self) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let count = self.count;
        (0..count).step_by(PIECE).map(move |from| from..(from + PIECE).min(count))
    }
}

fn key(number: usize) -> String {
    format!("data:{number}")
}

/// The same for the same number, and nothing that compression makes smaller.
fn value(number: usize) -> Vec<u8> {
    let seed = BuildHasherDefault::<DefaultHasher>::default();
    let words = (0..SIZE / 8).map(|word| seed.hash_one((number, word)));
    words.flat_map(u64::to_le_bytes).collect()
}
