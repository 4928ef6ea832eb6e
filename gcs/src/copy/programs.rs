//! pg_dump and pg_restore, of the server's own version. They end with this daemon.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use gcs_writeset::link::ServerPlace;
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::progress::Progress;
use crate::peers::Tunnel;

/// Connections of each.
const JOBS: &str = "2";

/// Of what a program complains of.
const COMPLAINT_BYTES_MAX: u64 = 64 << 10;

#[derive(Debug, Error)]
pub enum ProgramError {
    #[error("could not run \"{}\": {source}", path.display())]
    Start { path: PathBuf, source: io::Error },
    #[error("{program}: {complaint}")]
    Failed { program: &'static str, complaint: String },
    #[error("directory \"{}\": {source}", path.display())]
    Files { path: PathBuf, source: io::Error },
}

pub struct Dump<'a> {
    pub programs: &'a str,
    pub from: &'a Path,
    pub user: &'a str,
    pub database: &'a str,
    pub snapshot: &'a str,
    /// Materialized views whose rows come otherwise, and tables whose rows stay where they are; by their names, quoted.
    pub without_rows_of: &'a [String],
    pub into: &'a Path,
}

impl Dump<'_> {
    pub async fn run(&self, progress: &Progress) -> Result<(), ProgramError> {
        let files = |source| ProgramError::Files { path: self.into.to_owned(), source };
        match std::fs::remove_dir_all(self.into) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(files(error)),
            _ => {}
        }
        if let Some(parent) = self.into.parent() {
            std::fs::create_dir_all(parent).map_err(files)?;
        }
        let mut command = program(Some(Path::new(self.programs)), "pg_dump");
        command.args(["--format=directory", "--no-sync", "--no-unlogged-table-data", "--jobs", JOBS, "--user", self.user]);
        command.arg("--host").arg(self.from).args(["--port", &Tunnel::PORT.to_string()]);
        command.args(self.without_rows_of.iter().map(|name| format!("--exclude-table-data={name}")));
        command.args(["--snapshot", self.snapshot]).arg("--file").arg(self.into).args(["--dbname", self.database]);
        progress.while_running(self.into, run(command, "pg_dump")).await
    }
}

pub struct Restore<'a> {
    pub place: &'a ServerPlace,
    pub database: &'a str,
    pub files: &'a Path,
}

impl Restore<'_> {
    pub async fn run(&self) -> Result<(), ProgramError> {
        let place = self.place;
        let mut command = program(Some(Path::new(&place.programs)), "pg_restore");
        command.args([
            "--exit-on-error",
            "--no-tablespaces",
            "--jobs",
            JOBS,
            "--user",
            &place.user,
            "--host",
            &place.socket_directory,
        ]);
        command.args(["--port", &place.port.to_string(), "--dbname", self.database]).arg(self.files);
        let ended = run(command, "pg_restore").await;
        if let Err(source) = std::fs::remove_dir_all(self.files) {
            let error = ProgramError::Files { path: self.files.to_owned(), source };
            tracing::warn!("{error}");
        }
        ended
    }
}

/// Without a directory it is looked for where a shell would.
pub fn program(directory: Option<&Path>, name: &str) -> Command {
    let mut command = Command::new(directory.map_or_else(|| name.into(), |directory| directory.join(name)));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    // What the daemon was started with is not meant for them.
    for (variable, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
        command.env_remove(variable);
    }
    command
}

/// A client program, to its end.
pub async fn run(mut command: Command, program: &'static str) -> Result<(), ProgramError> {
    command.arg("--no-password");
    let path = PathBuf::from(command.as_std().get_program());
    let failed = |source| ProgramError::Start { path: path.clone(), source };
    let mut child = command.spawn().map_err(failed)?;
    let mut complaint = Vec::new();
    if let Some(mut stderr) = child.stderr.take() {
        (&mut stderr).take(COMPLAINT_BYTES_MAX).read_to_end(&mut complaint).await.map_err(failed)?;
        // What it says beyond that is read and forgotten, so that it can go on.
        tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await.map_err(failed)?;
    }
    let status = child.wait().await.map_err(failed)?;
    if status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&complaint);
    let first = complaint.lines().find(|line| line.contains("error")).or(complaint.lines().next());
    let complaint = first.map_or_else(|| format!("ended with {status}"), str::to_owned);
    Err(ProgramError::Failed { program, complaint })
}
