//! A token: a secret of 16 random bytes, and the SHA-256 of the authority's certificate, by which who joins knows whom it calls.
//!
//! As text `gcs1.` and the base64 (URL alphabet, without padding) of secret, fingerprint and the crc32c of both, so that a token that was cut while it was
//! copied is told from one that was never made.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use gcs_proto::enrolment::SECRET_BYTES;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use thiserror::Error;

pub const FINGERPRINT_BYTES: usize = 32;

const PREFIX: &str = "gcs1.";
const CHECKSUM_BYTES: usize = 4;

#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub secret: [u8; SECRET_BYTES],
    pub fingerprint: [u8; FINGERPRINT_BYTES],
}

#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum TokenError {
    #[error("this is no token of gcs: one begins with \"gcs1.\"")]
    Foreign,
    #[error("the token is damaged: some of it is missing or changed")]
    Damaged,
    #[error("the system has no random numbers")]
    NoRandomness,
}

impl Token {
    pub fn make(authority: &[u8]) -> Result<Token, TokenError> {
        let mut secret = [0; SECRET_BYTES];
        SystemRandom::new().fill(&mut secret).map_err(|_| TokenError::NoRandomness)?;
        Ok(Token { secret, fingerprint: fingerprint(authority) })
    }

    pub fn parse(text: &str) -> Result<Token, TokenError> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(TokenError::Foreign)?;
        let bytes = BASE64URL_NOPAD.decode(encoded.as_bytes()).map_err(|_| TokenError::Damaged)?;
        let (content, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(TokenError::Damaged)?;
        let (secret, fingerprint) = content.split_first_chunk::<SECRET_BYTES>().ok_or(TokenError::Damaged)?;
        let fingerprint = fingerprint.try_into().map_err(|_| TokenError::Damaged)?;
        if crc32c::crc32c(content).to_le_bytes() != *checksum {
            return Err(TokenError::Damaged);
        }
        Ok(Token { secret: *secret, fingerprint })
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [&self.secret[..], &self.fingerprint].concat();
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        write!(f, "{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes))
    }
}

/// Secrets are not for logs.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// By which a certificate (DER) is known.
pub fn fingerprint(certificate: &[u8]) -> [u8; FINGERPRINT_BYTES] {
    let mut fingerprint = [0; FINGERPRINT_BYTES];
    fingerprint.copy_from_slice(digest(&SHA256, certificate).as_ref());
    fingerprint
}

/// Under which a secret is kept: who reads the disk learns no token.
pub fn hash(secret: &[u8]) -> String {
    digest(&SHA256, secret).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_token_that_was_cut_or_mistyped_is_told_from_one_that_is_none() {
        let token = Token::make(b"authority").unwrap();
        let text = token.to_string();
        assert_eq!(Token::parse(&format!("  {text}\n")), Ok(token));
        for length in PREFIX.len()..text.len() {
            assert_eq!(Token::parse(&text[..length]), Err(TokenError::Damaged), "{length}");
        }
        let mut changed = text.clone().into_bytes();
        changed[20] = if changed[20] == b'A' { b'B' } else { b'A' };
        assert_eq!(Token::parse(&String::from_utf8(changed).unwrap()), Err(TokenError::Damaged));
        assert_eq!(Token::parse("secret"), Err(TokenError::Foreign));
        assert_eq!(Token::parse(""), Err(TokenError::Foreign));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(secret in any::<[u8; 16]>(), fingerprint in any::<[u8; 32]>()) {
            let token = Token { secret, fingerprint };
            prop_assert_eq!(Token::parse(&token.to_string()), Ok(token));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "(gcs1\\.)?.*") {
            let _ = Token::parse(&text);
        }
    }
}
