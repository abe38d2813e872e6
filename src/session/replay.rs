//! What a fresh uplink must be told before it can serve a client in this state. Pure.

use super::state::State;
use crate::resp::encode;

/// Requests in their order, each of which must be answered with `+OK`.
pub(super) fn requests(state: &State) -> Vec<Vec<u8>> {
    let mut requests = Vec::new();
    if state.db != 0 {
        requests.push(encode::request(["SELECT", &state.db.to_string()]));
    }
    requests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_is_chosen_again() {
        let mut state = State::default();
        assert!(requests(&state).is_empty());
        state.db = 7;
        assert_eq!(requests(&state), [b"*2\r\n$6\r\nSELECT\r\n$1\r\n7\r\n"]);
    }
}
