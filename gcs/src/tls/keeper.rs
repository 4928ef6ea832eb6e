//! The credentials in force, how they are replaced, and when they end.
//!
//! They are loaded again on SIGHUP and when one of their files has changed, as a whole: what does not fit together, or is not valid today, leaves the old
//! ones in force and is said in the log. Connections stay; each looks at once whether its other side is still welcome
//! ([`Security::renewed`]), and only those end that are not.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::SystemTime;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::certificate::Facts;
use super::credentials::Credentials;
use super::files::TlsError;
use super::moment::Moment;
use super::name::NodeName;
use crate::bounds::{CERTIFICATES_LOOK_EVERY, EXPIRY_LAST_WARNING_DAYS, EXPIRY_WARNING_DAYS};
use crate::config::{Config, Tls};

/// How this daemon's connections to the others are protected, if at all.
#[derive(Debug)]
pub struct Security {
    keeper: Option<Keeper>,
    /// Whether to do without TLS on addresses that others can reach.
    pub allow_plaintext: bool,
    renewals: watch::Sender<u64>,
}

#[derive(Debug)]
struct Keeper {
    tls: Tls,
    name: NodeName,
    current: RefCell<Rc<Credentials>>,
    /// The files as they were when they were last looked at, and when they were last loaded.
    seen: RefCell<Vec<Mark>>,
    loaded: RefCell<Vec<Mark>>,
    /// What was last said about the end of a certificate.
    said: Cell<Nearness>,
}

type Mark = Option<(SystemTime, u64, u64)>;

/// How near the end of the first certificate to end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Nearness {
    Far,
    Near,
    VeryNear,
    Over,
}

impl Security {
    pub fn load(config: &Config) -> Result<Security, TlsError> {
        let keeper = match &config.tls {
            Some(tls) => Some(Keeper::load(tls, NodeName::new(&config.group, &config.name))?),
            None => None,
        };
        Ok(Security { keeper, allow_plaintext: config.allow_plaintext, renewals: watch::Sender::new(0) })
    }

    /// `None` without TLS.
    pub fn credentials(&self) -> Option<Rc<Credentials>> {
        self.keeper.as_ref().map(|keeper| keeper.current.borrow().clone())
    }

    /// Changes when there are other credentials.
    pub fn renewed(&self) -> watch::Receiver<u64> {
        self.renewals.subscribe()
    }

    /// Runs for as long as the daemon.
    pub async fn watch(self: Rc<Security>) {
        let mut hangup = match signal(SignalKind::hangup()) {
            Ok(hangup) => hangup,
            Err(error) => return tracing::error!(%error, "could not listen for SIGHUP: certificates stay as they are"),
        };
        let mut clock = interval(CERTIFICATES_LOOK_EVERY);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_asked = tokio::select! {
                _ = hangup.recv() => true,
                _ = clock.tick() => false,
            };
            match &self.keeper {
                Some(keeper) => {
                    if (is_asked || keeper.have_files_changed()) && keeper.reload() {
                        self.renewals.send_modify(|count| *count += 1);
                    }
                    keeper.warn();
                }
                None if is_asked => {
                    tracing::info!("SIGHUP: there are no certificates to be loaded, the configuration has no [tls]")
                }
                None => {}
            }
        }
    }
}

impl Keeper {
    fn load(tls: &Tls, name: NodeName) -> Result<Keeper, TlsError> {
        let marks = marks(tls);
        let credentials = Credentials::load(tls, &name)?;
        if let Some(problem) = &credentials.unusable {
            tracing::error!("{problem}: no other node will talk to this one until there is a valid certificate");
        }
        let keeper = Keeper {
            tls: tls.clone(),
            name,
            current: RefCell::new(Rc::new(credentials)),
            seen: RefCell::new(marks.clone()),
            loaded: RefCell::new(marks),
            said: Cell::new(Nearness::Far),
        };
        keeper.warn();
        Ok(keeper)
    }

    /// Since they were last loaded. Somebody may be in the middle of changing them: they must have been left alone from one look
    /// to the next.
    fn have_files_changed(&self) -> bool {
        let now = marks(&self.tls);
        let is_settled = self.seen.replace(now.clone()) == now;
        is_settled && *self.loaded.borrow() != now
    }

    /// Whether other credentials are in force now.
    fn reload(&self) -> bool {
        self.loaded.replace(marks(&self.tls));
        let loaded = Credentials::load(&self.tls, &self.name);
        let credentials = match loaded {
            Ok(Credentials { unusable: Some(problem), .. }) => {
                tracing::error!("could not load certificates again, the old ones stay in force: {problem}");
                return false;
            }
            Err(error) => {
                tracing::error!("could not load certificates again, the old ones stay in force: {error}");
                return false;
            }
            Ok(credentials) => credentials,
        };
        let (serial, expires) = (&credentials.own.serial, credentials.own.not_after);
        tracing::info!(%serial, %expires, "certificates were loaded again");
        self.current.replace(Rc::new(credentials));
        self.said.set(Nearness::Far);
        true
    }

    /// Says once each time that the end of a certificate comes nearer.
    fn warn(&self) {
        let credentials = self.current.borrow().clone();
        let now = Moment::now();
        let all = std::iter::once(&credentials.own).chain(&credentials.authorities);
        let Some(first) = all.min_by_key(|facts| facts.not_after) else { return };
        let nearness = nearness(first.not_after, now);
        if nearness <= self.said.replace(nearness) {
            return;
        }
        let (what, at) = (describe(first), first.not_after);
        let days = at.days_since(now);
        match nearness {
            Nearness::Far => {}
            Nearness::Near => tracing::warn!(days, "{what} expires on {at}: renew it (gcs renew)"),
            Nearness::VeryNear => tracing::error!(days, "{what} expires on {at}: renew it (gcs renew)"),
            Nearness::Over => tracing::error!("{what} expired on {at}: no new connection is possible until it is renewed"),
        }
    }
}

fn describe(facts: &Facts) -> String {
    match &facts.name {
        Some(name) => format!("the certificate of {name} ({})", facts.subject),
        None => format!("the certificate of {}", facts.subject),
    }
}

fn nearness(end: Moment, now: Moment) -> Nearness {
    match end.days_since(now) {
        _ if end < now => Nearness::Over,
        days if days < EXPIRY_LAST_WARNING_DAYS => Nearness::VeryNear,
        days if days < EXPIRY_WARNING_DAYS => Nearness::Near,
        _ => Nearness::Far,
    }
}

fn marks(tls: &Tls) -> Vec<Mark> {
    let optional = [tls.revoked_file.as_deref()];
    let files =
        [Some(&*tls.ca_file), Some(&*tls.certificate_file), Some(&*tls.key_file)].into_iter().chain(optional).flatten();
    files.map(mark).collect()
}

fn mark(path: &Path) -> Mark {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::metadata(path).ok()?;
    Some((found.modified().ok()?, found.len(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_end_of_a_certificate_comes_nearer_in_three_steps() {
        let now = Moment::new(1_800_000_000);
        let in_days = |days: u64| nearness(now.after(Duration::from_secs(days * 86_400)), now);
        assert_eq!([in_days(31), in_days(30)], [Nearness::Far; 2]);
        assert_eq!([in_days(29), in_days(7)], [Nearness::Near; 2]);
        assert_eq!([in_days(6), in_days(0)], [Nearness::VeryNear; 2]);
        assert_eq!(nearness(now.before(Duration::from_secs(1)), now), Nearness::Over);
    }
}
