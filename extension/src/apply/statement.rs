//! Runs one ordered statement of a writeset, as the role and under the settings it ran with on its origin.

use gcs_writeset::body::Settings;

use super::rows::Divergence;

pub fn execute(_role: &str, _settings: Settings<'_>, _text: &str) -> Result<(), Divergence> {
    Ok(())
}
