//! Micro benchmarks of what every commit passes through: the codec, the certifier, the append to the log.

use std::hint::black_box;
use std::path::PathBuf;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use gcs::log::Log;
use gcs_core::DurableWrite;
use gcs_core::certify::{Certifier, WindowBounds};
use gcs_core::command::{Command, encode_entry};
use gcs_writeset::body::{Datum, Items, PutItem};
use gcs_writeset::key::name_hash;
use gcs_writeset::link::{self, Reply, Request, Verdict};
use gcs_writeset::writeset::Envelope;
use gcs_writeset::{DatabaseId, Incarnation, Key, KeyGroup, Namespace, NodeId, Position, Sequence, SlotId, Tag};
use raft::eraftpb::Entry;

/// What one TPC-B transaction changes: three rows updated, one inserted.
fn tpcb_body() -> Vec<u8> {
    let mut body = Vec::new();
    for (relation, (name, columns)) in
        [("pgbench_accounts", 4), ("pgbench_tellers", 4), ("pgbench_branches", 3)].into_iter().enumerate()
    {
        body.put_relation("public", name, columns);
        body.put_update(relation as u32);
        for column in 0..columns * 2 {
            let absent = (1..columns).contains(&column);
            body.put_datum(if absent { Datum::Absent } else { Datum::Physical(&[7, 0, 0, 0]) });
        }
    }
    body.put_relation("public", "pgbench_history", 6);
    body.put_insert(3);
    (0..6).for_each(|_| body.put_datum(Datum::Physical(&[7, 0, 0, 0])));
    body
}

/// Three rows and the three relations they are in, as seen from a little way behind `position`.
fn tpcb_envelope(position: u64) -> Envelope {
    let row = |table: u64, rows: u64| {
        Key::new(Namespace::Row, name_hash(&["public", "t"]) ^ table, position.wrapping_mul(0x9e37_79b9) % rows)
    };
    let exclusive = vec![row(1, 1_000_000), row(2, 100_000), row(3, 100_000)];
    let shared = (0..4).map(|table| Key::new(Namespace::Relation, table, 0)).collect();
    let base = Position(position.saturating_sub(8));
    Envelope {
        oldest_base: base,
        groups: vec![KeyGroup { base, exclusive, shared, ..KeyGroup::default() }],
        ..Envelope::default()
    }
}

fn codec(criterion: &mut Criterion) {
    let (envelope, body) = (tpcb_envelope(1000), tpcb_body());
    let encoded = envelope.encode(&body);
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Bytes(encoded.len() as u64));
    group
        .bench_function("encode a TPC-B writeset", |bencher| bencher.iter(|| black_box(&envelope).encode(black_box(&body))));
    group.bench_function("decode a TPC-B writeset", |bencher| {
        bencher.iter(|| Envelope::decode(black_box(&encoded)).map(|(envelope, _)| envelope.groups.len()));
    });
    group.bench_function("look at a TPC-B writeset", |bencher| {
        bencher.iter(|| Envelope::peek(black_box(&encoded)).map(|peeked| peeked.body.len()));
    });
    group.bench_function("read a TPC-B body", |bencher| bencher.iter(|| Items::new(black_box(&body)).count()));
    group.finish();
}

fn tag() -> Tag {
    let (database, node, incarnation) = (DatabaseId(1), NodeId(0x1234_5678_9abc_def0), Incarnation(0xfedc_ba98_7654_3210));
    Tag { database, node, incarnation, slot: SlotId(7), sequence: Sequence(1000) }
}

/// What a backend sends to its daemon, and what a daemon sends to a manager.
fn link_frames(criterion: &mut Criterion) {
    let (envelope, body) = (tpcb_envelope(1000), tpcb_body());
    let writeset = envelope.encode(&body);
    let submit = Request::Submit { slot: SlotId(7), sequence: Sequence(1000) };
    let verdict = Verdict::Certified { depends_on: Position(992) };
    let ordered = Reply::Ordered { position: Position(1000), tag: tag(), verdict, more: false };
    let mut frame = Vec::new();
    let mut group = criterion.benchmark_group("link");
    group.bench_function("frame a TPC-B writeset by way of two vectors", |bencher| {
        bencher.iter(|| {
            let rest = black_box(&body).clone();
            let writeset = black_box(&envelope).encode(&rest);
            let mut frame = Vec::with_capacity(writeset.len() + 64);
            link::put_frame(&mut frame, black_box(&submit), &writeset).map(|()| frame)
        });
    });
    group.bench_function("frame a TPC-B writeset in place", |bencher| {
        bencher.iter(|| {
            frame.clear();
            let put_body = |out: &mut Vec<u8>| out.extend_from_slice(black_box(&body));
            link::put_frame_with(&mut frame, black_box(&submit), |out| {
                black_box(&envelope).encode_into(out, body.len(), put_body)
            })
        });
    });
    group.bench_function("frame an ordered TPC-B writeset", |bencher| {
        bencher.iter(|| {
            frame.clear();
            link::put_frame(&mut frame, black_box(&ordered), black_box(&writeset))
        });
    });
    group.bench_function("decode a frame with an ordered writeset", |bencher| {
        bencher.iter(|| link::decode_frame::<Reply>(black_box(&frame)).map(|(_, payload)| payload.len()));
    });
    frame.clear();
    link::put_frame(&mut frame, &submit, &writeset).expect("a frame");
    group.bench_function("decode a frame with a submission", |bencher| {
        bencher.iter(|| link::decode_frame::<Request>(black_box(&frame)).map(|(_, payload)| payload.len()));
    });
    group.finish();
}

/// What the leader does with submissions that come together: each becomes a command, all become one entry.
fn entry(criterion: &mut Criterion) {
    let writeset = Bytes::from(tpcb_envelope(1000).encode(&tpcb_body()));
    let commands: Vec<Command> = (0..32).map(|_| Command::Submit { tag: tag(), writeset: writeset.clone() }).collect();
    let mut group = criterion.benchmark_group("entry");
    group.throughput(Throughput::Bytes(32 * writeset.len() as u64));
    group.bench_function("encode an entry of 32 TPC-B submissions", |bencher| {
        bencher.iter(|| {
            let encoded: Vec<_> = black_box(&commands).iter().map(Command::encode).collect();
            encode_entry(&encoded)
        });
    });
    group.finish();
}

fn certifier(criterion: &mut Criterion) {
    let mut position = 0;
    let mut certifier = Certifier::new(WindowBounds::default());
    criterion.bench_function("certify a TPC-B writeset", |bencher| {
        bencher.iter_batched(
            || {
                position += 1;
                (Position(position), tpcb_envelope(position))
            },
            |(position, envelope)| certifier.certify(position, NodeId(1), &envelope),
            BatchSize::SmallInput,
        );
    });
}

/// On the disk that the target directory is on; a flush is most of it.
fn log_append(criterion: &mut Criterion) {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let mut group = criterion.benchmark_group("log");
    for (name, entries, sync) in
        [("append and flush 1 entry", 1, true), ("append and flush 32 entries", 32, true), ("append 1 entry", 1, false)]
    {
        let directory = tempfile::tempdir_in(&target).expect("a directory");
        let (mut log, _) = Log::open(directory.path()).expect("a log");
        let data = tpcb_envelope(1).encode(&tpcb_body());
        let (mut index, mut number) = (0, 0);
        group.throughput(Throughput::Elements(entries));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let entry = |n| Entry { index: index + n, term: 1, data: data.clone(), ..Entry::default() };
                let entries: Vec<Entry> = (1..=entries).map(entry).collect();
                index += entries.len() as u64;
                number += 1;
                log.write(DurableWrite { number, entries, sync, ..DurableWrite::default() }).expect("a write");
            });
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args().sample_size(20);
    codec(&mut criterion);
    link_frames(&mut criterion);
    entry(&mut criterion);
    certifier(&mut criterion);
    log_append(&mut criterion);
    criterion.final_summary();
}
