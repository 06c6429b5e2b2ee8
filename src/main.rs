//! The `okta-responder` program; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    okta_responder::cli::main(std::env::args_os())
}
