//! The faults: what each does to which node, who is expected to go on meanwhile, and how it ends.

use std::thread;
use std::time::Duration;

use gcs::playground::NodeNumber;
use gcs::playground::links::LinkFaults;
use gcs::playground::process::{Process, Signal};
use gcs::playground::relay::spoiling::Spoiling;

use super::network::Cut;
use super::testbed::{Kind, Testbed};

/// How long an end of a link that flaps is gone, and there again.
const FLAP: Duration = Duration::from_millis(250);
const FLAPS: usize = 6;
/// A jam that a failure detector does not notice, and one that it does.
const SHORT_JAM: Duration = Duration::from_millis(1_200);
const LATENESS_MS: u64 = 30;
const HOUR_SECONDS: i64 = 3_600;

/// "Leader" is whoever leads when the fault begins; "follower" is one of the others, in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    LeaderKilled,
    LeaderStopped,
    ManagerStopped,
    PostmasterStopped,
    LeaderCut,
    FollowerCut,
    LeaderMute,
    LeaderDeaf,
    FollowerMute,
    FollowerDeaf,
    LeaderAndFollowerApart,
    FollowersApart,
    AllApart,
    Flapping,
    Lossy,
    Jammed,
    JammedForLong,
    Late,
    Reset,
    Changed,
    Repeated,
    ClockAhead,
    ClockBehind,
}

pub const ALL: [Fault; 23] = [
    Fault::LeaderKilled,
    Fault::LeaderStopped,
    Fault::ManagerStopped,
    Fault::PostmasterStopped,
    Fault::LeaderCut,
    Fault::FollowerCut,
    Fault::LeaderMute,
    Fault::LeaderDeaf,
    Fault::FollowerMute,
    Fault::FollowerDeaf,
    Fault::LeaderAndFollowerApart,
    Fault::FollowersApart,
    Fault::AllApart,
    Fault::Flapping,
    Fault::Lossy,
    Fault::Jammed,
    Fault::JammedForLong,
    Fault::Late,
    Fault::Reset,
    Fault::Changed,
    Fault::Repeated,
    Fault::ClockAhead,
    Fault::ClockBehind,
];

/// Who is who in one round.
#[derive(Clone, Copy, Debug)]
pub struct Cast {
    pub leader: NodeNumber,
    pub follower: NodeNumber,
    pub third: NodeNumber,
}

impl Cast {
    /// The followers take turns.
    pub fn of(leader: NodeNumber, numbers: &[NodeNumber], round: usize) -> Cast {
        let others: Vec<NodeNumber> = numbers.iter().copied().filter(|number| *number != leader).collect();
        Cast { leader, follower: others[round % 2], third: others[(round + 1) % 2] }
    }

    fn all(self) -> [NodeNumber; 3] {
        [self.leader, self.follower, self.third]
    }
}

impl Fault {
    /// As it is called in the table, and in FAULTS.
    pub fn name(self) -> &'static str {
        match self {
            Fault::LeaderKilled => "leader-killed",
            Fault::LeaderStopped => "leader-stopped",
            Fault::ManagerStopped => "manager-stopped",
            Fault::PostmasterStopped => "postmaster-stopped",
            Fault::LeaderCut => "leader-cut-off",
            Fault::FollowerCut => "follower-cut-off",
            Fault::LeaderMute => "leader-not-heard",
            Fault::LeaderDeaf => "leader-hears-nothing",
            Fault::FollowerMute => "follower-not-heard",
            Fault::FollowerDeaf => "follower-hears-nothing",
            Fault::LeaderAndFollowerApart => "bridge-is-follower",
            Fault::FollowersApart => "bridge-is-leader",
            Fault::AllApart => "all-apart",
            Fault::Flapping => "leader-flapping",
            Fault::Lossy => "leader-loses-packets",
            Fault::Jammed => "leader-jammed-1.2s",
            Fault::JammedForLong => "leader-jammed-for-long",
            Fault::Late => "leader-30ms-late",
            Fault::Reset => "connections-reset",
            Fault::Changed => "leader-byte-changed",
            Fault::Repeated => "leader-byte-repeated",
            Fault::ClockAhead => "leader-clock-ahead",
            Fault::ClockBehind => "leader-clock-behind",
        }
    }

    pub fn testbed(self) -> Kind {
        match self {
            Fault::Jammed | Fault::JammedForLong | Fault::Late | Fault::Reset | Fault::Changed | Fault::Repeated => {
                Kind::Relayed
            }
            Fault::ClockAhead | Fault::ClockBehind => Kind::Relayed,
            _ => Kind::Direct,
        }
    }

    /// Nodes that cannot be expected to take writes while it lasts.
    pub fn outside(self, cast: Cast) -> Vec<NodeNumber> {
        match self {
            Fault::LeaderKilled | Fault::LeaderStopped | Fault::LeaderCut => vec![cast.leader],
            Fault::LeaderMute | Fault::LeaderDeaf | Fault::JammedForLong => vec![cast.leader],
            Fault::ManagerStopped | Fault::PostmasterStopped => vec![cast.follower],
            Fault::FollowerCut | Fault::FollowerMute | Fault::FollowerDeaf => vec![cast.follower],
            // It sees one other, which has a leader and votes for nobody else.
            Fault::LeaderAndFollowerApart => vec![cast.follower],
            Fault::AllApart => cast.all().to_vec(),
            Fault::FollowersApart | Fault::Flapping | Fault::Lossy | Fault::Jammed | Fault::Late => Vec::new(),
            Fault::Reset | Fault::Changed | Fault::Repeated | Fault::ClockAhead | Fault::ClockBehind => Vec::new(),
        }
    }

    /// Whether those outside have a running server and daemon, so that they must refuse writes and say so.
    pub fn must_refuse(self) -> bool {
        !matches!(self, Fault::ManagerStopped | Fault::PostmasterStopped | Fault::LeaderStopped)
    }

    /// Whether it goes on until it is healed. The others have an end of their own.
    pub fn lasts(self) -> bool {
        !matches!(self, Fault::Flapping | Fault::Jammed | Fault::Reset | Fault::Changed | Fault::Repeated)
    }

    /// Returns when it is there, with what has to be undone.
    pub fn inflict(self, testbed: &Testbed, cast: Cast) -> Ongoing {
        let Cast { leader, follower, third } = cast;
        let network = &testbed.network;
        let mut stopped = None;
        match self {
            Fault::LeaderKilled => testbed.signal_daemon(leader, Signal::KILL),
            Fault::LeaderStopped => testbed.signal_daemon(leader, Signal::STOP),
            Fault::ManagerStopped => {
                let manager = testbed.manager(follower);
                assert!(manager.signal(Signal::STOP), "the manager has ended");
                stopped = Some(manager);
            }
            Fault::PostmasterStopped => testbed.signal_postmaster(follower, Signal::STOP),
            Fault::LeaderCut => network.cut(leader, Cut::All),
            Fault::FollowerCut => network.cut(follower, Cut::All),
            Fault::LeaderMute => network.cut(leader, Cut::Out),
            Fault::LeaderDeaf => network.cut(leader, Cut::In),
            Fault::FollowerMute => network.cut(follower, Cut::Out),
            Fault::FollowerDeaf => network.cut(follower, Cut::In),
            Fault::LeaderAndFollowerApart => network.cut(leader, Cut::From(follower)),
            Fault::FollowersApart => network.cut(follower, Cut::From(third)),
            Fault::AllApart => cast.all().iter().for_each(|&number| network.cut(number, Cut::All)),
            Fault::Flapping => flap(testbed, leader),
            Fault::Lossy => network.cut(leader, Cut::OneOfFive),
            Fault::Jammed => {
                links(testbed, leader, LinkFaults::cut_off);
                thread::sleep(SHORT_JAM);
                testbed.relay().heal();
            }
            Fault::JammedForLong => links(testbed, leader, LinkFaults::cut_off),
            Fault::Late => links(testbed, leader, |faults, leader| faults.slow(leader, LATENESS_MS)),
            Fault::Reset => testbed.relay().break_all(),
            Fault::Changed => spoil(testbed, cast, Spoiling::Changed),
            Fault::Repeated => spoil(testbed, cast, Spoiling::Repeated),
            Fault::ClockAhead => testbed.set_clock(leader, HOUR_SECONDS),
            Fault::ClockBehind => testbed.set_clock(leader, -HOUR_SECONDS),
        }
        Ongoing { fault: self, cast, stopped }
    }
}

/// To be healed.
#[must_use]
pub struct Ongoing {
    fault: Fault,
    cast: Cast,
    stopped: Option<Process>,
}

impl Ongoing {
    /// Undoes it. What was killed is started again, but not waited for.
    pub fn heal(self, testbed: &Testbed) {
        let Cast { leader, follower, .. } = self.cast;
        if let Some(process) = &self.stopped {
            assert!(process.signal(Signal::CONT), "the process that was stopped has ended");
        }
        match self.fault {
            Fault::LeaderKilled => drop(testbed.group.playground.daemon(leader).start().map_err(|error| panic!("{error}"))),
            Fault::LeaderStopped => testbed.signal_daemon(leader, Signal::CONT),
            Fault::PostmasterStopped => testbed.signal_postmaster(follower, Signal::CONT),
            Fault::ClockAhead | Fault::ClockBehind => testbed.set_clock(leader, 0),
            fault if fault.testbed() == Kind::Relayed => testbed.relay().heal(),
            _ => self.cast.all().iter().for_each(|&number| testbed.network.heal(number)),
        }
    }
}

/// What a network does whose cable has a loose contact.
fn flap(testbed: &Testbed, number: NodeNumber) {
    for _ in 0..FLAPS {
        testbed.network.cut(number, Cut::All);
        thread::sleep(FLAP);
        testbed.network.heal(number);
        thread::sleep(FLAP);
    }
}

fn links(testbed: &Testbed, number: NodeNumber, fault: impl FnOnce(&mut LinkFaults, &str)) {
    let mut faults = LinkFaults::default();
    fault(&mut faults, testbed.group.playground.name(number));
    testbed.relay().set(faults);
}

/// Something that the leader says to each of the others, and that each of them says to the leader.
fn spoil(testbed: &Testbed, cast: Cast, spoiling: Spoiling) {
    let [leader, follower, third] = cast.all().map(|number| testbed.group.playground.name(number));
    for other in [follower, third] {
        testbed.relay().spoil(leader, other, spoiling);
        testbed.relay().spoil(other, leader, spoiling);
    }
}
