//! The copied server's start: by the command in the configuration, else by pg_ctl where the settings of the server were copied with it.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use crate::config::Postgresql;
use crate::copy::programs::program;

/// Whatever comes of it is for the log: the copy is whole, and a person can start a server as well.
pub async fn run(config: &Postgresql, programs: Option<&Path>, output: &Path) {
    let directory = config.data_directory.display().to_string();
    let Some((mut command, text)) = command(config, programs, output) else {
        return tracing::info!(directory, "start PostgreSQL: the configuration does not say how");
    };
    // Into a file: a server that is started here may keep it open for ever.
    let Ok((out, err)) = File::create(output).and_then(|file| Ok((file.try_clone()?, file))) else {
        return tracing::error!(file = %output.display(), "could not write: start PostgreSQL by hand");
    };
    command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
    match command.status().await {
        Ok(status) if status.success() => tracing::info!(directory, "the copied server has been started"),
        Ok(status) => {
            let said = std::fs::read_to_string(output).unwrap_or_default();
            let last = said.lines().last().unwrap_or_default();
            tracing::error!(command = text, %status, "the copied server could not be started: {last}");
        }
        Err(error) => tracing::error!(command = text, %error, "the copied server could not be started"),
    }
}

fn command(config: &Postgresql, programs: Option<&Path>, output: &Path) -> Option<(Command, String)> {
    if let Some(start) = &config.start {
        let (name, arguments) = start.split_first()?;
        let mut command = Command::new(name);
        command.args(arguments);
        return Some((command, start.join(" ")));
    }
    // Elsewhere they belong to the machine, and only its own tools know where.
    if !config.data_directory.join("postgresql.conf").is_file() {
        return None;
    }
    let mut command = program(programs, "pg_ctl");
    command
        .kill_on_drop(false)
        .arg("--pgdata")
        .arg(&config.data_directory)
        .arg("--log")
        .arg(output)
        .args(["--wait", "start"]);
    Some((command, format!("pg_ctl --pgdata {} start", config.data_directory.display())))
}
