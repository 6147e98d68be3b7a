//! Who goes on when nodes die, and how they come back.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use quorate_cluster::{ClusterError, ClusterParams, Phase};
use quorate_engine::{CommitError, Error};
use support::{Cluster, add, amount, eventually, try_add};

fn impatient(params: ClusterParams) -> ClusterParams {
    params.with_commit_limit(1_000).with_stop(1_500, 500)
}

/// Adds on every live node; all must get through.
fn add_everywhere(cluster: &Cluster, name: &str) {
    for node in cluster.live() {
        add(&mut node.db.connect().unwrap(), name, 1).unwrap();
    }
}

/// Every live node refuses to commit, and loses nothing by it.
fn nobody_commits(cluster: &Cluster) {
    for node in cluster.live() {
        eventually("the node notices", || !node.db.cluster_status().unwrap().quorum);
        let before = (node.db.visible_index(), node.db.state_hash());
        let refused = try_add(&node.db, "refused", 1);
        assert!(matches!(refused, Err(CommitError::NoQuorum { .. })), "{refused:?}");
        assert_eq!((node.db.visible_index(), node.db.state_hash()), before);
        assert_eq!(amount(&node.db, "refused"), None);
    }
}

#[test]
fn any_one_of_three_may_die_and_come_back() {
    for victim in 0..3 {
        let mut cluster = Cluster::start(&[1, 1, 1]);
        add_everywhere(&cluster, "before");
        cluster.kill(victim);
        add_everywhere(&cluster, "between");
        cluster.open_all(&[victim]);
        // Open returns when the node has the state and its rank.
        let status = cluster.db(victim).cluster_status().unwrap();
        assert!(status.ready && status.phase == Phase::Member, "{status:?}");
        assert!(status.members.iter().all(|member| member.rank == 1), "{status:?}");
        assert_eq!(amount(cluster.db(victim), "before"), Some(3));
        assert_eq!(amount(cluster.db(victim), "between"), Some(2));
        add_everywhere(&cluster, "after");
        cluster.settle();
        for node in cluster.live() {
            assert_eq!(amount(&node.db, "after"), Some(3));
        }
        cluster.stop();
    }
}

#[test]
fn commits_under_way_survive_the_death_of_the_leader() {
    let mut cluster = Cluster::start(&[1, 1, 1]);
    let leader = cluster.db(0).cluster_status().unwrap().leader.unwrap().0;
    let done = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = cluster
        .live()
        .filter(|node| node.id != leader)
        .map(|node| {
            let (id, db, done) = (node.id, node.db.clone(), Arc::clone(&done));
            thread::spawn(move || {
                let mut con = db.connect().unwrap();
                let mut acknowledged = Vec::new();
                let mut in_doubt = Vec::new();
                for round in 0.. {
                    if done.load(Ordering::Relaxed) && round >= 50 {
                        break;
                    }
                    let name = format!("{id} {round}");
                    match add(&mut con, &name, 1) {
                        Ok(()) => acknowledged.push(name),
                        Err(Error::Commit(CommitError::InDoubt(_))) => in_doubt.push(name),
                        Err(error) => assert!(
                            matches!(error, Error::Commit(CommitError::NoQuorum { .. })),
                            "{error}"
                        ),
                    }
                }
                (acknowledged, in_doubt)
            })
        })
        .collect();
    let survivor = (leader + 1) % 3;
    eventually("the writers write", || {
        amount(cluster.db(survivor), &format!("{survivor} 5")).is_some()
    });
    cluster.kill(leader);
    let index = cluster.db(survivor).visible_index().0;
    eventually("commits go on", || cluster.db(survivor).visible_index().0 > index + 50);
    done.store(true, Ordering::Relaxed);
    let mut expected = 0;
    let mut doubtful = 0;
    for writer in writers {
        let (acknowledged, in_doubt) = writer.join().unwrap();
        cluster.settle();
        for node in cluster.live() {
            for name in &acknowledged {
                assert_eq!(amount(&node.db, name), Some(1), "acknowledged, on node {}", node.id);
            }
        }
        expected += acknowledged.len() as u64;
        doubtful += in_doubt.len() as u64;
    }
    for node in cluster.live() {
        let records = node.db.statistics().classes[0].records;
        assert!((expected..=expected + doubtful).contains(&records), "{records}, {expected}");
    }
    cluster.stop();
}

#[test]
fn two_of_three_are_not_enough_to_lose() {
    let mut cluster = Cluster::start_with(&[1, 1, 1], impatient);
    add_everywhere(&cluster, "before");
    cluster.settle();
    cluster.kill(0);
    cluster.kill(2);
    nobody_commits(&cluster);
    assert_eq!(amount(cluster.db(1), "before"), Some(3));
    let con = cluster.db(1).connect().unwrap();
    let listener = cluster.nodes[1].take().unwrap();
    assert_eq!(con.stop(), Err(ClusterError::NoQuorum));
    assert_eq!(listener.listener.join(), Err(ClusterError::NoQuorum));
    assert_eq!(amount(&listener.db, "before"), Some(3), "still readable");
}

#[test]
fn ranks_decide_who_goes_on() {
    // Of 2 + 1 + 1 the two small ones are half, which is not more than half.
    let mut cluster = Cluster::start_with(&[2, 1, 1], impatient);
    cluster.kill(0);
    nobody_commits(&cluster);
    drop(cluster);

    let mut cluster = Cluster::start_with(&[2, 1, 1], impatient);
    cluster.kill(1);
    add_everywhere(&cluster, "three quarters");
    cluster.settle();
    cluster.stop();
}

#[test]
fn one_node_may_hold_all_the_rank() {
    let mut cluster = Cluster::start_with(&[1, 0, 0], impatient);
    add_everywhere(&cluster, "all");
    cluster.kill(1);
    add_everywhere(&cluster, "without a learner");
    cluster.kill(2);
    add_everywhere(&cluster, "alone");
    cluster.open_all(&[1, 2]);
    for id in [1, 2] {
        assert_eq!(amount(cluster.db(id), "alone"), Some(1));
    }
    cluster.kill(0);
    nobody_commits(&cluster);
}
