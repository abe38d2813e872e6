//! The name of a command, for those who are told what runs. Pure.

/// A command's name, or its beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Name {
    bytes: [u8; Name::MOST],
    len: u8,
}

impl Name {
    const MOST: usize = 23;

    #[inline]
    pub fn new(name: &[u8]) -> Self {
        let len = name.len().min(Name::MOST);
        let mut bytes = [0; Name::MOST];
        bytes[..len].copy_from_slice(&name[..len]);
        Name { bytes, len: len as u8 }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes[..usize::from(self.len)]).into_owned()
    }

    #[inline]
    pub fn is(&self, name: &[u8]) -> bool {
        &self.bytes[..usize::from(self.len)] == name
    }
}
