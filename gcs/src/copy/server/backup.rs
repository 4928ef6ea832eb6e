//! pg_basebackup, from the other end of a tunnel.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use tokio::time::interval;

use crate::bounds::COPY_REPORT_EVERY;
use crate::copy::programs::{ProgramError, program, run, size};
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
    /// `bytes` is how large the server there is.
    pub async fn run(&self, bytes: u64) -> Result<(), ProgramError> {
        let mut command = program(self.programs, PROGRAM);
        command.args(["--wal-method=stream", "--checkpoint=fast", "--label", self.label]);
        command.arg("--pgdata").arg(self.into);
        command.arg("--host").arg(&self.tunnel.directory).args(["--port", &Tunnel::PORT.to_string()]);
        let user: OsString = (&self.tunnel.superuser).into();
        command.arg("--username").arg(user);
        let running = run(command, PROGRAM);
        tokio::pin!(running);
        let mut clock = interval(COPY_REPORT_EVERY);
        clock.tick().await;
        loop {
            tokio::select! {
                ended = &mut running => return ended,
                _ = clock.tick() => {
                    let written = size(self.into);
                    tracing::info!(written, server_bytes = bytes, "the copy of a server is being read");
                }
            }
        }
    }
}
