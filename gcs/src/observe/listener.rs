//! The port: accepted and read on a thread of its own, so that whoever connects, and however many, takes nothing from the daemon's own thread.
//!
//! One request a connection, within [`HTTP_WITHIN`] from the first byte to the last, of at most [`HTTP_REQUEST_BYTES_MAX`] bytes; a body is not read.
//! At most [`HTTP_CONNECTIONS_MAX`] connections; the next pushes the oldest out ([`Waiting`]): a check is answered in milliseconds, whoever only holds
//! connections open has the old ones. What is pushed out, late or makes no sense is counted, and is said in the log once in a while.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

use super::asker::Asker;
use super::counted::{Counted, Port, Rejection};
use super::pulse::Pulse;
use super::questions::Questions;
use super::routes::Routes;
use crate::bounds::{HTTP_CONNECTIONS_MAX, HTTP_CONNECTIONS_OF_ADDRESS_MAX, HTTP_REQUEST_BYTES_MAX, HTTP_WITHIN};
use crate::complaints::Complaints;
use crate::peers::Waiting;

#[derive(Debug, Error)]
pub enum ListenerError {
    #[error("could not listen for HTTP on {address}: {source}")]
    Address { address: String, source: std::io::Error },
    #[error("could not start the thread of HTTP: {0}")]
    Thread(std::io::Error),
}

/// Listens from now on, for as long as the process runs.
pub fn start(address: &str, counted: Arc<Counted>, pulse: Arc<Pulse>) -> Result<Questions, ListenerError> {
    let failed = |source| ListenerError::Address { address: address.to_owned(), source };
    let listener = std::net::TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let is_open = !listener.local_addr().map_err(failed)?.ip().to_canonical().is_loopback();
    tracing::info!(http_address = %address, is_open, "metrics and health are told over HTTP, to whoever can reach the port");
    let (sender, questions) = Questions::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ListenerError::Thread)?;
    let serve = move || {
        let routes = Rc::new(Routes { asker: Asker::new(sender), counted, pulse });
        LocalSet::new().block_on(&runtime, accept(routes, listener));
    };
    std::thread::Builder::new().name("http".to_owned()).spawn(serve).map_err(ListenerError::Thread)?;
    Ok(questions)
}

async fn accept(routes: Rc<Routes>, listener: std::net::TcpListener) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "could not listen for HTTP: metrics and health are not told"),
    };
    let waiting = Rc::new(Waiting::new(HTTP_CONNECTIONS_MAX, HTTP_CONNECTIONS_OF_ADDRESS_MAX));
    let complaints = Rc::new(Complaints::default());
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                let (served, their_complaints) = (routes.clone(), complaints.clone());
                let pushed_out = waiting.admit(address.ip(), |place| {
                    let task = tokio::task::spawn_local(async move {
                        serve_in_time(&served, stream, address, &their_complaints).await;
                        drop(place);
                    });
                    task.abort_handle()
                });
                if let Some(caller) = pushed_out {
                    reject(&routes, &complaints, caller, Rejection::Crowd, "too many connections at once");
                }
            }
            Err(error) => {
                // Out of file descriptors, most likely: the pause keeps this from spinning.
                if let Some(kept_back) = complaints.due("accept", "") {
                    tracing::error!(%error, kept_back, "could not accept a connection for HTTP");
                }
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_in_time(routes: &Rc<Routes>, stream: TcpStream, address: SocketAddr, complaints: &Complaints) {
    let answer = |request: Request<Incoming>| {
        let routes = routes.clone();
        async move {
            let (method, uri) = (request.method(), request.uri());
            Ok::<Response<String>, std::convert::Infallible>(routes.answer(method, uri.path(), uri.query()).await)
        }
    };
    let served = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(HTTP_REQUEST_BYTES_MAX)
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service_fn(answer));
    match timeout(HTTP_WITHIN, served).await {
        Ok(Ok(())) => {}
        // A check that only looks whether the port answers.
        Ok(Err(error)) if error.is_incomplete_message() || error.is_closed() || error.is_canceled() => {}
        Ok(Err(error)) if error.is_parse() => {
            reject(routes, complaints, address.ip(), Rejection::Refused, "not a request, or too long");
        }
        Ok(Err(error)) => tracing::debug!(%address, "a connection for HTTP ended: {error}"),
        Err(_) => reject(routes, complaints, address.ip(), Rejection::Late, "no whole request in time"),
    }
}

fn reject(routes: &Routes, complaints: &Complaints, caller: std::net::IpAddr, cause: Rejection, why: &'static str) {
    routes.counted.rejected(Port::Http, cause);
    if let Some(kept_back) = complaints.due(why, &caller.to_string()) {
        tracing::warn!(%caller, kept_back, "a connection for HTTP was ended: {why}");
    }
}
