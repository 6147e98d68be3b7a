//! A random mix of faults, several at a time.
//!
//! One limit is kept: without disks a majority of lives lost is lost for good, so a node is killed
//! only if enough others have been members since they started.

use std::time::{Duration, Instant};

use crate::scenarios::Stage;
use crate::trouble::Result;

/// Does something random every now and then until the time is over. Faults may be left behind.
///
/// # Errors
///
/// If a node failed.
pub fn mix(stage: &mut Stage) -> Result<()> {
    let until = Instant::now() + stage.mix;
    while Instant::now() < until {
        act(stage)?;
        let pause = Duration::from_millis(stage.random.below(600));
        stage.cluster.run_for(pause)?;
    }
    Ok(())
}

fn act(stage: &mut Stage) -> Result<()> {
    let size = stage.cluster.size();
    let node = match stage.cluster.leader() {
        Some(leader) if stage.random.below(2) == 0 => leader,
        _ => stage.random.below(size as u64) as usize,
    };
    let others = stage.all_but(&[node]);
    let other = stage.random.pick(&others);
    match stage.random.below(20) {
        0..3 if may_kill(stage, node) => {
            stage.note(format!("kill {node}"));
            stage.cluster.kill(node)
        }
        0..6 => match (0..size).find(|node| !stage.cluster.is_alive(*node)) {
            Some(dead) => {
                stage.note(format!("restart {dead}"));
                stage.cluster.restart(dead)
            }
            None => Ok(()),
        },
        6..8 => {
            stage.note(format!("stop {node}"));
            stage.cluster.stop(node)
        }
        8..10 => {
            stage.note("resume all");
            (0..size)
                .filter(|node| stage.cluster.is_stopped(*node))
                .collect::<Vec<_>>()
                .iter()
                .try_for_each(|node| stage.cluster.resume(*node))
        }
        10..12 => {
            stage.note(format!("isolate {node}"));
            stage.cluster.lab().isolate(node)
        }
        12 => {
            stage.note(format!("{node} deaf to {other}"));
            stage.cluster.lab().deafen(node, other)
        }
        13 => {
            stage.note(format!("part {node} and {other}"));
            stage.cluster.lab().part(node, other)
        }
        14 => {
            stage.note(format!("5 % loss at {node}"));
            stage.cluster.lab().lose(node, 50)
        }
        15 => {
            stage.note(format!("100 ms each way at {node}"));
            stage.cluster.delay(node, Duration::from_millis(100))
        }
        16 => {
            stage.note(format!("no delay at {node}"));
            stage.cluster.undelay(node)
        }
        _ => {
            stage.note("whole network");
            stage.cluster.lab().heal()
        }
    }
}

/// Whether a majority has members left without this one.
fn may_kill(stage: &Stage, node: usize) -> bool {
    let size = stage.cluster.size();
    let safe = |other: &usize| *other != node && stage.cluster.is_ready(*other);
    stage.cluster.is_ready(node) && 2 * (0..size).filter(safe).count() > size
}
