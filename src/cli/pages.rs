//! Shell completions and manual pages, out of the definition of the command line.

use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use super::definition::Cli;

/// A script that completes the command line.
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, &mut script);
    script
}

/// The main page.
pub fn man(to: &mut dyn Write) -> io::Result<()> {
    Man::new(Cli::command().disable_help_subcommand(true)).render(to)
}

/// The main page and one of each command, a file for each.
pub fn man_to(dir: &Path) -> io::Result<()> {
    clap_mangen::generate_to(Cli::command(), dir)
}
