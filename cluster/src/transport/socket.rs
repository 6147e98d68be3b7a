//! Sockets: TCP or unix, never blocking, with the options every connection gets.
//!
//! Nothing here knows frames or peers.

use std::fs;
use std::io::{self, IoSlice, Read, Write};
use std::net::{
    Shutdown, SocketAddr, TcpListener as StdTcpListener, TcpStream as StdTcpStream, ToSocketAddrs,
};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, TcpKeepalive, Type};

use crate::address::Address;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 128;

/// The operating system's "operation now in progress"; the standard library has no stable word.
const EINPROGRESS: i32 = if cfg!(target_os = "linux") { 115 } else { 36 };

/// What every connection is set to.
#[derive(Clone, Debug)]
pub(crate) struct SocketOptions {
    /// The operating system's send buffer, bytes.
    pub(crate) send_buffer_bytes: Option<usize>,
    /// The operating system's receive buffer, bytes.
    pub(crate) recv_buffer_bytes: Option<usize>,
    /// After how much idle time TCP asks whether the peer is there.
    pub(crate) keep_alive: Duration,
    /// How many such questions may go unanswered.
    pub(crate) keep_alive_probes: u32,
    /// How long sent bytes may go unacknowledged, where the operating system can be told.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    pub(crate) user_timeout: Duration,
}

/// One connection.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Where others connect to.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    /// Owns the file, which goes away with it.
    Unix(UnixListener, PathBuf),
}

/// Where to dial, once names are resolved.
#[derive(Clone, Debug)]
pub(super) enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Socket {
    /// Begins to connect. Whether that worked shows when the socket becomes writable.
    pub(super) fn connect(target: &Target, options: &SocketOptions) -> io::Result<Self> {
        let address = match target {
            Target::Tcp(address) => *address,
            Target::Unix(path) => return UnixStream::connect(path).map(Socket::Unix),
        };
        let raw = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        raw.set_nonblocking(true)?;
        set_buffers(&raw, options)?;
        match raw.connect(&address.into()) {
            Ok(()) => {}
            Err(error) if is_in_progress(&error) => {}
            Err(error) => return Err(error),
        }
        let stream = TcpStream::from_std(StdTcpStream::from(raw));
        set_tcp_options(&stream, options)?;
        Ok(Socket::Tcp(stream))
    }

    /// Whether the connection attempt came to its end: `Ok(false)` if not yet.
    pub(super) fn connected(&self) -> io::Result<bool> {
        let (error, peer) = match self {
            Socket::Tcp(stream) => (stream.take_error()?, stream.peer_addr().map(|_| ())),
            Socket::Unix(stream) => (stream.take_error()?, stream.peer_addr().map(|_| ())),
        };
        if let Some(error) = error {
            return Err(error);
        }
        match peer {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) if is_in_progress(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads what has arrived.
    pub(super) fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.read(bytes),
            Socket::Unix(stream) => stream.read(bytes),
        }
    }

    /// Writes as much as fits.
    pub(super) fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.write_vectored(slices),
            Socket::Unix(stream) => stream.write_vectored(slices),
        }
    }

    /// Closes the sending side.
    pub(super) fn finish(&self) {
        // A connection that broke meanwhile shows when it is read.
        let _ = match self {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Socket::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
    }

    /// Asks to be told when it can be read or written.
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self {
            Socket::Tcp(stream) => stream.register(registry, token, interest),
            Socket::Unix(stream) => stream.register(registry, token, interest),
        }
    }

    /// Ends being told.
    pub(super) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => stream.deregister(registry),
            Socket::Unix(stream) => stream.deregister(registry),
        }
    }
}

impl Listener {
    /// Binds an address. May ask a name server.
    pub(super) fn bind(address: &Address, options: &SocketOptions) -> io::Result<Self> {
        if let Address::Unix(path) = address {
            return bind_unix(path);
        }
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for target in resolve(address)? {
            let Target::Tcp(address) = target else { continue };
            match bind_tcp(address, options) {
                Ok(listener) => return Ok(Listener::Tcp(listener)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Takes the next connection in.
    pub(super) fn accept(&self, options: &SocketOptions) -> io::Result<Socket> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                set_tcp_options(&stream, options)?;
                Ok(Socket::Tcp(stream))
            }
            Listener::Unix(listener, _) => Ok(Socket::Unix(listener.accept()?.0)),
        }
    }

    /// Asks to be told when a connection waits.
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Listener::Tcp(listener) => listener.register(registry, token, Interest::READABLE),
            Listener::Unix(listener, _) => listener.register(registry, token, Interest::READABLE),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix(_, path) = self {
            let _ = fs::remove_file(path); // somebody else may have tidied up
        }
    }
}

/// Where an address leads. Asks a name server if it is a name, and may block for that.
pub(super) fn resolve(address: &Address) -> io::Result<Vec<Target>> {
    match address {
        Address::Ip(ip, port) => Ok(vec![Target::Tcp(SocketAddr::new(*ip, *port))]),
        Address::Name(name, port) => {
            Ok((name.as_str(), *port).to_socket_addrs()?.map(Target::Tcp).collect())
        }
        Address::Unix(path) => Ok(vec![Target::Unix(path.clone())]),
    }
}

fn bind_tcp(address: SocketAddr, options: &SocketOptions) -> io::Result<TcpListener> {
    let raw = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted node must not wait until the last life's connections are forgotten.
    raw.set_reuse_address(true)?;
    raw.set_nonblocking(true)?;
    set_buffers(&raw, options)?; // accepted connections inherit them
    raw.bind(&address.into())?;
    raw.listen(BACKLOG)?;
    Ok(TcpListener::from_std(StdTcpListener::from(raw)))
}

fn bind_unix(path: &Path) -> io::Result<Listener> {
    if path.exists() {
        match StdUnixStream::connect(path) {
            Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
            // Left behind by a process that is gone.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Listener::Unix(UnixListener::bind(path)?, path.to_path_buf()))
}

fn set_buffers(raw: &RawSocket, options: &SocketOptions) -> io::Result<()> {
    if let Some(bytes) = options.send_buffer_bytes {
        raw.set_send_buffer_size(bytes)?;
    }
    if let Some(bytes) = options.recv_buffer_bytes {
        raw.set_recv_buffer_size(bytes)?;
    }
    Ok(())
}

fn set_tcp_options(stream: &TcpStream, options: &SocketOptions) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    let keep_alive = TcpKeepalive::new()
        .with_time(options.keep_alive)
        .with_interval(Duration::from_secs(1))
        .with_retries(options.keep_alive_probes);
    socket.set_tcp_keepalive(&keep_alive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(options.user_timeout))?;
    Ok(())
}

fn is_in_progress(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(EINPROGRESS)
}
