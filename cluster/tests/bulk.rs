//! Much data: big transactions, and state transfer while the cluster goes on.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use quorate_cluster::{ClusterParams, Database, Options};
use quorate_engine::{CommitError, DatabaseParams, Error, Isolation};
use quorate_schema::Value;
use support::{Cluster, add, dictionary, free_addresses, params};

fn frugal(params: ClusterParams) -> ClusterParams {
    // Many small pieces, and a log too short to catch up from.
    params.with_sync_msg_size(64 << 10).with_log_keep(1 << 20).with_window(64 << 10, 16, 0)
}

fn insert(db: &Database, number: u64, bytes: usize) -> Result<(), Error> {
    let content = vec![number as u8; bytes];
    db.transact(Isolation::Snapshot, |tx| {
        let number = ("number", Value::Unsigned(number));
        let fields = [number, ("bytes", Value::Bytes(content.clone()))];
        tx.insert_values("Picture", &fields).map(|_| ())
    })
}

fn pictures(db: &Database) -> u64 {
    let statistics = db.statistics();
    statistics.classes.iter().find(|class| class.name == "Picture").unwrap().records
}

#[test]
fn a_node_without_state_receives_megabytes_while_others_commit() {
    let mut cluster = Cluster::start_with(&[1, 1, 1], frugal);
    for number in 0..24 {
        insert(cluster.db(number as u32 % 3), number, 1 << 20).unwrap();
    }
    cluster.kill(1);
    let done = Arc::new(AtomicBool::new(false));
    let writer = {
        let (db, done) = (cluster.db(0).clone(), Arc::clone(&done));
        thread::spawn(move || {
            let mut con = db.connect().unwrap();
            let mut count = 0;
            while !done.load(Ordering::SeqCst) || count < 100 {
                add(&mut con, "meanwhile", 1).unwrap();
                count += 1;
            }
            count
        })
    };
    cluster.open_all(&[1]);
    done.store(true, Ordering::SeqCst);
    let count = writer.join().unwrap();
    let status = cluster.db(1).cluster_status().unwrap();
    assert!(status.counters.images_installed >= 1, "{status:?}");
    cluster.settle();
    for node in cluster.live() {
        assert_eq!(pictures(&node.db), 24);
        assert_eq!(support::amount(&node.db, "meanwhile"), Some(count));
    }
    cluster.stop();
}

#[test]
fn big_transactions_travel_until_the_segment_is_full() {
    let cluster = Cluster::start(&[1, 1, 1]);
    for id in 0..3 {
        insert(cluster.db(id), u64::from(id), 12 << 20).unwrap();
    }
    cluster.settle();
    let refused = (100..).find_map(|number| insert(cluster.db(1), number, 12 << 20).err()).unwrap();
    assert!(matches!(refused, Error::Commit(CommitError::SegmentFull { .. })), "{refused:?}");
    cluster.settle();
    cluster.stop();
}

#[test]
fn a_transaction_that_fits_no_frame_is_refused_and_harms_nothing() {
    let roomy = DatabaseParams::default().with_segment_size_bytes(1 << 30);
    let options = Options::from(params(&free_addresses(1), &[1], 0)).database(roomy);
    let db = Database::open("test", dictionary(), options).unwrap();
    let listener = db.spawn_listener().unwrap();
    let content = vec![7; 20 << 20];
    let refused = db.transact(Isolation::Snapshot, |tx| {
        for number in 0..4 {
            let number = ("number", Value::Unsigned(number));
            let fields = [number, ("bytes", Value::Bytes(content.clone()))];
            tx.insert_values("Picture", &fields)?;
        }
        Ok(())
    });
    assert!(matches!(refused, Err(Error::Commit(CommitError::TooLarge { .. }))), "{refused:?}");
    insert(&db, 0, 20 << 20).unwrap();
    assert_eq!(pictures(&db), 1);
    db.connect().unwrap().stop().unwrap();
    listener.join().unwrap();
}

/// Send buffers smaller than what the tests send at once.
fn narrow(params: ClusterParams) -> ClusterParams {
    params.with_sync_msg_size(512 << 10).with_cluster_buffers(8 << 20, 256 << 10)
}

#[test]
fn a_transaction_larger_than_the_send_buffers_commits_from_every_node() {
    let cluster = Cluster::start_with(&[1, 1, 1], narrow);
    for number in 0..6 {
        insert(cluster.db(number as u32 % 3), number, 12 << 20).unwrap();
    }
    cluster.settle();
    for node in cluster.live() {
        assert_eq!(pictures(&node.db), 6);
    }
    cluster.stop();
}

#[test]
fn an_image_larger_than_the_send_buffers_arrives() {
    let mut cluster = Cluster::start_with(&[1, 1, 1], narrow);
    for number in 0..12 {
        insert(cluster.db(0), number, 3 << 20).unwrap();
    }
    cluster.kill(2);
    cluster.open_all(&[2]);
    let images = |id| cluster.db(id).cluster_status().unwrap().counters.images_sent;
    assert!(images(0) + images(1) <= 2, "one image is enough: {} and {}", images(0), images(1));
    cluster.settle();
    assert_eq!(pictures(cluster.db(2)), 12);
    cluster.stop();
}
