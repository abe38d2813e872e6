//! Shell completions and manual pages, made from the definition of the command line.

use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use super::definition::Cli;

/// The completion script for a shell.
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, &mut script);
    script
}

/// Writes the main manual page.
pub fn man(to: &mut dyn Write) -> io::Result<()> {
    Man::new(Cli::command().disable_help_subcommand(true)).render(to)
}

/// Writes the main manual page and one page for each command, each to a file of its own.
pub fn man_to(dir: &Path) -> io::Result<()> {
    clap_mangen::generate_to(Cli::command(), dir)
}
