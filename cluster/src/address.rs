//! Addresses of nodes: `host:port`, `[ipv6]:port` or `unix:/path`, taken apart once.
//!
//! Nothing here asks a name server; names are resolved where they are dialled.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// The longest path a unix socket takes everywhere, bytes.
const UNIX_PATH_BYTES_MAX: usize = 100;

/// The longest host name, bytes (RFC 1035).
const HOST_BYTES_MAX: usize = 253;

/// Where a node listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// A number and a port.
    Ip(IpAddr, u16),
    /// A name, in lower case, and a port.
    Name(String, u16),
    /// A unix socket.
    Unix(PathBuf),
}

impl Address {
    /// Takes an address apart; the error says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some(path) = text.strip_prefix("unix:") {
            return parse_unix(path);
        }
        if let Some(rest) = text.strip_prefix('[') {
            let (host, port) = rest.split_once("]:").ok_or("expected [ipv6]:port")?;
            let ip: Ipv6Addr = host.parse().map_err(|_| "no IPv6 address in the brackets")?;
            return Ok(Address::Ip(IpAddr::V6(ip), parse_port(port)?));
        }
        let (host, port) = text.rsplit_once(':').ok_or("expected host:port")?;
        if host.contains(':') {
            return Err("an IPv6 address needs brackets: [ipv6]:port");
        }
        let port = parse_port(port)?;
        if let Ok(ip) = host.parse::<Ipv4Addr>() {
            return Ok(Address::Ip(IpAddr::V4(ip), port));
        }
        check_host(host)?;
        Ok(Address::Name(host.to_ascii_lowercase(), port))
    }

    /// True if both are surely the same place. `localhost` is taken for either loopback address; no
    /// other name is looked up.
    pub(crate) fn is_same(&self, other: &Address) -> bool {
        let loopback = |ip: &IpAddr| *ip == Ipv4Addr::LOCALHOST || *ip == Ipv6Addr::LOCALHOST;
        match (self, other) {
            (Address::Name(name, one), Address::Ip(ip, two))
            | (Address::Ip(ip, two), Address::Name(name, one)) => {
                name == "localhost" && one == two && loopback(ip)
            }
            _ => self == other,
        }
    }

    /// True if nothing sent to it leaves this machine.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Address::Ip(ip, _) => ip.is_loopback(),
            Address::Name(name, _) => name == "localhost",
            Address::Unix(_) => true,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(IpAddr::V6(ip), port) => write!(f, "[{ip}]:{port}"),
            Address::Ip(ip, port) => write!(f, "{ip}:{port}"),
            Address::Name(name, port) => write!(f, "{name}:{port}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

fn parse_unix(path: &str) -> Result<Address, &'static str> {
    if !path.starts_with('/') {
        return Err("a unix address needs an absolute path: unix:/path");
    }
    if path.len() > UNIX_PATH_BYTES_MAX {
        return Err("the path of a unix address is limited to 100 bytes");
    }
    if path.contains('\0') {
        return Err("a zero byte in the path");
    }
    Ok(Address::Unix(PathBuf::from(path)))
}

fn parse_port(text: &str) -> Result<u16, &'static str> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("the port is not a number");
    }
    match text.parse::<u16>() {
        Ok(0) => Err("port 0 cannot be dialled; name the port"),
        Ok(port) => Ok(port),
        Err(_) => Err("the port is greater than 65535"),
    }
}

fn check_host(host: &str) -> Result<(), &'static str> {
    if host.is_empty() {
        return Err("the host is missing");
    }
    if host.len() > HOST_BYTES_MAX {
        return Err("the host name is longer than 253 bytes");
    }
    for label in host.split('.') {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if label.is_empty() || label.len() > 63 || !label.bytes().all(inner) {
            return Err("neither an IP address nor a host name");
        }
    }
    let last = host.rsplit('.').next().expect("split gives at least one part");
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("not an IPv4 address (four numbers up to 255)");
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn good_addresses_show_as_they_were_given() {
        for text in ["127.0.0.1:7000", "[::1]:7000", "db-1.example.org:7000", "unix:/run/q.sock"] {
            assert_eq!(Address::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Address::parse("LOCALHOST:1").unwrap().to_string(), "localhost:1");
    }

    #[test]
    fn bad_addresses_are_refused() {
        let long = format!("{}:1", "a.".repeat(130));
        for text in [
            "",
            ":",
            "host",
            "host:",
            ":7000",
            "host:0",
            "host:65536",
            "host:-1",
            "host:+1",
            "host:7 000",
            "::1:7000",
            "[::1]",
            "[::1]7000",
            "[::g]:7000",
            "256.1.1.1:7000",
            "1.2.3:7000",
            "a..b:7000",
            "a b:7000",
            "unix:",
            "unix:relative",
            "[127.0.0.1]:7",
            "host:99999999999999999999",
            "h\u{f6}st:1",
            &long,
        ] {
            assert!(Address::parse(text).is_err(), "{text:?} was accepted");
        }
        assert!(Address::parse(&format!("unix:/{}", "a".repeat(100))).is_err());
    }

    #[test]
    fn localhost_is_the_loopback_address_and_no_other_name_is() {
        let same = |one: &str, two: &str| {
            let (one, two) = (Address::parse(one).unwrap(), Address::parse(two).unwrap());
            assert_eq!(one.is_same(&two), two.is_same(&one));
            one.is_same(&two)
        };
        assert!(same("localhost:7", "127.0.0.1:7"));
        assert!(same("LocalHost:7", "[::1]:7"));
        assert!(same("unix:/a", "unix:/a"));
        assert!(!same("localhost:7", "127.0.0.1:8"));
        assert!(!same("localhost:7", "127.0.0.2:7"));
        assert!(!same("127.0.0.1:7", "[::1]:7"));
        assert!(!same("example.org:7", "127.0.0.1:7"));
        assert!(!same("unix:/a", "localhost:7"));
    }

    #[test]
    fn only_loopback_and_unix_addresses_are_local() {
        for text in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "unix:/tmp/q"] {
            assert!(Address::parse(text).unwrap().is_local(), "{text}");
        }
        for text in ["10.0.0.1:1", "0.0.0.0:1", "[::]:1", "example.org:1"] {
            assert!(!Address::parse(text).unwrap().is_local(), "{text}");
        }
    }
}
