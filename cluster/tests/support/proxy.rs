//! A wire that can be cut: forwards TCP connections until it is told not to.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Open,
    /// Connections are broken, new ones at once.
    Cut,
    /// Connections stay, bytes do not arrive any more.
    Frozen,
    Gone,
}

struct State {
    mode: Mode,
    streams: Vec<TcpStream>,
}

/// See the module. Ends when dropped.
pub struct Proxy {
    addr: String,
    state: Arc<Mutex<State>>,
    /// Bytes that came from the target.
    carried: Arc<AtomicU64>,
}

impl Proxy {
    pub fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(State { mode: Mode::Open, streams: Vec::new() }));
        let carried = Arc::new(AtomicU64::new(0));
        let (shared, target) = (Arc::clone(&state), target.to_string());
        let count = Arc::clone(&carried);
        thread::spawn(move || {
            for from in listener.incoming().map_while(Result::ok) {
                let mode = shared.lock().unwrap().mode;
                if mode == Mode::Gone {
                    return;
                }
                let Ok(to) = TcpStream::connect(&target) else { continue };
                if mode == Mode::Cut {
                    continue; // both are dropped, which breaks them
                }
                let copies = [from.try_clone().unwrap(), to.try_clone().unwrap()];
                shared.lock().unwrap().streams.extend(copies);
                let ends = (from.try_clone().unwrap(), to.try_clone().unwrap());
                let state = Arc::clone(&shared);
                thread::spawn(move || pump(from, to, &state, &AtomicU64::new(0)));
                let (state, count) = (Arc::clone(&shared), Arc::clone(&count));
                thread::spawn(move || pump(ends.1, ends.0, &state, &count));
            }
        });
        Self { addr, state, carried }
    }

    /// How many bytes came from the target so far.
    pub fn carried(&self) -> u64 {
        self.carried.load(Ordering::SeqCst)
    }

    pub fn addr(&self) -> String {
        self.addr.clone()
    }

    /// Breaks all connections, and new ones until it is healed.
    pub fn cut(&self) {
        let mut state = self.state.lock().unwrap();
        state.mode = Mode::Cut;
        for stream in state.streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Holds back everything, without a sign that anything is wrong.
    pub fn freeze(&self) {
        self.state.lock().unwrap().mode = Mode::Frozen;
    }

    pub fn heal(&self) {
        self.state.lock().unwrap().mode = Mode::Open;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        self.state.lock().unwrap().mode = Mode::Gone;
        let _ = TcpStream::connect(&self.addr); // so that it notices
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, state: &Mutex<State>, count: &AtomicU64) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        while state.lock().unwrap().mode == Mode::Frozen {
            thread::sleep(Duration::from_millis(5));
        }
        if to.write_all(&bytes[..length]).is_err() {
            break;
        }
        count.fetch_add(length as u64, Ordering::SeqCst);
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
