//! What a fresh uplink must be told before it can serve a client in this state. Pure.

use super::state::Carried;
use crate::resp::encode;

/// What a connection that nobody has used yet is like.
const FRESH: Carried = Carried { resp3: false, db: 0 };

/// Requests in their order, none of which may be answered with an error.
pub(super) fn requests(state: Carried) -> Vec<Vec<u8>> {
    difference(FRESH, state)
}

/// The same, for a connection that was told of an earlier state.
pub(super) fn difference(told: Carried, state: Carried) -> Vec<Vec<u8>> {
    let mut requests = Vec::new();
    if told.resp3 != state.resp3 {
        requests.push(encode::request(["HELLO", if state.resp3 { "3" } else { "2" }]));
    }
    if told.db != state.db {
        requests.push(encode::request(["SELECT", &state.db.to_string()]));
    }
    requests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_and_database_are_chosen_again() {
        let state = Carried { resp3: true, db: 7 };
        assert!(requests(FRESH).is_empty());
        let hello = encode::request(["HELLO", "3"]);
        let select = encode::request(["SELECT", "7"]);
        assert_eq!(requests(state), [&hello[..], &select[..]]);
        assert!(difference(state, state).is_empty());
        let (hello, select) = (encode::request(["HELLO", "2"]), encode::request(["SELECT", "0"]));
        assert_eq!(difference(state, FRESH), [&hello[..], &select[..]]);
    }
}
