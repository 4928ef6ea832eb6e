//! Micro benchmarks of what every commit passes through: the codec, the certifier, the append to the log.

use std::hint::black_box;
use std::path::PathBuf;

use criterion::{BatchSize, Criterion, Throughput};
use gcs::log::{Identity, Log};
use gcs_core::DurableWrite;
use gcs_core::certify::{Certifier, WindowBounds};
use gcs_writeset::body::{Datum, Items, PutItem};
use gcs_writeset::key::name_hash;
use gcs_writeset::writeset::Envelope;
use gcs_writeset::{Key, KeyGroup, Namespace, NodeId, Position};
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
    group.bench_function("read a TPC-B body", |bencher| bencher.iter(|| Items::new(black_box(&body)).count()));
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
        let identity = Identity { node: "n".into(), group: "g".into(), members: vec!["n".into()] };
        let (mut log, _) = Log::open(directory.path(), &identity, vec![NodeId::of_name("n")]).expect("a log");
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
    certifier(&mut criterion);
    log_append(&mut criterion);
    criterion.final_summary();
}
