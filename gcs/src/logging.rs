//! The daemon's log: one line an event, on stderr. The level is that of the configuration, unless `GCS_LOG` or `RUST_LOG` says
//! otherwise (the syntax of tracing's EnvFilter).

use std::io::{IsTerminal, Write};

use tracing_subscriber::EnvFilter;

use crate::config::{Config, Format, Level};

pub fn start(config: &Config) {
    let level = match config.log_level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    };
    let filter = ["GCS_LOG", "RUST_LOG"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        .and_then(|value| EnvFilter::try_new(value).ok())
        .unwrap_or_else(|| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // What cannot be written is lost, and must not be complained of to the same stderr: that would be a panic.
    let builder = builder.log_internal_errors(false);
    // A second subscriber, as in tests that run two daemons in one process, changes nothing.
    let _ = match config.log_format {
        Format::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        Format::Json => builder.json().try_init(),
    };
    end_on_panic();
}

/// A line on stderr, which may be a file on a disk that is full: then it is lost. (`eprintln!` would panic.)
pub fn complain(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A panic is a broken invariant, in whatever task or thread it happens: the daemon must not go on without it.
fn end_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        complain(format_args!("gcs: error: internal error: {}", panic.to_string().replace('\n', " ")));
        std::process::exit(1);
    }));
}
