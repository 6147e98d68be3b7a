//! Delay: a process that takes frames off one interface and puts them on another, later.
//!
//! Kernels without `netem` cannot delay packets, so this does, with raw packet sockets in the hub.
//! The order is kept. Checksums that the sending kernel left to its network card, of which there
//! is none, are filled in.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::{Child, ExitCode, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike as _, bind,
    recvfrom, send, socket,
};

use crate::lab::Lab;
use crate::trouble::{Result, Trouble};

/// More than any frame here.
const FRAME_MAX: usize = 1 << 16;

/// A relay that runs until this is dropped.
#[derive(Debug)]
pub struct Relay {
    child: Child,
}

/// Frames of one direction, each with the time it is due.
#[derive(Default)]
struct Queue {
    frames: Mutex<VecDeque<(Instant, Vec<u8>)>>,
    arrived: Condvar,
}

impl Relay {
    /// Starts a relay between two interfaces of the hub.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn start(lab: &Lab, one: &str, other: &str, delay: Duration) -> Result<Self> {
        let this = std::env::current_exe().map_err(Trouble::doing("finding this program"))?;
        let mut program = lab.hub_command(&this);
        program.args(["relay", one, other, &delay.as_millis().to_string()]);
        let child = program.stdin(Stdio::null()).spawn();
        Ok(Self { child: child.map_err(Trouble::doing("starting a relay"))? })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Both fail if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The relay's process: never returns unless something fails.
pub fn run(one: &str, other: &str, delay: Duration) -> ExitCode {
    let failed = prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(Trouble::new)
        .and_then(|()| relay(one, other, delay));
    match failed {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            let _ = io::Write::write_fmt(&mut io::stderr(), format_args!("relay: {trouble}\n"));
            ExitCode::FAILURE
        }
    }
}

fn relay(one: &str, other: &str, delay: Duration) -> Result<()> {
    let (one, other) = (Arc::new(open(one)?), Arc::new(open(other)?));
    let there = carry(Arc::clone(&one), Arc::clone(&other), delay);
    let back = carry(other, one, delay);
    let ended = |_| Trouble::new("a relay's thread panicked");
    there.join().map_err(ended)??;
    back.join().map_err(ended)?
}

/// A socket that hears and sends every frame of an interface.
fn open(interface: &str) -> Result<OwnedFd> {
    let kind = (AddressFamily::Packet, SockType::Raw, SockFlag::empty());
    let opened = socket(kind.0, kind.1, kind.2, SockProtocol::EthAll)
        .map_err(Trouble::doing("opening a packet socket"))?;
    let listed = getifaddrs().map_err(Trouble::doing("listing interfaces"))?;
    let address: LinkAddr = listed
        .filter(|found| found.interface_name == interface)
        .find_map(|found| found.address.and_then(|address| address.as_link_addr().copied()))
        .ok_or_else(|| Trouble::new(format!("no interface {interface}")))?;
    assert_eq!(address.family(), Some(AddressFamily::Packet), "a link address");
    bind(opened.as_raw_fd(), &address).map_err(Trouble::doing("binding a packet socket"))?;
    Ok(opened)
}

/// Two threads: one takes frames, the other waits until each is due.
fn carry(from: Arc<OwnedFd>, to: Arc<OwnedFd>, delay: Duration) -> thread::JoinHandle<Result<()>> {
    let queue = Arc::new(Queue::default());
    let due = Arc::clone(&queue);
    thread::spawn(move || put(&to, &due));
    thread::spawn(move || take(&from, &queue, delay))
}

fn take(from: &OwnedFd, queue: &Queue, delay: Duration) -> Result<()> {
    let mut frame = vec![0; FRAME_MAX];
    loop {
        let (length, sender) = recvfrom::<LinkAddr>(from.as_raw_fd(), &mut frame)
            .map_err(Trouble::doing("receiving a frame"))?;
        // What the hub itself sends on the interface is the other direction's, or noise.
        if sender.is_some_and(|sender| is_outgoing(&sender)) {
            continue;
        }
        let mut copy = frame[..length].to_vec();
        fill_checksum(&mut copy);
        let mut frames = queue.frames.lock().unwrap_or_else(PoisonError::into_inner);
        frames.push_back((Instant::now() + delay, copy));
        queue.arrived.notify_one();
    }
}

fn put(to: &OwnedFd, queue: &Queue) {
    loop {
        let mut frames = queue.frames.lock().unwrap_or_else(PoisonError::into_inner);
        let (due, frame) = loop {
            match frames.pop_front() {
                Some(next) => break next,
                None => {
                    frames = queue.arrived.wait(frames).unwrap_or_else(PoisonError::into_inner);
                }
            }
        };
        drop(frames);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // A frame that cannot be sent is lost, as on any network.
        let _ = send(to.as_raw_fd(), &frame, MsgFlags::empty());
    }
}

fn is_outgoing(sender: &LinkAddr) -> bool {
    const PACKET_OUTGOING: u8 = 4;
    sender.pkttype() == PACKET_OUTGOING
}

/// Computes the TCP checksum of an IPv4 frame anew (RFC 9293, section 3.1). Other frames stay.
fn fill_checksum(frame: &mut [u8]) {
    const ETHERNET_BYTES: usize = 14;
    const TCP: u8 = 6;
    const CHECKSUM_AT: usize = 16;

    let is_ipv4 = frame.get(12..14) == Some(&[0x08, 0x00][..]);
    let Some(packet) = frame.get_mut(ETHERNET_BYTES..).filter(|_| is_ipv4) else { return };
    let [first, _, high, low, ..] = *packet else { return };
    let header = usize::from(first & 15) * 4;
    let total = usize::from(u16::from_be_bytes([high, low]));
    if header < 20 || packet.len() < total || total < header + 20 || packet[9] != TCP {
        return;
    }
    let (header, rest) = packet.split_at_mut(header);
    let segment = &mut rest[..total - header.len()];
    segment[CHECKSUM_AT..CHECKSUM_AT + 2].fill(0);
    let pseudo = u32::from(TCP) + segment.len() as u32;
    let mut sum = pseudo + words(&header[12..20]) + words(segment);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = !(sum as u16);
    segment[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// The sum of 16-bit words. At most 2^16 bytes, so it does not overflow.
fn words(bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    bytes.chunks(2).map(word).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A SYN without data, its checksum left to the card.
    const FRAME: [u8; 54] = [
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00, // Ethernet
        0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, // IPv4
        0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0x20, 0, 0, 0, 0, 0, // TCP
    ];

    #[test]
    fn a_filled_in_checksum_makes_the_sum_all_ones() {
        let mut frame = FRAME;
        fill_checksum(&mut frame);
        let mut sum = 6 + 20 + words(&frame[26..34]) + words(&frame[34..]);
        sum = (sum & 0xffff) + (sum >> 16);
        assert_eq!(sum, 0xffff);
        assert_ne!(frame[50..52], [0, 0]);
        let once = frame;
        fill_checksum(&mut frame);
        assert_eq!(frame, once, "a right checksum stays");
    }

    #[test]
    fn other_and_cut_frames_stay_as_they_are() {
        for cut in 0..FRAME.len() {
            let mut frame = FRAME[..cut].to_vec();
            fill_checksum(&mut frame);
            assert_eq!(frame, FRAME[..cut]);
        }
        let mut udp = FRAME;
        udp[23] = 17;
        let before = udp;
        fill_checksum(&mut udp);
        assert_eq!(udp, before);
    }
}
