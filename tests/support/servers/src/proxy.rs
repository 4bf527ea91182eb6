use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// How often a connection looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A TCP proxy before a server that does to its connections what networks do.
///
/// ```no_run
/// use std::time::Duration;
/// use qudo_test_servers::{Options, PostgresServer, Proxy};
///
/// let server = PostgresServer::start(Options::default())?;
/// let proxy = Proxy::start(server.port())?;
/// let url = server.url().replace(&server.port().to_string(), &proxy.port().to_string());
/// proxy.drop_packets(); // connected, and nothing arrives any more
/// proxy.pass();         // and goes on where it stopped
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    source: Ipv4Addr,
    target: u16,
    state: Mutex<State>,
    changed: Condvar,
    closed: AtomicBool,
    connections: Mutex<Vec<Weak<Connection>>>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    mode: Mode,
    /// Connections of earlier generations are reset, or were left half open.
    generation: u64,
    half_open: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    Delay(Duration),
    Drop,
    Refuse,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1 and passes everything to the target port there.
    ///
    /// # Errors
    ///
    /// When no port can be had.
    pub fn start(target: u16) -> io::Result<Self> {
        Self::start_from(Ipv4Addr::LOCALHOST, target)
    }

    /// The same, and reaches the target from another address of this machine, such as 127.0.0.3: to the
    /// server all its clients are on another host.
    ///
    /// # Errors
    ///
    /// When no port can be had.
    pub fn start_from(source: Ipv4Addr, target: u16) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let state = State { mode: Mode::Pass, generation: 0, half_open: 0 };
        let shared = Arc::new(Shared {
            source,
            target,
            state: Mutex::new(state),
            changed: Condvar::new(),
            closed: AtomicBool::new(false),
            connections: Mutex::default(),
        });
        let own = Arc::clone(&shared);
        thread::Builder::new().name("proxy".to_owned()).spawn(move || accept(&listener, &own))?;
        Ok(Self { port, shared })
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many connections hold something that one end sent and the other has not got: with
    /// [`drop_packets`](Self::drop_packets), the calls that hang.
    pub fn held_up(&self) -> usize {
        let mut connections =
            self.shared.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.retain(|connection| connection.strong_count() > 0);
        connections.iter().filter_map(Weak::upgrade).filter(|one| one.is_held_up()).count()
    }

    /// Passes everything at once; what was held back arrives now.
    pub fn pass(&self) {
        self.set(|state| state.mode = Mode::Pass);
    }

    /// Passes every packet so much later, in each direction.
    pub fn delay(&self, by: Duration) {
        self.set(|state| state.mode = Mode::Delay(by));
    }

    /// Accepts connections and passes nothing: packets are lost until [`pass`](Self::pass).
    pub fn drop_packets(&self) {
        self.set(|state| state.mode = Mode::Drop);
    }

    /// Resets all connections that reached the server, and every new one, until [`pass`](Self::pass).
    pub fn refuse(&self) {
        self.set(|state| {
            state.mode = Mode::Refuse;
            state.generation += 1;
        });
    }

    /// Resets all connections that reached the server; new ones pass.
    pub fn reset(&self) {
        self.set(|state| state.generation += 1);
    }

    /// Leaves all connections half open: the server's end is closed, and the client never hears of
    /// it. New ones pass.
    pub fn half_open(&self) {
        self.set(|state| {
            state.half_open += 1;
        });
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state());
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.changed.notify_all();
        // Wakes the accepting thread.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for another mode, or for a moment.
    fn wait(&self) {
        let state = self.state();
        drop(self.changed.wait_timeout(state, LOOK_EVERY).unwrap_or_else(PoisonError::into_inner));
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming().flatten() {
        if shared.is_closed() {
            return;
        }
        let state = *shared.state();
        if state.mode == Mode::Refuse {
            abort(&client);
            continue;
        }
        // Each connects for itself: a server that was stopped long enough takes no more connections,
        // and an attempt that the kernel repeats after 1, 2, 4, 8 s must not hold up the next.
        let shared = Arc::clone(shared);
        drop(thread::Builder::new().name("proxy".to_owned()).spawn(move || {
            match connect_from(shared.source, shared.target) {
                Ok(server) => carry(&shared, state, client, server),
                Err(_) => abort(&client),
            }
        }));
    }
}

fn connect_from(source: Ipv4Addr, target: u16) -> io::Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddrV4::new(source, 0))?;
    connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, target))?;
    Ok(TcpStream::from(socket))
}

/// Carries both directions until the connection ends.
fn carry(shared: &Shared, state: State, client: TcpStream, server: TcpStream) {
    let connection = Arc::new(Connection {
        client,
        server,
        generation: state.generation,
        half_open: state.half_open,
        holds: Default::default(),
        ended: AtomicU64::new(0),
    });
    let mut connections = shared.connections.lock().unwrap_or_else(PoisonError::into_inner);
    connections.push(Arc::downgrade(&connection));
    drop(connections);
    thread::scope(|scope| {
        scope.spawn(|| connection.carry(shared, false));
        connection.carry(shared, true);
    });
}

/// Makes the close of a connection a reset, as when a server died. It is closed when the last of
/// its threads lets go, within a look.
fn abort(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

#[derive(Debug)]
struct Connection {
    client: TcpStream,
    server: TcpStream,
    generation: u64,
    half_open: u64,
    /// Whether what an end sent was read and not passed on yet, by direction.
    holds: [AtomicBool; 2],
    /// How many of the two directions ended.
    ended: AtomicU64,
}

impl Connection {
    /// Carries one direction until an end closes or the proxy's mode ends it.
    fn carry(&self, shared: &Shared, towards_server: bool) {
        let (mut from, mut to) = if towards_server {
            (&self.client, &self.server)
        } else {
            (&self.server, &self.client)
        };
        drop(from.set_read_timeout(Some(LOOK_EVERY)));
        drop(from.set_nodelay(true));
        let mut buffer = vec![0; 65_536];
        loop {
            let state = *shared.state();
            if shared.is_closed() || state.generation != self.generation {
                abort(&self.client);
                abort(&self.server);
                return;
            }
            if state.half_open != self.half_open {
                drop(self.server.shutdown(Shutdown::Both));
                return self.hold(shared);
            }
            if state.mode == Mode::Drop {
                shared.wait();
                continue;
            }
            let read = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if is_timeout(&error) => continue,
                Err(_) => break,
            };
            // The mode may have changed during the read.
            if self.is_over(shared) {
                continue;
            }
            // What was read may have to wait until packets pass again.
            self.holds[usize::from(towards_server)].store(true, Ordering::Release);
            while shared.state().mode == Mode::Drop && !self.is_over(shared) {
                shared.wait();
            }
            self.holds[usize::from(towards_server)].store(false, Ordering::Release);
            if let Mode::Delay(by) = shared.state().mode {
                thread::sleep(by);
            }
            if to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        // The other direction's thread closed the server's end: the client must not hear of it.
        if shared.state().half_open != self.half_open {
            return self.hold(shared);
        }
        drop(to.shutdown(Shutdown::Write));
        if self.ended.fetch_add(1, Ordering::AcqRel) == 1 {
            drop(self.client.shutdown(Shutdown::Both));
        }
    }

    fn is_held_up(&self) -> bool {
        use rustix::net::{RecvFlags, recv};
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let waits = |end| recv(end, &mut [0_u8][..], flags).is_ok_and(|(sent, _)| sent > 0);
        self.holds.iter().any(|holds| holds.load(Ordering::Acquire))
            || waits(&self.client)
            || waits(&self.server)
    }

    fn is_over(&self, shared: &Shared) -> bool {
        let state = *shared.state();
        shared.is_closed()
            || state.generation != self.generation
            || state.half_open != self.half_open
    }

    /// Keeps the client's end open and silent, until the client closes it.
    fn hold(&self, shared: &Shared) {
        let mut buffer = [0; 4096];
        while !shared.is_closed() && shared.state().generation == self.generation {
            match (&self.client).read(&mut buffer) {
                Ok(0) => return,
                Err(error) if !is_timeout(&error) => return,
                _ => {}
            }
        }
        abort(&self.client);
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends back what it gets.
    fn echo() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let port = listener.local_addr().expect("bound").port();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut copy = stream.try_clone().expect("another handle");
                    drop(io::copy(&mut stream, &mut copy));
                });
            }
        });
        port
    }

    fn talk(stream: &mut TcpStream) -> io::Result<()> {
        stream.write_all(b"hello")?;
        let mut back = [0; 5];
        stream.read_exact(&mut back)?;
        assert_eq!(&back, b"hello");
        Ok(())
    }

    fn connect(proxy: &Proxy) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", proxy.port())).expect("accepts");
        stream.set_read_timeout(Some(Duration::from_millis(300))).expect("a limit");
        stream
    }

    /// A reset may come before the client knows that it is connected, with its first words, or as
    /// the end of an answer.
    fn is_refused(proxy: &Proxy) -> bool {
        let talked = TcpStream::connect(("127.0.0.1", proxy.port())).and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(20)))?;
            talk(&mut stream)
        });
        talked.is_err_and(|error| !is_timeout(&error))
    }

    #[test]
    fn packets_pass_are_dropped_and_pass_again() {
        let proxy = Proxy::start(echo()).expect("starts");
        let mut stream = connect(&proxy);
        talk(&mut stream).expect("passes");
        proxy.drop_packets();
        stream.write_all(b"hello").expect("the kernel takes it");
        let mut back = [0; 5];
        assert!(is_timeout(&stream.read_exact(&mut back).expect_err("dropped")));
        assert_eq!(proxy.held_up(), 1);
        proxy.pass();
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
        stream.read_exact(&mut back).expect("arrives late");
    }

    #[test]
    fn a_server_sees_the_address_that_a_proxy_comes_from() {
        let server = TcpListener::bind("127.0.0.1:0").expect("binds");
        let source = Ipv4Addr::new(127, 0, 0, 3);
        let target = server.local_addr().expect("bound").port();
        let proxy = Proxy::start_from(source, target).expect("starts");
        let _client = connect(&proxy);
        assert_eq!(server.accept().expect("accepts").1.ip(), source);
    }

    #[test]
    fn connections_are_reset_and_new_ones_pass_or_are_refused() {
        let proxy = Proxy::start(echo()).expect("starts");
        let mut stream = connect(&proxy);
        talk(&mut stream).expect("passes");
        proxy.reset();
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
        let mut byte = [0];
        // A reset may show as an error or as the end.
        assert!(!matches!(stream.read(&mut byte), Ok(1)));
        talk(&mut connect(&proxy)).expect("new ones pass");
        proxy.refuse();
        assert!(is_refused(&proxy));
    }

    #[test]
    fn a_half_open_connection_stays_silent_while_new_ones_pass() {
        let proxy = Proxy::start(echo()).expect("starts");
        let mut stream = connect(&proxy);
        talk(&mut stream).expect("passes");
        proxy.half_open();
        assert!(is_timeout(&talk(&mut stream).expect_err("silent")));
        talk(&mut connect(&proxy)).expect("new ones pass");
    }

    /// A server that was stopped long ago: the queue of those who wait to be accepted is full.
    fn full() -> (TcpListener, Vec<TcpStream>) {
        use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("made");
        bind(&socket, &std::net::SocketAddrV4::new([127, 0, 0, 1].into(), 0)).expect("binds");
        listen(&socket, 1).expect("listens");
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().expect("bound");
        let once = || TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
        let waiting: Vec<_> = std::iter::from_fn(once).take(100).collect();
        assert!(waiting.len() < 100, "the kernel takes no more");
        (listener, waiting)
    }

    #[test]
    fn a_server_that_takes_no_more_connections_does_not_hold_up_the_next() {
        let (server, _waiting) = full();
        let proxy = Proxy::start(server.local_addr().expect("bound").port()).expect("starts");
        let _first = connect(&proxy);
        proxy.refuse();
        assert!(is_refused(&proxy));
    }
}
