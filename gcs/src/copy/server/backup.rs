//! pg_basebackup, from the other end of a tunnel.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

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
