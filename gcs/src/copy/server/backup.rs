//! pg_basebackup, from the other end of a tunnel.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::copy::programs::{ProgramError, program, run};
use crate::copy::progress::Progress;
use crate::peers::Tunnel;

const PROGRAM: &str = "pg_basebackup";

pub struct Backup<'a> {
    pub programs: Option<&'a Path>,
    pub tunnel: &'a Tunnel,
    pub label: &'a str,
    pub into: &'a Path,
}

/// Where the programs of the server's version are: as the configuration says, or as on the other node, or where a shell would find them.
pub fn programs(configured: Option<&Path>, there: &str) -> Option<PathBuf> {
    let same = || Some(PathBuf::from(there)).filter(|directory| !there.is_empty() && directory.join(PROGRAM).is_file());
    configured.map(Path::to_owned).or_else(same)
}

/// The major version of the programs, which is that of the server that will be started.
pub async fn major(programs: Option<&Path>) -> Result<i32, ProgramError> {
    let mut command = program(programs, PROGRAM);
    let path = PathBuf::from(command.as_std().get_program());
    let output = command.arg("--version").stdout(Stdio::piped()).output().await;
    let output = output.map_err(|source| ProgramError::Start { path, source })?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = format!("it does not say its version but \"{}\"", said.trim());
    major_in(&said).ok_or(ProgramError::Failed { program: PROGRAM, complaint })
}

/// Of "pg_basebackup (PostgreSQL) 17.2 (Debian 17.2-1)".
fn major_in(said: &str) -> Option<i32> {
    let version = said.split_once("(PostgreSQL) ")?.1;
    let digits = version.find(|c: char| !c.is_ascii_digit()).map_or(version, |end| &version[..end]);
    digits.parse().ok()
}

impl Backup<'_> {
    pub async fn run(&self, progress: &Progress) -> Result<(), ProgramError> {
        let mut command = program(self.programs, PROGRAM);
        command.args(["--wal-method=stream", "--checkpoint=fast", "--label", self.label]);
        command.arg("--pgdata").arg(self.into);
        command.arg("--host").arg(&self.tunnel.directory).args(["--port", &Tunnel::PORT.to_string()]);
        let user: OsString = (&self.tunnel.superuser).into();
        command.arg("--username").arg(user);
        progress.while_running(self.into, run(command, PROGRAM)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_the_program_says() {
        assert_eq!(major_in("pg_basebackup (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)\n"), Some(15));
        assert_eq!(major_in("pg_basebackup (PostgreSQL) 18.6\n"), Some(18));
        assert_eq!(major_in("pg_basebackup (PostgreSQL) 19beta1\n"), Some(19));
        assert_eq!(major_in("pg_basebackup (EnterpriseDB) 17\n"), None);
        assert_eq!(major_in("pg_basebackup (PostgreSQL) devel"), None);
    }
}
