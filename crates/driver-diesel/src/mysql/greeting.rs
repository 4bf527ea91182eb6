//! What a server says first, asked for without a login.
//!
//! Whoever goes away after the greeting is a broken handshake to the server, and after 100 of them in a row
//! (`max_connect_errors`) it shuts out the client's whole host until somebody unblocks it, also when the
//! password is right. A login that succeeds begins a new row, so while logins succeed a look may be broken off.
//! Otherwise it ends as a login that is refused: under a name that nobody has, and without a password. That
//! counts elsewhere: some servers slow down who was refused often (MySQL's plugin `CONNECTION_CONTROL`), so the
//! refusal is waited for on a thread of its own; and some proxies shut him out for a minute (`MaxScale`'s
//! `max_auth_errors_until_block`), so it is not sent while logins succeed.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use qudo_core::driver::DriverError;

use crate::reach::{Server, Stream};

/// How long a look waits for a server that has taken the connection: a server that was stopped goes on with
/// it, and a look that left before is a broken handshake.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// The name under which a look logs in; it stands in the server's log.
const NOBODY: &[u8] = b"qudo-looks-for-tls\0";

/// Packets here are shorter, in bytes.
const MAX_LEN: u32 = 1_024;

/// A look is refused after one question or two.
const MAX_QUESTIONS: u32 = 4;

/// The first byte of a packet with an error.
const ERROR: u8 = 255;

/// What a server said first.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Greeting {
    /// It takes logins.
    Welcome {
        /// Whether it can encrypt the connection.
        offers_tls: bool,
    },
    /// It takes none, in its words.
    Refused(String),
}

/// How a look ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// As a handshake that is broken off.
    BrokenOff,
    /// As a login that is refused.
    Refused,
}

/// Waits for the greeting, up to half an hour; `None` where only the client library finds the server. For
/// threads that may wait; see [`Logins`](crate::login::Logins).
pub(super) fn look(server: &Server, end: End) -> Result<Option<Greeting>, DriverError> {
    let Some(mut stream) = server.connect(PATIENCE)? else { return Ok(None) };
    let (number, packet) = read(&mut *stream).map_err(|error| server.silent(error))?;
    let greeting = understand(&packet);
    if end == End::Refused && matches!(greeting, Greeting::Welcome { .. }) {
        leave(stream, number);
    }
    Ok(Some(greeting))
}

fn understand(packet: &[u8]) -> Greeting {
    if let [ERROR, rest @ ..] = packet {
        let message = String::from_utf8_lossy(rest.get(2..).unwrap_or_default()).into_owned();
        return Greeting::Refused(message);
    }
    Greeting::Welcome { offers_tls: offers_tls(packet) }
}

/// At most 20 looks of this process wait for their refusals on threads of their own.
const MAX_LEAVING: u32 = 20;

/// Is refused, whatever that takes; one of too many holds up its own login.
fn leave(mut stream: Box<dyn Stream>, number: u8) {
    static LEAVING: AtomicU32 = AtomicU32::new(0);
    let mut leave = move || {
        if let Err(error) = be_refused(&mut *stream, number) {
            log::debug!("a look at a server was broken off: {error}");
        }
    };
    let may_leave = |count| (count < MAX_LEAVING).then_some(count + 1);
    if LEAVING.fetch_update(Ordering::AcqRel, Ordering::Acquire, may_leave).is_err() {
        return leave();
    }
    let left = std::thread::Builder::new().name("qudo-look".to_owned()).spawn(move || {
        leave();
        LEAVING.fetch_sub(1, Ordering::AcqRel);
    });
    if left.is_err() {
        LEAVING.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Whether a greeting says that the server can do TLS. One that cannot be read says that it cannot.
fn offers_tls(greeting: &[u8]) -> bool {
    // Behind the protocol, 10, comes the version with a zero at its end; then a number, eight bytes and a
    // zero, and what the server can do.
    let Some((10, rest)) = greeting.split_first() else { return false };
    let version = rest.iter().position(|byte| *byte == 0);
    let high = version.and_then(|end| rest.get(end + 1 + 4 + 8 + 1 + 1));
    high.is_some_and(|high| high & 0x08 != 0)
}

/// Logs in as nobody.
fn be_refused(stream: &mut dyn Stream, mut number: u8) -> io::Result<()> {
    // The protocol since 4.1, with scrambles of passwords and a name of how to log in.
    let capabilities: u32 = 0x0000_0001 | 0x0000_0200 | 0x0000_8000 | 0x0008_0000;
    let mut login = Vec::new();
    login.extend(capabilities.to_le_bytes());
    login.extend(MAX_LEN.to_le_bytes());
    login.push(UTF8MB4);
    login.extend([0; 23]);
    login.extend(NOBODY);
    login.push(0);
    login.extend(b"mysql_native_password\0");
    write(stream, number, &login)?;
    for _ in 0..MAX_QUESTIONS {
        let answer;
        (number, answer) = read(stream)?;
        match answer.first() {
            Some(&ERROR) => return Ok(()),
            // An account without a name or a password, which lets everybody in.
            Some(0) => return write(stream, u8::MAX, &[QUIT]),
            // Another way to log in: MariaDB takes that of some other account. One that does not get what it
            // expects takes it for a broken handshake.
            _ if answer.starts_with(b"\xfeclient_ed25519") => write(stream, number, &[0; 64])?,
            // This one takes it for an error of its own if nobody answers.
            _ if answer.starts_with(b"\xfeparsec") => return Ok(()),
            _ => write(stream, number, &[])?,
        }
    }
    Ok(())
}

/// The character set's number.
const UTF8MB4: u8 = 45;

/// The command with which a client takes its leave.
const QUIT: u8 = 1;

/// The number of a packet and what is in it.
fn read(stream: &mut dyn Stream) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    let [low, middle, high, number] = head;
    let length = u32::from_le_bytes([low, middle, high, 0]);
    if length > MAX_LEN {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut packet = vec![0; length as usize];
    stream.read_exact(&mut packet)?;
    Ok((number, packet))
}

/// Sends the packet after the one with this number.
fn write(stream: &mut dyn Stream, number: u8, body: &[u8]) -> io::Result<()> {
    let [low, middle, high, _] = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut packet = vec![low, middle, high, number.wrapping_add(1)];
    packet.extend(body);
    stream.write_all(&packet)
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read, Write};

    use super::*;

    /// A server that says what is given, and what it was told.
    struct Said(Cursor<Vec<u8>>, Vec<u8>);

    impl Read for Said {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Said {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn greeting(high: u8) -> Vec<u8> {
        let mut packet = vec![10];
        packet.extend(b"8.4.0\0");
        packet.extend([0; 4 + 8 + 1]);
        packet.extend([0xff, high, 0]);
        packet
    }

    /// A login as nobody in which the server says these packets after its greeting; answers what it was told.
    fn after(packets: &[&[u8]]) -> (io::Result<()>, Vec<Vec<u8>>) {
        let mut all = Vec::new();
        for (number, packet) in packets.iter().enumerate() {
            let length = u8::try_from(packet.len()).expect("short");
            all.extend([length, 0, 0, u8::try_from(2 * number + 2).expect("few")]);
            all.extend(*packet);
        }
        let mut said = Said(Cursor::new(all), Vec::new());
        let outcome = be_refused(&mut said, 0);
        let mut told = said.1.as_slice();
        let mut packets = Vec::new();
        while let Some((&[length, _, _, number], rest)) = told.split_first_chunk::<4>() {
            let (body, rest) = rest.split_at(usize::from(length));
            packets.push([&[number], body].concat());
            told = rest;
        }
        (outcome, packets)
    }

    #[test]
    fn a_greeting_tells_whether_there_is_tls() {
        assert!(offers_tls(&greeting(0xff)) && !offers_tls(&greeting(0xf7)));
        for unreadable in [&[][..], &greeting(0xff)[..12], &[9, 0, 0, 0, 0xff, 1]] {
            assert!(!offers_tls(unreadable), "{unreadable:?}");
        }
    }

    #[test]
    fn a_look_goes_on_until_it_is_refused_and_never_sends_a_password() {
        let (outcome, told) = after(&[b"\xfecaching_sha2_password\0", b"\xff"]);
        outcome.expect("is refused");
        assert!(told[0].ends_with(b"qudo-looks-for-tls\0\0mysql_native_password\0"), "{told:?}");
        assert_eq!(told[1..], [vec![3]], "no password");
        let (_, told) = after(&[b"\xfeclient_ed25519\0", b"\xff"]);
        assert_eq!(told[1], [&[3][..], &[0; 64]].concat(), "no signature");
        let (_, told) = after(&[b"\xfeparsec\0", b"\xff"]);
        assert_eq!(told.len(), 1);
    }

    #[test]
    fn a_look_that_is_let_in_takes_its_leave() {
        let (_, told) = after(&[b"\0\0\0"]);
        assert_eq!(told[1..], [vec![0, QUIT]]);
    }

    #[test]
    fn a_look_ends_also_when_the_server_asks_for_ever_or_falls_silent() {
        let (outcome, told) = after(&[b"\xfe", b"\xfe", b"\xfe", b"\xfe", b"\xfe"]);
        outcome.expect("it has heard enough");
        assert_eq!(told.len(), 1 + 4);
        after(&[]).0.expect_err("silent");
    }

    #[test]
    fn a_server_that_takes_no_logins_says_why() {
        let said = understand(b"\xff\x10\x04Too many connections");
        assert_eq!(said, Greeting::Refused("Too many connections".to_owned()));
        assert_eq!(understand(&greeting(0xff)), Greeting::Welcome { offers_tls: true });
    }
}
