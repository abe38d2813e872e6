//! One value of a configuration file is changed; all else stays as it is, to the byte. Pure.

use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

/// A text in which the uplink's address was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UplinkAddress {
    /// Where the value stands, quotes included.
    at: Range<usize>,
    /// The line, counted from 1.
    pub line: usize,
    /// What it says.
    pub addr: String,
}

#[derive(Deserialize)]
struct Whole<'a> {
    #[serde(borrow)]
    uplink: &'a RawValue,
}

#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow)]
    addr: &'a RawValue,
}

impl UplinkAddress {
    /// Finds `uplink.addr`, or tells why there is none.
    pub fn find(text: &str) -> Result<Self, String> {
        let whole: Whole<'_> = serde_json::from_str(text).map_err(|why| why.to_string())?;
        let uplink = whole.uplink.get();
        let block: Block<'_> =
            serde_json::from_str(uplink).map_err(|why| format!("uplink: {why}"))?;
        let value = block.addr.get();
        let addr = serde_json::from_str(value).map_err(|why| format!("uplink.addr: {why}"))?;
        // What was read is a part of the text.
        let start = value.as_ptr().addr() - text.as_ptr().addr();
        let line = text[..start].lines().count().max(1);
        Ok(UplinkAddress { at: start..start + value.len(), line, addr })
    }

    /// The text in which this was found, with another address.
    pub fn replaced(&self, text: &str, addr: &str) -> String {
        let value = serde_json::Value::from(addr).to_string();
        [&text[..self.at.start], &value, &text[self.at.end..]].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_alone_is_changed() {
        let text = "{ \"listen\": {\"addr\":\"a:1\"},\n  \"uplink\" :\n {\"pass\": \"\\u0041\", \
                    \"addr\"  :  \"old:1\" ,\"tls\":true} , \"x\": 1e2}\n";
        let found = UplinkAddress::find(text).expect("it is there");
        assert_eq!((found.addr.as_str(), found.line), ("old:1", 3));
        assert_eq!(found.replaced(text, "new:2"), text.replace("old:1", "new:2"));
        let escaped =
            UplinkAddress::find("{\"uplink\":{\"addr\":\"\\u0061:1\"}}").expect("it is there");
        assert_eq!((escaped.addr.as_str(), escaped.line), ("a:1", 1));
    }

    #[test]
    fn a_text_without_one_address_of_an_uplink_is_refused() {
        for text in [
            "",
            "{",
            "[]",
            "{}",
            "{\"uplink\": 1}",
            "{\"uplink\": {}}",
            "{\"uplink\": {\"addr\": 1}}",
            "{\"uplink\": {\"addr\": \"a:1\", \"addr\": \"a:2\"}}",
            "{\"uplink\": {\"addr\": \"a:1\"}, \"uplink\": {\"addr\": \"a:2\"}}",
            "{\"uplink\": {\"addrs\": [\"a:1\"]}}",
        ] {
            UplinkAddress::find(text).expect_err(text);
        }
    }
}
