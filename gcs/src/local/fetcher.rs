//! The connection on which a manager fetches single writesets.
//!
//! The stream tells a manager of the positions that its own backends submitted without their writesets, since the backends have
//! those. When such a backend cannot finish, the manager fetches the writeset and has it applied like one of another node. The
//! fetch has a connection of its own: a manager that has no room for more positions stops reading the stream, and there may be
//! no room before the very writeset that it fetches has been applied.
//!
//! Questions are answered one after the other, from disk and in pieces: a piece is read when the caller has taken the one
//! before. Up to [`FETCHES_MAX`] questions wait meanwhile.

use gcs_writeset::Position;
use gcs_writeset::link::{FailureKind, Request};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::backlog::Backlog;
use super::error::SessionError;
use super::piece::BacklogError;
use super::requests::Requests;
use super::this_node::ThisNode;
use crate::bounds::FETCHES_MAX;
use crate::outbox::Outbox;

/// Until the caller has asked everything and has its answers, or asks what cannot be answered.
pub async fn serve(node: &ThisNode, outbox: &Outbox, database: &str, requests: &mut Requests) -> Result<(), SessionError> {
    let (asked, questions) = channel(FETCHES_MAX);
    tokio::try_join!(read(requests, asked), answer(node, outbox, database, questions))?;
    Ok(())
}

async fn read(requests: &mut Requests, asked: Sender<Position>) -> Result<(), SessionError> {
    while let Some((request, _)) = requests.next().await? {
        let Request::Fetch { position } = request else {
            return Err(SessionError::Misuse("a request that a fetcher cannot make"));
        };
        // Only an answer that fails drops the other end, and its error ends the connection.
        let _ = asked.send(position).await;
    }
    Ok(())
}

async fn answer(
    node: &ThisNode,
    outbox: &Outbox,
    database: &str,
    mut questions: Receiver<Position>,
) -> Result<(), SessionError> {
    while let Some(position) = questions.recv().await {
        let mut rest = Some(find(node, database, position)?);
        while let Some(backlog) = rest {
            let sent = backlog.send_piece(outbox).await.map_err(|error| explain(error, database, position))?;
            rest = Some(sent).filter(Backlog::in_the_middle);
        }
    }
    outbox.drained().await;
    Ok(())
}

fn find(node: &ThisNode, database: &str, position: Position) -> Result<Backlog, SessionError> {
    let Some(id) = node.databases.id(database) else {
        let name = node.name();
        let message = format!("database \"{database}\" has not been attached since gcs of node \"{name}\" started");
        let hint = "Ask again when the attach has been answered.";
        return Err(SessionError::refused(FailureKind::NotAttached, message, hint));
    };
    let head = node.databases.head(id);
    if position == Position::ZERO || position > head {
        let message =
            format!("position {position} of database \"{database}\" was never ordered: the last one there is {head}");
        return Err(SessionError::refused(FailureKind::Protocol, message, ""));
    }
    Ok(Backlog::fetch(node.log.clone(), id, position))
}

fn explain(error: BacklogError, database: &str, position: Position) -> SessionError {
    match error {
        BacklogError::Truncated => {
            let message = format!("position {position} of database \"{database}\" is no longer in the group's log");
            SessionError::refused(FailureKind::LogTruncated, message, "Copy the database from another node.")
        }
        error => error.into(),
    }
}
