use std::fmt;
use std::time::Duration;

use fastrand::Rng;

use crate::{Crew, Result, World};

/// Something that happens to a database or a worker, and ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// All processes of the server die, and it is started again after this time.
    KillServer(Server, Duration),
    /// The server is stopped in the clean way and started again after this time.
    StopServer(Server, Duration),
    /// The server keeps its connections and answers nothing for so long.
    PauseServer(Server, Duration),
    /// Packets are lost for so long.
    DropPackets(Server, Duration),
    /// Connections are reset and refused for so long.
    Refuse(Server, Duration),
    /// Every packet takes a twentieth of a second for so long.
    Delay(Server, Duration),
    /// All connections are reset.
    Reset(Server),
    /// All connections are half open from now on.
    HalfOpen(Server),
    /// PostgreSQL takes no writes for so long.
    ReadOnly(Duration),
    /// Somebody holds the write lock of the SQLite file for so long.
    LockSqlite(Duration),
    /// A worker process is killed, and another started.
    KillWorker,
    /// A worker process is stopped softly, and another started.
    ReplaceWorker,
    /// A worker process does nothing for so long.
    PauseWorker(Duration),
}

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// PostgreSQL.
    Postgres,
    /// MariaDB.
    Mariadb,
    /// MySQL; in a world without it nothing happens.
    Mysql,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// A fault by chance; the same seed makes the same faults.
pub fn random(rng: &mut Rng) -> Fault {
    let server = match rng.u32(0..3) {
        0 => Server::Postgres,
        1 => Server::Mariadb,
        _ => Server::Mysql,
    };
    let span = Duration::from_millis(rng.u64(300..6_000));
    match rng.u32(0..14) {
        0 => Fault::KillServer(server, span),
        1 => Fault::StopServer(server, span),
        2 => Fault::PauseServer(server, span),
        3 => Fault::DropPackets(server, span),
        4 => Fault::Refuse(server, span),
        5 => Fault::Delay(server, span),
        6 => Fault::Reset(server),
        7 => Fault::HalfOpen(server),
        8 => Fault::ReadOnly(span),
        9 => Fault::LockSqlite(span),
        10 | 11 => Fault::KillWorker,
        12 => Fault::ReplaceWorker,
        // Longer than a process may be silent, at times.
        _ => Fault::PauseWorker(span * 2),
    }
}

impl Fault {
    /// Does it, and returns when it is over.
    ///
    /// # Errors
    ///
    /// When it cannot be done, or a worker does not end when it is asked to.
    pub fn inject(self, world: &World, crew: &mut Crew) -> Result<()> {
        let sleep = std::thread::sleep;
        match self {
            Self::KillServer(server, span) => {
                server.kill(world)?;
                sleep(span);
                server.restart(world)
            }
            Self::StopServer(server, span) => {
                server.stop(world)?;
                sleep(span);
                server.restart(world)
            }
            Self::PauseServer(server, span) => {
                server.pause(world)?;
                sleep(span);
                server.resume(world)
            }
            Self::DropPackets(server, span) => {
                server.through(world, span, |it| it.drop_packets());
                Ok(())
            }
            Self::Refuse(server, span) => {
                server.through(world, span, |it| it.refuse());
                Ok(())
            }
            Self::Delay(server, span) => {
                server.through(world, span, |it| it.delay(Duration::from_millis(50)));
                Ok(())
            }
            Self::Reset(server) => {
                server.through(world, Duration::ZERO, |it| it.reset());
                Ok(())
            }
            Self::HalfOpen(server) => {
                server.through(world, Duration::ZERO, |it| it.half_open());
                Ok(())
            }
            Self::ReadOnly(span) => {
                world.set_postgres_read_only(true)?;
                sleep(span);
                world.set_postgres_read_only(false)
            }
            Self::LockSqlite(span) => world.lock_sqlite(span),
            Self::KillWorker => crew.kill(fastrand::usize(0..crew.len())),
            Self::ReplaceWorker => crew.replace(fastrand::usize(0..crew.len())).map(drop),
            Self::PauseWorker(span) => {
                let which = fastrand::usize(0..crew.len());
                crew.pause(which)?;
                sleep(span);
                crew.resume(which)
            }
        }
    }
}

impl Server {
    fn through(self, world: &World, span: Duration, spoil: impl Fn(&qudo_test_servers::Proxy)) {
        let proxy = match self {
            Self::Postgres => &world.postgres_proxy,
            Self::Mariadb => &world.mariadb_proxy,
            Self::Mysql => match &world.mysql {
                Some((_, proxy)) => proxy,
                None => return,
            },
        };
        spoil(proxy);
        std::thread::sleep(span);
        proxy.pass();
    }
}

macro_rules! all {
    ($($name:ident),*) => {
        impl Server {
            $(fn $name(self, world: &World) -> Result<()> {
                match self {
                    Self::Postgres => world.postgres.$name()?,
                    Self::Mariadb => world.mariadb.$name()?,
                    Self::Mysql => {
                        if let Some((server, _)) = &world.mysql {
                            server.$name()?;
                        }
                    }
                }
                Ok(())
            })*
        }
    };
}

all!(kill, stop, pause, resume, restart);
