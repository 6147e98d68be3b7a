//! The network: a namespace for each node, all of them wired to a bridge in one more, the hub.
//!
//! ```text
//!   node i: v -----veth----- h<i> [filter] --- bridge          cut, one way, lossy: the filter
//!   node i: v -----veth----- h<i> [filter] === relay === x<i> --veth-- y<i> --- bridge    delayed
//! ```
//!
//! What a node does not hear is decided where the hub sends to it: a classic BPF program that looks
//! at the sender's address and draws lots. Kernels without `netem` have that too. Delay is the work
//! of a [relay](crate::relay), a process in the hub, for the same reason.
//!
//! Namespaces carry the conductor's process id in their name. Dropping a lab deletes its own, and
//! building one deletes those of conductors that are gone.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::trouble::{Result, Trouble};

/// Where named namespaces are.
const NAMESPACES: &str = "/run/netns";

const PREFIX: &str = "quorate-faults";

/// Loss is told in packets of this many.
pub const LOSS_UNIT: u32 = 1_000;

/// The most nodes a lab can have: the last byte of an address.
const NODES_MAX: usize = 32;

/// A network with its nodes' namespaces.
///
/// Invariant: the filters in the kernel are those that `deaf` and `loss` say.
#[derive(Debug)]
pub struct Lab {
    /// The common part of the namespaces' names.
    name: String,
    nodes: usize,
    /// By node: whom it does not hear.
    deaf: Vec<BTreeSet<usize>>,
    /// By node: how many of [`LOSS_UNIT`] packets to it get lost.
    loss: Vec<u32>,
    /// By node: whether a relay is between it and the bridge.
    relayed: Vec<bool>,
}

/// The address of a node.
pub fn address(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 83, 0, node as u8 + 1)
}

/// Why no lab can be built here, if none can: not root, no `ip` or `tc`, or a kernel without what
/// it takes. Tries it out, so what is not said to be missing works.
pub fn unavailable() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("network namespaces need root".to_owned());
    }
    let tried = Lab::build(2).and_then(|mut lab| {
        lab.deafen(0, 1)?;
        lab.lose(1, 1)
    });
    tried.err().map(|trouble| format!("no network namespaces: {trouble}"))
}

impl Lab {
    /// Builds a network of this many nodes that all hear each other.
    ///
    /// # Errors
    ///
    /// Which command failed, and what it said. What was built is deleted.
    pub fn build(nodes: usize) -> Result<Self> {
        assert!((1..=NODES_MAX).contains(&nodes), "a lab of {nodes} nodes");
        delete_stale();
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let lab = Self {
            name: format!("{PREFIX}-{}-{serial}", std::process::id()),
            nodes,
            deaf: vec![BTreeSet::new(); nodes],
            loss: vec![0; nodes],
            relayed: vec![false; nodes],
        };
        let hub = lab.hub();
        run("ip", &["netns", "add", &hub])?;
        let mut wiring = String::from("link add name bridge type bridge\nlink set bridge up\n");
        for node in 0..nodes {
            let namespace = lab.namespace(node);
            run("ip", &["netns", "add", &namespace])?;
            wiring += &format!(
                "link add name h{node} type veth peer name v netns {namespace}\n\
                 link set h{node} addrgenmode none\n\
                 link set h{node} gso_max_segs 1\n\
                 link set h{node} master bridge\n\
                 link set h{node} up\n"
            );
        }
        batch("ip", &hub, &wiring)?;
        let mut filters = String::new();
        for node in 0..nodes {
            batch("ip", &lab.namespace(node), &lab.own_wiring(node))?;
            filters += &format!("qdisc add dev h{node} clsact\n");
        }
        batch("tc", &hub, &filters)?;
        Ok(lab)
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// A command that runs a program on the node's network. The process started is the program's.
    pub fn command(&self, node: usize, program: &Path) -> Command {
        inside(&self.namespace(node), program)
    }

    /// The node no longer hears the other one, which goes on to hear it.
    ///
    /// # Errors
    ///
    /// If `tc` fails.
    pub fn deafen(&mut self, node: usize, to: usize) -> Result<()> {
        assert!(node != to && to < self.nodes, "node {node} deaf to {to}");
        self.deaf[node].insert(to);
        self.filter(node)
    }

    /// The two no longer hear each other.
    ///
    /// # Errors
    ///
    /// If `tc` fails.
    pub fn part(&mut self, one: usize, other: usize) -> Result<()> {
        self.deafen(one, other)?;
        self.deafen(other, one)
    }

    /// Nobody hears the node, and it hears nobody.
    ///
    /// # Errors
    ///
    /// If `tc` fails.
    pub fn isolate(&mut self, node: usize) -> Result<()> {
        for other in (0..self.nodes).filter(|other| *other != node) {
            self.deaf[node].insert(other);
            self.deaf[other].insert(node);
        }
        self.filter_all()
    }

    /// This many of [`LOSS_UNIT`] packets to the node get lost.
    ///
    /// # Errors
    ///
    /// If `tc` fails.
    pub fn lose(&mut self, node: usize, packets: u32) -> Result<()> {
        self.loss[node] = packets.min(LOSS_UNIT);
        self.filter(node)
    }

    /// Everybody hears everybody again. Relays stay.
    ///
    /// # Errors
    ///
    /// If `tc` fails.
    pub fn heal(&mut self) -> Result<()> {
        for node in 0..self.nodes {
            self.deaf[node].clear();
            self.loss[node] = 0;
        }
        self.filter_all()
    }

    /// Gives a node the address of another one too. Nobody else learns of it, but connections to
    /// others can be made in its name.
    ///
    /// # Errors
    ///
    /// If `ip` fails.
    pub fn impersonate(&mut self, node: usize, other: usize) -> Result<()> {
        let wiring = format!("addr add {}/32 dev lo\n", address(other));
        batch("ip", &self.namespace(node), &wiring)
    }

    /// Takes the wire between the node and the bridge apart, for a relay to be put between the two
    /// interfaces named, which are in the namespace of [`Lab::hub_command`].
    ///
    /// # Errors
    ///
    /// If `ip` fails.
    pub fn open_wire(&mut self, node: usize) -> Result<(String, String)> {
        assert!(!self.relayed[node], "one relay a node");
        let wiring = format!(
            "link set h{node} nomaster\n\
             link add name x{node} type veth peer name y{node}\n\
             link set x{node} addrgenmode none\n\
             link set y{node} addrgenmode none\n\
             link set x{node} gso_max_segs 1\n\
             link set y{node} gso_max_segs 1\n\
             link set y{node} master bridge\n\
             link set x{node} up\n\
             link set y{node} up\n"
        );
        batch("ip", &self.hub(), &wiring)?;
        self.relayed[node] = true;
        Ok((format!("h{node}"), format!("x{node}")))
    }

    /// Puts the wire together again.
    ///
    /// # Errors
    ///
    /// If `ip` fails.
    pub fn close_wire(&mut self, node: usize) -> Result<()> {
        if std::mem::take(&mut self.relayed[node]) {
            let wiring = format!("link del x{node}\nlink set h{node} master bridge\n");
            batch("ip", &self.hub(), &wiring)?;
        }
        Ok(())
    }

    /// A command that runs a program in the hub.
    pub fn hub_command(&self, program: &Path) -> Command {
        inside(&self.hub(), program)
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.name)
    }

    fn namespace(&self, node: usize) -> String {
        format!("{}-{node}", self.name)
    }

    /// The node's own end. Whose card has which address is told to all, so that nobody has to ask:
    /// a question could be what gets lost.
    fn own_wiring(&self, node: usize) -> String {
        let (own, card) = (address(node), card(node));
        let mut wiring = format!(
            "link set lo up\n\
             link set v addrgenmode none\n\
             link set v address {card}\n\
             link set v gso_max_segs 1\n\
             addr add {own}/24 dev v\n\
             link set v up\n"
        );
        for other in (0..self.nodes).filter(|other| *other != node) {
            let (address, card) = (address(other), self::card(other));
            wiring += &format!("neigh add {address} lladdr {card} dev v nud permanent\n");
        }
        wiring
    }

    fn filter_all(&self) -> Result<()> {
        let commands: String = (0..self.nodes).map(|node| self.filter_command(node)).collect();
        batch("tc", &self.hub(), &commands)
    }

    fn filter(&self, node: usize) -> Result<()> {
        batch("tc", &self.hub(), &self.filter_command(node))
    }

    fn filter_command(&self, node: usize) -> String {
        let program = filter_program(&self.deaf[node], self.loss[node]);
        format!(
            "filter replace dev h{node} egress protocol all pref 1 handle 1 \
             bpf bytecode {program} da\n"
        )
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in (0..self.nodes).map(|node| self.namespace(node)).chain([self.hub()]) {
            // If it was not built there is nothing to delete.
            let _ = run("ip", &["netns", "del", &namespace]);
        }
    }
}

/// The address of a node's network card.
fn card(node: usize) -> String {
    format!("02:00:0a:53:00:{:02x}", node + 1)
}

/// A classic BPF program for frames on their way to a node, as `tc` wants it: drop those from some
/// senders, and of the others a share. Frames that are not IPv4 pass.
///
/// The instructions are those of the socket filter (McCanne, Jacobson: The BSD packet filter,
/// 1993), with Linux's extension that loads a random word.
fn filter_program(deaf: &BTreeSet<usize>, loss: u32) -> String {
    const LOAD_HALF: u16 = 0x28;
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const JUMP_IF_ABOVE: u16 = 0x25;
    const RETURN: u16 = 0x06;
    const RANDOM: u32 = 0xffff_f038; // SKF_AD_OFF + SKF_AD_RANDOM
    const TYPE_AT: u32 = 12;
    const SENDER_AT: u32 = 26;
    const IPV4: u32 = 0x0800;
    const PASS: u32 = 0; // TC_ACT_OK
    const DROP: u32 = 2; // TC_ACT_SHOT

    let senders = deaf.len() as u8;
    // Behind the senders: load random, compare, pass, drop.
    let mut program = vec![
        (LOAD_HALF, 0, 0, TYPE_AT),
        (JUMP_IF_EQUAL, 0, senders + 3, IPV4),
        (LOAD_WORD, 0, 0, SENDER_AT),
    ];
    for (place, sender) in deaf.iter().enumerate() {
        let to_drop = senders - place as u8 - 1 + 3;
        program.push((JUMP_IF_EQUAL, to_drop, 0, address(*sender).into()));
    }
    let highest_passed = u64::from(u32::MAX) * u64::from(LOSS_UNIT - loss) / u64::from(LOSS_UNIT);
    program.push((LOAD_WORD, 0, 0, RANDOM));
    program.push((JUMP_IF_ABOVE, 1, 0, highest_passed as u32));
    program.push((RETURN, 0, 0, PASS));
    program.push((RETURN, 0, 0, DROP));
    let words: Vec<String> =
        program.iter().map(|(code, yes, no, k)| format!("{code} {yes} {no} {k}")).collect();
    format!("'{},{}'", program.len(), words.join(","))
}

fn inside(namespace: &str, program: &Path) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program);
    command
}

/// Deletes the namespaces of conductors that are gone, which only a killed one leaves behind.
fn delete_stale() {
    let Ok(entries) = fs::read_dir(NAMESPACES) else { return };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let Some(rest) = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('-')) else {
            continue;
        };
        let owner = rest.split('-').next().and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Another conductor may just do the same.
            let _ = run("ip", &["netns", "del", &name]);
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let shown = format!("{program} {}", arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(Trouble::doing(&shown))?;
    judge(&shown, &output)
}

/// Runs many commands of `ip` or `tc` in a namespace, one a line.
fn batch(program: &str, namespace: &str, commands: &str) -> Result<()> {
    let shown = format!("{program} -n {namespace} -batch");
    let mut child = Command::new(program)
        .args(["-n", namespace, "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Trouble::doing(&shown))?;
    let mut stdin = child.stdin.take().expect("piped");
    // If it ends early, what it says tells why.
    let _ = stdin.write_all(commands.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().map_err(Trouble::doing(&shown))?;
    judge(&shown, &output)
}

fn judge(shown: &str, output: &std::process::Output) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Trouble::new(format!("`{shown}` failed ({}): {}", output.status, said.trim())))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::{SocketAddr, UdpSocket};
    use std::thread;
    use std::time::Duration;

    use nix::sched::{CloneFlags, setns};

    use super::*;

    /// A socket on the node's network: opened by a thread that went there for it.
    fn socket(lab: &Lab, node: usize) -> UdpSocket {
        let namespace = Path::new(NAMESPACES).join(lab.namespace(node));
        thread::spawn(move || {
            let namespace = File::open(namespace).expect("is there");
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("enters");
            UdpSocket::bind(SocketAddr::from((address(node), 9))).expect("binds")
        })
        .join()
        .expect("opened")
    }

    /// Whether any of a few datagrams arrives.
    fn hears(lab: &Lab, node: usize, other: usize) -> bool {
        let (ear, mouth) = (socket(lab, node), socket(lab, other));
        ear.set_read_timeout(Some(Duration::from_millis(200))).expect("sets");
        for _ in 0..3 {
            mouth.send_to(b"x", (address(node), 9)).expect("sends");
        }
        ear.recv(&mut [0; 8]).is_ok()
    }

    #[test]
    fn the_filter_drops_its_senders_and_counts_its_jumps() {
        let program = filter_program(&BTreeSet::from([0, 2]), 0);
        assert_eq!(
            program,
            "'9,40 0 0 12,21 0 5 2048,32 0 0 26,21 4 0 173211649,21 3 0 173211651,\
             32 0 0 4294963256,37 1 0 4294967295,6 0 0 0,6 0 0 2'"
        );
    }

    #[test]
    fn loss_is_a_share_of_all_random_words() {
        let program = filter_program(&BTreeSet::new(), 250);
        assert!(program.contains("37 1 0 3221225471"), "{program}");
        assert!(filter_program(&BTreeSet::new(), LOSS_UNIT).contains("37 1 0 0,"));
    }

    #[test]
    fn cut_nodes_do_not_hear_each_other_and_nothing_is_left_behind() {
        if let Some(why) = unavailable() {
            eprintln!("skipped: {why}");
            return;
        }
        let mut lab = Lab::build(3).expect("builds");
        assert!(hears(&lab, 0, 1) && hears(&lab, 1, 2));
        lab.deafen(0, 1).expect("cuts");
        assert!(!hears(&lab, 0, 1) && hears(&lab, 1, 0) && hears(&lab, 0, 2));
        lab.heal().expect("heals");
        lab.isolate(2).expect("cuts");
        assert!(hears(&lab, 0, 1) && !hears(&lab, 0, 2) && !hears(&lab, 2, 1));
        lab.heal().expect("heals");
        assert!(hears(&lab, 0, 2));
        let name = lab.hub();
        assert!(Path::new(NAMESPACES).join(&name).exists());
        drop(lab);
        assert!(!Path::new(NAMESPACES).join(&name).exists());
    }

    #[test]
    fn namespaces_of_the_dead_are_deleted() {
        if let Some(why) = unavailable() {
            eprintln!("skipped: {why}");
            return;
        }
        // Above the largest process id there can be.
        let name = format!("{PREFIX}-4294967295-0-hub");
        run("ip", &["netns", "add", &name]).expect("adds");
        delete_stale();
        assert!(!Path::new(NAMESPACES).join(&name).exists());
    }
}
