//! The configuration file, rewritten when the uplink is another one: at once, or not at all.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::UplinkAddress;
use crate::random;

/// The most bytes of a configuration file.
const MOST: u64 = 1024 * 1024;

/// The line of a configuration file that names another uplink than the one in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outdated {
    /// The file's absolute path.
    pub file: PathBuf,
    /// The line of `uplink.addr`, counted from 1, where that is known.
    pub line: Option<usize>,
    /// What it says.
    pub from: String,
    /// What it should say.
    pub to: String,
    /// Why it could not be changed.
    pub why: String,
}

impl std::fmt::Display for Outdated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Outdated { file, line, from, to, why } = self;
        let file = file.display();
        write!(f, "change uplink.addr in ")?;
        if let Some(line) = line {
            write!(f, "line {line} of ")?;
        }
        write!(f, "{file} from {from} to {to}: {why}")
    }
}

/// Has the file name the uplink `to` in the place of `from`. Only that value is changed; owner, group and mode stay.
/// Gives what is left to be done by hand.
pub fn name_uplink(file: &Path, from: &str, to: &str) -> Result<(), Outdated> {
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let outdated = |line, from: &str, why: String| {
        let (from, to) = (from.to_owned(), to.to_owned());
        Outdated { file: file.clone(), line, from, to, why }
    };
    let unread = |why: String| outdated(None, from, why);
    let text = read(&file).map_err(|why| unread(format!("it cannot be read: {why}")))?;
    let found = UplinkAddress::find(&text).map_err(unread)?;
    if found.addr == to {
        return Ok(());
    }
    let replaced = found.replaced(&text, to);
    replace(&file, &replaced).map_err(|why| {
        outdated(Some(found.line), &found.addr, format!("it cannot be written: {why}"))
    })
}

/// Whether the file names this uplink.
pub fn names(file: &Path, uplink: &str) -> bool {
    let text = read(file).map_err(|why| why.to_string());
    text.and_then(|text| UplinkAddress::find(&text)).is_ok_and(|it| it.addr == uplink)
}

fn read(file: &Path) -> io::Result<String> {
    let meta = fs::metadata(file)?;
    // A pipe may never end, and what is read from it is gone.
    if !meta.is_file() || meta.len() > MOST {
        return Err(io::Error::other("it is no file of a reasonable size"));
    }
    fs::read_to_string(file)
}

/// Puts this text in the place of the file's, whole: whoever reads it sees the one or the other.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let before = fs::metadata(file)?;
    let dir = file.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = file.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let token = random::token().ok_or_else(|| io::Error::other("no randomness"))?;
    let new = dir.join(format!(".{name}.{}", token.get(..8).unwrap_or_default()));
    let written = write_beside(&new, text, &before).and_then(|()| fs::rename(&new, file));
    if written.is_err() {
        // It may not have been made.
        let _ = fs::remove_file(&new);
    }
    written?;
    File::open(dir)?.sync_all()
}

fn write_beside(new: &Path, text: &str, before: &fs::Metadata) -> io::Result<()> {
    // Nobody else may read it before it has the owner that it shall have.
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
    out.write_all(text.as_bytes())?;
    let now = out.metadata()?;
    if (now.uid(), now.gid()) != (before.uid(), before.gid()) {
        fchown(&out, Some(before.uid()), Some(before.gid()))?;
    }
    out.set_permissions(Permissions::from_mode(before.mode() & 0o7777))?;
    out.sync_all()
}
