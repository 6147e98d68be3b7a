//! An operator's end of an admin connection.
//!
//! A program that is no node connects to a node's address in the cluster and asks. One request is
//! under way at a time, every call blocks for a bounded time, and nothing here knows a cluster's
//! state. The connection is as open as the nodes' own: plain bytes, trusted because only loopback,
//! unix sockets or a network declared safe (`insecure`) lead to it.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use quorate_consensus::NodeId;
use quorate_schema::bytes::{Malformed, Reader};
use thiserror::Error;

use crate::address::Address;
use crate::admin::{AdminAnswer, AdminRequest};
use crate::error::RejectReason;
use crate::wire::{
    ADMIN_ANSWER_BYTES_MAX, AdminHello, AdminWelcome, FrameError, FrameWriter, HANDSHAKE_BYTES_MAX,
    Incoming, Kind, Stamp, decode_admin_answer, decode_reject, encode_admin_request,
};

/// How much is read at once, bytes.
const READ_BYTES: usize = 16 << 10;

/// Why an operator's program got no answer. What a node answers is an [`AdminAnswer`], also when it
/// refuses.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AdminClientError {
    /// The address cannot be understood.
    #[error("{addr:?} is no address: {why}; give host:port, [ipv6]:port or unix:/path")]
    Address {
        /// The address given.
        addr: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Nobody could be reached there.
    #[error("cannot connect to {addr}: {source}; check the address, and that the node runs")]
    Connect {
        /// Where.
        addr: String,
        /// Why not.
        source: io::Error,
    },
    /// The node refuses the connection.
    #[error("{addr} refuses the connection: {reason}")]
    Rejected {
        /// Where.
        addr: String,
        /// Why.
        reason: RejectReason,
    },
    /// What listens there is no node, or one of another time.
    #[error("{addr} does not speak Quorate's protocol ({what}); check the address")]
    Stranger {
        /// Where.
        addr: String,
        /// What is wrong with what it says.
        what: String,
    },
    /// No answer in time.
    #[error(
        "no answer from {addr} within {waited_ms} ms; a change asked for may still happen, \
         look at the status; a node whose listener does not run answers nobody"
    )]
    TimedOut {
        /// Where.
        addr: String,
        /// How long the call waited, milliseconds.
        waited_ms: u64,
    },
    /// The connection broke.
    #[error(
        "the connection to {addr} broke ({kind}); a change that was asked for may still happen, \
         connect again and look at the status"
    )]
    Broken {
        /// Where.
        addr: String,
        /// How.
        kind: io::ErrorKind,
    },
}

/// A connection of an operator's program to one node.
#[derive(Debug)]
pub struct AdminClient {
    addr: String,
    stream: Stream,
    incoming: Incoming,
    node: NodeId,
    connection_epoch: u64,
    timeout: Duration,
    /// After an error nothing more can be asked: an answer may be under way.
    broken: bool,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AdminClient {
    /// Connects to a node and waits for its welcome. `addr` is `host:port`, `[ipv6]:port` or
    /// `unix:/path`. Blocks at most about `timeout`, but for the resolution of a name, which takes
    /// the operating system's own time.
    ///
    /// # Errors
    ///
    /// [`AdminClientError`]; nothing was asked.
    pub fn connect(addr: &str, timeout: Duration) -> Result<Self, AdminClientError> {
        let timeout = timeout.max(Duration::from_millis(1));
        let deadline = Instant::now() + timeout;
        let address = Address::parse(addr)
            .map_err(|why| AdminClientError::Address { addr: addr.to_string(), why })?;
        let stream = Stream::connect(&address, timeout)
            .map_err(|source| AdminClientError::Connect { addr: addr.to_string(), source })?;
        let mut client = Self {
            addr: addr.to_string(),
            stream,
            incoming: Incoming::new(),
            node: NodeId(0),
            connection_epoch: 0,
            timeout,
            broken: false,
        };
        let mut frame = FrameWriter::new();
        AdminHello::default().encode(frame.writer());
        client.send(Kind::AdminHello, frame, deadline)?;
        let (kind, payload) = client.receive(HANDSHAKE_BYTES_MAX, deadline)?;
        let mut reader = Reader::new(&payload);
        match kind {
            Kind::AdminWelcome => {
                let welcome = client.decoded(AdminWelcome::decode(&mut reader))?;
                client.node = welcome.node;
                client.connection_epoch = welcome.connection_epoch;
                Ok(client)
            }
            Kind::Reject => {
                let reason = client.decoded(decode_reject(&mut reader))?;
                Err(AdminClientError::Rejected { addr: client.addr, reason })
            }
            _ => Err(client.stranger("neither welcome nor refusal".to_string())),
        }
    }

    /// How long each call from now on may take.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout.max(Duration::from_millis(1));
    }

    /// The node at the other end.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Asks, and blocks until the answer is there, at most as long as `connect` or
    /// [`AdminClient::set_timeout`] was told. A node
    /// answers a change within its own `stop_limit_ms`, so it pays to wait longer than that.
    ///
    /// # Errors
    ///
    /// [`AdminClientError`]; after it, connect again.
    pub fn request(&mut self, request: &AdminRequest) -> Result<AdminAnswer, AdminClientError> {
        if self.broken {
            return Err(self.broke(io::ErrorKind::NotConnected));
        }
        self.broken = true;
        let deadline = Instant::now() + self.timeout;
        let mut frame = FrameWriter::new();
        encode_admin_request(request, frame.writer());
        self.send(Kind::AdminRequest, frame, deadline)?;
        let (kind, payload) = self.receive(ADMIN_ANSWER_BYTES_MAX, deadline)?;
        if kind != Kind::AdminAnswer {
            return Err(self.stranger("no answer to what was asked".to_string()));
        }
        let answer = self.decoded(decode_admin_answer(&payload))?;
        self.broken = false;
        Ok(answer)
    }

    fn send(
        &mut self,
        kind: Kind,
        frame: FrameWriter,
        deadline: Instant,
    ) -> Result<(), AdminClientError> {
        let stamp = Stamp { connection_epoch: self.connection_epoch, ..Stamp::default() };
        let parts = frame.finish(kind, stamp).expect("requests are short");
        let left = self.left(deadline)?;
        let sent = self.stream.set_timeout(left).and_then(|()| {
            parts.iter().try_for_each(|part| self.stream.write_all(part.as_slice()))
        });
        sent.map_err(|error| self.failed(&error))
    }

    fn receive(
        &mut self,
        limit: usize,
        deadline: Instant,
    ) -> Result<(Kind, Vec<u8>), AdminClientError> {
        let mut scratch = vec![0; READ_BYTES];
        loop {
            match self.incoming.next_frame(limit) {
                Ok(Some((header, payload))) => {
                    let payload = payload.to_vec();
                    if header.stamp.connection_epoch != self.connection_epoch {
                        return Err(self.stranger("a frame of another connection".to_string()));
                    }
                    return Ok((header.kind, payload));
                }
                Ok(None) => {}
                Err(error) => return Err(self.not_a_frame(&error)),
            }
            let left = self.left(deadline)?;
            let read = self.stream.set_timeout(left).and_then(|()| self.stream.read(&mut scratch));
            match read {
                Ok(0) => return Err(self.broke(io::ErrorKind::UnexpectedEof)),
                Ok(count) => self.incoming.feed(&scratch[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(&error)),
            }
        }
    }

    /// The time left; never zero, which to a socket means for ever.
    fn left(&self, deadline: Instant) -> Result<Duration, AdminClientError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(self.timed_out()) } else { Ok(left) }
    }

    fn failed(&self, error: &io::Error) -> AdminClientError {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => self.timed_out(),
            kind => self.broke(kind),
        }
    }

    fn broke(&self, kind: io::ErrorKind) -> AdminClientError {
        AdminClientError::Broken { addr: self.addr.clone(), kind }
    }

    fn timed_out(&self) -> AdminClientError {
        let waited_ms = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        AdminClientError::TimedOut { addr: self.addr.clone(), waited_ms }
    }

    fn stranger(&self, what: String) -> AdminClientError {
        AdminClientError::Stranger { addr: self.addr.clone(), what }
    }

    fn not_a_frame(&self, error: &FrameError) -> AdminClientError {
        self.stranger(error.to_string())
    }

    fn decoded<T>(&self, decoded: Result<T, Malformed>) -> Result<T, AdminClientError> {
        decoded.map_err(|malformed| self.stranger(malformed.what.to_string()))
    }
}

impl Stream {
    fn connect(address: &Address, timeout: Duration) -> io::Result<Self> {
        if let Address::Unix(path) = address {
            return UnixStream::connect(path).map(Stream::Unix);
        }
        let deadline = Instant::now() + timeout;
        let mut failure = io::Error::from(io::ErrorKind::NotFound);
        for target in address.to_string().to_socket_addrs()? {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match TcpStream::connect_timeout(&target, left) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(Stream::Tcp(stream));
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => {
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))
            }
            Stream::Unix(stream) => {
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))
            }
        }
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(bytes),
            Stream::Unix(stream) => stream.read(bytes),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
        }
    }
}
