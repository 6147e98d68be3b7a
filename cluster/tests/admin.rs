//! What operators ask: inside the process here, over a connection below.

#![allow(clippy::unwrap_used)]

mod support;

use quorate_cluster::{AdminAnswer, AdminError, AdminRequest, Epoch, Phase};
use support::{Cluster, add};

#[test]
fn the_status_is_answered_inside_the_process() {
    let cluster = Cluster::start(&[1, 2, 1]);
    add(&mut cluster.db(1).connect().unwrap(), "a", 1).unwrap();
    cluster.settle();
    let Some(AdminAnswer::Status(status)) = cluster.db(2).admin(AdminRequest::Status) else {
        panic!("no status");
    };
    assert_eq!(
        (status.node_id.0, status.phase, status.epoch),
        (2, Phase::Member, Epoch::default())
    );
    assert_ne!(status.cluster_id, 0);
    assert_eq!(status.index, cluster.db(2).visible_index());
    let ranks: Vec<u32> = status.members.iter().map(|member| member.rank).collect();
    assert_eq!(ranks, [1, 2, 1]);
    assert!(status.members.iter().all(|member| member.connected && member.refusal.is_none()));
    let db = cluster.db(0).clone();
    cluster.stop();
    let answer = db.admin(AdminRequest::Status);
    assert_eq!(answer, Some(AdminAnswer::Refused(AdminError::Stopped)));
}
