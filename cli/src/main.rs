//! The `quorate` command.
//!
//! Parsing and dispatch only: each subcommand has its own module, returns how the process should
//! end and never ends it itself, so that whatever it holds (child processes above all) is dropped.

mod arguments;
mod demo;
mod operator;
mod output;

use std::process::ExitCode;

use arguments::{Arguments, Subcommand};

fn main() -> ExitCode {
    let arguments = match Arguments::parse_checked() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version come this way too, with exit code 0 and on standard output.
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            return if error.print().is_ok() { ExitCode::from(code) } else { ExitCode::from(2) };
        }
    };
    match arguments.subcommand {
        Subcommand::Demo(options) => demo::run(&options),
        Subcommand::Status(options) => operator::status(&options),
        Subcommand::Member(options) => operator::member(&options),
        Subcommand::Recover(options) => operator::recover(&options),
        Subcommand::DemoNode => demo::run_node(),
    }
}
