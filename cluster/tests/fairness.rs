//! A long transaction on one node, while the others write what it uses without a pause.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use quorate_engine::{Error, Isolation};
use quorate_schema::Value;
use support::{Cluster, add, amount};

#[test]
fn a_long_transaction_gets_its_turn_among_short_ones() {
    let cluster = Cluster::start(&[1, 1, 1]);
    add(&mut cluster.db(0).connect().unwrap(), "hot", 0).unwrap();
    let done = AtomicBool::new(false);
    let committed = thread::scope(|scope| {
        let writers: Vec<_> = [0, 1, 2, 2]
            .map(|node| cluster.db(node))
            .into_iter()
            .map(|db| {
                scope.spawn(|| {
                    let mut con = db.connect().unwrap();
                    let mut committed = 0;
                    while !done.load(Ordering::Relaxed) {
                        match add(&mut con, "hot", 1) {
                            Ok(()) => committed += 1,
                            // It stood back for the long one for too long: that may be.
                            Err(Error::Exhausted { .. }) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                    committed
                })
            })
            .collect();
        let mut con = cluster.db(0).connect().unwrap();
        let results: Vec<_> = (0..3)
            .map(|_| {
                con.transact(Isolation::Serializable, |tx| {
                    let key = [Value::Text("hot".into())];
                    let (handle, record) = tx.find_record("Counter", "by_name", &key)?.unwrap();
                    let Value::Signed(before) = record.value("amount")? else { panic!() };
                    // Many short ones commit meanwhile, if they may.
                    thread::sleep(Duration::from_millis(30));
                    tx.update_fields(handle, &[("amount", Value::Signed(before + 1000))])
                })
            })
            .collect();
        done.store(true, Ordering::Relaxed);
        let committed: i64 = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
        results.into_iter().collect::<Result<Vec<()>, _>>().unwrap();
        committed
    });
    cluster.settle();
    assert_eq!(amount(cluster.db(0), "hot"), Some(committed + 3000));
    cluster.stop();
}
