//! Random schedules from a seed: loss, delay, repetition, reordering, crashes, cuts, changes of
//! members, images, transfers and vetoes; after each the truth is checked, and at the end of each
//! run the healed cluster must make progress.

use quorate_consensus::{Identity, Input, Member, Role, Settings};

use crate::world::{Image, Node, Packet, Rng, World, members};

pub(crate) struct Plan {
    pub(crate) ranks: &'static [u32],
    pub(crate) in_memory: bool,
    pub(crate) send_before_durable: bool,
    pub(crate) steps: usize,
    /// Leaders die young and entries travel one by one: the weather of figure 8 of the Raft paper.
    pub(crate) churn: bool,
}

const PLANS: &[Plan] = &[
    plan(&[1], false, false),
    plan(&[1, 1], false, true),
    plan(&[1, 1, 1], true, false),
    plan(&[1, 1, 1], false, false),
    plan(&[2, 1, 1], true, false),
    plan(&[2, 1, 1], false, true),
    plan(&[1, 0, 0], false, false),
    plan(&[2, 1, 1, 1], true, false),
    plan(&[2, 1, 1, 1], false, false),
    plan(&[3, 2, 2, 1], false, true),
    plan(&[1, 1, 1, 1, 1], true, false),
    plan(&[1, 1, 1, 1, 1], false, false),
    plan(&[3, 1, 1, 0], false, false),
    churn(&[1, 1, 1]),
    churn(&[2, 1, 1, 1]),
    churn(&[1, 1, 1, 1, 1]),
];

pub(crate) const fn plan(
    ranks: &'static [u32],
    in_memory: bool,
    send_before_durable: bool,
) -> Plan {
    Plan { ranks, in_memory, send_before_durable, steps: 1500, churn: false }
}

pub(crate) const fn churn(ranks: &'static [u32]) -> Plan {
    Plan { ranks, in_memory: false, send_before_durable: false, steps: 1500, churn: true }
}

pub(crate) fn settings(plan: &Plan) -> Settings {
    let mut settings = Settings::new(60, 10, 100, 3).unwrap();
    if plan.churn {
        settings.max_append_bytes = 1;
        settings.max_in_flight = 1;
    }
    settings.send_before_durable = plan.send_before_durable;
    settings
}

/// Runs a plan from a seed until its end or the first broken guarantee.
pub(crate) fn run(plan: &Plan, seed: u64, settings: Settings, live: bool) -> World {
    let mut world = World::new(settings, plan.ranks, plan.in_memory, seed);
    let mut rng = Rng(seed ^ 0xD1CE);
    for _ in 0..plan.steps {
        if plan.churn && rng.one_in(12) {
            topple(&mut world, &mut rng);
        }
        act(&mut world, &mut rng);
        if !world.truth.errors.is_empty() {
            return world;
        }
    }
    if live {
        heal(&mut world);
        check_progress(&mut world);
    }
    world
}

fn act(world: &mut World, rng: &mut Rng) {
    let node = rng.below(world.nodes.len());
    match rng.below(1000) {
        0..450 => deliver_any(world, rng),
        450..560 => {
            let ticks = rng.below(4) as u64;
            world.pass(ticks);
        }
        560..570 => world.pass(50),
        570..690 => world.sync(node),
        690..800 => {
            if let Some(leader) = any_leader(world, rng) {
                world.propose(leader);
            }
        }
        800..815 => crash(world, node),
        815..850 => {
            world.boot_if_down(node);
        }
        850..862 => cut(world, rng),
        862..880 => mend(world),
        880..900 => readmit(world),
        900..915 => change_ranks(world, rng),
        915..930 if world.is_up(node) => {
            let upto = world.core(node).commit();
            world.step(node, Input::Compact { upto });
        }
        930..960 => image(world, rng),
        960..968 => {
            let to = world.nodes[rng.below(world.nodes.len())].identity;
            world.step(node, Input::TransferLeadership { to });
        }
        968..972 => {
            let on = rng.one_in(2);
            world.step(node, Input::Veto { on });
        }
        972..976 => world.step(node, Input::Veto { on: false }),
        976..986 => world.step(node, Input::ReadIndex { token: 1 }),
        _ => world.tick(node),
    }
}

/// The leader dies or loses its connections, perhaps before anything it sent arrives; the others
/// notice at once.
fn topple(world: &mut World, rng: &mut Rng) {
    let count = world.nodes.len();
    let node = rng.below(count);
    world.boot_if_down(node);
    let Some(leader) = any_leader(world, rng) else { return };
    let identity = world.nodes[leader].identity;
    if rng.one_in(2) {
        world.packets.retain(|packet| packet.from != identity);
    }
    if rng.one_in(2) {
        world.crash(leader);
    }
    for other in 0..count {
        world.disconnect(leader, other);
        world.disconnect(other, leader);
    }
    world.pass(5);
    for other in 0..count {
        world.connect(leader, other);
        world.connect(other, leader);
    }
}

fn deliver_any(world: &mut World, rng: &mut Rng) {
    if world.packets.is_empty() {
        return;
    }
    // Mostly in order, as connections are; sometimes any.
    let place = if rng.one_in(4) { rng.below(world.packets.len()) } else { 0 };
    if rng.one_in(12) {
        let Packet { from, to, message } = &world.packets[place];
        let again = Packet { from: *from, to: *to, message: message.clone() };
        world.packets.push(again);
    }
    let packet = world.packets.remove(place);
    if !rng.one_in(25) {
        world.deliver(packet);
    }
}

fn any_leader(world: &World, rng: &mut Rng) -> Option<usize> {
    let leads = |n: &usize| world.is_up(*n) && world.core(*n).role() == Role::Leader;
    let leaders: Vec<_> = (0..world.nodes.len()).filter(leads).collect();
    leaders.get(rng.below(leaders.len())).copied()
}

/// With disks anything may crash. Without, only as long as the others are a quorum in each
/// configuration that anybody could act by: losing more loses the cluster, by design.
fn crash(world: &mut World, node: usize) {
    if world.in_memory {
        let survives = |who: Identity| {
            world.number_of(who).is_some_and(|other| other != node && world.is_up(other))
        };
        let all_survive = (0..world.nodes.len()).filter(|n| world.is_up(*n)).all(|n| {
            let core = world.core(n);
            let configs = [core.config(), core.committed_config().1];
            configs.iter().all(|c| c.current.is_empty() || c.is_quorum(survives))
        });
        if !all_survive {
            return;
        }
    }
    world.crash(node);
}

fn cut(world: &mut World, rng: &mut Rng) {
    let count = world.nodes.len();
    if rng.one_in(2) {
        let pair = (rng.below(count), rng.below(count));
        world.cut.insert(pair);
    } else {
        let side: Vec<bool> = (0..count).map(|_| rng.one_in(2)).collect();
        for from in 0..count {
            for to in (0..count).filter(|to| side[*to] != side[from]) {
                world.cut.insert((from, to));
            }
        }
    }
    for (from, to) in world.cut.clone() {
        if rng.one_in(2) {
            world.disconnect(to, from);
        }
    }
}

fn mend(world: &mut World) {
    for (from, to) in std::mem::take(&mut world.cut) {
        world.connect(from, to);
        world.connect(to, from);
    }
}

fn image(world: &mut World, rng: &mut Rng) {
    if world.images.is_empty() {
        return;
    }
    let image: Image = world.images.remove(rng.below(world.images.len()));
    if !rng.one_in(5) {
        world.install(image);
    }
}

/// What the cluster does for a node that came back as another incarnation: a learner first, its
/// rank when it holds the log.
fn readmit(world: &mut World) {
    let Some(leader) = world.leader() else { return };
    let core = world.core(leader);
    let mut list = core.config().current.clone();
    for node in world.nodes.iter().filter(|node| node.core.is_some()) {
        let identity = node.identity;
        let own = core.config().contains(identity);
        let old = list.iter().position(|m| m.identity.node == identity.node);
        if !own {
            list.push(Member { identity, rank: 0 });
            break;
        }
        let Some(old) = old.filter(|old| list[*old].identity != identity) else { continue };
        let caught_up = core.progress(identity).is_some_and(|p| p.matched >= core.commit());
        if caught_up {
            let rank = list[old].rank;
            list.remove(old);
            for member in list.iter_mut().filter(|m| m.identity == identity) {
                member.rank += rank;
            }
            break;
        }
    }
    world.step(leader, Input::ProposeConfig { members: list });
}

fn change_ranks(world: &mut World, rng: &mut Rng) {
    let Some(leader) = any_leader(world, rng) else { return };
    let mut list = world.core(leader).config().current.clone();
    let place = rng.below(list.len());
    if rng.one_in(5) && list.len() > 1 {
        list.remove(place);
    } else if rng.one_in(3) {
        list = members(&vec![1; world.nodes.len()]);
        for member in &mut list {
            let node = member.identity.node.0 as usize;
            member.identity = world.nodes[node].identity;
            member.rank = rng.below(3) as u32;
        }
    } else {
        let rank = &mut list[place].rank;
        *rank = if rng.one_in(2) { *rank + 1 } else { rank.saturating_sub(1) };
    }
    if !world.in_memory {
        world.step(leader, Input::ProposeConfig { members: list });
    }
}

fn heal(world: &mut World) {
    for node in 0..world.nodes.len() {
        world.step(node, Input::Veto { on: false });
        world.boot_if_down(node);
    }
    world.cut.clear();
    for from in 0..world.nodes.len() {
        for to in 0..world.nodes.len() {
            world.connect(from, to);
        }
    }
}

/// A healthy cluster elects a leader, readmits everybody and commits on all members.
fn check_progress(world: &mut World) {
    for _ in 0..40 {
        world.run(20);
        if world.in_memory {
            readmit(world);
        }
    }
    world.run(200);
    let Some(leader) = world.leader() else {
        let state: Vec<_> = world.nodes.iter().map(describe).collect();
        world.truth.fail(format!("liveness: no leader in a healed cluster: {state:#?}"));
        return;
    };
    world.propose(leader);
    let (last, _) = world.core(leader).last();
    world.run(100);
    let config = world.core(leader).config().clone();
    for node in 0..world.nodes.len() {
        let core = world.core(node);
        if config.contains(core.identity()) && core.commit() < last {
            let (who, commit) = (core.identity(), core.commit());
            let what = format!("liveness: {who:?} committed {commit:?} of {last:?} ({config:?})");
            world.truth.fail(what);
        }
    }
    if config.is_joint() {
        world.truth.fail(format!("liveness: still joint: {config:?}"));
    }
}

fn describe(node: &Node) -> String {
    let Some(core) = &node.core else { return format!("{:?} down", node.identity) };
    let (role, term, last) = (core.role(), core.term(), core.last());
    let (commit, config) = (core.commit(), core.config());
    let (who, wakeup) = (core.identity(), core.next_wakeup());
    format!("{who:?} {role:?} {term:?} {last:?} commit {commit:?} wakes {wakeup} {config:?}")
}

#[test]
fn random_schedules_keep_every_guarantee_and_healed_clusters_make_progress() {
    let seeds = std::env::var("CONSENSUS_SEEDS").map_or(400, |n| n.parse().unwrap());
    let first = std::env::var("CONSENSUS_FIRST").map_or(0, |n| n.parse().unwrap());
    let (mut leaders, mut truncations, mut early, mut images) = (0, 0, 0, 0);
    let (mut configs, mut joint, mut windows) = (0, 0, 0);
    for (number, plan) in PLANS.iter().enumerate() {
        for seed in first..first + seeds {
            let world = run(plan, seed * 100 + number as u64, settings(plan), true);
            let ranks = plan.ranks;
            let memory = plan.in_memory;
            assert!(
                world.truth.errors.is_empty(),
                "plan {number} {ranks:?} memory {memory} seed {seed}: {:#?}",
                world.truth.errors
            );
            leaders += world.truth.leader_changes;
            truncations += world.truth.truncations;
            early += world.truth.early_ahead;
            images += world.truth.images;
            configs += world.truth.configs_committed;
            joint += world.truth.joint_committed;
            windows += world.truth.windows_committed;
        }
    }
    let seen = [leaders, truncations, early, images, configs, joint, windows];
    // A schedule without these would prove nothing.
    let wanted = [10, 1, 2, 1, 2, 1, 50].map(|per_seed| per_seed * seeds);
    for (place, (seen, wanted)) in seen.iter().zip(wanted).enumerate() {
        assert!(*seen >= wanted, "kind {place}: saw {seen}, wanted {wanted} of {seen:?}");
    }
}

#[test]
fn a_schedule_is_a_function_of_its_seed() {
    let plan = plan(&[2, 1, 1], false, false);
    let once = run(&plan, 7, settings(&plan), true);
    let again = run(&plan, 7, settings(&plan), true);
    for node in 0..once.nodes.len() {
        assert_eq!(once.core(node), again.core(node));
    }
}
