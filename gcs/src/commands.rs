//! What an operator types to make a group and to let nodes in: `gcs init`, `gcs token`, `gcs join`, `gcs renew`.
//!
//! None of them leaves anything half done: what cannot be written is found before a token is used up, no file is ever
//! overwritten, and what was written goes again if something later fails.

mod error;
mod files;
mod init;
mod join;
mod layout;
mod renew;
mod token;

use std::process::ExitCode;

pub use error::CommandError;
pub use init::InitArgs;
pub use join::JoinArgs;
pub use renew::RenewArgs;
pub use token::TokenArgs;

pub fn init(args: &InitArgs) -> ExitCode {
    end(init::run(args))
}

pub fn token(args: &TokenArgs) -> ExitCode {
    end(token::run(args))
}

pub fn join(args: &JoinArgs) -> ExitCode {
    end(join::run(args))
}

pub fn renew(args: &RenewArgs) -> ExitCode {
    end(renew::run(args))
}

fn end(result: Result<(), CommandError>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("gcs: error: {error}");
    if let Some(hint) = error.hint() {
        eprintln!("hint: {hint}");
    }
    ExitCode::from(error.exit_status())
}
