//! How a node gets its certificate, so that [`crate::tls`] lets it in.
//!
//! One node of a group, that of `gcs init`, holds the key of the authority. It gives out *tokens*: each lets one node join, once, for a
//! while, and tells it by which fingerprint to know the authority. The node that joins makes a key of its own, which never leaves it, dials
//! with the token, and is answered with a certificate for its name. A node that has a certificate renews it the same way,
//! and the certificate takes the place of the token.
//!
//! From the bottom up:
//!
//! - [`token`]: what a token is, as text; [`tokens`]: those that were given out, on disk.
//! - [`authority`]: keys, certificates, signatures.
//! - [`desk`]: the daemon's side of the question. [`question`]: the side of whoever asks.

pub mod authority;
pub mod desk;
pub mod question;
pub mod token;
pub mod tokens;
