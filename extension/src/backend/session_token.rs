//! What a session has seen, as a text that it can take to another node: `postgres_r.session_token()` gives it, `postgres_r.read_after` takes it.
//!
//! A token is `group/number/position`: the group, the database's number in it, which no other life of a database of this name has, and how far the
//! node was that gave it. Whatever a session has seen there, its own commits included, lies at or below.

use gcs_writeset::{DatabaseId, Position};

use crate::error::{self, Error};
use crate::node::DatabaseArea;
use crate::session;

/// Of the current session, as of now.
pub fn current() -> String {
    let Some(area) = session::database() else { error::not_replicated("session_token").raise() };
    let number = area.replica.number();
    if number == DatabaseId(0) {
        error::no_session_token(session::group_error(area)).raise();
    }
    format!("{}/{}/{}", area.replica.group.get(), number.0, area.gate.committed())
}

/// The position that a token names; none if there is no token.
pub fn floor(area: &DatabaseArea, text: &str) -> Result<Option<Position>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let Some((group, number, position)) = parse(text) else { return Err(error::bad_session_token(text)) };
    let ours = area.replica.number();
    if ours == DatabaseId(0) {
        // This life of the server has not heard of its group yet.
        return Err(error::no_session_token(session::group_error(area)));
    }
    if !area.replica.group.is(group) || number != ours {
        return Err(error::foreign_session_token(text));
    }
    Ok(Some(position))
}

/// From behind: a group's name may contain anything.
fn parse(text: &str) -> Option<(&str, DatabaseId, Position)> {
    let mut parts = text.rsplitn(3, '/');
    let position = parts.next()?.parse().ok()?;
    let number = parts.next()?.parse().ok()?;
    Some((parts.next()?, DatabaseId(number), Position(position)))
}
