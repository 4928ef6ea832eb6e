//! One connection on the local socket.

use std::rc::Rc;

use bytes::Bytes;
use gcs_core::{Input, Local};
use gcs_writeset::bounds::LINK_FRAME_BYTES_MAX;
use gcs_writeset::link::{self, Failure, FailureKind, PROTOCOL, Reply, Request, Role};
use gcs_writeset::{DatabaseId, Incarnation, Position, Tag};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::changes;
use super::drain;
use super::error::SessionError;
use super::events;
use super::feed::{Feed, Wish};
use super::fetcher;
use super::forerunner;
use super::hub::Hub;
use super::inquiries;
use super::locker;
use super::reader;
use super::rehearsal;
use super::requests::Requests;
use super::seat::Seat;
use super::starter;
use super::this_node::ThisNode;
use crate::bounds::{GREETING_BYTES_MAX, HANDSHAKE_TIMEOUT, MANAGER_QUEUE_BYTES_MAX, SUBMISSION_BYTES_MAX};
use crate::observe::counted::{Port, Rejection};
use crate::outbox::{Outbox, Stream};

struct Caller {
    role: Role,
    database: String,
    incarnation: Incarnation,
}

pub async fn run(hub: &Rc<Hub>, stream: UnixStream) {
    let peer = stream.peer_cred();
    let stream = Rc::new(Stream::Unix(stream));
    let outbox = Rc::new(Outbox::new(stream.clone(), MANAGER_QUEUE_BYTES_MAX));
    let mut requests = Requests::new(stream, GREETING_BYTES_MAX);
    match peer {
        Ok(peer) if hub.node.uids.contains(&peer.uid()) => {}
        Ok(peer) => {
            hub.node.peers.counted.rejected(Port::Local, Rejection::Refused);
            if let Some(kept_back) = hub.node.complaints.due("user", &peer.uid().to_string()) {
                tracing::warn!(uid = peer.uid(), kept_back, "connection on the local socket refused: not an allowed user");
            }
            let message = format!("user id {} may not use this socket", peer.uid());
            let hint =
                "Run PostgreSQL and gcs as the same user, or add the user to \"local_users\" in the configuration of gcs.";
            fail(&outbox, Failure { kind: FailureKind::NotAuthorized, message, hint: hint.to_owned() });
            return;
        }
        Err(error) => {
            tracing::warn!(%error, "connection on the local socket refused: its user is unknown");
            return;
        }
    }
    let writing = outbox.clone();
    let result = tokio::select! {
        result = serve(hub, &outbox, &mut requests) => result,
        error = writing.run() => Err(error.into()),
    };
    let Err(error) = result else { return };
    let failure = match error {
        SessionError::Io(error) => return tracing::debug!(%error, "local connection ended"),
        SessionError::Refused(failure) => {
            tracing::info!("local connection refused: {}", failure.message);
            failure
        }
        error => {
            let message = error.to_string();
            match error {
                SessionError::Log(_) => tracing::error!("local connection dropped: {message}"),
                _ => match hub.node.complaints.due("misuse", &message) {
                    Some(kept_back) => tracing::warn!(kept_back, "local connection dropped: {message}"),
                    None => tracing::debug!("local connection dropped: {message}"),
                },
            }
            Failure { kind: FailureKind::Protocol, message, hint: String::new() }
        }
    };
    fail(&outbox, failure);
}

fn fail(outbox: &Outbox, failure: Failure) {
    // A failure has no payload and is short.
    let _ = outbox.put(|out| link::put_frame(out, &Reply::Failed(failure), &[]));
    outbox.flush();
}

async fn serve(hub: &Hub, outbox: &Rc<Outbox>, requests: &mut Requests) -> Result<(), SessionError> {
    let greeting = timeout(HANDSHAKE_TIMEOUT, requests.next()).await.map_err(|_| SessionError::Silent)??;
    let Some((hello, _)) = greeting else { return Ok(()) };
    requests.set_limit(LINK_FRAME_BYTES_MAX);
    let caller = greet(&hub.node, hello)?;
    if caller.role == Role::Control {
        welcome(hub, outbox)?;
        return serve_control(hub, outbox, requests).await;
    }
    tokio::select! {
        result = serve_postgresql(hub, outbox, caller, requests) => result,
        why = hub.node.roster.removal() => Err(SessionError::Refused(hub.node.removal(why))),
    }
}

async fn serve_postgresql(
    hub: &Hub,
    outbox: &Rc<Outbox>,
    caller: Caller,
    requests: &mut Requests,
) -> Result<(), SessionError> {
    let Caller { role, database, incarnation } = caller;
    match role {
        Role::Manager => {
            let seat = Seat::take(hub, database, incarnation, outbox.clone()).await?;
            welcome(hub, outbox)?;
            serve_manager(hub, &seat.feed, requests).await
        }
        Role::Backend => {
            welcome(hub, outbox)?;
            serve_backend(&hub.node, &database, incarnation, requests).await
        }
        Role::Fetcher => {
            welcome(hub, outbox)?;
            fetcher::serve(&hub.node, outbox, &database, requests).await
        }
        Role::Rehearsing => {
            welcome(hub, outbox)?;
            rehearsal::serve_asking(&hub.node, outbox, (&database, incarnation), requests).await
        }
        Role::Rehearser => {
            welcome(hub, outbox)?;
            rehearsal::serve_rehearser(&hub.node, outbox, &database, requests).await
        }
        Role::Reader => {
            welcome(hub, outbox)?;
            reader::serve(&hub.node, outbox, &database, requests).await
        }
        Role::Locker => {
            welcome(hub, outbox)?;
            locker::serve(&hub.node, outbox, &database, requests).await
        }
        Role::Forerunner => {
            welcome(hub, outbox)?;
            forerunner::serve(&hub.node, outbox, &database, requests).await
        }
        Role::Control => Ok(()),
    }
}

fn greet(node: &ThisNode, hello: Request) -> Result<Caller, SessionError> {
    let Request::Hello { protocol, role, database, group, incarnation } = hello else {
        return Err(SessionError::Misuse("a request before the greeting"));
    };
    if protocol != PROTOCOL {
        node.looking.stranger(protocol);
        let message = format!("gcs speaks link protocol {PROTOCOL}, but postgres_r speaks {protocol}");
        let hint = "Install gcs and postgres_r of the same version.";
        return Err(SessionError::refused(FailureKind::Protocol, message, hint));
    }
    if let Some(group) = group
        && group != node.group()
    {
        let message = format!("gcs of node \"{}\" belongs to group \"{}\", not \"{group}\"", node.name(), node.group());
        let hint = "Name the group that is in the configuration of gcs.";
        return Err(SessionError::refused(FailureKind::WrongGroup, message, hint));
    }
    if let Some(why) = node.roster.removed()
        && role != Role::Control
    {
        return Err(SessionError::Refused(node.removal(why)));
    }
    if role != Role::Control && !node.roster.kind().has_databases() {
        return Err(SessionError::Refused(node.witness()));
    }
    if database.is_empty() && role != Role::Control {
        return Err(SessionError::Misuse("a greeting without a database"));
    }
    Ok(Caller { role, database, incarnation })
}

fn welcome(hub: &Hub, outbox: &Outbox) -> Result<(), SessionError> {
    outbox.put(|out| link::put_frame(out, &hub.node.welcome(), &[]))?;
    outbox.flush();
    Ok(())
}

async fn serve_manager(hub: &Hub, feed: &Feed, requests: &mut Requests) -> Result<(), SessionError> {
    feed.status(hub.status());
    if hub.node.sessions.is_another_life(&feed.database, feed.incarnation) {
        drain::over(hub);
    }
    feed.send(&Reply::Drain(hub.node.sessions.stage()), &[]);
    feed.flush();
    tokio::select! {
        result = hear_manager(hub, feed, requests) => result,
        result = feed.run() => result,
        () = watch(hub, feed) => Ok(()),
        () = starter::run(&hub.node, feed) => Ok(()),
    }
}

/// Tells the manager which positions peers wait for.
async fn watch(hub: &Hub, feed: &Feed) {
    let shown = &hub.node.shown;
    loop {
        // Made before looking, so that news in between are not missed.
        let news = shown.news.notified();
        if let Some(position) = feed.database_id().and_then(|database| shown.to_watch(database)) {
            feed.send(&Reply::Watch { position }, &[]);
            feed.flush();
        }
        news.await;
    }
}

async fn hear_manager(hub: &Hub, feed: &Feed, requests: &mut Requests) -> Result<(), SessionError> {
    let node = &hub.node;
    while let Some((request, payload)) = requests.next().await? {
        match request {
            Request::Server(place) => {
                node.looking.remember(&place);
                node.peers.places.set(&feed.database, place);
            }
            Request::Attach { resume_after, founds, leaves, overwrite } => {
                if !feed.attach(Wish { resume_after, founds, leaves, overwrite }) {
                    return Err(SessionError::Misuse("a second attach"));
                }
            }
            Request::Detach => match feed.detach() {
                Some(database) => node.inbox.push(Input::Local(Local::Detach { database })),
                None => return Err(SessionError::Misuse("a detach without an attach")),
            },
            Request::Progress { committed, flushed, oldest_base, out_of_service } => {
                if let Some(database) = feed.database_id() {
                    note_shown(node, database, committed, out_of_service);
                    node.looking.applied(&feed.database, committed);
                    hub.note_service(&feed.database, database);
                    let progress = Local::Progress { database, committed, flushed, oldest_base, out_of_service };
                    node.inbox.push(Input::Local(progress));
                }
            }
            Request::Rebuild { position } => {
                node.looking.set_cannot_apply(&feed.database, position);
                feed.rebuild(position);
            }
            Request::Conflicts { counts } => node.lost.told(&feed.database, counts),
            Request::Sessions { count } => {
                node.sessions.count(&feed.database, feed.incarnation, count);
                hub.show_standing();
            }
            Request::Status => {
                feed.status(hub.status());
                feed.flush();
            }
            Request::Submit { .. } | Request::Chunk { .. } | Request::Abandon { .. } | Request::AskToken { .. } => {
                submit(node, feed.database_id(), feed.incarnation, request, payload).await?;
            }
            _ => {
                return Err(SessionError::Misuse("a request that a manager cannot make"));
            }
        }
    }
    Ok(())
}

/// Peers that wait for this are told.
fn note_shown(node: &ThisNode, database: DatabaseId, committed: Position, out_of_service: bool) {
    let answers = if out_of_service { node.shown.leave(database) } else { node.shown.progress(database, committed) };
    node.peers.send_shown(answers);
}

async fn serve_backend(
    node: &ThisNode,
    database: &str,
    incarnation: Incarnation,
    requests: &mut Requests,
) -> Result<(), SessionError> {
    while let Some((request, payload)) = requests.next().await? {
        match request {
            Request::Submit { .. } | Request::Chunk { .. } | Request::Abandon { .. } | Request::AskToken { .. } => {
                submit(node, node.databases.id(database), incarnation, request, payload).await?;
            }
            _ => return Err(SessionError::Misuse("a request that a backend cannot make")),
        }
    }
    Ok(())
}

/// A database that is not attached has no manager to hear a refusal: it has the backends submit again when it is.
async fn submit(
    node: &ThisNode,
    database: Option<DatabaseId>,
    incarnation: Incarnation,
    request: Request,
    bytes: Bytes,
) -> Result<(), SessionError> {
    if bytes.len() > SUBMISSION_BYTES_MAX {
        return Err(SessionError::Misuse("a submission that is too long"));
    }
    let Some(database) = database else { return Ok(()) };
    let tag = |slot, sequence| Tag { database, node: node.id(), incarnation, slot, sequence };
    let local = match request {
        Request::Submit { slot, sequence } => {
            let tag = tag(slot, sequence);
            node.followed.submitted(&tag, bytes.len());
            Local::Submit { tag, writeset: bytes }
        }
        Request::Chunk { slot, sequence, index } => Local::Chunk { tag: tag(slot, sequence), index, bytes },
        Request::Abandon { slot, sequence } => Local::Abandon { tag: tag(slot, sequence) },
        Request::AskToken { slot, sequence, token, fence_after } => {
            Local::AskToken { tag: tag(slot, sequence), token, fence_after }
        }
        _ => return Ok(()),
    };
    node.inbox.push(Input::Local(local));
    node.inbox.room().await;
    Ok(())
}

async fn serve_control(hub: &Hub, outbox: &Rc<Outbox>, requests: &mut Requests) -> Result<(), SessionError> {
    while let Some((request, payload)) = requests.next().await? {
        let reply = match request {
            Request::Status => Reply::Group(hub.status()),
            Request::Certificates => Reply::Certificates(hub.node.certificates()),
            Request::AskLog => Reply::Log(hub.node.log_status()),
            Request::AskPlace { database } => match hub.node.peers.places.of(&database) {
                Some(place) => Reply::Place(place),
                None => {
                    let message = format!("node \"{}\" has no PostgreSQL with database \"{database}\"", hub.node.name());
                    return Err(SessionError::refused(FailureKind::NotAttached, message, "It must be replicated, and run."));
                }
            },
            Request::Drain { node, grace } => {
                let tell = |reply: &Reply| {
                    let put = outbox.put(|out| link::put_frame(out, reply, &[]));
                    outbox.flush();
                    put.is_ok()
                };
                // Whoever has asked may go meanwhile.
                tokio::select! {
                    result = drain::carry_out(hub, &node, grace, tell) => result.map_err(SessionError::Refused)?,
                    next = requests.next() => return next.map(drop),
                }
                Reply::Done
            }
            Request::Inquire(inquiry) => {
                inquiries::answer(hub, outbox, inquiry).await?;
                continue;
            }
            Request::Events { follows } => tokio::select! {
                result = events::tell(hub, outbox, follows) => result.map(|()| Reply::Done)?,
                next = requests.next() => return next.map(drop),
            },
            Request::Note => {
                events::note(hub, &payload)?;
                Reply::Done
            }
            Request::Await(awaited) => tokio::select! {
                result = inquiries::wait(hub, awaited) => result.map(|()| Reply::Done)?,
                next = requests.next() => return next.map(drop),
            },
            Request::Consider(change) => match changes::consider(&hub.node, &hub.status(), &change).await {
                Ok(words) => {
                    outbox.put(|out| link::put_frame(out, &Reply::Report, words.as_bytes()))?;
                    outbox.flush();
                    continue;
                }
                Err(failure) => return Err(SessionError::Refused(failure)),
            },
            Request::Change(change) => match changes::carry_out(&hub.node, change).await {
                Ok(()) => Reply::Done,
                Err(failure) => return Err(SessionError::Refused(failure)),
            },
            _ => return Err(SessionError::Misuse("a request that control cannot make")),
        };
        outbox.put(|out| link::put_frame(out, &reply, &[]))?;
        outbox.flush();
    }
    Ok(())
}
