//! Every message comes back as it was written, and nothing else is taken for one.

use proptest::prelude::*;

use super::*;
use crate::lock::{Lock, LockKey, LockMode};

fn number<T: std::fmt::Debug>(make: impl Fn(u64) -> T + 'static) -> impl Strategy<Value = T> {
    any::<u64>().prop_map(make)
}

fn position() -> impl Strategy<Value = Position> {
    number(Position)
}

fn name() -> impl Strategy<Value = String> {
    "[a-zé]{0,20}"
}

fn slot() -> impl Strategy<Value = SlotId> {
    any::<u32>().prop_map(SlotId)
}

fn submission() -> impl Strategy<Value = (SlotId, Sequence)> {
    (slot(), number(Sequence))
}

fn tag() -> impl Strategy<Value = Tag> {
    (any::<u32>(), number(NodeId), number(Incarnation), submission()).prop_map(
        |(database, node, incarnation, (slot, sequence))| {
            let database = DatabaseId(database);
            Tag { database, node, incarnation, slot, sequence }
        },
    )
}

fn role() -> impl Strategy<Value = Role> {
    let roles = [
        Role::Manager,
        Role::Backend,
        Role::Control,
        Role::Fetcher,
        Role::Rehearsing,
        Role::Rehearser,
        Role::Locker,
        Role::Forerunner,
    ];
    prop::sample::select(roles.to_vec())
}

fn request() -> impl Strategy<Value = Request> {
    let hello =
        (role(), name(), prop::option::of(name()), number(Incarnation)).prop_map(|(role, database, group, incarnation)| {
            Request::Hello { protocol: PROTOCOL, role, database, group, incarnation }
        });
    let progress =
        (position(), position(), position(), any::<bool>()).prop_map(|(committed, flushed, oldest_base, out_of_service)| {
            Request::Progress { committed, flushed, oldest_base, out_of_service }
        });
    let rehearse = (position(), any::<u32>()).prop_map(|(after, patience_ms)| Request::Rehearse { after, patience_ms });
    let ask = (submission(), any::<[u8; 16]>(), prop::option::of(position())).prop_map(
        |((slot, sequence), token, fence_after)| Request::AskToken { slot, sequence, token: Token(token), fence_after },
    );
    prop_oneof![
        hello,
        (position(), any::<[bool; 3]>()).prop_map(|(resume_after, [founds, leaves, overwrite])| Request::Attach {
            resume_after,
            founds,
            leaves,
            overwrite,
        }),
        place().prop_map(Request::Server),
        submission().prop_map(|(slot, sequence)| Request::Submit { slot, sequence }),
        (submission(), any::<u32>()).prop_map(|((slot, sequence), index)| Request::Chunk { slot, sequence, index }),
        submission().prop_map(|(slot, sequence)| Request::Abandon { slot, sequence }),
        progress,
        ask,
        position().prop_map(|position| Request::Fetch { position }),
        Just(Request::Detach),
        Just(Request::Status),
        change().prop_map(Request::Change),
        rehearse,
        (any::<u64>(), rehearsal()).prop_map(|(number, outcome)| Request::Rehearsed { number, outcome }),
        any::<u32>().prop_map(|patience_ms| Request::Clear { patience_ms }),
        (submission(), any::<[u32; 2]>(), position()).prop_map(|((slot, sequence), [chunks, patience_ms], after)| {
            Request::Ahead { slot, sequence, chunks, after, patience_ms }
        }),
        any::<u64>().prop_map(|number| Request::FetchAhead { number }),
        any::<u64>().prop_map(|number| Request::AheadDone { number }),
        prop::collection::vec(conflict_count(), 0..4).prop_map(|counts| Request::Conflicts { counts }),
        Just(Request::Certificates),
        name().prop_map(|database| Request::AskPlace { database }),
        position().prop_map(|position| Request::Rebuild { position }),
        any::<u32>().prop_map(|count| Request::Sessions { count }),
        (name(), prop::option::of(any::<u32>())).prop_map(|(node, grace)| Request::Drain { node, grace }),
        Just(Request::AskLog),
        prop::sample::select(vec![Inquiry::Examination, Inquiry::Metrics]).prop_map(Request::Inquire),
        any::<bool>().prop_map(|follows| Request::Events { follows }),
        Just(Request::Note),
        change().prop_map(Request::Consider),
        prop::sample::select(vec![Awaited::Synced, Awaited::Writable]).prop_map(Request::Await),
        any::<u64>().prop_map(|number| Request::ReadFrom { number }),
        (any::<u64>(), op()).prop_map(|(number, op)| Request::Lock { number, op }),
        (any::<u64>(), position()).prop_map(|(number, position)| Request::AskShown { number, position }),
    ]
}

fn op() -> impl Strategy<Value = LockOp> {
    let lock = (any::<u64>(), any::<bool>()).prop_map(|(value, exclusive)| Lock {
        key: LockKey { space: LockKey::ADVISORY, value },
        mode: if exclusive { LockMode::Exclusive } else { LockMode::Shared },
    });
    prop_oneof![
        (lock.clone(), any::<bool>(), position()).prop_map(|(lock, waits, seen)| LockOp::Take { lock, waits, seen }),
        prop::collection::vec(lock.clone(), 0..4).prop_map(|locks| LockOp::Give { locks }),
        (prop::collection::vec(lock, 0..4), position()).prop_map(|(locks, seen)| LockOp::First { locks, seen }),
        any::<u64>().prop_map(|take| LockOp::Withdraw { take }),
    ]
}

fn lock_answer() -> impl Strategy<Value = LockAnswer> {
    prop_oneof![
        position().prop_map(|position| LockAnswer::Granted { position }),
        Just(LockAnswer::NotAvailable),
        Just(LockAnswer::Deadlock),
        any::<u32>().prop_map(|at| LockAnswer::Found { at }),
        Just(LockAnswer::Full),
        Just(LockAnswer::Given),
    ]
}

fn certificate() -> impl Strategy<Value = CertificateStatus> {
    (name(), any::<bool>(), "[0-9a-f]{1,40}", any::<u64>())
        .prop_map(|(name, is_authority, serial, not_after)| CertificateStatus { name, is_authority, serial, not_after })
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (name(), any::<bool>()).prop_map(|(name, force)| Change::Evict { name, force }),
        Just(Change::Leave),
        (name(), name()).prop_map(|(old, new)| Change::Replace { old, new }),
        name().prop_map(|name| Change::Lead { name }),
    ]
}

fn place() -> impl Strategy<Value = ServerPlace> {
    ("[a-z/]{0,200}", any::<u16>(), "[a-zé ]{0,60}", "[a-z/]{0,200}", any::<bool>()).prop_map(
        |(socket_directory, port, user, programs, may_rebuild)| ServerPlace {
            socket_directory,
            port,
            user,
            programs,
            may_rebuild,
        },
    )
}

fn rehearsal() -> impl Strategy<Value = Rehearsal> {
    let failure = (any::<u32>(), "[a-zé ]{0,400}", "[a-z ]{0,40}", "[a-z ]{0,40}", (position(), position())).prop_map(
        |(code, message, detail, hint, (last_statement, committed))| {
            Rehearsal::Failed(RehearsalFailure { code, message, detail, hint, last_statement, committed })
        },
    );
    let clear = position().prop_map(|committed| Rehearsal::Clear { committed });
    prop_oneof![Just(Rehearsal::Passed), Just(Rehearsal::Partly), Just(Rehearsal::Absent), failure, clear]
}

fn cause() -> impl Strategy<Value = AbortCause> {
    let conflict = (position(), number(NodeId), any::<u32>())
        .prop_map(|(winner, winner_node, key_index)| AbortCause::Conflict { winner, winner_node, key_index });
    prop_oneof![
        conflict,
        position().prop_map(|horizon| AbortCause::BelowHorizon { horizon }),
        Just(AbortCause::Malformed),
        position().prop_map(|first| AbortCause::TokenUsed { first }),
        Just(AbortCause::TokenFenced),
        position().prop_map(|floor| AbortCause::TokenTooOld { floor }),
        Just(AbortCause::LocksLost),
        (position(), any::<u64>().prop_map(NodeId), any::<u32>())
            .prop_map(|(winner, winner_node, key_index)| AbortCause::Prepared { winner, winner_node, key_index }),
        Just(AbortCause::NotPrepared),
        Just(AbortCause::AlreadyPrepared),
        Just(AbortCause::TooManyPrepared),
    ]
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![position().prop_map(|depends_on| Verdict::Certified { depends_on }), cause().prop_map(Verdict::Aborted)]
}

fn outcome() -> impl Strategy<Value = TokenOutcome> {
    prop_oneof![
        Just(TokenOutcome::Unknown),
        position().prop_map(|position| TokenOutcome::Committed { position }),
        position().prop_map(|position| TokenOutcome::Aborted { position }),
        Just(TokenOutcome::Fenced),
    ]
}

fn reason() -> impl Strategy<Value = RefusalReason> {
    prop_oneof![
        Just(RefusalReason::NoQuorum),
        Just(RefusalReason::Overloaded),
        Just(RefusalReason::NotAttached),
        Just(RefusalReason::HasContents),
        Just(RefusalReason::Format)
    ]
}

fn member() -> impl Strategy<Value = MemberStatus> {
    let states = [
        MemberState::Online,
        MemberState::Detached,
        MemberState::Unreachable,
        MemberState::OutOfService,
        MemberState::Draining,
        MemberState::Copying,
    ];
    let state = prop::sample::select(states.to_vec());
    let roles = [MemberRole::Voter, MemberRole::Learner, MemberRole::Joining, MemberRole::Leaving];
    let role = prop::sample::select(roles.to_vec());
    let copy = (name(), name(), any::<u64>(), any::<u64>(), any::<u64>()).prop_map(
        |(database, from, bytes_done, bytes_total, seconds)| CopyStatus { database, from, bytes_done, bytes_total, seconds },
    );
    let copy = prop::option::of(copy);
    let kind = prop::sample::select(NodeKind::ALL.to_vec());
    (number(NodeId), name(), name(), any::<u16>(), role, state, position(), position(), (copy, kind)).prop_map(
        |(node, name, address, ordinal, role, state, committed, ordered, (copy, kind))| MemberStatus {
            node,
            name,
            address,
            ordinal,
            role,
            state,
            committed,
            ordered,
            copy,
            kind,
        },
    )
}

fn status() -> impl Strategy<Value = GroupStatus> {
    let members = prop::collection::vec(member(), 0..=GROUP_MEMBERS_MAX);
    (any::<bool>(), prop::option::of(number(NodeId)), any::<u64>(), members)
        .prop_map(|(quorum, leader, term, members)| GroupStatus { quorum, leader, term, members })
}

fn failure() -> impl Strategy<Value = Failure> {
    let kinds = [
        FailureKind::Protocol,
        FailureKind::WrongGroup,
        FailureKind::NotAuthorized,
        FailureKind::AlreadyAttached,
        FailureKind::LogTruncated,
        FailureKind::AheadOfGroup,
        FailureKind::ShuttingDown,
        FailureKind::NotAttached,
        FailureKind::HasContents,
        FailureKind::Copying,
        FailureKind::Differs,
        FailureKind::Removed,
        FailureKind::Membership,
        FailureKind::Witness,
        FailureKind::QueryOnly,
        FailureKind::NoContents,
        FailureKind::LocksLost,
    ];
    (prop::sample::select(kinds.to_vec()), "[a-zé ]{0,400}", "[a-zé ]{0,40}").prop_map(|(kind, message, hint)| Failure {
        kind,
        message,
        hint,
    })
}

fn conflict_count() -> impl Strategy<Value = ConflictCount> {
    (any::<[u64; 4]>(), [name(), name(), name()], position()).prop_map(
        |([certification, victim, yielded, last_at], [table, key, winner], position)| ConflictCount {
            table,
            key,
            certification,
            victim,
            yielded,
            winner,
            position,
            last_at,
        },
    )
}

fn reply() -> impl Strategy<Value = Reply> {
    let welcome = (any::<u32>(), name(), number(NodeId), name(), any::<u16>())
        .prop_map(|(protocol, group, node, name, ordinal)| Reply::Welcome { protocol, group, node, name, ordinal });
    let attached = (any::<u32>(), position())
        .prop_map(|(database, serve_from)| Reply::Attached { database: DatabaseId(database), serve_from });
    let ordered = (position(), tag(), verdict(), any::<bool>()).prop_map(|(position, tag, verdict, more)| Reply::Ordered {
        position,
        tag,
        verdict,
        more,
    });
    prop_oneof![
        welcome,
        attached,
        ordered,
        (position(), any::<bool>()).prop_map(|(position, more)| Reply::Body { position, more }),
        (submission(), any::<u32>()).prop_map(|((slot, sequence), index)| Reply::ChunkOrdered { slot, sequence, index }),
        (submission(), outcome()).prop_map(|((slot, sequence), outcome)| Reply::TokenOutcome { slot, sequence, outcome }),
        (submission(), reason()).prop_map(|((slot, sequence), reason)| Reply::Refused { slot, sequence, reason }),
        status().prop_map(Reply::Group),
        Just(Reply::Detached),
        Just(Reply::Done),
        Just(Reply::Report),
        failure().prop_map(Reply::Failed),
        prop::collection::vec(certificate(), 0..4).prop_map(Reply::Certificates),
        place().prop_map(Reply::Place),
        (any::<[u64; 3]>(), any::<[u16; 2]>(), prop::collection::vec(name(), 0..4)).prop_map(
            |([bytes_kept, bytes_max, bytes_a_second], [format, reads], waits_for)| {
                Reply::Log(LogStatus { bytes_kept, bytes_max, bytes_a_second, format, reads, waits_for })
            }
        ),
        prop::sample::select(vec![Drain::No, Drain::Idle, Drain::All]).prop_map(Reply::Drain),
        (any::<bool>(), prop::option::of(any::<u32>())).prop_map(|(leads, sessions)| Reply::Draining { leads, sessions }),
        any::<u32>().prop_map(|nodes| Reply::Rehearsing { nodes }),
        (name(), rehearsal()).prop_map(|(node, outcome)| Reply::Rehearsed { node, outcome }),
        (any::<u64>(), position()).prop_map(|(number, after)| Reply::Rehearse { number, after }),
        any::<u64>().prop_map(|key| Reply::Contended { key: Key(key) }),
        (any::<u64>(), any::<u32>()).prop_map(|(number, patience_ms)| Reply::Clear { number, patience_ms }),
        (any::<u64>(), tag(), any::<[u32; 2]>(), position()).prop_map(|(number, tag, [chunks, patience_ms], after)| {
            Reply::Ahead { number, tag, chunks, after, patience_ms }
        }),
        any::<u64>().prop_map(|number| Reply::Over { number }),
        Just(Reply::ForerunnerWanted),
        Just(Reply::AskConflicts),
        tag().prop_map(|tag| Reply::AheadOver { tag }),
        (any::<[u64; 3]>(), lock_answer()).prop_map(|([number, life, session], answer)| Reply::Lock {
            number,
            session: LockSession { life, number: session },
            answer,
        }),
        (any::<u64>(), reason()).prop_map(|(number, reason)| Reply::LockRefused { number, reason }),
    ]
}

fn encode<M: Message>(message: &M) -> Vec<u8> {
    let mut out = Vec::new();
    message.put(&mut out).unwrap();
    out
}

fn hello(protocol: u32, database: &str) -> Request {
    let (database, group) = (database.to_owned(), Some("g".to_owned()));
    Request::Hello { protocol, role: Role::Backend, database, group, incarnation: Incarnation(1) }
}

/// What a caller of another protocol is taken for.
fn stranger(protocol: u32) -> Request {
    Request::Hello { protocol, role: Role::Control, database: String::new(), group: None, incarnation: Incarnation(0) }
}

#[test]
fn the_bytes_are_those_that_are_written_down() {
    let submit = Request::Submit { slot: SlotId(300), sequence: Sequence(9) };
    assert_eq!(encode(&submit), [2, 0xac, 2, 9, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(encode(&hello(PROTOCOL, "shop")), *b"\0\x0b\x01\x04shop\x01\x01g\x01\0\0\0\0\0\0\0");
    let failure = Failure { kind: FailureKind::AlreadyAttached, message: "no".to_owned(), hint: String::new() };
    assert_eq!(encode(&Reply::Failed(failure)), *b"\x09\x03\x02no\0");
    let verdict = Verdict::Aborted(AbortCause::Conflict { winner: Position(300), winner_node: NodeId(1), key_index: 7 });
    let mut out = Vec::new();
    verdict.put(&mut out);
    assert_eq!(out, [1, 0xac, 2, 1, 0, 0, 0, 0, 0, 0, 0, 7]);
    let pinned = AbortCause::Prepared { winner: Position(300), winner_node: NodeId(1), key_index: 7 };
    out.clear();
    Verdict::Aborted(pinned).put(&mut out);
    assert_eq!(out, [8, 0xac, 2, 1, 0, 0, 0, 0, 0, 0, 0, 7]);
    let causes = [AbortCause::NotPrepared, AbortCause::AlreadyPrepared, AbortCause::TooManyPrepared];
    out.clear();
    causes.into_iter().for_each(|cause| Verdict::Aborted(cause).put(&mut out));
    assert_eq!(out, [9, 10, 11]);
}

#[test]
fn a_greeting_of_another_protocol_is_understood_well_enough_to_be_refused_by_its_number() {
    assert_eq!(Request::decode(&encode(&hello(PROTOCOL + 1, "shop"))), Ok(stranger(PROTOCOL + 1)));
    // As the first protocol wrote it, whose number of 64 bits was shorter where it could be.
    assert_eq!(Request::decode(b"\0\x01\x01\x04shop\x01\x01g\x07"), Ok(stranger(1)));
    assert_eq!(Request::decode(b"\0\x63whatever comes then"), Ok(stranger(99)));
}

#[test]
fn nobody_writes_what_nobody_would_read() {
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    let refused = Message::put(&hello(PROTOCOL, &long), &mut Vec::new());
    assert!(matches!(refused, Err(WireError::TooLarge { what: "name", .. })));
    let message = "x".repeat(TEXT_BYTES_MAX + 1);
    let failure = Failure { kind: FailureKind::Protocol, message, hint: String::new() };
    let refused = Message::put(&Reply::Failed(failure), &mut Vec::new());
    assert!(matches!(refused, Err(WireError::TooLarge { what: "failure message", .. })));
    let member = MemberStatus {
        node: NodeId(1),
        name: String::new(),
        address: String::new(),
        ordinal: 0,
        role: MemberRole::Voter,
        state: MemberState::Online,
        committed: Position::ZERO,
        ordered: Position::ZERO,
        copy: None,
        kind: NodeKind::Full,
    };
    let status = GroupStatus { members: vec![member; GROUP_MEMBERS_MAX + 1], ..GroupStatus::default() };
    let refused = Message::put(&Reply::Group(status), &mut Vec::new());
    assert!(matches!(refused, Err(WireError::TooLarge { what: "number of members", .. })));
}

#[test]
fn an_unknown_tag_is_refused() {
    assert_eq!(Request::decode(&[22]), Err(WireError::Unknown { what: "link request", value: 22 }));
    assert_eq!(Reply::decode(&[27]), Err(WireError::Unknown { what: "link reply", value: 27 }));
    assert_eq!(Request::decode(b"\0\x0b\x09"), Err(WireError::Unknown { what: "role", value: 9 }));
    assert_eq!(Reply::decode(b"\x06\0\0\0\0\0\0\0\0\0\x05"), Err(WireError::Unknown { what: "refusal", value: 5 }));
    assert_eq!(Reply::decode(b"\x05\0\0\0\0\0\0\0\0\0\x04"), Err(WireError::Unknown { what: "token outcome", value: 4 }));
    assert_eq!(Reply::decode(b"\x03\0\0\0\0\0\0\0\0\x02"), Err(WireError::Unknown { what: "flag", value: 2 }));
    assert_eq!(Reply::decode(b"\x09\x0b\0\0"), Err(WireError::Unknown { what: "failure", value: 11 }));
    assert_eq!(Verdict::read(&mut Reader::new(&[12])), Err(WireError::Unknown { what: "verdict", value: 12 }));
}

#[test]
fn a_number_that_is_too_large_for_its_place_is_refused() {
    let beyond = [&b"\x02"[..], &[0x80, 0x80, 0x80, 0x80, 0x10], &[0; 8]].concat();
    assert_eq!(Request::decode(&beyond), Err(WireError::OutOfRange { what: "number of 32 bits" }));
    let members = [&b"\x07\x01\0"[..], &[0; 8], &[GROUP_MEMBERS_MAX as u8 + 1]].concat();
    assert!(matches!(Reply::decode(&members), Err(WireError::TooLarge { what: "number of members", .. })));
}

proptest! {
    #[test]
    fn a_request_comes_back_as_it_was_and_only_whole(request in request(), extra in any::<u8>()) {
        let mut bytes = encode(&request);
        for shorter in 0..bytes.len() {
            prop_assert!(Request::decode(&bytes[..shorter]).is_err());
        }
        prop_assert_eq!(Request::decode(&bytes), Ok(request));
        bytes.push(extra);
        prop_assert_eq!(Request::decode(&bytes), Err(WireError::Trailing { what: "link request", extra: 1 }));
    }

    #[test]
    fn a_reply_comes_back_as_it_was_and_only_whole(reply in reply(), extra in any::<u8>()) {
        let mut bytes = encode(&reply);
        for shorter in 0..bytes.len() {
            prop_assert!(Reply::decode(&bytes[..shorter]).is_err());
        }
        prop_assert_eq!(Reply::decode(&bytes), Ok(reply));
        bytes.push(extra);
        prop_assert_eq!(Reply::decode(&bytes), Err(WireError::Trailing { what: "link reply", extra: 1 }));
    }

    #[test]
    fn garbage_behind_a_right_tag_never_panics(tag in 0u8..46, bytes in prop::collection::vec(any::<u8>(), 0..128)) {
        let bytes = [&[tag][..], &bytes].concat();
        let _ = Request::decode(&bytes);
        let _ = Reply::decode(&bytes);
    }

    #[test]
    fn a_changed_byte_never_panics(reply in reply(), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let mut bytes = encode(&reply);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let _ = Reply::decode(&bytes);
    }
}
