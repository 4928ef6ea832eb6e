//! What an operator types to make a group and to let nodes in, and to go on with what is left of one: `gcs init`, `gcs token`, `gcs join`,
//! `gcs renew`, `gcs recover`; and to get out of a full disk: `gcs reserve`.
//!
//! None of them leaves anything half done: what cannot be written is found before a token is used up, no file is ever
//! overwritten, and what was written goes again if something later fails.

mod error;
mod files;
mod init;
mod join;
mod layout;
mod recover;
mod renew;
mod report;
mod reserve;
mod token;

use std::process::ExitCode;

pub use error::CommandError;
pub use init::InitArgs;
pub use join::JoinArgs;
pub use recover::RecoverArgs;
pub use renew::RenewArgs;
pub use reserve::ReserveArgs;
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

pub fn reserve(args: &ReserveArgs) -> ExitCode {
    end(reserve::run(args))
}

pub fn renew(args: &RenewArgs) -> ExitCode {
    end(renew::run(args))
}

/// Nothing was done, because it was not said that it shall be.
const ONLY_SAID: u8 = 3;

pub fn recover(args: &RecoverArgs) -> ExitCode {
    match recover::run(args) {
        Ok(recover::Done::OnlySaid) => ExitCode::from(ONLY_SAID),
        Ok(recover::Done::Recovered) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn end(result: Result<(), CommandError>) -> ExitCode {
    result.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
}

fn failed(error: &CommandError) -> ExitCode {
    eprintln!("gcs: error: {error}");
    if let Some(hint) = error.hint() {
        eprintln!("hint: {hint}");
    }
    ExitCode::from(error.exit_status())
}
